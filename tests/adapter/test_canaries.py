"""Where there are keys, each place in Temporal is encrypted, or is one that docs/security.md names."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import temporalio.client
from encrypting import with_keys
from google.protobuf.message import Message
from http_server import Reply, http_server
from pydantic import BaseModel
from recording import Workers
from temporalio.api.common.v1 import Payload
from waiting import until_waiting

import steporal
from steporal import Context, RunFailedError, Step, StepError, WorkflowExt, cron_trigger, event_trigger
from steporal.encryption import new_key
from steporal.values.encrypted import ENCODING
from steporal_workers.devserver import dev_server

CLEAR = {
    "clear-app",
    "clear-workflow",
    "clear-child",
    "clear-parked",
    "clear-cron",
    "clear-event-id",
    "clear-heard-name",
    "clear-signal-name",
    "clear-step-id",
    "clear-reason",
}
"""Ids and names, which Temporal works with: that they are found shows that all is read."""

OF_A_SHARD = re.compile(rb'"shard \d+ of 32 of the catalog: which workflows start on which event"')
"""The summary of a shard of the catalog, which holds what it is given as it is."""

PLACED = {"app", "generation", "field"}
"""What a shard is told: whose list, which one, and what this app has in it, encrypted."""

OF_LOCAL_ACTIVITIES = {
    *("seq", "attempt", "activity_id", "activity_type", "complete_time", "original_schedule_time", "backoff"),
    "activation_index",
}
"""What the SDK writes down of a local activity, in a marker: no codec is given it."""


class Strict(BaseModel):
    word: int


@pytest.fixture
async def plain() -> AsyncIterator[temporalio.client.Client]:
    """A client without keys, of a server of its own: the catalog, too, is encrypted."""
    async with dev_server(ui=False) as server:
        yield server.client


@pytest.fixture
def temporal(plain: temporalio.client.Client) -> temporalio.client.Client:
    return with_keys(plain, new_key())


@pytest.fixture
def app(temporal: temporalio.client.Client) -> steporal.Client:
    return steporal.Client("clear-app", temporal=temporal)


async def messages(plain: temporalio.client.Client) -> list[Message]:
    """All that Temporal has in a namespace, as who has no keys reads it."""
    found: list[Message] = []
    async for execution in plain.list_workflows():
        found.append(execution.raw_info)
        handle = plain.get_workflow_handle(execution.id, run_id=execution.run_id)
        found += [event async for event in handle.fetch_history_events()]
        found.append((await handle.describe()).raw_description)
    async for schedule in await plain.list_schedules():
        found.append((await plain.get_schedule_handle(schedule.id).describe()).raw_description)
    return found


def payloads(message: Message, path: str = "") -> Iterator[tuple[str, Payload]]:
    """All payloads in a message, each with the names of the two fields that it is in."""
    if isinstance(message, Payload):
        yield path, message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        inner = ".".join([*path.split(".")[-1:], field.name]).lstrip(".")
        if field.message_type.GetOptions().map_entry:
            values = [item for item in value.values() if isinstance(item, Message)]
        else:
            values = [value] if isinstance(value, Message) else value
        for each in values:
            yield from payloads(each, inner)


async def test_what_stands_in_the_clear_is_what_the_page_says(
    app: steporal.Client, workers: Workers, plain: temporalio.client.Client
) -> None:
    async def failed(ctx: Context[Any], step: Step) -> None:
        await step.run("clear-step-id", lambda: "sealed-failure-handler")

    @app.workflow(id="clear-child")
    async def child(ctx: Context[Any], step: Step) -> Any:
        return {"x": "sealed-child-result"}

    @app.workflow(id="clear-cron", triggers=[cron_trigger("0 9 1 1 *")])
    async def daily(ctx: Context[Any], step: Step) -> None: ...

    @app.workflow(id="clear-parked", ext=WorkflowExt(park_after="1s"))
    async def parked(ctx: Context[Any], step: Step) -> None:
        await step.run("clear-step-id", lambda: "sealed-parked-result")
        await step.ext.wait_for_event(
            "clear-step-id", event="clear-heard-name", if_exp="async.data.x == 'sealed-wait'", timeout="1h"
        )

    @app.workflow(id="clear-strict", input_schema=Strict, triggers=[event_trigger("clear-strict-name")])
    async def strict(ctx: Context[Strict], step: Step) -> None: ...

    @app.workflow(
        id="clear-workflow",
        triggers=[event_trigger("clear-event-name", if_exp="event.data.x != 'sealed-trigger'")],
        ext=WorkflowExt(on_failure=failed),
        max_attempts=1,
    )
    async def everything(ctx: Context[Any], step: Step) -> Any:
        captured = "sealed-captured"
        await step.run("clear-step-id", lambda: captured + " sealed-result")
        await step.run("clear-step-id", lambda: captured + " sealed-local-result", local=True)
        try:
            await step.run("clear-step-id", fail, max_attempts=2)
        except StepError:
            pass
        fetched = await step.ext.fetch(
            "clear-step-id",
            "POST",
            f"{ctx.input.data['url']}/sealed-path?q=sealed-query",
            headers={"x-a": "sealed-header"},
            params={"p": "sealed-parameter"},
            json={"x": "sealed-request"},
        )
        assert fetched.body == "sealed-response"
        await step.ext.send_event(
            "clear-step-id", {"name": "other", "data": {"x": "sealed-sent"}, "v": "sealed-version"}
        )
        await step.invoke_workflow("clear-step-id", workflow=child, data={"x": "sealed-invoked"})
        await step.wait_for_signal("clear-step-id", signal="clear-signal-name", timeout="1h")
        raise RuntimeError("sealed-run-error")

    def fail() -> None:
        raise ValueError("sealed-step-error")

    async with http_server() as server:
        server.default = Reply(200, b"sealed-response")
        app.event_sink("clear-event-name", f"{server.url}/sealed-sink", id="clear-sink", allow_private=True)
        async with workers(app):
            waits = await parked.start()
            data = {"x": "sealed-data", "url": server.url}
            await app.send_event({"name": "clear-event-name", "id": "clear-event-id", "data": data, "v": "sealed-v"})
            await app.send_event({"name": "clear-strict-name", "id": "strict", "data": {"word": "sealed-invalid"}})
            run = await app.get_run(f"{app.id}/clear-workflow/clear-event-id")
            async with asyncio.timeout(60):
                while (await app.send_signal("clear-signal-name", {"x": "sealed-signal"})).run_id is None:
                    await asyncio.sleep(0.05)
            for failing in (run, await app.get_run(f"{app.id}/clear-strict/strict")):
                with pytest.raises(RunFailedError):
                    await failing.result()
            await until_waiting(waits)
            await app.send_event({"name": "clear-heard-name", "data": {"x": "sealed-other"}})
            topic = plain.get_workflow_handle("steporal.topic/clear-heard-name")
            async with asyncio.timeout(60):
                while not await is_parked(plain, waits):
                    await asyncio.sleep(0.1)
            answer = await topic.query("steporal.subscriptions", result_type=temporalio.common.RawValue)
            await plain.get_workflow_handle(waits.workflow_id).terminate(reason="clear-reason")
            read = await messages(plain)
    assert answer.payload.metadata["encoding"] == ENCODING
    text = b"\n".join(message.SerializeToString() for message in read).decode("latin-1")
    assert set(re.findall(r"sealed-[a-z-]+", text)) == set()
    assert [name for name in CLEAR if name not in text] == [], "the canaries are in what is read"
    for path, payload in (each for message in read for each in payloads(message)):
        match payload.metadata["encoding"], path:
            case (encoding, _) if encoding == ENCODING:
                pass
            case (b"binary/null", _):
                assert not payload.data
            case (b"json/plain", "search_attributes.indexed_fields"):
                pass
            case (b"json/plain", "user_metadata.summary") if OF_A_SHARD.fullmatch(payload.data):
                pass
            case (b"json/plain", "args.payloads") if (placed := json.loads(payload.data)).keys() == PLACED:
                if placed["field"] is not None:
                    field = Payload.FromString(base64.b64decode(placed["field"]))
                    assert field.metadata["encoding"] == ENCODING, placed
            case (b"json/plain", "details.payloads"):
                noted = json.loads(payload.data)
                assert isinstance(noted, dict) and noted.keys() <= OF_LOCAL_ACTIVITIES, payload.data
            case (encoding, _):
                raise AssertionError(f"{path} is not encrypted: {encoding!r} {payload.data[:200]!r}")
    assert sum(1 for message in read for _ in payloads(message)) > 100


async def is_parked(plain: temporalio.client.Client, run: steporal.Run[Any]) -> bool:
    described = await plain.get_workflow_handle(run.workflow_id).describe()
    return described.run_id != run.run_id
