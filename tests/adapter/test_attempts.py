"""Attempts of a body: what it raises itself runs it again from the top, with finished steps from the memo."""

from __future__ import annotations

import asyncio
import decimal
import os
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from recording import Workers
from temporalio.exceptions import ApplicationError

import steporal
from steporal import (
    Context,
    InvalidArgumentError,
    NonRetryableError,
    RetryAfterError,
    RetryPolicy,
    RunFailedError,
    Step,
    StepError,
)


async def test_a_body_that_raises_runs_again_with_its_finished_steps_done(
    app: steporal.Client, workers: Workers
) -> None:
    charged = []

    @app.workflow(id="body")
    async def handler(ctx: Context[Any], step: Step) -> list[int]:
        def charge_once() -> int:
            charged.append("charged")
            return len(charged)

        charge = await step.run("charge", charge_once)
        if ctx.attempt < 2:
            raise RuntimeError("the body itself")
        return [charge, ctx.attempt]

    async with workers(app):
        assert await (await handler.start()).result() == [1, 2]
    assert charged == ["charged"]


async def test_a_body_is_attempted_four_times_in_all_by_default(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="body")
    async def handler(ctx: Context[Any], step: Step) -> None:
        raise RuntimeError(f"attempt {ctx.attempt}")

    async with workers(app):
        with pytest.raises(RunFailedError) as failed:
            await (await handler.start()).result()
    assert (failed.value.name, failed.value.message) == ("RuntimeError", "attempt 3")
    assert "test_attempts.py" in failed.value.stack


TENANT: ContextVar[str] = ContextVar("tenant", default="none")


async def test_an_attempt_of_a_body_finds_nothing_in_context_variables_that_another_has_left_there(
    app: steporal.Client, workers: Workers
) -> None:
    """When the body comes back in another execution, what an attempt had set there is gone."""

    @app.workflow(id="body", input_schema=Decimal)
    async def handler(ctx: Context[Decimal], step: Step) -> list[Any]:
        seen = [ctx.attempt, TENANT.get(), str(ctx.input.data / 3)]
        TENANT.set("acme")
        decimal.getcontext().prec = 3
        await asyncio.sleep(0)
        assert [TENANT.get(), str(ctx.input.data / 3)] == ["acme", "0.333"]
        if ctx.attempt == 0:
            raise RuntimeError("again")
        return seen

    async with workers(app):
        assert await (await handler.start(Decimal(1))).result() == [1, "none", "0.3333333333333333333333333333"]


async def test_max_attempts_of_the_workflow_bounds_its_body(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="body", max_attempts=2)
    async def handler(ctx: Context[Any], step: Step) -> None:
        assert ctx.max_attempts == 2
        raise RuntimeError(f"attempt {ctx.attempt}")

    async with workers(app):
        with pytest.raises(RunFailedError, match="attempt 1"):
            await (await handler.start()).result()


async def test_a_finished_step_resets_the_count(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="body", max_attempts=2)
    async def handler(ctx: Context[Any], step: Step) -> list[int]:
        seen = []
        for number in range(3):
            attempt = ctx.attempt
            # The attempt is part of the id: a step that finishes in each attempt.
            if not await step.run(f"part {number}", lambda: attempt):
                seen.append(number)
        if ctx.attempt == 0:
            await step.run("one more", lambda: None)
            raise RuntimeError("first time")
        return seen

    async with workers(app):
        assert await (await handler.start()).result() == [0, 1, 2]


async def test_a_body_may_raise_more_often_than_its_attempts_if_steps_finish_between(
    app: steporal.Client, workers: Workers
) -> None:
    @app.workflow(id="body", max_attempts=2)
    async def handler(ctx: Context[Any], step: Step) -> list[int]:
        attempts = []
        for number in range(4):
            attempts.append(ctx.attempt)
            await step.run(f"part {number}", lambda: number)
            if ctx.attempt == 0 and number not in progress:
                progress.append(number)
                raise RuntimeError(f"after part {number}")
        return attempts

    progress: list[int] = []
    async with workers(app, max_cached_workflows=1000):
        run = await handler.start()
        assert await run.result() == [1, 1, 1, 1]
    assert progress == [0, 1, 2, 3]
    progress.clear()  # for the replay


