"""What Temporal's UI shows of a run: what it waits for, and what has started it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from recording import Workers
from temporalio.api.sdk.v1 import WorkflowMetadata

import steporal
from steporal import Context, Step, WorkflowExt, event_trigger


async def details_of(run: steporal.Run[Any], text: str) -> str:
    """The current details of a run, as soon as they have a text."""
    async with asyncio.timeout(20):
        while True:
            handle = run._client.get_workflow_handle(run.workflow_id)
            metadata = await handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
            if text in metadata.current_details:
                return metadata.current_details
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("park_after", ["never", "1s"])
async def test_current_details_say_what_a_run_waits_for(
    app: steporal.Client, workers: Workers, park_after: Any
) -> None:
    async def work() -> None:
        await asyncio.Event().wait()

    @app.workflow(id="child", ext=WorkflowExt(park_after="never"))
    async def child(ctx: Context[Any], step: Step) -> Any:
        await step.wait_for_signal("go", signal=f"{app.id}.go", timeout="1h")

    @app.workflow(id="waits", triggers=[event_trigger(f"{app.id}.begin")], ext=WorkflowExt(park_after=park_after))
    async def waits(ctx: Context[Any], step: Step) -> Any:
        listener = await step.ext.listen("listen", event="order.updated", timeout="1d")
        if park_after == "never":
            working = asyncio.create_task(step.run("work", lambda: work()))
        await asyncio.gather(
            step.sleep("nap", "1h"),
            step.ext.wait_for_event("paid", event=["order.paid", "order.*"], timeout="1h"),
            step.wait_for_signal("approval", signal="approval `A-1`", timeout="1h"),
            step.invoke_workflow("child", workflow=child),
            listener.next("update"),
        )
        await working

    async with workers(app):
        (event_id,) = (await app.send_event({"name": f"{app.id}.begin", "ts": 1_700_000_000_000})).ids
        run = await app.get_run(f"{app.id}/waits/{event_id}")
        details = await details_of(run, "Parked" if park_after == "1s" else "/child/")
        lines = details.splitlines()
        assert lines[0] == ("Parked. It waits for:" if park_after == "1s" else "It waits for:")
        for line in (
            "- step `nap` sleeps, until 20",
            "- step `paid` waits for event `order.paid` or `order.*`, until 20",
            "- step `approval` waits for signal `approval 'A-1'`, until 20",
            f"- step `child` waits for run `{app.id}/child/",
            "- step `update` waits for event `order.updated`, until 20",
        ):
            assert any(said.startswith(line) for said in lines), (line, details)
        assert lines[-1] == (f"Started by event `{app.id}.begin`, id `{event_id}`, of 2023-11-14 22:13:20 UTC")
        described = await run.temporal.describe()
        if park_after == "never":  # Temporal forgets it when a run continues as new
            assert await described.static_summary() == f"started by {app.id}.begin"
            assert await described.static_details() == lines[-1]
        await run.temporal.terminate()
        async for open_run in app.temporal.list_workflows(f"TaskQueue = '{app.id}' AND ExecutionStatus = 'Running'"):
            await app.temporal.get_workflow_handle(open_run.id).terminate()


async def test_details_that_a_body_sets_stay(app: steporal.Client, workers: Workers) -> None:
    from temporalio import workflow as temporal_workflow

    @app.workflow(id="says")
    async def says(ctx: Context[Any], step: Step) -> Any:
        temporal_workflow.set_current_details("nearly done")
        await step.wait_for_signal("go", signal=app.id, timeout="1h")

    async with workers(app):
        run = await says.start(None)
        details = await details_of(run, "waits for signal")
        assert details.startswith("nearly done\n\nIt waits for:")
        await app.send_signal(app.id)
        await run.result()
