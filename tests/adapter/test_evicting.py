"""A worker can always remove a run from its cache, whatever the body does when it is cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from recording import Workers
from waiting import until_waiting

import steporal
from steporal import Context, Step


@pytest.mark.needs_cache("without, each workflow task removes the run")
async def test_a_worker_stops_though_a_body_goes_on_waiting_when_it_is_cancelled(
    app: steporal.Client, workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    cancelled: list[str] = []

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        try:
            return await step.sleep("long", "1h")
        except asyncio.CancelledError:
            cancelled.append("once")
            await asyncio.Event().wait()

    @app.workflow(id="other")
    async def other(ctx: Context[Any], step: Step) -> None:
        await step.run("work", lambda: None)

    async with workers(app, max_cached_workflows=1):
        run = await waits.start()
        await until_waiting(run)
        await (await other.start()).result()
    assert cancelled
    assert "eviction" not in caplog.text
    await run.temporal.terminate()
    workers.drop(run.workflow_id)
