"""What steps and handlers return: its type, and how large it may be."""

from __future__ import annotations

import dataclasses
import re
import threading
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import pydantic
import pytest
from apps import data_kinds as kinds
from pydantic import BaseModel
from recording import Workers
from typing_extensions import TypedDict
from waiting import MEGABYTES

import steporal
from steporal import Context, InvalidResultError, RunFailedError, Step, StepError, WorkflowExt

pytestmark = pytest.mark.outside_runs

TOO_LARGE = 2 * 1024 * 1024


class Order(BaseModel):
    id: str
    total: Decimal = Decimal("1.50")


@dataclasses.dataclass
class Receipt:
    number: int
    at: datetime


class Dated(TypedDict):
    a: int
    b: date


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


# --- what a run returns --------------------------------------------------------------------------------------------

MASKED = kinds.Masked(number="4111111111111111")
BERLIN = datetime(2026, 5, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))


def returning(app: steporal.Client, value: Any, annotation: Any = Any) -> steporal.Workflow[Any, Any]:
    """A workflow that returns a value, with this annotation."""

    async def handler(ctx: Context[Any], step: Step) -> Any:
        return value

    handler.__annotations__["return"] = annotation
    return app.workflow(id="returns")(handler)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (kinds.CamelOut(first_name="Ann"), kinds.CamelOut),
        (MASKED, kinds.Masked),
        (MASKED, Any),
        ([MASKED, 1], Any),
        (kinds.Total(net=1), kinds.Total),
        (kinds.Taxed(amount=100), kinds.Taxed),
        (kinds.Dog(name="R", breed="pug"), kinds.Animal),
        ([kinds.Dog(name="R", breed="pug")], list[kinds.Animal]),
        (kinds.Page[int](items=[1]), kinds.Page[int]),
        (float("nan"), float),
        ({"n": float("inf")}, dict[str, float]),
        (BERLIN, datetime),
        (BERLIN, Any),
        (datetime(2026, 1, 1), str | datetime),
        ("2026-01-01T00:00:00", str | datetime),
        ((1, {2}), Any),
        ({1: b"\xff"}, Any),
        ({"$": "model", "type": "os:system"}, Any),
        (3, float),
        (Order(id="a"), Order | dict),
        (Order(id="a"), dict[str, Any] | Order),
        (date(2026, 1, 1), date | str),
        (b"text", bytes | str),
        (kinds.Reading.model_construct(value=1), kinds.Reading),
        (Order.model_construct(id="a", total=True), Order),
        ((1, 2), tuple[float, float]),
        ({"later": {"b": date(2026, 1, 1), "a": 1}}, dict[str, Dated]),
        (kinds.Lenient(n=1), Any),
        ([kinds.Lenient(n=1)], Any),
        (kinds.Careless(n=1), kinds.Careless),
    ],
)
async def test_a_run_returns_what_its_handler_returned(
    app: steporal.Client, workers: Workers, value: Any, annotation: Any
) -> None:
    workflow = returning(app, value, annotation)
    app.step_packages.add("apps")

    @app.workflow(id="parent")
    async def parent(ctx: Context[Any], step: Step) -> Any:
        return kinds.difference(await step.invoke_workflow("child", workflow=workflow), value)

    async with workers(app):
        run = await workflow.start()
        assert kinds.difference(await run.result(), value) is None
        assert kinds.difference(await (await app.get_run(run.workflow_id, workflow)).result(), value) is None
        assert await (await parent.start()).result() is None


async def test_a_dict_is_made_the_model_that_the_annotation_promises(app: steporal.Client, workers: Workers) -> None:
    workflow = returning(app, {"id": "a", "total": Decimal("2.50")}, Order)
    async with workers(app):
        assert await (await workflow.start()).result() == Order(id="a", total=Decimal("2.50"))


async def test_a_result_that_does_not_fit_its_annotation_is_an_error_of_ours(
    app: steporal.Client, workers: Workers
) -> None:
    workflow = returning(app, {"total": "much"}, Order)

    @app.workflow(id="parent")
    async def parent(ctx: Context[Any], step: Step) -> Any:
        with pytest.raises(StepError, match="id: Field required") as failed:
            await step.invoke_workflow("child", workflow=workflow)
        return failed.value.name

    async with workers(app):
        run = await workflow.start()
        with pytest.raises(
            InvalidResultError, match=rf"the result of run '{re.escape(run.workflow_id)}' does not fit.*id: Field"
        ):
            await run.result()
        assert await (await parent.start()).result() == "InvalidResultError"


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (Order(id="a"), Order, {"id": "a", "total": "1.50"}),
        (MASKED, kinds.Masked, {"number": "****1111"}),
        (kinds.CamelOut(first_name="Ann"), kinds.CamelOut, {"firstName": "Ann"}),
        (BERLIN, Any, "2026-05-01T12:00:00+02:00"),
        ({"n": float("nan")}, Any, {"n": "NaN"}),
        ({"n": float("nan")}, dict[str, float], {"n": "NaN"}),
        ([MASKED, float("inf")], list[kinds.Masked | float], [{"number": "****1111"}, "Infinity"]),
        (kinds.Whole(inner=1), kinds.Whole, {"hidden": True}),
    ],
)
async def test_other_clients_read_a_result_as_pydantic_writes_it(
    app: steporal.Client, workers: Workers, value: Any, annotation: Any, expected: Any
) -> None:
    workflow = returning(app, value, annotation)
    async with workers(app):
        run = await workflow.start()
        await run.result()
        assert await workers.temporal.get_workflow_handle(run.workflow_id).result() == expected
        assert await (await app.get_run(run.workflow_id)).result() == expected


