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
from temporalio.common import RawValue, WorkflowIDConflictPolicy
from waiting import until_waiting

import steporal
from steporal import Context, Step, event_trigger
from steporal.errors import UnknownKeyError
from steporal.events import new_ulid
from steporal.routing.catalog.arbiter import arbiter_id
from steporal.routing.catalog.shards import shard_id, shard_of_event
from steporal.routing.topics import topic
from steporal.routing.topics.directory import directory_id, shard_of
from steporal.routing.topics.directory_client import _caches
from steporal.values.converter import to_raw
from steporal.wire.names import ARBITER, DIRECTORY, LIST_TOPIC, PLACE, REGISTER, STANDING_KEY, TOPIC_KEY

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
                assert f"the message is not a valid {what}" in str(err.cause)
        async with workers(other_app):  # which registers
            sent = await app.send_event({"name": f"order.{app.id}"})
            assert [started.workflow for started in sent.runs] == ["order"]


UNWRITABLE = [b"NaN", b"1e999", b'"\\ud800"', b"[" * 300 + b"]" * 300, b"[" * 900 + b"]" * 900]
"""What ``json.loads`` reads, and nobody can write again, or hand on."""


def raw(text: bytes) -> RawValue:
    """A message with JSON as it is."""
    return RawValue(Payload(metadata={"encoding": b"json/plain"}, data=text))


async def subscriptions_in(handle: temporalio.client.WorkflowHandle[Any, Any]) -> int:
    """How many runs wait in a topic."""
    count: int = (await handle.query("steporal.subscriptions"))["count"]
    return count


@pytest.mark.parametrize("value", UNWRITABLE, ids=range(len(UNWRITABLE)))
async def test_a_topic_drops_what_it_could_not_hand_on(app: steporal.Client, workers: Workers, value: bytes) -> None:
    name = f"paid.{new_ulid()}"

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event("paid", event=name, if_exp="async.data.n == 2", timeout="1h")
        return event and event.data["n"]

    async with workers(app), asyncio.timeout(60):
        run = await waits.start(None)
        await until_waiting(run)
        handle = workers.temporal.get_workflow_handle(f"steporal.topic/{name}")
        others = [{**_SUBSCRIPTION, "workflow_id": f"nobody {n}", "source": "async.data.n == 1"} for n in range(8)]
        await handle.signal(topic.SUBSCRIBE, to_raw(others))
        await handle.signal(
            topic.PUBLISH, raw(b'[{"id": "1", "name": "a", "data": {"n": 1, "x": %s}, "ts": 1}]' % value)
        )
        subscription = json.dumps({**_SUBSCRIPTION, "source": "async.data.n == event.x", "event": {"x": "VALUE"}})
        await handle.signal(topic.SUBSCRIBE, raw(f"[{subscription}]".encode().replace(b'"VALUE"', value)))
        await handle.signal(topic.UNSUBSCRIBE, to_raw(["nobody\nnone\nk"]))
        await app.send_event({"name": name, "data": {"n": 2}})
        assert await run.result() == 2
        assert await subscriptions_in(handle) == 8
        assert await task_failures(handle) == []


async def test_a_topic_drops_what_temporal_would_refuse_to_deliver(app: steporal.Client, workers: Workers) -> None:
    name = f"paid.{new_ulid()}"

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event("paid", event=name, if_exp="async.data.n == 2", timeout="1h")
        return event and event.data["n"]

    async with workers(app), asyncio.timeout(90):
        run = await waits.start(None)
        await until_waiting(run)
        handle = workers.temporal.get_workflow_handle(f"steporal.topic/{name}")
        others = [{**_SUBSCRIPTION, "key": f"{n} {'k' * 3_900}"} for n in range(400)]
        for start in range(0, 400, 100):  # one activity cannot be given all
            await handle.signal(topic.SUBSCRIBE, to_raw(others[start : start + 100]))
        await handle.signal(topic.SUBSCRIBE, to_raw([{**_SUBSCRIPTION, "key": "k" * 1_500_000}]))
        await handle.signal(topic.SUBSCRIBE, to_raw([{**_SUBSCRIPTION, "workflow_id": "", "kind": "each"}]))
        large = {**_EVENT, "id": "large", "data": {"n": 1, "text": "x" * (2 * 1024 * 1024 - 200)}}
        await handle.signal(topic.PUBLISH, to_raw([large]))
        await app.send_event({"name": name, "data": {"n": 2}})
        assert await run.result() == 2
        while await subscriptions_in(handle):
            await asyncio.sleep(0.05)
        assert await task_failures(handle) == []


