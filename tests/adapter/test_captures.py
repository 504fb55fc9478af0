"""Values that travel: captured by a step function, passed to it, returned from it."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import pytest
from apps import factory, payments, shop, values
from pydantic import BaseModel
from recording import Workers

import steporal
from steporal import CaptureError, Context, NestedStepError, RunFailedError, Step

pytestmark = pytest.mark.outside_runs


@pytest.mark.parametrize("workflow", [values.captured, values.passed, values.returned], ids=lambda w: w.id)
async def test_a_value_of_every_type_arrives_as_itself(
    workers: Workers, workflow: steporal.Workflow[Any, values.Differences]
) -> None:
    async with workers(values.client):
        assert await (await workflow.start()).result() == {}


async def test_captured_functions_come_along_with_what_they_captured(workers: Workers) -> None:
    async with workers(values.client):
        assert await (await values.functions.start()).result() == [11, 21, 22, 10, True]


class Basket(BaseModel):
    items: list[str]

    def count(self) -> int:
        return len(self.items)


@dataclass
class Greeter:
    greeting: str

    def greet(self, name: str) -> str:
        return f"{self.greeting} {name}"


async def test_a_method_of_a_captured_value_is_a_step(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="methods")
    async def handler(ctx: Context[Any], step: Step) -> list[Any]:
        basket, greeter = Basket(items=["a", "b"]), Greeter("hello")
        return [
            await step.run("count", basket.count),
            await step.run("greet", greeter.greet, "Ada"),
        ]

    async with workers(app):
        assert await (await handler.start()).result() == [2, "hello Ada"]


async def test_a_captured_context_is_a_read_only_copy(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="context", input_schema=Basket)
    async def handler(ctx: Context[Basket], step: Step) -> list[bool]:
        run_id, name, event_id, workflow_id = ctx.run_id, ctx.input.name, ctx.input.id, ctx.ext.workflow_id
        time, started = ctx.input.time, ctx.input.type

        def compare() -> list[bool]:
            return [
                ctx.input.data == Basket(items=["x"]),
                ctx.run_id == run_id,
                ctx.input.name == name,
                ctx.input.id == event_id,
                ctx.input.type == started,
                ctx.input.time == time,
                ctx.ext.workflow_id == workflow_id,
                ctx.max_attempts == 4,
                ctx.attempt == 0,
                abs((ctx.now() - datetime.now(UTC)).total_seconds()) < 5,
                ctx.uuid4() != ctx.uuid4(),
                0 <= ctx.random.random() < 1,
            ]

        return await step.run("compare", compare)

    async with workers(app):
        results = await (await handler.start(Basket(items=["x"]))).result()
    assert all(results), results


async def test_the_attempt_of_a_captured_context_is_the_steps(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="attempts")
    async def handler(ctx: Context[Any], step: Step) -> int:
        def third_time_lucky() -> int:
            if ctx.attempt < 2:
                raise RuntimeError("unlucky")
            return ctx.attempt

        return await step.run("try", third_time_lucky)

    async with workers(app):
        assert await (await handler.start()).result() == 2


async def test_a_captured_value_that_cannot_be_sent_is_named(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="connection")
    async def handler(ctx: Context[Any], step: Step) -> None:
        conn = sqlite3.connect(":memory:")
        try:
            await step.run("charge", lambda: conn.execute("select 1"))
        finally:
            conn.close()

    message = await failure(app, workers, handler, "CaptureError")
    assert "step 'charge' captured 'conn' (sqlite3.Connection)" in message
    assert "open it inside the step" in message
    assert "test_captures.py:" in message


async def test_a_part_of_a_captured_value_that_cannot_be_sent_is_named(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="part")
    async def handler(ctx: Context[Any], step: Step) -> None:
        order = {"id": 1, "lines": [{"lock": asyncio.Lock()}]}
        await step.run("charge", lambda: order)

    message = await failure(app, workers, handler, "CaptureError")
    assert "'order'" in message
    assert "lines[0].lock" in message
    assert "asyncio.locks.Lock" in message


async def test_an_argument_that_cannot_be_sent_is_named(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="argument")
    async def handler(ctx: Context[Any], step: Step) -> None:
        await step.run("charge", lambda value: value, object())

    message = await failure(app, workers, handler, "CaptureError")
    assert "step 'charge'" in message
    assert "argument 1" in message


async def test_an_instance_of_a_class_inside_the_handler_cannot_be_sent(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="local-class")
    async def handler(ctx: Context[Any], step: Step) -> None:
        class Local(BaseModel):
            n: int

        value = Local(n=1)
        await step.run("use", lambda: value.n)

    message = await failure(app, workers, handler, "CaptureError")
    assert "move the class to module level" in message


async def test_a_variable_without_a_value_yet_is_named(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="unassigned")
    async def handler(ctx: Context[Any], step: Step) -> None:
        task = step.run("early", lambda: later)  # type: ignore[has-type,call-arg]
        later = 1
        await task

    message = await failure(app, workers, handler, "CaptureError")
    assert "step 'early' uses 'later', which has no value yet" in message


async def test_a_captured_exception_cannot_be_sent(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="exception")
    async def handler(ctx: Context[Any], step: Step) -> None:
        error = ValueError("x")
        await step.run("report", lambda: str(error))

    message = await failure(app, workers, handler, "CaptureError")
    assert "'error' (ValueError)" in message


async def test_a_capture_error_is_raised_at_the_call_and_can_be_caught(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="caught")
    async def handler(ctx: Context[Any], step: Step) -> str:
        lock = asyncio.Lock()
        try:
            await step.run("charge", lambda: lock.locked())
        except CaptureError:
            return "caught"
        return "sent"

    async with workers(app):
        assert await (await handler.start()).result() == "caught"


def test_nonlocal_in_a_step_function_is_refused_at_definition(app: steporal.Client) -> None:
    async def handler(ctx: Context[Any], step: Step) -> int:
        total = 0

        def add() -> None:
            nonlocal total
            total += 1

        await step.run("add", add)
        return total

    with pytest.raises(CaptureError, match=r"step 'add' assigns 'total' .*workflow 'nonlocal' .*test_captures.py:\d+"):
        app.workflow(id="nonlocal")(handler)


def test_a_step_in_a_step_is_refused_at_definition(app: steporal.Client) -> None:
    async def handler(ctx: Context[Any], step: Step) -> None:
        await step.run("outer", lambda: step.run("inner", lambda: 1))

    with pytest.raises(NestedStepError, match="step 'inner' is called inside step 'outer' in workflow 'nested'"):
        app.workflow(id="nested")(handler)


async def test_nonlocal_in_a_step_function_is_refused_at_the_call(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="nonlocal")
    async def handler(ctx: Context[Any], step: Step) -> int:
        total = 0

        def add() -> None:
            nonlocal total
            total += 1

        functions = {"add": add}
        await step.run("add", functions["add"])
        return total

    message = await failure(app, workers, handler, "CaptureError")
    assert "step 'add' assigns 'total'" in message
    assert "return the value" in message
    assert "test_captures.py:" in message


async def test_a_step_in_a_step_names_both(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="nested")
    async def handler(ctx: Context[Any], step: Step) -> None:
        async def outer() -> None:
            await step.run("inner", lambda: 1)

        functions = {"outer": outer}
        await step.run("outer", functions["outer"])

    message = await failure(app, workers, handler, "NestedStepError")
    assert "'inner'" in message
    assert "'outer'" in message


async def test_a_step_in_a_function_that_a_step_captured_is_a_step_in_a_step(
    app: steporal.Client, workers: Workers
) -> None:
    @app.workflow(id="nested")
    async def handler(ctx: Context[Any], step: Step) -> str:
        async def notify() -> None:
            await step.ext.send_event("notify", {"name": "x"})

        try:
            await step.run("outer", lambda: notify())
        except NestedStepError as err:
            return str(err)
        return ""

    async with workers(app):
        message = await (await handler.start()).result()
    assert "'outer'" in message


@pytest.mark.parametrize("function", [print, int, asyncio.gather])
async def test_what_is_no_function_of_the_app_is_refused(app: steporal.Client, workers: Workers, function: Any) -> None:
    @app.workflow(id="foreign")
    async def handler(ctx: Context[Any], step: Step) -> None:
        await step.run("call", function)

    message = await failure(app, workers, handler, "CaptureError")
    assert "step 'call'" in message


NAMELESS = ["hides the handler", "method of a global", "another function of that name"]


@pytest.mark.parametrize("id", NAMELESS)
async def test_what_cannot_be_named_is_refused_with_what_to_write(workers: Workers, id: str) -> None:
    workflow = factory.hidden.get_workflow(id)
    message = await failure(factory.hidden, workers, workflow, "CaptureError")
    assert {
        "hides the handler": "if 'hidden_handler' is the handler of workflow 'hides the handler', its decorator hides "
        "it: add @functools.wraps(function)",
        "another function of that name": "is given a function whose name, 'apps.factory:plain', now means another",
        "method of a global": "is given the method 'Service.charge' of a apps.factory.Service, which cannot be sent to "
        "an activity",
    }[id] in message
    assert id != "method of a global" or "write lambda: name.charge(...)" in message


@pytest.mark.parametrize("name", ["first", "second"])
async def test_a_helper_beside_a_handler_uses_the_variables_of_its_own_factory(workers: Workers, name: str) -> None:
    async with workers(factory.client):
        workflow = factory.client.get_workflow(f"factory {name}")
        assert await (await workflow.start()).result() == [
            f"{name} 1",
            f"{name} 2",
            f"{name} 3".upper(),
            [1, f"{name} 4"],
            f"{name} 5",
            f"{name} 6",
            f"{name} 7",
        ]


async def failure(app: steporal.Client, workers: Workers, workflow: steporal.Workflow[Any, Any], name: str) -> str:
    """The message of the error that a run of a workflow fails with, at once."""
    async with workers(app):
        with pytest.raises(RunFailedError) as failed:
            await (await workflow.start()).result()
    assert failed.value.name == name
    return failed.value.message


async def test_a_method_runs_on_the_class_that_it_was_taken_from_by_whatever_name(workers: Workers) -> None:
    async with workers(shop.client):
        assert await (await shop.methods.start()).result() == {
            "inherited": "orders/1",
            "captured": "orders/1",
            "of an instance": "orders/1",
            "makes": "Discounted",
            "decorated": 15,
            "private": 15,
            "by a lambda": 15,
            "of the base": 15,
        }


async def test_a_function_that_a_test_replaces_is_what_its_step_runs(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with workers(shop.client):
        real = ["charged 5", "debited 5", "refunded 5", "charged 5, debited 5, refunded 5"]
        assert await (await shop.pay.start(5)).result() == real
        monkeypatch.setattr(shop, "charge", lambda amount: f"fake {amount}")
        monkeypatch.setattr(shop.Card, "debit", Mock(return_value="mocked"))
        monkeypatch.setattr(shop, "refund", lambda amount: f"imported fake {amount}")
        assert await (await shop.pay.start(5)).result() == [
            "fake 5",
            "mocked",
            "imported fake 5",
            "fake 5, mocked, imported fake 5",
        ]
        monkeypatch.setattr(payments, "refund", lambda amount: f"fake refund {amount}")
        monkeypatch.setattr(shop, "refund", payments.refund)
        assert await (await shop.pay.start(5)).result() == [
            "fake 5",
            "mocked",
            "fake refund 5",
            "fake 5, mocked, fake refund 5",
        ]


def ship(order: str) -> str:
    return f"shipped {order}"


async def test_a_mock_that_a_body_itself_sees_is_what_its_step_runs(
    app: steporal.Client, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.workflow(id="ships")
    async def handler(ctx: Context[str], step: Step) -> str:
        return await step.run("ship", ship, ctx.input.data)

    mock = Mock(return_value="mocked")
    monkeypatch.setattr(sys.modules[__name__], "ship", mock)
    async with workers(app):
        assert await (await handler.start("1")).result() == "mocked"
    mock.assert_called_once_with("1")


async def test_a_step_function_that_a_decorator_hides_is_found_by_its_name(workers: Workers) -> None:
    async with workers(factory.hidden):
        assert await (await factory.hidden.get_workflow("hides a step").start(None)).result() == factory.charge(1)
