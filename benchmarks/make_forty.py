"""The text of a module with forty workflows, as an app grows to have; ours or by hand."""

from __future__ import annotations

from pathlib import Path

MODELS = """
class Order{n}(BaseModel):
    order_id: str
    amount: int
    note: str | None = None
"""

OURS = """
@client.workflow(id="forty-{n}", input_schema=Order{n})
async def forty_{n}(ctx: Context[Order{n}], step: Step) -> int:
    amount = ctx.input.data.amount
    for name in ("first", "second", "third"):
        amount = await step.run(name, add, amount)
    return amount
"""

NATIVE = """
@workflow.defn(name="forty-{n}")
class Forty{n}:
    @workflow.run
    async def run(self, order: Order{n}) -> int:
        amount = order.amount
        for _ in range(3):
            amount = await workflow.execute_activity(add, amount, **OPTIONS)
        return amount
"""

HEAD_OURS = """import steporal
from pydantic import BaseModel
from steporal import Context, Step

client = steporal.Client("forty")


async def add(amount: int) -> int:
    return amount + 1
"""

HEAD_NATIVE = """from benchmarks.native import OPTIONS, add
from pydantic import BaseModel
from temporalio import workflow
"""


def ours() -> str:
    """The module for Steporal."""
    return HEAD_OURS + "".join(MODELS.format(n=n) + OURS.format(n=n) for n in range(40))


def native() -> str:
    """The module by hand."""
    return HEAD_NATIVE + "".join(MODELS.format(n=n) + NATIVE.format(n=n) for n in range(40))


def write(folder: str) -> None:
    """Both modules, ``forty_ours`` and ``forty_native``."""
    Path(folder, "forty_ours.py").write_text(ours())
    Path(folder, "forty_native.py").write_text(native())