async def test_a_non_retryable_error_in_the_body_fails_the_run_at_once(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="body")
    async def handler(ctx: Context[Any], step: Step) -> None:
        raise NonRetryableError(f"hopeless at attempt {ctx.attempt}")

    async with workers(app):
        with pytest.raises(RunFailedError) as failed:
            await (await handler.start()).result()
    assert (failed.value.name, failed.value.message) == ("NonRetryableError", "hopeless at attempt 0")


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (ValueError("never right"), 1),
        (ExceptionGroup("two", [ValueError("a"), NonRetryableError("b")]), 1),
        (ApplicationError("never right", type="ValueError"), 1),
        (UnicodeError("a subclass, whose name is another"), 2),
        (ExceptionGroup("two", [ValueError("a"), KeyError("b")]), 2),
    ],
    ids=repr,
)
async def test_the_non_retryable_error_types_of_a_retry_policy_hold_for_the_body(
    app: steporal.Client, workers: Workers, error: Exception, attempts: int
) -> None:
    policy = RetryPolicy(initial_interval=timedelta(milliseconds=1), non_retryable_error_types=["ValueError"])
    entered: set[int] = set()

    @app.workflow(id="body", retry=policy, max_attempts=2)
    async def handler(ctx: Context[Any], step: Step) -> None:
        entered.add(ctx.attempt)
        raise error

    async with workers(app):
        with pytest.raises(RunFailedError):
            await (await handler.start()).result()
    assert entered == set(range(attempts))


async def test_a_subclass_of_a_non_retryable_error_is_one(app: steporal.Client, workers: Workers) -> None:
    class OutOfStock(NonRetryableError):
        pass

    @app.workflow(id="body")
    async def handler(ctx: Context[Any], step: Step) -> None:
        raise OutOfStock(f"attempt {ctx.attempt}")

    async with workers(app):
        with pytest.raises(RunFailedError) as failed:
            await (await handler.start()).result()
    assert (failed.value.name, failed.value.message) == ("OutOfStock", "attempt 0")


@pytest.mark.parametrize("as_datetime", [False, True])
async def test_retry_after_in_the_body_sets_the_time_of_the_next_attempt(
    app: steporal.Client, workers: Workers, as_datetime: bool
) -> None:
    @app.workflow(id="body", retry=RetryPolicy(initial_interval=timedelta(hours=1)))
    async def handler(ctx: Context[Any], step: Step) -> float:
        if ctx.attempt == 0:
            when: Any = ctx.now() + timedelta(milliseconds=40) if as_datetime else "40ms"
            raise RetryAfterError("busy", when)
        return (ctx.now() - ctx.input.time).total_seconds()

    async with workers(app):
        assert await (await handler.start()).result() >= 0.04


async def test_the_last_retry_after_of_a_body_fails_the_run(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="body", max_attempts=1)
    async def handler(ctx: Context[Any], step: Step) -> None:
        raise RetryAfterError("busy", "1h")

    async with workers(app):
        with pytest.raises(RunFailedError) as failed:
            await (await handler.start()).result()
    assert (failed.value.name, failed.value.message) == ("RetryAfterError", "busy")


async def test_an_uncaught_step_error_fails_the_run_at_once(app: steporal.Client, workers: Workers) -> None:
    attempts = []

    @app.workflow(id="body")
    async def handler(ctx: Context[Any], step: Step) -> None:
        def fail() -> None:
            attempts.append("step")
            raise ValueError("no card")

        await step.run("charge", fail, max_attempts=2)

    async with workers(app):
        with pytest.raises(RunFailedError) as failed:
            await (await handler.start()).result()
    assert failed.value.name == "StepError"
    assert failed.value.message == "step 'charge' failed after 2 attempts: ValueError: no card"
    assert attempts == ["step", "step"]


async def test_another_error_raised_from_a_step_error_is_the_bodys_own(app: steporal.Client, workers: Workers) -> None:
    attempts = []

    @app.workflow(id="body", max_attempts=3)
    async def handler(ctx: Context[Any], step: Step) -> None:
        def fail() -> None:
            attempts.append("step")
            raise NonRetryableError("no card")

        try:
            await step.run("charge", fail)
        except StepError as err:
            raise RuntimeError(f"attempt {ctx.attempt}") from err

    async with workers(app):
        with pytest.raises(RunFailedError, match="attempt 2"):
            await (await handler.start()).result()
    assert attempts == ["step"], "a failed step is in the memo, too"


