"""What steps and handlers return: its type, and how large it may be."""

from __future__ import annotations

import dataclasses
import threading
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel
from recording import Workers
from waiting import MEGABYTES

import steporal
from steporal import Context, RunFailedError, Step, StepError

TOO_LARGE = 2 * 1024 * 1024


class Order(BaseModel):
    id: str
    total: Decimal = Decimal("1.50")


@dataclasses.dataclass
class Receipt:
    number: int
    at: datetime


class Opaque:
    """Of no type that can be sent."""


def load_untyped() -> Any:
    return {"id": "a", "total": "2.50"}


async def test_output_type_makes_a_value_of_plain_json(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="typed")
    async def handler(ctx: Context[Any], step: Step) -> list[Any]:
        order = await step.run("order", lambda: {"id": "a", "total": "2.50"}, output_type=Order)
        orders = await step.run("orders", lambda: [{"id": "a"}], output_type=list[Order])
        return [type(order).__name__, str(order.total), type(orders[0]).__name__]

    async with workers(app):
        assert await (await handler.start()).result() == ["Order", "2.50", "Order"]


async def test_a_result_that_does_not_fit_output_type_is_a_step_error(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="typed")
    async def handler(ctx: Context[Any], step: Step) -> str:
        try:
            await step.run("order", lambda: {"total": "much"}, output_type=Order)
        except StepError as err:
            return str(err)
        return ""

    async with workers(app):
        message = await (await handler.start()).result()
    assert "step 'order'" in message
    assert "id: Field required" in message
    assert "total: " in message


async def test_a_result_keeps_its_type_also_without_an_annotation(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="untyped")
    async def handler(ctx: Context[Any], step: Step) -> list[str]:
        order = await step.run("order", lambda: Order(id="a"))
        receipts = await step.run("receipts", lambda: {"one": Receipt(1, datetime(2026, 1, 1, tzinfo=UTC))})
        return [type(order).__name__, type(receipts["one"]).__name__, receipts["one"].at.isoformat()]

    async with workers(app):
        assert await (await handler.start()).result() == ["Order", "Receipt", "2026-01-01T00:00:00+00:00"]


async def test_a_result_from_the_memo_is_a_new_value_each_time(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="memo")
    async def handler(ctx: Context[Any], step: Step) -> list[str]:
        names = await step.run("names", lambda: ["a"])
        if ctx.attempt == 0:
            names.append("changed by the first attempt")
            raise RuntimeError("again")
        return names

    async with workers(app):
        assert await (await handler.start()).result() == ["a"]


@pytest.mark.parametrize("value", [Order(id="x"), Receipt(1, datetime(2026, 1, 1, tzinfo=UTC)), {1, 2}, Decimal("0.1")])
async def test_a_handler_returns_what_its_annotation_says(app: steporal.Client, workers: Workers, value: Any) -> None:
    async def handler(ctx: Context[Any], step: Step) -> Any:
        return value

    handler.__annotations__["return"] = set[int] if isinstance(value, set) else type(value)
    workflow = app.workflow(id="typed")(handler)
    async with workers(app):
        result = await (await workflow.start()).result()
    assert result == value
    assert type(result) is type(value)


async def test_a_step_result_that_cannot_be_sent_is_named_and_not_retried(
    app: steporal.Client, workers: Workers
) -> None:
    calls = []

    @app.workflow(id="opaque")
    async def handler(ctx: Context[Any], step: Step) -> list[Any]:
        def make() -> dict[str, Any]:
            calls.append("make")
            return {"rows": [Opaque()]}

        try:
            await step.run("make", make)
        except StepError as err:
            return [err.step_id, err.name, err.message]
        return []

    async with workers(app):
        step_id, name, message = await (await handler.start()).result()
    assert (step_id, name) == ("make", "UnserializableError")
    assert "step 'make'" in message
    assert "test_results.Opaque" in message
    assert "rows[0]" in message
    assert calls == ["make"]


async def test_a_lock_returned_by_a_local_step_is_no_result(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="opaque")
    async def handler(ctx: Context[Any], step: Step) -> None:
        await step.run("lock", lambda: threading.Lock(), local=True)

    async with workers(app):
        with pytest.raises(RunFailedError, match=r"step 'lock'.*lock"):
            await (await handler.start()).result()