async def test_a_signal_of_nan_does_not_stop_a_mailbox(app: steporal.Client, workers: Workers) -> None:
    name = f"go {new_ulid()}"

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        received = await step.wait_for_signal("go", signal=name, timeout="1h")
        return received and received.data

    async with workers(app), asyncio.timeout(60):
        run = await waits.start(None)
        await until_waiting(run)
        handle = workers.temporal.get_workflow_handle(f"steporal.mailbox/{name}")
        await handle.execute_update("steporal.send", raw(b"NaN"), result_type=RawValue)
        assert await run.result() is None
        assert await task_failures(handle) == []


@pytest.mark.parametrize(
    "trigger, revision",
    [({"event": "a"}, "9" * 4300), ({"cron": "0 0 1 1 *", "jitter": "nan"}, "0"), ({"cron": "0 0 1 1 *"}, "NaN")],
    ids=["a revision that nobody can add one to", "a jitter that is no number", "a revision that is no number"],
)
async def test_no_number_that_cannot_be_written_stops_the_workflow_of_an_app(
    app: steporal.Client, workers: Workers, trigger: dict[str, Any], revision: str
) -> None:
    @app.workflow(id="order", triggers=[event_trigger(f"order.{app.id}")])
    async def order(ctx: Context[Any], step: Step) -> Any:
        return "done"

    async with workers(app), asyncio.timeout(60):
        handle = workers.temporal.get_workflow_handle(arbiter_id(app.id))
        crafted = {**_APP, "id": app.id, "task_queue": app.id, "workflows": [{"id": "w", "triggers": [trigger]}]}
        claim = json.dumps({"app": crafted, "digest": "d", "started": 0, "take_over": True})
        with pytest.raises(WorkflowUpdateFailedError):
            await handle.execute_update(REGISTER, raw(f'{claim[:-1]}, "revision": {revision}}}'.encode()))
        assert await task_failures(handle) == []


def in_storage(metadata: dict[str, bytes]) -> Payload:
    """A payload that says of itself that its value is in external storage."""
    return Payload(metadata=metadata, data=b"{}")


@pytest.mark.parametrize(
    "payload",
    [
        in_storage({"encoding": b"json/external-storage-reference"}),
        in_storage({"encoding": b"json/plain", "__temporal_external_storage_reference": b"true"}),
        in_storage({"encoding": b"what/ever"}),
        in_storage({}),
    ],
    ids=range(4),
)
async def test_no_part_of_the_catalog_that_cannot_be_read_stops_events(
    app: steporal.Client, workers: Workers, payload: Payload
) -> None:
    @app.workflow(id="order", triggers=[event_trigger(f"order.{app.id}")])
    async def order(ctx: Context[Any], step: Step) -> Any:
        return "done"

    async with workers(app), asyncio.timeout(60):
        handle = workers.temporal.get_workflow_handle(shard_id(shard_of_event(f"order.{app.id}")))
        field = base64.b64encode(payload.SerializeToString()).decode()
        await handle.execute_update(PLACE, to_raw({"app": f"not {app.id}", "generation": 1, "field": field}))
        sender = steporal.Client("sender", temporal=workers.temporal)  # which has nothing in its cache
        sent = await sender.send_event({"name": f"order.{app.id}"})
        assert [started.workflow for started in sent.runs] == ["order"]
        await handle.execute_update(PLACE, to_raw({"app": f"not {app.id}", "generation": 1}))


@pytest.mark.parametrize("encoding", [b"json/external-storage-reference", b"binary/encrypted"])
async def test_a_shard_is_stopped_by_no_message_that_says_that_it_is_elsewhere_or_encrypted(
    app: steporal.Client, workers: Workers, encoding: bytes
) -> None:
    @app.workflow(id="order", triggers=[event_trigger(f"order.{app.id}")])
    async def order(ctx: Context[Any], step: Step) -> Any:
        return "done"

    async with workers(app), asyncio.timeout(60):
        handle = workers.temporal.get_workflow_handle(shard_id(shard_of_event(f"order.{app.id}")))
        payload = RawValue(in_storage({"encoding": encoding}))
        await handle.signal("whatever", payload)
        with pytest.raises(WorkflowUpdateFailedError):
            await handle.execute_update(PLACE, payload)
        assert await task_failures(handle) == []


