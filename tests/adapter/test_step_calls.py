"""Calls of steps: those that nothing awaits, and those that cannot be right."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr
from recording import Workers

import steporal
from steporal import Context, RunFailedError, Step
from steporal.events import new_ulid

Body = Callable[[Context[Any], Any], Awaitable[Any]]


async def failure(app: steporal.Client, workers: Workers, body: Body) -> RunFailedError:
    """The error that a run of this body fails with."""
    workflow = app.workflow(id="calls")(body)
    async with workers(app):
        with pytest.raises(RunFailedError) as failed:
            await (await workflow.start()).result()
    return failed.value


async def result(app: steporal.Client, workers: Workers, body: Body) -> Any:
    """What a run of this body returns."""
    workflow = app.workflow(id="calls")(body)
    async with workers(app):
        return await (await workflow.start()).result()


# --- never awaited -------------------------------------------------------------------------------------------------


async def test_a_step_that_is_never_awaited_fails_the_run_with_its_line(
    app: steporal.Client, workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(ctx: Context[Any], step: Step) -> str:
        step.run("charge", lambda: None)  # type: ignore[unused-coroutine]
        return "done"

    failed = await failure(app, workers, body)
    assert failed.name == "StepNotAwaitedError"
    assert "step 'charge' (adapter/test_step_calls.py:" in failed.message
    assert f":{inspect.getsourcelines(body)[1] + 1})" in failed.message
    assert "await step.run('charge', ...)" in failed.message
    (logged,) = [record.exc_info for record in caplog.records if record.exc_info and "failed" in record.getMessage()]
    assert logged[2] is None, "a line of ours is not where the mistake is"


async def test_every_kind_of_step_that_is_never_awaited_is_named(app: steporal.Client, workers: Workers) -> None:
    async def body(ctx: Context[Any], step: Any) -> str:
        listener = await step.ext.listen("listen", event="x", timeout="1h")
        listener.next("next")
        listener.close()
        step.sleep("nap", "1s")
        step.ext.send_event("tell", {"name": "y"})
        return "done"

    failed = await failure(app, workers, body)
    assert failed.name == "StepNotAwaitedError"
    assert all(what in failed.message for what in ("'next'", "listener.close(...)", "'nap'", "'tell'"))


async def test_a_step_in_a_task_that_has_not_begun_when_the_body_returns_fails_the_run(
    app: steporal.Client, workers: Workers
) -> None:
    async def body(ctx: Context[Any], step: Step) -> str:
        task = asyncio.create_task(step.run("charge", lambda: None))
        return f"task {task.done()}"

    assert (await failure(app, workers, body)).name == "StepNotAwaitedError"


async def test_steps_that_are_awaited_in_other_ways_are_awaited(app: steporal.Client, workers: Workers) -> None:
    async def body(ctx: Context[Any], step: Step) -> list[Any]:
        later = step.run("later", lambda: "later")
        gathered = await asyncio.gather(step.run("a", lambda: 1), step.run("b", lambda: 2))
        task = asyncio.create_task(step.run("task", lambda: 3))
        async with asyncio.TaskGroup() as group:
            in_group = group.create_task(step.run("in group", lambda: 4))
        waited = await asyncio.wait_for(step.run("wait for", lambda: 5), 60)
        shielded = await asyncio.shield(step.run("shield", lambda: 6))
        first = [await each for each in asyncio.as_completed([asyncio.create_task(step.run("first", lambda: 7))])]
        listener = await step.ext.listen("listen", event="never", timeout="1h")
        await listener.close()
        return [*gathered, await task, in_group.result(), waited, shielded, *first, await later]

    assert await result(app, workers, body) == [1, 2, 3, 4, 5, 6, 7, "later"]


async def test_steps_that_are_cancelled_or_closed_before_they_begin_are_not_forgotten(
    app: steporal.Client, workers: Workers
) -> None:
    async def body(ctx: Context[Any], step: Step) -> str:
        turned = asyncio.create_task(step.run("turned", lambda: None))
        turned.cancel()
        await asyncio.wait([turned])
        step.run("closed", lambda: None).close()
        at_once = asyncio.create_task(step.run("at once", lambda: None))
        at_once.cancel()
        return "done"

    assert await result(app, workers, body) == "done"


async def test_an_error_of_the_body_wins_over_a_step_that_it_has_not_awaited(
    app: steporal.Client, workers: Workers
) -> None:
    async def body(ctx: Context[Any], step: Step) -> None:
        step.run("charge", lambda: None)  # type: ignore[unused-coroutine]
        raise steporal.NonRetryableError("sold out")

    failed = await failure(app, workers, body)
    assert (failed.name, failed.message) == ("NonRetryableError", "sold out")


async def test_a_step_that_still_runs_when_the_body_returns_is_left_with_a_warning(
    app: steporal.Client, workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(ctx: Context[Any], step: Step) -> str:
        async def slow() -> None:
            await asyncio.sleep(3600)

        loser = asyncio.create_task(step.run("loser", slow))
        nap = asyncio.create_task(step.sleep("nap", "1h"))
        await step.run("winner", lambda: None)
        return f"{loser.done()} {nap.done()}"

    with caplog.at_level(logging.WARNING):
        assert await result(app, workers, body) == "False False"
    warnings = [record.getMessage() for record in caplog.records if "still running" in record.getMessage()]
    assert len(warnings) == 1
    assert "step 'loser' (adapter/test_step_calls.py:" in warnings[0]
    assert "'nap'" not in warnings[0]


async def test_a_task_of_a_step_that_has_not_begun_when_the_body_raises_is_cancelled(
    app: steporal.Client, workers: Workers
) -> None:
    tasks: list[asyncio.Task[None]] = []

    async def body(ctx: Context[Any], step: Step) -> bool:
        if ctx.attempt == 0:
            tasks.append(asyncio.create_task(step.run("charge", lambda: None)))
            raise RuntimeError("from the top")
        await step.run("turn", lambda: None)
        return tasks[0].cancelled()

    assert await result(app, workers, body) is True


async def test_a_call_that_is_awaited_twice_fails_the_run(app: steporal.Client, workers: Workers) -> None:
    async def body(ctx: Context[Any], step: Step) -> None:
        charge = step.run("charge", lambda: None)
        await charge
        await charge

    failed = await failure(app, workers, body)
    assert failed.name == "InvalidArgumentError"
    assert "step 'charge' (adapter/test_step_calls.py:" in failed.message
    assert "awaited twice" in failed.message


# --- calls that cannot be right ------------------------------------------------------------------------------------


def two(a: int, b: int = 0, *, keyword: int = 0) -> int:
    return a + b + keyword


def needs_keyword(*, keyword: int) -> int:
    return keyword


def many(*values: int) -> int:
    return len(values)


class Shop:
    def charge(self, amount: int) -> int:
        return amount


async def fetch(url: str) -> str:
    return url


def given_one_more(function: Callable[..., Any]) -> Callable[..., Any]:
    """Calls a function with an argument of its own before the others."""

    @functools.wraps(function)
    def inner(*args: Any) -> Any:
        return function(10, *args)

    return inner


@given_one_more
def decorated(a: int, b: int) -> int:
    return a + b


class Unprintable:
    def __repr__(self) -> str:
        raise ValueError("no repr")


WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no function": (lambda step: step.run("charge"), "missing a required argument: 'handler'; it takes (step_id, h"),
    "heartbeat": (
        lambda step: step.run("charge", two, 1, heartbeat_timeout="1ms"),
        "step 'charge': heartbeat_timeout is '1ms'",
    ),
    "attempts": (lambda step: step.run("charge", two, 1, max_attempts=0), "max_attempts of step 'charge' is 0"),
    "cannot be printed": (
        lambda step: step.invoke_workflow("charge", workflow=Unprintable()),
        "workflow is <test_step_calls.Unprintable>",
    ),
    "method that cannot be printed": (
        lambda step: step.ext.fetch("charge", Unprintable(), "https://example.com"),
        "method is <test_step_calls.Unprintable>",
    ),
    "no arguments": (lambda step: step.run(), "step.run() cannot be called like this"),
    "unknown keyword": (lambda step: step.run("charge", two, 1, max_atempts=3), "did you mean 'max_attempts'?"),
    "keyword of the function": (lambda step: step.run("charge", two, a=1), "does not accept the argument 'a'"),
    "id as a number": (lambda step: step.run(3, two, 1), "a step id is 3 (int)"),
    "id as None": (lambda step: step.sleep(None, "1s"), "a step id is None"),
    "half a character": (lambda step: step.run("\ud800", two, 1), "a step id is '\\ud800'"),
    "not callable": (lambda step: step.run("charge", 3), "step 'charge': its function is 3 (int)"),
    "None": (lambda step: step.run("charge", None), "its function is None"),
    "coroutine": (lambda step: step.run("charge", fetch("a")), "its function is a coroutine"),
    "step in step": (lambda step: step.run("charge", step.run("inner", many)), "its function is a coroutine"),
    "too few": (
        lambda step: step.run("charge", two),
        "two(a, b=0, *, keyword=0) cannot be called with the 0",
    ),
    "too many": (lambda step: step.run("charge", two, 1, 2, 3), "cannot be called with the 3 arguments of step.run"),
    "keyword only": (lambda step: step.run("charge", needs_keyword), "argument: 'keyword'"),
    "lambda": (lambda step: step.run("charge", lambda a: a), "with the 0 arguments of step.run"),
    "method": (lambda step: step.run("charge", Shop().charge, 1, 2), "charge(amount) cannot be called with the 2"),
    "partial": (lambda step: step.run("charge", functools.partial(two, 1), 2, 3), "cannot be called with the 2"),
    "async": (lambda step: step.run("charge", fetch), "fetch(url) cannot be called with the 0 arguments"),
    "task queue": (lambda step: step.run("charge", two, 1, task_queue=5), "task_queue is 5"),
    "local": (lambda step: step.run("charge", two, 1, local="yes"), "local is 'yes'"),
    "output type": (lambda step: step.run("charge", two, 1, output_type="int"), "output_type is 'int'"),
    "timeout": (lambda step: step.run("charge", two, 1, timeout="soon"), "timeout is 'soon'"),
    "duration": (lambda step: step.sleep("charge", "a while"), "duration is 'a while'"),
    "no duration": (lambda step: step.sleep("charge"), "missing a required argument: 'duration'"),
    "when": (lambda step: step.sleep_until("charge", "tomorrow"), "when is 'tomorrow'"),
    "signal by position": (lambda step: step.wait_for_signal("charge", "approved"), "too many positional arguments"),
    "signal": (lambda step: step.send_signal("charge", signal=3), "signal is 3"),
    "workflow": (lambda step: step.invoke_workflow("charge", workflow="ship"), "workflow is 'ship'"),
    "event": (lambda step: step.ext.wait_for_event("charge", event=3, timeout="1s"), "event is 3"),
    "event to send": (
        lambda step: step.ext.send_event("charge", {"nam": ""}),
        "step 'charge': event has the unknown key",
    ),
    "url": (lambda step: step.ext.fetch("charge", "GET", None), "url is None"),
    "ext": (lambda step: step.send_event("charge", {}), "step has no 'send_event'; did you mean step.ext.send_event?"),
    "misspelled": (lambda step: step.sleepUntil("charge", 1), "did you mean step.sleep_until?"),
    "unknown": (lambda step: step.ext.publish("charge"), "step.ext has no 'publish'; it has "),
}


WITHOUT_ID = {"no arguments", "id as a number", "id as None", "half a character"}


@pytest.mark.parametrize("case", WRONG)
async def test_a_call_that_cannot_be_right_fails_the_run_at_once(
    app: steporal.Client, workers: Workers, case: str
) -> None:
    call, says = WRONG[case]
    attempts = []

    async def body(ctx: Context[Any], step: Step) -> None:
        attempts.append(ctx.attempt)
        await call(step)

    failed = await failure(app, workers, body)
    expected = {"event to send": "InvalidEventError"}.get(
        case, "UnknownStepError" if says.startswith(("step has no", "step.ext has", "did you mean step.")) else ""
    )
    assert failed.name == (expected or "InvalidArgumentError")
    assert says in failed.message
    assert set(attempts) == {0}
    assert failed.message.count("(adapter/test_step_calls.py:") == 1
    assert failed.message.count("step 'charge'") <= 1
    if failed.name != "UnknownStepError":
        assert "'charge'" in failed.message or case in (
            "no arguments",
            "id as a number",
            "id as None",
            "half a character",
        )


class Login(BaseModel):
    password: SecretStr


LOGIN = Login(password=SecretStr("hunter2"))
HALF = "\ud800"

UNSENDABLE: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "builtin": (lambda step: step.run("charge", print, 1), "CaptureError", "wrap it in a lambda"),
    "class": (lambda step: step.run("charge", Shop), "CaptureError", "wrap it in a lambda"),
    "method that a class inherits from a library": (
        lambda step: step.run("charge", LOGIN.model_dump),
        "CaptureError",
        "wrap it in a lambda",
    ),
    "function of a library": (lambda step: step.run("charge", json.dumps, 1), "CaptureError", "wrap it in a lambda"),
    "object": (lambda step: step.run("charge", many, object()), "CaptureError", "open it inside the step"),
    "half a character": (lambda step: step.run("charge", many, HALF), "CaptureError", "send the bytes, or replace it"),
    "secret": (lambda step: step.run("charge", many, LOGIN), "CaptureError", "the step looks up the secret"),
    "partial": (
        lambda step: step.run("charge", functools.partial(many, object())),
        "CaptureError",
        "open it inside the step",
    ),
    "cannot be printed": (
        lambda step: step.run("charge", many, Unprintable()),
        "CaptureError",
        "open it inside the step",
    ),
    "input that cannot be printed": (
        lambda step: step.invoke_workflow("charge", workflow=steporal.reference("a", "b"), data=Unprintable()),
        "InvalidInputError",
        "convert it to JSON",
    ),
    "large": (lambda step: step.run("charge", many, "x" * 3_000_000), "PayloadTooLargeError", "external storage"),
    "data of a signal": (
        lambda step: step.send_signal("charge", signal="paid", data=object()),
        "UnserializableError",
        "convert it to JSON",
    ),
    "input of a workflow": (
        lambda step: step.invoke_workflow("charge", workflow=steporal.reference("a", "b"), data=object()),
        "InvalidInputError",
        "convert it to JSON",
    ),
    "secret in an event": (
        lambda step: step.ext.send_event("charge", {"name": "login", "data": {"by": LOGIN}}),
        "InvalidEventError",
        "it contains a secret",
    ),
}


@pytest.mark.parametrize("case", UNSENDABLE)
async def test_a_call_with_what_cannot_be_sent_names_its_line_and_one_remedy(
    app: steporal.Client, workers: Workers, case: str
) -> None:
    call, name, remedy = UNSENDABLE[case]

    async def body(ctx: Context[Any], step: Step) -> None:
        await call(step)

    failed = await failure(app, workers, body)
    assert failed.name == name
    assert remedy in failed.message
    assert failed.message.count("(adapter/test_step_calls.py:") == 1
    assert failed.message.count("'charge'") == 1
    assert len(re.findall(r"\.py:\d+", failed.message)) == 1
    assert not ("open it inside" in failed.message and remedy != "open it inside the step")
    assert "model_dump(" not in failed.message


async def test_a_step_function_that_is_written_elsewhere_is_named_with_both_places(
    app: steporal.Client, workers: Workers
) -> None:
    async def body(ctx: Context[Any], step: Step) -> None:
        connection = object()

        def charge() -> object:
            return connection

        await step.run("charge", charge)

    failed = await failure(app, workers, body)
    first = body.__code__.co_firstlineno
    assert failed.message.endswith(
        f"(adapter/test_step_calls.py:{first + 3}, called at adapter/test_step_calls.py:{first + 6})"
    )


async def test_a_wrong_call_with_an_id_that_was_used_before_names_the_step_once(
    app: steporal.Client, workers: Workers
) -> None:
    async def body(ctx: Context[Any], step: Step) -> None:
        await step.run("charge", many)
        await step.run("charge", many, timeout="soon")

    failed = await failure(app, workers, body)
    assert failed.message.startswith("step 'charge:1': timeout is 'soon'")


async def test_a_call_of_a_listener_that_cannot_be_right_fails_the_run(app: steporal.Client, workers: Workers) -> None:
    async def body(ctx: Context[Any], step: Any) -> None:
        async with await step.ext.listen("listen", event="x", timeout="1h") as listener:
            await listener.next("next", timout="1s")

    failed = await failure(app, workers, body)
    assert failed.name == "InvalidArgumentError"
    assert (
        "step 'next': listener.next() does not accept the argument 'timout' (did you mean 'timeout'?)" in failed.message
    )


async def test_functions_that_take_the_arguments_are_called(app: steporal.Client, workers: Workers) -> None:
    async def body(ctx: Context[Any], step: Step) -> list[Any]:
        return [
            await step.run("default", two, 1),
            await step.run("both", two, 1, 2),
            await step.run("any", many, 1, 2, 3),
            await step.run("partial", functools.partial(two, keyword=5), 1),
            await step.run("decorated", decorated, 1),
        ]

    assert await result(app, workers, body) == [1, 3, 3, 6, 11]


# --- what is sent --------------------------------------------------------------------------------------------------


async def test_every_kind_of_step_sends_what_it_was_given_at_the_call(app: steporal.Client, workers: Workers) -> None:
    name = f"row.{new_ulid()}"

    @app.workflow(id="echo")
    async def echo(ctx: Context[Any], step: Step) -> Any:
        return ctx.input.data

    async def body(ctx: Context[Any], step: Step) -> Any:
        listener = await step.ext.listen("listen", event=name, timeout="1h")
        row = {"number": 1}
        calls = [
            step.run("captured", lambda: row),
            step.run("argument", lambda given: given, row),
            step.invoke_workflow("invoke", workflow=echo, data=row),
        ]
        sent = step.ext.send_event("send", {"name": name, "data": row})
        row["number"] = 2
        returned = await asyncio.gather(*calls)
        await sent
        event = await listener.next("next")
        return [*returned, event and event.data]

    assert await result(app, workers, body) == [{"number": 1}] * 4