async def test_a_step_in_flight_is_joined_by_the_next_attempt(app: steporal.Client, workers: Workers) -> None:
    calls = []
    body_raised = asyncio.Event()

    @app.workflow(id="body")
    async def handler(ctx: Context[Any], step: Step) -> str:
        async def slow() -> str:
            calls.append("slow")
            await body_raised.wait()
            return "joined"

        task = asyncio.create_task(step.run("slow", slow))
        if ctx.attempt == 0:
            await step.sleep("a moment", 1)  # the slow step is scheduled by now
            raise RuntimeError("while a step is in flight")
        await step.run("release", lambda: body_raised.set())
        return await task

    async with workers(app):
        assert await (await handler.start()).result() == "joined"
    assert calls == ["slow"]


async def test_a_sleep_in_flight_keeps_its_deadline_over_attempts(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="body")
    async def handler(ctx: Context[Any], step: Step) -> None:
        nap = asyncio.create_task(step.sleep("nap", "60ms"))
        if ctx.attempt < 2:
            await asyncio.sleep(0.01)
            raise RuntimeError("while asleep")
        await nap

    async with workers(app):
        run = await handler.start()
        await run.result()
        events = (await run.temporal.fetch_history()).events
    naps = [e for e in events if e.user_metadata.summary.data == b'"nap"']
    assert len(naps) == 1


async def test_what_a_closed_attempt_left_behind_schedules_nothing(app: steporal.Client, workers: Workers) -> None:
    started = []

    @app.workflow(id="body")
    async def handler(ctx: Context[Any], step: Step) -> str:
        attempt = ctx.attempt

        async def background() -> None:
            await asyncio.sleep(0.02)
            await step.run(f"from attempt {attempt}", lambda: started.append(attempt))

        task = asyncio.create_task(background())
        if attempt == 0:
            raise RuntimeError("leaves a task behind")
        await task
        return "done"

    async with workers(app):
        assert await (await handler.start()).result() == "done"
    assert started == [1]


async def test_the_backoff_doubles(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="body", retry=RetryPolicy(initial_interval=timedelta(milliseconds=10)))
    async def handler(ctx: Context[Any], step: Step) -> None:
        raise RuntimeError("again")

    async with workers(app):
        run = await handler.start()
        with pytest.raises(RunFailedError):
            await run.result()
        events = (await run.temporal.fetch_history()).events
    waits = [e.timer_started_event_attributes.start_to_fire_timeout.ToMilliseconds() for e in events]
    assert [wait for wait in waits if wait] == [10, 20, 40]


async def test_the_default_backoff_starts_at_a_second(workers: Workers, app: steporal.Client) -> None:
    patient = steporal.Client(app.id)
    assert patient.app.retry.initial_interval == timedelta(seconds=1)
    assert patient.app.retry.backoff_coefficient == 2
    assert patient.app.retry.maximum_interval == timedelta(minutes=5)


async def test_a_group_of_the_bodys_own_errors_is_retried(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="body")
    async def handler(ctx: Context[Any], step: Step) -> int:
        if ctx.attempt == 0:
            raise ExceptionGroup("two", [ValueError("a"), KeyError("b")])
        return ctx.attempt

    async with workers(app):
        assert await (await handler.start()).result() == 1


async def test_an_error_with_another_cause_keeps_it(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="body", max_attempts=1)
    async def handler(ctx: Context[Any], step: Step) -> None:
        try:
            os.environ["MISSING"]
        except KeyError as err:
            raise LookupError("no such order") from err

    async with workers(app):
        with pytest.raises(RunFailedError) as failed:
            await (await handler.start()).result()
    assert failed.value.name == "LookupError"
    assert "no such order" in failed.value.message
    cause = failed.value.__cause__
    assert cause is not None
    assert "MISSING" in str(getattr(cause, "cause", None).__cause__)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ("soon", "is 'soon'; it takes a timedelta"),
        (-1, "is -1, which is negative"),
        (1.5, "is 1.5 (float)"),
        (None, "is None (NoneType)"),
        (True, "is True (bool)"),
        (timedelta(days=366 * 101), "the maximum is a century"),
        (datetime(2026, 1, 1), "which is naive"),
    ],
)
def test_a_retry_after_that_cannot_be_is_refused_when_it_is_made(when: Any, says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^retry_after of RetryAfterError is") as refused:
        RetryAfterError("busy", when)
    assert says in str(refused.value)


def test_retry_after_is_never_in_the_past() -> None:
    now = datetime.now(UTC)
    assert RetryAfterError("x", now - timedelta(hours=1)).delay(now) == timedelta(0)
    assert RetryAfterError("x", 1500).delay(now) == timedelta(seconds=1.5)