@pytest.mark.parametrize("payload", [raw(b"{"), RawValue(Payload(metadata={"encoding": b"what/ever"}, data=b"x"))])
async def test_a_memo_that_nobody_can_read_stops_no_events_and_no_worker(
    app: steporal.Client, workers: Workers, payload: RawValue
) -> None:
    name = f"paid.{new_ulid()}"

    @app.workflow(id="waits", triggers=[event_trigger(name)])
    async def waits(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event("paid", event=f"{name}.done", timeout="1h")
        return event and event.data["n"]

    directory = directory_id(shard_of(f"{name}.done"))
    made_up = ((directory, DIRECTORY, "steporal", f"{TOPIC_KEY}x"), (arbiter_id(app.id), ARBITER, None, STANDING_KEY))
    async with workers(app), asyncio.timeout(60):
        for workflow_id, kind, queue, key in made_up:
            await workers.temporal.start_workflow(
                kind,
                id=workflow_id,
                task_queue=queue or workflow_id,
                memo={key: payload, "x": payload},
                id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING,
            )
        _caches.clear()
        await app.sync()
        run = await waits.start(None)
        await until_waiting(run)
        await app.send_event({"name": f"{name}.done", "data": {"n": 2}})
        assert await run.result() == 2
        for workflow_id, *_ in made_up:
            assert await task_failures(workers.temporal.get_workflow_handle(workflow_id)) == []


async def test_paths_of_any_length_leave_room_in_the_directory(app: steporal.Client, workers: Workers) -> None:
    name = f"paid.{new_ulid()}"

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event("paid", event=name, timeout="1h")
        return event and event.data["n"]

    async with workers(app), asyncio.timeout(90):
        run = await waits.start(None)
        await until_waiting(run)
        handle = workers.temporal.get_workflow_handle(directory_id(shard_of(name)))
        paths = [[f"{n}{'p' * 300_000}"] for n in range(12)]
        for path in paths:
            await handle.execute_update(LIST_TOPIC, to_raw([{"topic": f"{name}.x", "count": 8, "path": path}]))
        assert await task_failures(handle) == []


async def test_a_value_whose_key_is_missing_is_waited_for(app: steporal.Client, workers: Workers) -> None:
    name = f"paid.{new_ulid()}"
    sealed = Payload(metadata={"encoding": b"binary/encrypted", "encryption-key-id": b"deadbeef"}, data=b"x" * 40)

    @app.workflow(id="waits", triggers=[event_trigger(name)])
    async def waits(ctx: Context[Any], step: Step) -> Any:
        await step.ext.wait_for_event("paid", event=f"{name}.done", timeout="1h")

    async with workers(app), asyncio.timeout(60):
        run = await waits.start(None)
        await until_waiting(run)
        topic_of_run = workers.temporal.get_workflow_handle(f"steporal.topic/{name}.done")
        await topic_of_run.signal(topic.PUBLISH, RawValue(sealed))
        while not any("'deadbeef'" in message for message in await task_failures(topic_of_run)):
            await asyncio.sleep(0.05)
        await topic_of_run.terminate()
        shard = workers.temporal.get_workflow_handle(shard_id(shard_of_event(name)))
        field = base64.b64encode(sealed.SerializeToString()).decode()
        await shard.execute_update(PLACE, to_raw({"app": f"not {app.id}", "generation": 1, "field": field}))
        sender = steporal.Client("sender", temporal=workers.temporal)
        with pytest.raises(UnknownKeyError, match="'deadbeef'"):
            await sender.send_event({"name": name})
        await shard.execute_update(PLACE, to_raw({"app": f"not {app.id}", "generation": 1}))
        assert (await steporal.Client("sender", temporal=workers.temporal).send_event({"name": name})).runs
        await workers.temporal.get_workflow_handle(run.workflow_id).terminate()
