"""How a step fails, and what its caller sees."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from recording import Workers

import steporal
from steporal import Context, NonRetryableError, RetryAfterError, RetryPolicy, RunFailedError, Step, StepError


async def test_a_step_that_raises_is_tried_again(app: steporal.Client, workers: Workers) -> None:
    calls = []

    @app.workflow(id="flaky")
    async def handler(ctx: Context[Any], step: Step) -> int:
        def flaky() -> int:
            calls.append(ctx.attempt)
            if len(calls) < 3:
                raise ConnectionError("reset")
            return len(calls)

        return await step.run("flaky", flaky)

    async with workers(app):
        assert await (await handler.start()).result() == 3
    assert calls == [0, 1, 2]


@pytest.mark.parametrize("local", [False, True])
async def test_a_step_error_says_which_step_what_and_where(app: steporal.Client, workers: Workers, local: bool) -> None:
    @app.workflow(id="failing")
    async def handler(ctx: Context[Any], step: Step) -> dict[str, Any]:
        def charge() -> None:
            raise ValueError("no such card")

        try:
            await step.run("charge", charge, local=local)
        except StepError as err:
            return {
                "step_id": err.step_id,
                "name": err.name,
                "message": err.message,
                "attempts": err.attempts,
                "text": str(err),
                "stack": err.stack,
                "cause": type(err.cause).__name__,
            }
        return {}

    async with workers(app):
        error = await (await handler.start()).result()
    stack = error.pop("stack")
    assert "in charge" in stack
    assert "test_step_errors.py" in stack
    assert "steporal/activities.py" not in stack
    assert error == {
        "step_id": "charge",
        "name": "ValueError",
        "message": "no such card",
        "attempts": 4,
        "text": "step 'charge' failed after 4 attempts: ValueError: no such card",
        "cause": "ApplicationError",
    }


@pytest.mark.parametrize("local", [False, True])
async def test_a_step_that_raises_a_cancelled_error_of_its_own_fails_as_with_any_other(
    app: steporal.Client, workers: Workers, local: bool
) -> None:
    @app.workflow(id="cancelling")
    async def handler(ctx: Context[Any], step: Step) -> list[Any]:
        async def cancels_a_task_of_its_own() -> None:
            task = asyncio.create_task(asyncio.sleep(60))
            task.cancel("no longer needed")
            await task

        def raises() -> None:
            raise asyncio.CancelledError("in a thread")

        errors: list[Any] = []
        for function in (cancels_a_task_of_its_own, raises):
            try:
                await step.run("cancels", function, max_attempts=2, local=local)
            except StepError as err:
                errors.append([err.name, err.message, err.attempts, function.__name__ in err.stack])
        return errors

    async with workers(app):
        assert await (await handler.start()).result() == [
            ["CancelledError", "no longer needed", 2, True],
            ["CancelledError", "in a thread", 2, True],
        ]


async def test_a_non_retryable_error_in_a_step_is_a_step_error_at_once(app: steporal.Client, workers: Workers) -> None:
    calls = []

    @app.workflow(id="failing")
    async def handler(ctx: Context[Any], step: Step) -> list[Any]:
        def charge() -> None:
            calls.append("charge")
            raise NonRetryableError("stolen card")

        try:
            await step.run("charge", charge)
        except StepError as err:
            return [err.name, err.message, err.attempts]
        return []

    async with workers(app):
        assert await (await handler.start()).result() == ["NonRetryableError", "stolen card", 1]
    assert calls == ["charge"]


async def test_a_failed_step_is_memoised(app: steporal.Client, workers: Workers) -> None:
    calls = []

    @app.workflow(id="failing")
    async def handler(ctx: Context[Any], step: Step) -> str:
        def fail() -> None:
            calls.append("fail")
            raise NonRetryableError("no")

        try:
            await step.run("fail", fail)
        except StepError as err:
            if ctx.attempt == 0:
                raise RuntimeError("the body") from None
            return err.message
        return ""

    async with workers(app):
        assert await (await handler.start()).result() == "no"
    assert calls == ["fail"]


async def test_retry_after_in_a_step_sets_the_time_of_the_next_attempt(app: steporal.Client, workers: Workers) -> None:
    times: list[float] = []

    @app.workflow(id="busy", retry=RetryPolicy(initial_interval=timedelta(hours=1)))
    async def handler(ctx: Context[Any], step: Step) -> None:
        def busy() -> None:
            times.append(time.monotonic())
            if len(times) == 1:
                raise RetryAfterError("busy", "30ms")
            if len(times) == 2:
                raise RetryAfterError("busy", datetime.now(UTC) + timedelta(milliseconds=30))

        await step.run("busy", busy)

    async with workers(app):
        await (await handler.start()).result()
    assert times[1] - times[0] >= 0.03
    assert times[2] - times[1] >= 0.025


async def test_the_last_retry_after_of_a_step_is_a_step_error(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="busy")
    async def handler(ctx: Context[Any], step: Step) -> list[Any]:
        def busy() -> None:
            raise RetryAfterError("busy", 1)

        try:
            await step.run("busy", busy, max_attempts=2)
        except StepError as err:
            return [err.name, err.message, err.attempts]
        return []

    async with workers(app):
        assert await (await handler.start()).result() == ["RetryAfterError", "busy", 2]


async def test_a_step_that_ends_its_thread_does_not_end_the_worker(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="exit")
    async def handler(ctx: Context[Any], step: Step) -> list[str]:
        def leave() -> None:
            raise SystemExit(3)

        try:
            await step.run("leave", leave, max_attempts=1)
        except StepError as err:
            return [err.name, await step.run("next", lambda: "still here")]
        return []

    async with workers(app):
        assert await (await handler.start()).result() == ["SystemExit", "still here"]


async def test_max_attempts_of_a_step_counts_all_of_them(app: steporal.Client, workers: Workers) -> None:
    calls = []

    @app.workflow(id="counted", max_attempts=9)
    async def handler(ctx: Context[Any], step: Step) -> None:
        def fail() -> None:
            calls.append("call")
            raise ValueError("no")

        await step.run("once", fail, max_attempts=1)

    async with workers(app):
        with pytest.raises(RunFailedError, match="after 1 attempt: ValueError: no"):
            await (await handler.start()).result()
    assert calls == ["call"]


async def test_the_retry_policy_of_a_step_goes_before_the_workflows(app: steporal.Client, workers: Workers) -> None:
    calls = []

    @app.workflow(id="policy", retry=RetryPolicy(initial_interval=timedelta(hours=1)))
    async def handler(ctx: Context[Any], step: Step) -> int:
        def flaky() -> int:
            calls.append("call")
            if len(calls) < 3:
                raise ValueError("no")
            return len(calls)

        return await step.run("flaky", flaky, retry=RetryPolicy(initial_interval=timedelta(milliseconds=1)))

    async with workers(app):
        assert await (await handler.start()).result() == 3


@pytest.mark.parametrize("local", [False, True])
async def test_an_attempt_over_its_timeout_fails(app: steporal.Client, workers: Workers, local: bool) -> None:
    @app.workflow(id="slow")
    async def handler(ctx: Context[Any], step: Step) -> list[Any]:
        async def slow() -> None:
            await asyncio.sleep(60)

        try:
            await step.run("slow", slow, timeout="20ms", max_attempts=1, local=local)
        except StepError as err:
            return [err.name, err.message, err.step_id]
        return []

    async with workers(app):
        expected = ["TimeoutError", "an attempt took longer than the step's timeout", "slow"]
        assert await (await handler.start()).result() == expected


async def test_an_attempt_over_its_timeout_is_tried_again(app: steporal.Client, workers: Workers) -> None:
    calls = []

    @app.workflow(id="slow")
    async def handler(ctx: Context[Any], step: Step) -> str:
        async def slow_at_first() -> str:
            calls.append("call")
            if len(calls) == 1:
                await asyncio.sleep(60)
            return "in time"

        return await step.run("slow", slow_at_first, timeout="100ms")

    async with workers(app):
        assert await (await handler.start()).result() == "in time"


async def test_a_local_step_runs_without_an_activity_task(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="local")
    async def handler(ctx: Context[Any], step: Step) -> list[int]:
        return [await step.run("add", lambda: n + 1, local=True) for n in range(3)]

    async with workers(app):
        run = await handler.start()
        assert await run.result() == [1, 2, 3]
        events = (await run.temporal.fetch_history()).events
    assert not any(e.HasField("activity_task_scheduled_event_attributes") for e in events)
    assert sum(e.HasField("marker_recorded_event_attributes") for e in events) == 3


async def test_a_step_runs_on_another_task_queue(app: steporal.Client, workers: Workers) -> None:
    queue = f"{app.task_queue} gpu"

    @app.workflow(id="queues")
    async def handler(ctx: Context[Any], step: Step) -> list[str]:
        def where() -> str:
            from temporalio import activity

            return activity.info().task_queue

        return [await step.run("here", where), await step.run("there", where, task_queue=queue)]

    async with workers(app), workers(app, task_queue=queue):
        assert await (await handler.start()).result() == [app.task_queue, queue]


async def test_a_local_step_takes_no_task_queue(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="queues")
    async def handler(ctx: Context[Any], step: Step) -> None:
        await step.run("both", lambda: None, local=True, task_queue="gpu")

    async with workers(app):
        with pytest.raises(RunFailedError, match="step 'both': local=True") as failed:
            await (await handler.start()).result()
    assert failed.value.name == "InvalidArgumentError"


async def test_a_run_that_is_terminated_says_why(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="terminated")
    async def handler(ctx: Context[Any], step: Step) -> None:
        await step.sleep("for ever", "300d")

    async with workers(app):
        run = await handler.start()
        await run.temporal.terminate(reason="no longer wanted")
        with pytest.raises(RunFailedError, match="no longer wanted") as failed:
            await run.result()
    assert failed.value.name == "TerminatedError"