async def test_the_result_of_another_apps_workflow_is_what_the_reference_asks_for(
    app: steporal.Client, other_app: steporal.Client, workers: Workers
) -> None:
    returning(other_app, Order(id="a"), Order)
    plain, typed = (steporal.reference(other_app.id, "returns", output_type=kind) for kind in (None, Order))

    @app.workflow(id="parent")
    async def parent(ctx: Context[Any], step: Step) -> Any:
        order = await step.invoke_workflow("typed", workflow=typed)
        return [await step.invoke_workflow("plain", workflow=plain), type(order).__name__]

    async with workers(app), workers(other_app, is_listed=True):
        assert await (await app.start_workflow(plain)).result() == {"id": "a", "total": "1.50"}
        assert await (await app.start_workflow(typed)).result() == Order(id="a")
        assert await (await parent.start()).result() == [{"id": "a", "total": "1.50"}, "Order"]


async def test_a_result_of_a_class_that_the_reader_does_not_have_is_an_error_of_ours(
    app: steporal.Client, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = returning(app, kinds.Linked(1))
    async with workers(app):
        run = await workflow.start()
        assert await run.result() == kinds.Linked(1)
        monkeypatch.delattr(kinds, "Linked")
        with pytest.raises(
            InvalidResultError, match=r"cannot be read here: module 'apps\.data_kinds' has no class 'Linked'"
        ):
            await run.result()


async def test_a_result_of_a_class_in_a_function_needs_an_annotation(app: steporal.Client, workers: Workers) -> None:
    class Local(BaseModel):
        n: int

    @app.workflow(id="annotated")
    async def annotated(ctx: Context[Any], step: Step) -> Local:
        return Local(n=1)

    annotated.handler.__annotations__["return"] = Local
    bare = returning(app, Local(n=1))
    async with workers(app):
        assert await (await annotated.start()).result() == Local(n=1)
        with pytest.raises(RunFailedError, match="Local cannot be sent, as it is defined inside a function"):
            await (await bare.start()).result()


class Counted(BaseModel):
    """Counts how often its validator has run."""

    n: int
    calls: ClassVar[list[int]] = []

    @pydantic.field_validator("n")
    @classmethod
    def counted(cls, value: int) -> int:
        cls.calls.append(value)
        return value


async def test_a_value_between_steps_is_never_validated_again(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="hops")
    async def hops(ctx: Context[Any], step: Step) -> int:
        value = await step.run("make", lambda: Counted(n=1))
        for number in range(3):
            value = await step.run(f"pass {number}", lambda: value)
        return value.n

    Counted.calls.clear()
    async with workers(app):
        assert await (await hops.start()).result() == 1
    assert Counted.calls == [1]


async def test_output_type_takes_an_instance_as_it_is_and_makes_one_of_what_is_not(
    app: steporal.Client, workers: Workers
) -> None:
    @app.workflow(id="typed")
    async def typed(ctx: Context[Any], step: Step) -> Any:
        dogs = await step.run("dogs", lambda: [kinds.Dog(name="R", breed="p")], output_type=list[kinds.Animal])
        blob = await step.run("blob", lambda: {"known": 1, "data": b"hello"}, output_type=kinds.Open)
        taxed = await step.run("taxed", lambda: kinds.Taxed(amount=100), output_type=kinds.Taxed)
        return [dogs, blob.data, taxed.amount]

    async with workers(app):
        assert await (await typed.start()).result() == [[kinds.Dog(name="R", breed="p")], b"hello", 120.0]


async def test_the_result_of_an_invoked_run_reaches_a_run_that_was_parked_meanwhile(
    app: steporal.Client, workers: Workers
) -> None:
    @app.workflow(id="child")
    async def child(ctx: Context[Any], step: Step) -> kinds.Masked:
        await step.sleep("long", "3s")
        return MASKED

    @app.workflow(id="parent", ext=WorkflowExt(park_after="1s"))
    async def parent(ctx: Context[Any], step: Step) -> Any:
        result = await step.invoke_workflow("child", workflow=child)
        await step.sleep("long", "2s")
        again = await step.run("again", lambda: result)
        return [result, again]

    async with workers(app):
        assert await (await parent.start()).result() == [MASKED, MASKED]
