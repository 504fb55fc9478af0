"""What anybody who may write to the namespace can send to Steporal's own workflows: it is in nobody's way."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from typing import Any

import pytest
import temporalio.client
from recording import Workers
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowUpdateFailedError
from temporalio.common import RawValue
from waiting import until_waiting

import steporal
from steporal import Context, Step, event_trigger
from steporal.converter import to_raw
from steporal.events import new_ulid
from steporal.routing import topic
from steporal.routing.arbiter import REGISTER, arbiter_id
from steporal.routing.shards import PLACE, shard_id, shard_of_event

_SUBSCRIPTION = {"workflow_id": "nobody", "run_id": "none", "key": "k", "kind": "once", "until": 4e9}
_EVENT = {"id": "1", "name": "a", "data": {}, "ts": 1}
_WAIT = {"signal": "s", "workflow_id": "nobody", "run_id": "none", "key": "k", "until": 4e9}
_CLAIM = {"wait": _WAIT, "instead_of": _WAIT}
_APP = {"id": "nobody's", "task_queue": "q", "workflows": [{"id": "w", "triggers": [{"event": "a"}]}]}
_PLACEMENT = {"app": "nobody's", "generation": 1, "field": base64.b64encode(b"no payload").decode()}
_CLAIM_OF_APP = {"app": _APP, "digest": "d", "revision": 0, "started": 0}
_ODD = [
    None,
    True,
    5,
    -1,
    1e308,
    "",
    "x" * 10_000,
    "\ud800",
    [],
    [[]],
    [5],
    {},
    {"": None},
    [{}] * 1000,
    [None] * 10_000,
]
_NO_JSON = [b"", b"{", b"\xff", b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'"\\ud800"', b"NaN", b"1" * 10_000]


def odd_messages(likely: dict[str, Any], chance: random.Random, count: int) -> list[list[RawValue]]:
    """Arguments of messages that are nearly right, and of some that are not at all.

    Args:
        likely: What a right message has.
        chance: What they are drawn from.
        count: How many.
    """
    messages = [[], [to_raw(None)] * 3, *([to_raw(odd)] for odd in _ODD if odd != "\ud800")]
    messages += [[RawValue(Payload(metadata={"encoding": b"json/plain"}, data=data))] for data in _NO_JSON]
    messages += [
        [RawValue(Payload(metadata={"encoding": kind}, data=b"x"))] for kind in (b"what/ever", b"", b"binary/zlib")
    ]
    messages += [[RawValue(Payload())]]
    while len(messages) < count:
        changed = dict(likely)
        for key in chance.sample(sorted(changed), chance.randint(1, min(2, len(changed)))):
            if chance.random() < 0.3:
                del changed[key]
            else:
                changed[key] = chance.choice([odd for odd in _ODD if odd != "\ud800"])
        messages.append([to_raw([changed] if chance.random() < 0.7 else changed)])
    return messages


async def task_failures(handle: temporalio.client.WorkflowHandle[Any, Any]) -> list[str]:
    """The messages of the workflow tasks that have failed."""
    return [
        event.workflow_task_failed_event_attributes.failure.message
        async for event in handle.fetch_history_events()
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
    ]


@pytest.mark.needs_cache("hundreds of signals, which each workflow task would replay")
async def test_a_topic_drops_what_it_cannot_read(app: steporal.Client, workers: Workers) -> None:
    name, chance = f"paid.{new_ulid()}", random.Random(1)

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event("paid", event=name, if_exp="async.data.n > 1", timeout="1h")
        return event and event.data["n"]

    async with workers(app), asyncio.timeout(90):
        run = await waits.start(None)
        await until_waiting(run)
        handle = workers.temporal.get_workflow_handle(f"steporal.topic/{name}")
        for signal, likely in (
            (topic.SUBSCRIBE, _SUBSCRIPTION),
            (topic.UNSUBSCRIBE, {"0": "id"}),
            (topic.PUBLISH, _EVENT),
        ):
            for arguments in odd_messages(likely, chance, 60):
                await handle.signal(signal, args=arguments)
        for source in ("(((", "async.data.x.reverse()", "a" * 100_000):
            await handle.signal(topic.SUBSCRIBE, to_raw([{**_SUBSCRIPTION, "source": source}]))
        await app.send_event({"name": name, "data": {"n": 2}})
        assert await run.result() == 2
        assert await task_failures(handle) == []


@pytest.mark.parametrize("state", [b"x", b'{"matched": [[1, 2, 3]]}', b'{"subscriptions": 5}', b"[]", b"[" * 100_000])
@pytest.mark.parametrize("encoding", [b"json/plain", b"binary/zlib"])
async def test_a_topic_that_somebody_has_started_with_no_state_of_a_topic_works(
    app: steporal.Client, workers: Workers, state: bytes, encoding: bytes
) -> None:
    name = f"paid.{new_ulid()}"

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event("paid", event=name, timeout="1h")
        return event and event.data["n"]

    async with workers(app), asyncio.timeout(90):
        payload = RawValue(Payload(metadata={"encoding": encoding}, data=state))
        handle = await workers.temporal.start_workflow(
            topic.TOPIC, payload, id=topic.topic_id(name), task_queue="steporal"
        )
        run = await waits.start(None)
        await until_waiting(run)
        await app.send_event({"name": name, "data": {"n": 2}})
        assert await run.result() == 2
        assert await task_failures(handle) == []


@pytest.mark.needs_cache("a hundred updates, which each workflow task would replay")
async def test_a_mailbox_refuses_what_it_cannot_read(app: steporal.Client, workers: Workers) -> None:
    name, chance = f"go {new_ulid()}", random.Random(2)

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        received = await step.wait_for_signal("go", signal=name, timeout="1h")
        return received and received.data

    async with workers(app), asyncio.timeout(90):
        run = await waits.start(None)
        await until_waiting(run)
        handle = workers.temporal.get_workflow_handle(f"steporal.mailbox/{name}")
        for arguments in odd_messages(_WAIT, chance, 50):
            await handle.signal("steporal.release", args=arguments)
        for update, likely in (("steporal.take", _CLAIM), ("steporal.close", _WAIT)):
            for arguments in odd_messages(likely, chance, 40):
                try:
                    answer = await handle.execute_update(update, args=arguments, result_type=RawValue)
                except WorkflowUpdateFailedError:
                    continue
                assert json.loads(answer.payload.data) is False, "a wait of nobody's, whom the mailbox does not serve"
        assert (await app.send_signal(name, "now")).run_id == run.run_id
        assert await run.result() == "now"
        assert await task_failures(handle) == []


async def test_a_mailbox_that_somebody_has_started_with_no_wait_ends(app: steporal.Client, workers: Workers) -> None:
    async with workers(app), asyncio.timeout(60):
        for number, arguments in enumerate(odd_messages(_WAIT, random.Random(3), 40)):
            handle = await workers.temporal.start_workflow(
                "steporal.mailbox",
                args=arguments[:1] or [to_raw(None)],
                id=f"steporal.mailbox/{app.id} {number}",
                task_queue="steporal",
            )
            try:
                json.loads(arguments[0].payload.data)["signal"] if arguments else None
            except Exception:
                await handle.result()


@pytest.mark.parametrize("system", ["shard", "app"])
async def test_the_catalog_refuses_what_it_cannot_read(
    app: steporal.Client, other_app: steporal.Client, workers: Workers, system: str
) -> None:
    @app.workflow(id="order", triggers=[event_trigger(f"order.{app.id}")])
    async def order(ctx: Context[Any], step: Step) -> Any:
        return "done"

    async with workers(app), asyncio.timeout(90):
        number = shard_of_event(f"order.{app.id}")
        workflow_id, update, likely, what = {
            "shard": (shard_id(number), PLACE, _PLACEMENT, "placement"),
            "app": (arbiter_id(app.id), REGISTER, {**_CLAIM_OF_APP, "app": {**_APP, "id": app.id}}, "registration"),
        }[system]
        handle = workers.temporal.get_workflow_handle(workflow_id)
        for arguments in odd_messages(likely, random.Random(4), 60):
            try:
                await handle.execute_update(update, args=arguments)
            except WorkflowUpdateFailedError as err:
                assert f"this is no {what}" in str(err.cause)
        async with workers(other_app):  # which registers
            sent = await app.send_event({"name": f"order.{app.id}"})
            assert [started.workflow for started in sent.runs] == ["order"]
