"""``client.get_run``: a run that was started before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from recording import Workers

import steporal
from steporal import Context, RunNotFoundError, Step, event_trigger

pytestmark = pytest.mark.outside_runs


async def test_a_run_with_an_id_of_its_own_is_found_with_its_true_ids(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="order")
    async def order(ctx: Context[Any], step: Step) -> list[str]:
        return [ctx.run_id, ctx.input.id]

    async with workers(app):
        for id in ("order A-1", "order/A-1", None):
            started = await order.start(id=None if id is None else f"{id} {app.id}")
            found = await app.get_run(started.workflow_id, order)
            assert (found.run_id, found.event_id) == (started.run_id, started.event_id)
            assert await found.result() == [found.run_id, found.event_id]


async def test_a_run_that_an_event_started_is_found_with_the_events_id(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="paid", triggers=[event_trigger(f"{app.id}.paid")])
    async def paid(ctx: Context[Any], step: Step) -> str:
        return ctx.run_id

    async with workers(app):
        sent = await app.send_event({"name": f"{app.id}.paid", "id": "with/a/slash"})
        found = await app.get_run(f"{app.id}/paid/{sent.ids[0]}", paid)
        assert found.event_id == "with/a/slash"
        assert await found.result() == found.run_id


async def test_a_run_that_has_continued_as_new_keeps_its_ids(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="parks", ext=steporal.WorkflowExt(park_after="1s"))
    async def parks(ctx: Context[Any], step: Step) -> str:
        await step.wait_for_signal("wait", signal=f"{app.id}/go", timeout="1h")
        return ctx.run_id

    async with workers(app):
        started = await parks.start(id=f"parked {app.id}")
        while (await app.temporal.get_workflow_handle(started.workflow_id).describe()).run_id == started.run_id:
            await asyncio.sleep(0.05)
        found = await app.get_run(started.workflow_id, parks)
        assert (found.run_id, found.event_id) == (started.run_id, started.event_id)
        await app.send_signal(f"{app.id}/go")
        assert await found.result() == started.run_id


async def test_a_run_that_there_is_not_is_an_error_of_ours(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="order")
    async def order(ctx: Context[Any], step: Step) -> None: ...

    async with workers(app):
        with pytest.raises(RunNotFoundError, match="no run has the workflow id 'order/nobody'"):
            await app.get_run("order/nobody", order)


NO_IDS = ["", "  ", None, 3, b"order", [], "\ud800", "a\0b", "x" * 1_001]


@pytest.mark.parametrize("workflow_id", NO_IDS, ids=range(len(NO_IDS)))
async def test_an_id_that_cannot_be_is_refused_before_the_client_connects(workflow_id: Any) -> None:
    offline = steporal.Client("offline")
    with pytest.raises(steporal.InvalidArgumentError, match=r"^workflow_id is "):
        await offline.get_run(workflow_id)


@pytest.mark.parametrize("id", [*NO_IDS[:2], *NO_IDS[3:], "x" * 256], ids=range(len(NO_IDS)))
async def test_an_id_to_start_with_that_cannot_be_is_refused_before_the_client_connects(id: Any) -> None:
    offline = steporal.Client("offline")

    @offline.workflow(id="order")
    async def order(ctx: Context[Any], step: Step) -> None: ...

    with pytest.raises(steporal.InvalidArgumentError, match=r"^id is "):
        await offline.start_workflow(order, id=id)
    with pytest.raises(steporal.InvalidArgumentError, match=r"^id is "):
        await order.start(id=id)
