"""Sleeps, as Temporal timers; days of them, with the time skipped."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import temporalio.client
from recording import Workers

import steporal
from steporal import Context, RunFailedError, Step

SECONDS = timedelta(seconds=60)


async def test_a_sleep_of_days_takes_days_of_the_runs_time(
    app: steporal.Client, workers: Workers, skipping: temporalio.client.Client
) -> None:
    @app.workflow(id="sleeper")
    async def handler(ctx: Context[Any], step: Step) -> float:
        start = ctx.now()
        await step.sleep("three days", "3d")
        return (ctx.now() - start).total_seconds()

    async with workers(app):
        app.temporal = skipping
        slept = await (await handler.start()).result()
    assert timedelta(seconds=slept) - timedelta(days=3) < SECONDS


async def test_a_sleep_until_a_day_of_next_month_ends_on_that_day(
    app: steporal.Client, workers: Workers, skipping: temporalio.client.Client
) -> None:
    @app.workflow(id="sleeper")
    async def handler(ctx: Context[Any], step: Step) -> list[str]:
        start = ctx.now()
        await step.sleep_until("next month", start + timedelta(days=30))
        await step.ext.sleep_until("and a day", start + timedelta(days=31))
        return [start.isoformat(), ctx.now().isoformat()]

    async with workers(app):
        app.temporal = skipping
        start, end = map(datetime.fromisoformat, await (await handler.start()).result())
    assert timedelta(0) <= end - start - timedelta(days=31) < SECONDS


async def test_a_step_after_days_of_sleep_runs_on(
    app: steporal.Client, workers: Workers, skipping: temporalio.client.Client
) -> None:
    @app.workflow(id="reminder")
    async def handler(ctx: Context[Any], step: Step) -> list[str]:
        first = await step.run("welcome", lambda: "welcome")
        await step.sleep("a week", timedelta(weeks=1))
        return [first, await step.run("remind", lambda: "still there?")]

    async with workers(app):
        app.temporal = skipping
        assert await (await handler.start()).result() == ["welcome", "still there?"]


@pytest.mark.parametrize("duration", [timedelta(milliseconds=20), 20, "20ms", 0, "0s"])
async def test_a_duration_is_a_timedelta_milliseconds_or_text(
    app: steporal.Client, workers: Workers, duration: Any
) -> None:
    @app.workflow(id="nap")
    async def handler(ctx: Context[Any], step: Step) -> float:
        start = ctx.now()
        await step.sleep("nap", duration)
        return (ctx.now() - start).total_seconds()

    async with workers(app):
        slept = await (await handler.start()).result()
    assert slept >= (0.02 if duration in (20, "20ms", timedelta(milliseconds=20)) else 0)


async def test_a_sleep_until_the_past_returns_at_once(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="late")
    async def handler(ctx: Context[Any], step: Step) -> str:
        await step.sleep_until("long ago", datetime(2001, 1, 1, tzinfo=UTC))
        return "awake"

    async with workers(app):
        run = await handler.start()
        assert await run.result() == "awake"
        events = (await run.temporal.fetch_history()).events
    assert not any(e.HasField("timer_started_event_attributes") for e in events)


@pytest.mark.parametrize(
    ("duration", "accepted"),
    [
        (-1, "negative"),
        (timedelta(seconds=-1), "negative"),
        ("-1s", "-1s"),
        (1.5, "1.5"),
        (True, "True"),
        ("soon", "soon"),
        ("", "''"),
        (None, "None"),
        (datetime(2026, 1, 1), "naive"),
    ],
)
async def test_a_duration_that_is_none_fails_the_run_at_once(
    app: steporal.Client, workers: Workers, duration: Any, accepted: str
) -> None:
    @app.workflow(id="nap")
    async def handler(ctx: Context[Any], step: Step) -> None:
        await step.sleep("nap", duration)

    async with workers(app):
        with pytest.raises(RunFailedError, match="step 'nap'") as failed:
            await (await handler.start()).result()
    assert failed.value.name == "InvalidArgumentError"
    assert accepted in failed.value.message


@pytest.mark.parametrize("when", [datetime(2030, 1, 1), "2030-01-01", 5, None])
async def test_sleep_until_takes_an_aware_datetime_alone(app: steporal.Client, workers: Workers, when: Any) -> None:
    @app.workflow(id="nap")
    async def handler(ctx: Context[Any], step: Step) -> None:
        await step.sleep_until("nap", when)

    async with workers(app):
        with pytest.raises(RunFailedError, match=r"step 'nap'.*(aware|naive)") as failed:
            await (await handler.start()).result()
    assert failed.value.name == "InvalidArgumentError"
