"""Namespaces as environments: nothing of one is seen in another, also on one server and one connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import temporalio.client
from google.protobuf.duration_pb2 import Duration
from recording import Workers
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.service import RPCError
from waiting import until_waiting

import steporal
from steporal import Context, Step, event_trigger
from steporal.routing.catalog.reading import Catalog
from steporal_workers.devserver import dev_server


@pytest.fixture
async def environments() -> AsyncIterator[tuple[temporalio.client.Client, temporalio.client.Client]]:
    """Clients of two namespaces, which share a connection."""
    async with dev_server(ui=False) as server:
        request = RegisterNamespaceRequest(namespace="staging")
        request.workflow_execution_retention_period.CopyFrom(Duration(seconds=86_400))
        await server.client.workflow_service.register_namespace(request)
        config = server.client.config()
        config["namespace"] = "staging"
        staging = temporalio.client.Client(**config)
        async with asyncio.timeout(30):
            while True:
                try:
                    await staging.count_workflows()
                    break
                except RPCError:  # the server looks for new ones every now and then
                    await asyncio.sleep(0.1)
        yield server.client, staging


def shop() -> steporal.Client:
    """An app as every environment has it."""
    app = steporal.Client("shop")

    @app.workflow(id="order", triggers=[event_trigger("order.placed")])
    async def order(ctx: Context[Any], step: Step) -> Any:
        paid, signal = await asyncio.gather(
            step.ext.wait_for_event("paid", event="order.paid", timeout="1h"),
            step.wait_for_signal("approved", signal="approval/1", timeout="1h"),
        )
        return [paid and paid.data, signal and signal.data]

    return app


async def test_what_is_sent_in_one_is_not_heard_in_another(
    environments: tuple[temporalio.client.Client, temporalio.client.Client],
) -> None:
    apps, runs = [shop(), shop()], []
    async with AsyncExitStack() as stack:
        for app, temporal in zip(apps, environments, strict=True):
            await stack.enter_async_context(Workers(temporal, 1000)(app))
            await app.send_event({"name": "order.placed", "id": "1"})  # the same id: they do not know of each other
            run = await app.get_run(f"{app.id}/order/1")
            await until_waiting(run, timers=2)
            runs.append(run)
        production, staging = apps
        await production.send_event({"name": "order.paid", "data": {"in": "production"}})
        assert (await production.send_signal("approval/1", "production")).run_id == (
            await runs[0].temporal.describe()
        ).run_id
        assert (await production.send_signal("approval/1", "again")).run_id is None, (
            "in the other one a run waits for it"
        )
        assert await runs[0].result() == [{"in": "production"}, "production"]

        await staging.send_event({"name": "order.paid", "data": {"in": "staging"}})
        assert (await staging.send_signal("approval/1", "staging")).run_id is not None
        assert await runs[1].result() == [{"in": "staging"}, "staging"]

        await production.send_event({"name": "order.placed", "id": "2"})
        for temporal, expected in zip(environments, (2, 1), strict=True):
            async with asyncio.timeout(30):
                while (await temporal.count_workflows("WorkflowType = 'order'")).count != expected:
                    await asyncio.sleep(0.05)
        await steporal.Client("shop", temporal=environments[0]).sync()  # without workflows: it is forgotten
        catalogs = [(await Catalog(temporal).read_all()).apps for temporal in environments]
        assert [list(apps) for apps in catalogs] == [[], ["shop"]]