async def test_a_run_result_that_cannot_be_sent_fails_the_run_at_once(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="opaque run")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        return {"value": Opaque()}

    async with workers(app):
        with pytest.raises(RunFailedError, match="'opaque run'") as failed:
            await (await handler.start()).result()
    assert failed.value.name == "UnserializableError"
    assert "Opaque" in failed.value.message


async def test_a_step_result_over_the_limit_is_a_step_error_with_the_size(
    app: steporal.Client, workers: Workers
) -> None:
    calls = []

    @app.workflow(id="large")
    async def handler(ctx: Context[Any], step: Step) -> list[Any]:
        def download() -> str:
            calls.append("download")
            return "x" * TOO_LARGE

        try:
            await step.run("download", download)
        except StepError as err:
            return [err.name, err.message]
        return []

    async with workers(app):
        name, message = await (await handler.start()).result()
    assert name == "PayloadTooLargeError"
    assert "step 'download'" in message
    assert f"{TOO_LARGE + 2:,} bytes" in message
    assert calls == ["download"]


async def test_a_captured_value_over_the_limit_fails_with_the_step_and_the_size(
    app: steporal.Client, workers: Workers
) -> None:
    @app.workflow(id="large")
    async def handler(ctx: Context[Any], step: Step) -> None:
        text = "x" * TOO_LARGE
        await step.run("upload", lambda: len(text))

    async with workers(app):
        with pytest.raises(RunFailedError, match="step 'upload'") as failed:
            await (await handler.start()).result()
    assert failed.value.name == "PayloadTooLargeError"
    assert "2,097," in failed.value.message


async def test_a_run_result_over_the_limit_fails_with_the_workflow_and_the_size(
    app: steporal.Client, workers: Workers
) -> None:
    @app.workflow(id="large run")
    async def handler(ctx: Context[Any], step: Step) -> str:
        return "x" * TOO_LARGE

    async with workers(app):
        with pytest.raises(RunFailedError, match="'large run'") as failed:
            await (await handler.start()).result()
    assert failed.value.name == "PayloadTooLargeError"


async def test_an_input_over_the_limit_is_refused_before_anything_starts(
    app: steporal.Client, workers: Workers
) -> None:
    @app.workflow(id="large input")
    async def handler(ctx: Context[Any], step: Step) -> None:
        return None

    async with workers(app):
        with pytest.raises(steporal.PayloadTooLargeError, match="'large input'"):
            await handler.start("x" * TOO_LARGE)


async def test_the_data_of_an_invoked_workflow_over_the_limit_fails_the_run(
    app: steporal.Client, workers: Workers
) -> None:
    @app.workflow(id="child")
    async def child(ctx: Context[Any], step: Step) -> None:
        return None

    @app.workflow(id="parent")
    async def parent(ctx: Context[Any], step: Step) -> None:
        await step.invoke_workflow("invoke it", workflow=child, data="x" * TOO_LARGE)

    async with workers(app):
        with pytest.raises(RunFailedError, match="step 'invoke it'") as failed:
            await (await parent.start()).result()
    assert failed.value.name == "PayloadTooLargeError"


@pytest.mark.needs_cache(MEGABYTES)
async def test_many_large_results_stay_within_a_run(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="many large")
    async def handler(ctx: Context[Any], step: Step) -> int:
        return sum([len(await step.run("chunk", lambda: "x" * 1_000_000)) for _ in range(8)])

    async with workers(app):
        assert await (await handler.start()).result() == 8_000_000


async def test_a_large_message_of_an_error_does_not_wedge_the_run(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="loud")
    async def handler(ctx: Context[Any], step: Step) -> str:
        def fail() -> None:
            raise ValueError("x" * TOO_LARGE)

        try:
            await step.run("shout", fail, max_attempts=1)
        except StepError as err:
            return f"{err.name} {err.message[:3]}"
        return ""

    async with workers(app):
        assert await (await handler.start()).result() == "ValueError xxx"


async def test_a_large_message_of_a_bodys_error_does_not_wedge_the_run(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="loud", max_attempts=1)
    async def handler(ctx: Context[Any], step: Step) -> None:
        raise ValueError("x" * TOO_LARGE)

    async with workers(app):
        with pytest.raises(RunFailedError, match="xxx"):
            await (await handler.start()).result()
