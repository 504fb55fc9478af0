"""Search attributes: how runs are found in Temporal's visibility, in a namespace that has them and in one without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import temporalio.client
from recording import Workers
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, RemoveSearchAttributesRequest
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

import steporal
from steporal import Context, Step, cron_trigger, event_trigger
from steporal.observability import search_attributes
from steporal.observability.search_attributes import APP, EVENT_ID, EVENT_NAME, TYPES, WAITING_FOR, WORKFLOW
from steporal_workers.devserver import dev_server


@pytest.fixture(scope="module")
async def temporal() -> AsyncIterator[temporalio.client.Client]:
    """A client of a dev server whose namespace has the attributes."""
    async with dev_server(search_attributes=True) as server:
        yield server.client


async def register(temporal: temporalio.client.Client) -> None:
    types = {name: type.value for name, type in TYPES.items()}
    request = AddSearchAttributesRequest(namespace=temporal.namespace, search_attributes=types)
    await temporal.operator_service.add_search_attributes(request)
    async with asyncio.timeout(20):
        while await search_attributes.registered(temporal) | types != await search_attributes.registered(temporal):
            await asyncio.sleep(0.05)


async def remove(temporal: temporalio.client.Client) -> None:
    request = RemoveSearchAttributesRequest(namespace=temporal.namespace, search_attributes=list(TYPES))
    await temporal.operator_service.remove_search_attributes(request)


async def found(temporal: temporalio.client.Client, query: str, count: int = 1) -> list[dict[str, Any]]:
    """The attributes of the executions that a query finds, as soon as it finds so many."""
    async with asyncio.timeout(20):
        while True:
            runs = [run async for run in temporal.list_workflows(query)]
            if len(runs) >= count:
                return [
                    {pair.key.name: pair.value for pair in run.typed_search_attributes if pair.key.name in TYPES}
                    for run in runs
                ]
            await asyncio.sleep(0.05)


def echo(app: steporal.Client, *triggers: Any) -> steporal.Workflow[Any, Any]:
    @app.workflow(id=f"echo {app.id}", triggers=triggers)
    async def echo(ctx: Context[Any], step: Step) -> Any:
        return ctx.input.data

    return echo


async def test_a_run_is_found_by_its_app_workflow_and_event(app: steporal.Client, workers: Workers) -> None:
    workflow = echo(app, event_trigger("order.placed"))
    async with workers(app):
        (event_id,) = (await app.send_event({"name": "order.placed"})).ids
        run = await workflow.start(None)
        assert await run.result() is None
        sent = await found(app.temporal, f"SteporalApp = '{app.id}' AND SteporalEventName = 'order.placed'")
        started = await found(app.temporal, f"SteporalEventId = '{run.event_id}'")
    of_both = {APP.name: app.id, WORKFLOW.name: workflow.id}
    assert sent == [of_both | {EVENT_NAME.name: "order.placed", EVENT_ID.name: event_id}]
    assert started == [of_both | {EVENT_NAME.name: "inngest/function.invoked", EVENT_ID.name: run.event_id}]


async def test_ids_that_are_longer_than_temporal_takes_are_cut(app: steporal.Client, workers: Workers) -> None:
    echo(app, event_trigger("order.*"))
    name, ids = "order." + "x" * 500, ["i" * 390, "🫖" * 100]
    async with workers(app):
        for event_id in ids:
            await app.send_event({"name": name, "id": event_id})
            (attributes,) = await found(app.temporal, f"SteporalEventId = '{search_attributes.keyword(event_id)}'")
            assert name.startswith(attributes[EVENT_NAME.name])


async def test_a_parked_run_is_found_by_what_it_waits_for(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="child", ext=steporal.WorkflowExt(park_after="never"))
    async def child(ctx: Context[Any], step: Step) -> Any:
        return await step.wait_for_signal("go", signal=f"{app.id}.go", timeout="1h")

    @app.workflow(id="parent", ext=steporal.WorkflowExt(park_after="1s"))
    async def parent(ctx: Context[Any], step: Step) -> Any:
        await asyncio.gather(
            step.ext.wait_for_event("paid", event=["order.paid", f"{app.id}.*"], timeout="1h"),
            step.wait_for_signal("approval", signal=f"{app.id}.approved", timeout="1h"),
            step.invoke_workflow("child", workflow=child),
            step.sleep("nap", "2s"),
        )
        await step.run("work", lambda: None)
        return "done"

    query = f"SteporalApp = '{app.id}' AND ExecutionStatus = 'Running'"
    async with workers(app), asyncio.timeout(60):
        run = await parent.start(None)
        await found(app.temporal, f"{query} AND SteporalWaitingFor = 'event:order.paid'")
        (parked,) = await found(app.temporal, f"{query} AND SteporalWaitingFor IS NOT NULL")
        (of_child,) = await found(app.temporal, f"{query} AND SteporalWorkflow = 'child'")
        assert set(parked[WAITING_FOR.name]) - {"sleep:nap"} == {
            "event:order.paid",
            f"event:{app.id}.*",
            f"signal:{app.id}.approved",
            f"run:{app.id}/child/{of_child[EVENT_ID.name]}",
        }
        assert of_child[APP.name] == app.id  # the run that invokes it has attributes, so it has some too
        await app.send_event({"name": "order.paid"})
        for signal in ("go", "approved"):
            while (await app.send_signal(f"{app.id}.{signal}")).run_id is None:
                await asyncio.sleep(0.05)
        assert await run.result() == "done"
        assert (
            WAITING_FOR not in (await (await app.get_run(run.workflow_id)).temporal.describe()).typed_search_attributes
        )
        (ended,) = await found(app.temporal, f"SteporalEventId = '{run.event_id}' AND ExecutionStatus = 'Completed'")
        assert WAITING_FOR.name not in ended


async def test_a_run_of_a_schedule_gives_itself_the_attributes(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="tick", triggers=[cron_trigger("@every 1s")], ext=steporal.WorkflowExt(park_after="1s"))
    async def tick(ctx: Context[Any], step: Step) -> Any:
        await step.wait_for_signal("go", signal=ctx.run_id, timeout="1h")

    async with workers(app), asyncio.timeout(60):
        query = f"SteporalApp = '{app.id}' AND ExecutionStatus = 'Running'"
        (attributes, *_) = await found(app.temporal, f"{query} AND SteporalWaitingFor IS NOT NULL")
    assert attributes[WORKFLOW.name] == "tick"
    assert attributes[EVENT_NAME.name] == "inngest/scheduled.timer"
    assert attributes[EVENT_ID.name].startswith("cron-")
    async for run in app.temporal.list_workflows(query):
        await app.temporal.get_workflow_handle(run.id).terminate()


async def test_processes_notice_when_attributes_are_removed_and_registered_again(
    app: steporal.Client, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    ask = search_attributes.registered

    async def counted(temporal: temporalio.client.Client) -> Any:
        nonlocal asked
        asked += 1
        return await ask(temporal)

    monkeypatch.setattr(search_attributes, "registered", counted)
    workflow = echo(app, event_trigger("order.placed"), cron_trigger("@yearly"))
    config = workers.temporal.config()
    temporal = temporalio.client.Client(**config)  # a connection that has asked nothing yet
    app.temporal = temporal

    async def run_of(event: dict[str, Any]) -> TypedSearchAttributes:
        (event_id,) = (await app.send_event(event)).ids
        handle = temporal.get_workflow_handle(f"{workflow.app}/{workflow.id}/{event_id}")
        await handle.result()
        return (await handle.describe()).typed_search_attributes

    async with workers(app):
        app.temporal = temporal
        placed = {"name": "order.placed"}
        assert APP in await run_of(placed)
        await asyncio.gather(*(run_of(placed) for _ in range(20)))
        assert asked <= 2  # once for each of two connections
        await remove(temporal)
        try:
            assert APP not in await run_of(placed)
            assert await (await workflow.start(1)).result() == 1
            await app.sync()
            assert APP not in await run_of(placed)
        finally:
            await register(temporal)
        monkeypatch.setattr(search_attributes, "_namespaces", type(search_attributes._namespaces)())  # a minute later
        async with asyncio.timeout(20):
            while APP not in await run_of(placed):
                monkeypatch.setattr(search_attributes, "_namespaces", type(search_attributes._namespaces)())


@pytest.mark.parametrize("status", [RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED])
async def test_who_may_not_ask_starts_runs_without_them(
    app: steporal.Client, workers: Workers, status: RPCStatusCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(temporal: temporalio.client.Client) -> Any:
        raise RPCError("no", status, b"")

    monkeypatch.setattr(search_attributes, "registered", refused)
    monkeypatch.setattr(search_attributes, "_namespaces", type(search_attributes._namespaces)())
    workflow = echo(app)
    async with workers(app):
        run = await workflow.start(1)
        assert await run.result() == 1
        assert APP not in (await run.temporal.describe()).typed_search_attributes


def test_a_run_that_waits_for_a_thousand_things_is_found_by_the_first_of_them() -> None:
    has = TypedSearchAttributes([SearchAttributePair(APP, "a")])
    given = search_attributes.waiting_for(has, [f"event:order.{n:0240}" for n in range(1000)])
    assert len(given[WAITING_FOR]) == 5
    assert search_attributes.waiting_for(given, []) == has
