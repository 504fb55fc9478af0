"""Producers that were written for Inngest: its own SDKs send through the gateway, and know nothing of it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import inngest
import pytest
import temporalio.client
from gateway import HOST, Forgetful, count, gateway_of, greeting, until_started
from recording import Workers

import steporal
from steporal_workers.gateway.app import create_app
from steporal_workers.gateway.keys import Keys, Ring
from steporal_workers.gateway.server import serving

BATCH = 100
NODE_PRODUCER = Path(__file__).parents[1] / "producers"
KEYS = Keys(event=Ring.of(["event-key"]), api=Ring.of(["api-key"]))


@asynccontextmanager
async def producer(url: object, event_key: str = "event-key") -> AsyncIterator[inngest.Inngest]:
    """Inngest's Python client, of which only the base URL is another."""
    client = inngest.Inngest(app_id="shop", event_key=event_key, event_api_base_url=str(url), api_base_url=str(url))
    yield client
    connections: Any = client._http_client  # it leaves them open for ever
    await connections._http_client.aclose()
    connections._http_client_sync.close()


async def sent_async(client: inngest.Inngest, events: list[inngest.Event]) -> list[str]:
    return await client.send(events)


async def sent_sync(client: inngest.Inngest, events: list[inngest.Event]) -> list[str]:
    return await asyncio.to_thread(client.send_sync, events)


BOTH = pytest.mark.parametrize("send", [sent_async, sent_sync], ids=["send", "send_sync"])
SendEvents = Callable[[inngest.Inngest, list[inngest.Event]], Any]


@BOTH
async def test_inngests_python_client_starts_runs(
    app: steporal.Client, workers: Workers, temporal: temporalio.client.Client, send: SendEvents
) -> None:
    workflow_id, name = greeting(app)
    async with workers(app), gateway_of(app, KEYS) as http, producer(http.base_url) as client:
        ids = await send(client, [inngest.Event(name=name, data={"who": "Ada"})])
        assert await temporal.get_workflow_handle(f"{app.id}/{workflow_id}/{ids[0]}").result() == {"who": "Ada"}


async def test_a_batch_of_inngests_python_client_starts_a_run_of_each(
    app: steporal.Client, workers: Workers, temporal: temporalio.client.Client
) -> None:
    workflow_id, name = greeting(app)
    async with workers(app), gateway_of(app, KEYS) as http, producer(http.base_url) as client:
        ids = await client.send([inngest.Event(name=name, data={"n": n}) for n in range(BATCH)])
        assert len(set(ids)) == BATCH
        handles = [temporal.get_workflow_handle(f"{app.id}/{workflow_id}/{id}") for id in ids]
        assert await asyncio.gather(*(handle.result() for handle in handles)) == [{"n": n} for n in range(BATCH)]


@BOTH
async def test_a_retry_of_inngests_python_client_starts_nothing_twice(
    app: steporal.Client, workers: Workers, temporal: temporalio.client.Client, send: SendEvents
) -> None:
    workflow_id, name = greeting(app)
    async with workers(app):
        forgetful = Forgetful(create_app(app, KEYS), losses=2)
        async with serving(forgetful, HOST, 0) as url, producer(url) as client:
            ids = await send(client, [inngest.Event(name=name, data={"n": n}) for n in range(20)])
        assert forgetful.lost == 2
        await until_started(temporal, workflow_id, 20)
        for n, id in enumerate(ids):
            assert await temporal.get_workflow_handle(f"{app.id}/{workflow_id}/{id}").result() == {"n": n}
    assert await count(temporal, workflow_id) == 20


async def test_inngests_python_client_is_told_what_is_wrong(
    app: steporal.Client, temporal: temporalio.client.Client
) -> None:
    app.temporal = temporal
    async with gateway_of(app, KEYS) as http, producer(http.base_url) as client:
        with pytest.raises(Exception, match="names that start with 'inngest/' are reserved"):
            await client.send(inngest.Event(name="inngest/x"))
    async with gateway_of(app, KEYS) as http, producer(http.base_url, "another-key") as client:
        with pytest.raises(Exception, match="Event key not found"):
            await client.send(inngest.Event(name="order.placed"))


# --- the SDK for JavaScript ----------------------------------------------------------------------------------------


@pytest.fixture
def node() -> str:
    """Node.js, with Inngest's npm package beside the producer."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("Node.js is not installed: Inngest's npm package cannot be tried")
    if not (NODE_PRODUCER / "node_modules" / "inngest").exists():
        pytest.skip("Inngest's npm package is not installed: make tests/producers/node_modules")
    return found


async def javascript(node: str, url: object, events: object, **variables: str) -> tuple[int, str, str]:
    """Send events with Inngest's SDK for JavaScript; its status, output and errors."""
    process = await asyncio.create_subprocess_exec(
        node,
        "send.js",
        cwd=NODE_PRODUCER,
        env={**os.environ, "INNGEST_BASE_URL": str(url), **variables},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(json.dumps(events).encode())
    return process.returncode or 0, out.decode(), err.decode()


async def test_inngests_javascript_client_starts_runs(
    app: steporal.Client, workers: Workers, temporal: temporalio.client.Client, node: str
) -> None:
    workflow_id, name = greeting(app)
    async with workers(app), gateway_of(app, KEYS) as http:
        events = [{"name": name, "data": {"n": n}} for n in range(3)]
        status, out, err = await javascript(node, http.base_url, events, INNGEST_EVENT_KEY="event-key")
        assert status == 0, err
        for n, id in enumerate(json.loads(out)):
            assert await temporal.get_workflow_handle(f"{app.id}/{workflow_id}/{id}").result() == {"n": n}


async def test_inngests_javascript_client_in_dev_mode_needs_no_key(
    app: steporal.Client, workers: Workers, temporal: temporalio.client.Client, node: str
) -> None:
    workflow_id, name = greeting(app)
    async with workers(app), gateway_of(app) as http:
        status, out, err = await javascript(node, "", {"name": name}, INNGEST_DEV=str(http.base_url))
        assert status == 0, err
        [event_id] = json.loads(out)
        assert await temporal.get_workflow_handle(f"{app.id}/{workflow_id}/{event_id}").result() == {}


async def test_a_retry_of_inngests_javascript_client_starts_nothing_twice(
    app: steporal.Client, workers: Workers, temporal: temporalio.client.Client, node: str
) -> None:
    workflow_id, name = greeting(app)
    async with workers(app):
        forgetful = Forgetful(create_app(app, KEYS), losses=1)
        async with serving(forgetful, HOST, 0) as url:
            events = [{"name": name, "data": {"n": n}} for n in range(5)]
            status, out, err = await javascript(node, url, events, INNGEST_EVENT_KEY="event-key")
        assert status == 0, err
        await until_started(temporal, workflow_id, 5)
        for n, id in enumerate(json.loads(out)):
            assert await temporal.get_workflow_handle(f"{app.id}/{workflow_id}/{id}").result() == {"n": n}
    assert await count(temporal, workflow_id) == 5


async def test_inngests_javascript_client_is_told_what_is_wrong(
    app: steporal.Client, temporal: temporalio.client.Client, node: str
) -> None:
    app.temporal = temporal
    async with gateway_of(app, KEYS) as http:
        event = {"name": "order.placed"}
        status, _, err = await javascript(node, http.base_url, event, INNGEST_EVENT_KEY="another-key")
    assert status != 0
    assert "Event key not found" in err
