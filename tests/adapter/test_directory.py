"""The directory of topics: an event that nobody waits for costs no call, and none that somebody waits for is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import temporalio.client
from recording import Workers
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Interceptor, OutboundInterceptor, SignalWorkflowInput, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Replayer, Worker
from waiting import LONG, until_waiting

import steporal
from steporal import Context, Step, StepError
from steporal.events import new_ulid
from steporal.routing.topics import client as topics_client
from steporal.routing.topics import directory, directory_client, late, topic
from steporal.routing.topics.directory import DirectoryWorkflow, directory_id, shard_of
from steporal.routing.topics.topic import TopicWorkflow, topic_id, topics_of
from steporal.values.converter import to_raw
from steporal.values.encrypted import memo_of
from steporal.wire.names import LIST_TOPIC, SUBSCRIBE, UNLISTED_KEY
from steporal.worker.serving import system_worker
from steporal_workers.devserver import NAMESPACE, dev_server

pytestmark = pytest.mark.outside_runs

SECOND = timedelta(seconds=1)


@dataclass
class Scene:
    """A server whose directory passes an hour in half a second.

    Attributes:
        address: The server's.
        workers: Starts workers.
        altered: The Temporal workflow ids of shards that a test ran with other constants, which do not replay.
    """

    address: str
    workers: Workers
    altered: set[str] = field(default_factory=set)

    @property
    def temporal(self) -> temporalio.client.Client:
        return self.workers.temporal

    def shard(self, name: str) -> temporalio.client.WorkflowHandle[Any, Any]:
        """The shard of a topic."""
        return self.temporal.get_workflow_handle(directory_id(shard_of(name)))

    async def memo(self, name: str) -> Any:
        """The memo of a topic's shard."""
        return await memo_of(await self.shard(name).describe())

    async def until_listed(self, name: str, is_listed: bool = True) -> None:
        """Wait until a shard lists a topic, or does not."""
        async with asyncio.timeout(LONG):
            while (f"topic:{name}" in await self.memo(name)) != is_listed:
                await asyncio.sleep(0.1)

    async def until_complete(self, sender: Sender, name: str) -> None:
        """Wait until the directory knows all topics that concern events of a name."""
        async with asyncio.timeout(LONG):
            for concerned in topics_of(name):
                await sender.client.send_event({"name": name, "data": {"n": -1}})  # starts shards that there are not
                while UNLISTED_KEY in await self.memo(concerned):
                    await asyncio.sleep(0.1)

    async def sender(self) -> Sender:
        """Another process that sends events."""
        calls = Calls()
        temporal = await temporalio.client.Client.connect(self.address, namespace=NAMESPACE, interceptors=[calls])
        return Sender(steporal.Client(f"sender {new_ulid()}", temporal=temporal), calls)


class Calls(Interceptor):
    """Counts signals.

    Attributes:
        signalled: The Temporal workflow ids of what was signalled.
    """

    def __init__(self) -> None:
        self.signalled: list[str] = []

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        return _Counted(next, self.signalled)


class _Counted(OutboundInterceptor):
    def __init__(self, next: OutboundInterceptor, signalled: list[str]) -> None:
        super().__init__(next)
        self._signalled = signalled

    async def signal_workflow(self, input: SignalWorkflowInput) -> None:
        self._signalled.append(input.id)
        await super().signal_workflow(input)


@dataclass
class Sender:
    """A process that sends events, with a cache of its own.

    Attributes:
        client: It sends events.
        calls: What it has signalled.
    """

    client: steporal.Client
    calls: Calls

    async def send(self, name: str, **data: Any) -> None:
        await self.client.send_event({"name": name, "data": data})


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(directory, "_LOOK", timedelta(milliseconds=500))
        patch.setattr(directory, "_LOOKS_KEPT", 16)
        patch.setattr(directory, "_LOOKS_SUPERSEDED", 16)
        patch.setattr(directory, "_LOOKS_LEAVING", 16)
        patch.setattr(directory, "_TAKEN_PER_EXECUTION", 12)
        patch.setattr(topic, "_CONFIRMED_EVERY", SECOND)
        patch.setattr(topic, "_WAITS_PER_PART", 6)
        patch.setattr(topic, "_MAX_WAITS_BYTES", 16_000)
        yield


@pytest.fixture(scope="module")
async def scene(quick: None) -> AsyncIterator[Scene]:
    async with dev_server() as server, system_worker(server.client):
        scene = Scene(server.address, Workers(server.client, 1000))
        yield scene
        await scene.workers.replay()
        replayer = Replayer(workflows=[DirectoryWorkflow, TopicWorkflow])
        query = "WorkflowType = 'steporal.topics' OR WorkflowType = 'steporal.topic'"
        async for each in server.client.list_workflows(query, limit=60):
            handle = server.client.get_workflow_handle(each.id, run_id=each.run_id)
            if each.id not in scene.altered:
                await replayer.replay_workflow(await handle.fetch_history())


@pytest.fixture
async def sender(scene: Scene) -> Sender:
    return await scene.sender()


@pytest.fixture
def name() -> str:
    """A name of events that no other test uses."""
    return f"paid.{new_ulid()}"


def waiting(app: steporal.Client, name: str, **options: Any) -> steporal.Workflow[Any, Any]:
    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event("wait", event=name, timeout="1h", **options)
        return event and event.data["n"]

    return waits


def test_an_event_concerns_two_shards_at_most() -> None:
    for name in ("a", "order.placed", "a/b.c/d", ".a.b", "..a", "a." * 200 + "b", "ü.é.x"):
        name_itself, *patterns = map(shard_of, topics_of(name))
        assert len(set(patterns)) <= 1, name
        assert all(0 <= shard < directory.SHARDS for shard in (name_itself, *patterns))
    assert len({shard_of(f"order.{n}") for n in range(1_000)}) == directory.SHARDS


async def test_an_event_that_nobody_waits_for_costs_no_call_of_a_topic(scene: Scene, sender: Sender, name: str) -> None:
    await scene.until_complete(sender, name)
    await asyncio.sleep(directory_client.CACHE_SECONDS + 0.1)
    sender.calls.signalled.clear()
    for _ in range(3):
        await sender.send(name)
    assert sender.calls.signalled == []


async def test_every_sender_knows_of_a_wait_when_it_has_begun(
    app: steporal.Client, scene: Scene, sender: Sender, name: str
) -> None:
    """Each has just read that nobody waits; the run begins to wait when that is forgotten."""
    waits = waiting(app, name)
    others = [await scene.sender() for _ in range(3)]
    await scene.until_complete(sender, name)
    reading = asyncio.create_task(keep_sending([sender, *others], f"{name}.other", name))
    async with scene.workers(app):
        for n, each in enumerate([sender, *others]):
            run = await waits.start()
            await until_waiting(run)
            await each.send(name, n=n)
            assert await run.result() == n
    reading.cancel()
    assert f"topic:{name}" in await scene.memo(name)


async def keep_sending(senders: list[Sender], *names: str) -> None:
    """Have senders read the directory all the time."""
    while True:
        for each in senders:
            await each.client.sending.dispatcher(await each.client.connect())._topics._directory.read(names)
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("how", ["terminated", "deleted"])
async def test_a_shard_that_is_gone_loses_no_event_and_comes_back(
    app: steporal.Client, scene: Scene, sender: Sender, name: str, how: str
) -> None:
    waits = waiting(app, name)
    await scene.until_complete(sender, name)
    async with scene.workers(app), asyncio.timeout(LONG):
        runs = [await waits.start() for _ in range(3)]
        for run in runs:
            await until_waiting(run)
        if how == "terminated":
            await scene.shard(name).terminate()
        else:
            await delete(scene, name)
        another = await scene.sender()
        await another.send(name, n=1)
        assert [await run.result() for run in runs] == [1, 1, 1]
        run = await waits.start()
        await until_waiting(run)
        await scene.until_listed(name)
        await sender.send(name, n=2)
        assert await run.result() == 2


async def delete(scene: Scene, name: str) -> None:
    """Delete a shard, with all that it knew."""
    id = directory_id(shard_of(name))
    execution = WorkflowExecution(workflow_id=id)
    request = DeleteWorkflowExecutionRequest(namespace=NAMESPACE, workflow_execution=execution)
    await scene.temporal.workflow_service.delete_workflow_execution(request)
    with pytest.raises(RPCError, match="not found"):
        while True:
            await scene.temporal.get_workflow_handle(id).describe()
            await asyncio.sleep(0.05)


@pytest.mark.takes_long
async def test_a_name_stays_listed_while_runs_wait_and_is_dropped_when_none_has_for_long(
    app: steporal.Client, scene: Scene, sender: Sender, name: str
) -> None:
    waits = waiting(app, name)
    await scene.until_complete(sender, name)
    async with scene.workers(app), asyncio.timeout(LONG):
        run = await waits.start()
        await until_waiting(run)
        await asyncio.sleep(16.5)  # more than 32 looks, after which the name would be gone
        await sender.send(name, n=1)
        assert await run.result() == 1
        await scene.until_listed(name, False)
        sender.calls.signalled.clear()
        await sender.send(name, n=1)
        run = await waits.start()
        await until_waiting(run)
        await sender.send(name, n=2)
        assert await run.result() == 2


async def test_names_that_do_not_fit_are_told_all_the_same(
    app: steporal.Client, scene: Scene, sender: Sender, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.altered |= {directory_id(shard_of(topic)) for topic in topics_of(name)}
    waits = waiting(app, name)
    await scene.until_complete(sender, name)  # with room: a topic of another test may be in the same shard
    monkeypatch.setattr(directory, "_MAX_BYTES", 100)
    async with scene.workers(app), asyncio.timeout(LONG):
        run = await waits.start()
        await until_waiting(run)
        memo = await scene.memo(name)
        assert UNLISTED_KEY in memo and f"topic:{name}" not in memo
        await sender.send(name, n=1)
        assert await run.result() == 1


# --- parts ---------------------------------------------------------------------------------------------------------


async def until_parts(scene: Scene, name: str, *counts: int) -> dict[str, Any]:
    async with asyncio.timeout(LONG):
        while True:
            entry: Any = (await scene.memo(name)).get(f"topic:{name}", {"parts": []})
            if [parts["count"] for parts in entry["parts"]] == list(counts):
                return dict(entry)
            await asyncio.sleep(0.1)


async def waits_in(scene: Scene, *ids: str) -> list[int]:
    """How many runs wait in parts of a topic."""
    found = []
    for id in ids:
        try:
            found.append((await scene.temporal.get_workflow_handle(id).query("steporal.subscriptions"))["count"])
        except RPCError:
            found.append(0)
    return found


@pytest.mark.parametrize("options", [{"match": "data.order"}, {}, {"if_exp": "async.data.n > event.data.order"}])
async def test_a_topic_that_many_runs_wait_in_gets_parts_and_every_run_hears(
    app: steporal.Client, scene: Scene, sender: Sender, name: str, options: dict[str, str]
) -> None:
    waits = waiting(app, name, **options)
    async with scene.workers(app), asyncio.timeout(LONG):
        runs = [await waits.start({"order": n}) for n in range(7)]
        for run in runs:
            await until_waiting(run)
        await until_parts(scene, name, 1, 8)
        await asyncio.sleep(directory_client.CACHE_SECONDS + 0.1)
        runs += [await waits.start({"order": n}) for n in range(7, 20)]
        for run in runs:
            await until_waiting(run)
        counts = await waits_in(scene, *(topic_id(name, 8, part) for part in range(8)))
        assert sum(counts) == 13
        assert sum(count > 0 for count in counts) > 1
        others = [await scene.sender() for _ in range(2)]
        for n in range(20):
            await [sender, *others][n % 3].client.send_event({"name": name, "data": {"order": n, "n": 100 + n}})
        expected = [100 + n for n in range(20)] if "match" in options else [100] * 20
        assert [await run.result() for run in runs] == expected


async def test_a_wait_in_a_part_of_a_topic_is_unsubscribed(
    app: steporal.Client, scene: Scene, sender: Sender, name: str
) -> None:
    @app.workflow(id="listens", ext=steporal.WorkflowExt(park_after="1s"))
    async def listens(ctx: Context[Any], step: Step) -> Any:
        async with await step.ext.listen("listen", event=name, match="data.order", timeout="1h") as listener:
            event = await listener.next("next")
        return event and event.data["n"]

    async with scene.workers(app), asyncio.timeout(LONG):
        runs = [await listens.start({"order": n}) for n in range(7)]
        await until_parts(scene, name, 1, 8)
        await asyncio.sleep(directory_client.CACHE_SECONDS + 0.1)
        runs += [await listens.start({"order": n}) for n in range(7, 12)]
        for run in runs:
            await until_waiting(run)
        parts = [topic_id(name, 8, part) for part in range(8)]
        assert sum(await waits_in(scene, *parts)) == 5
        await asyncio.sleep(1.5)  # they park
        for n in range(12):
            await sender.client.send_event({"name": name, "data": {"order": n, "n": n}})
        assert [await run.result() for run in runs] == list(range(12))
        while sum(await waits_in(scene, topic_id(name), *parts)):
            await asyncio.sleep(0.1)


async def test_a_topic_refuses_the_subscriptions_that_it_has_no_room_for(
    app: steporal.Client, scene: Scene, name: str
) -> None:
    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        try:
            await step.ext.wait_for_event("wait", event=name, timeout="1h", if_exp="async.data.n == event.data.n")
        except StepError as err:
            return str(err)

    full = {"workflow_id": "none", "run_id": "none", "kind": "once", "until": 4e9, "event": {"data": "x" * 4500}}
    many = [{**full, "key": str(n)} for n in range(5)]  # too few for the topic to get parts, which have room
    async with scene.workers(app), asyncio.timeout(LONG):
        await scene.temporal.start_workflow(
            topic.TOPIC,
            id=topic_id(name),
            task_queue="steporal",
            start_signal=SUBSCRIBE,
            start_signal_args=[to_raw(many)],
        )
        run = await waits.start({"n": 1})
        result = await run.result()
    assert (
        f"step 'wait' failed: TooManyWaitsError: no run can wait for event '{name}' now: its topic already holds "
        in result
    )


# --- what a topic cannot be told ------------------------------------------------------------------------------------


async def test_a_topic_that_takes_no_more_signals_now_holds_up_no_start_and_is_told_later(
    app: steporal.Client, name: str
) -> None:
    """Thirty events while no worker is up, to a server that takes 20 signals for an execution."""

    @app.workflow(id="starts", triggers=[steporal.event_trigger(name)])
    async def starts(ctx: Context[Any], step: Step) -> Any:
        return ctx.input.data["n"]

    @app.workflow(id="listens")
    async def listens(ctx: Context[Any], step: Step) -> Any:
        listener = await step.ext.listen("listen", event=name, timeout="1h")
        return sorted([(event := await listener.next("next")) and event.data["n"] for _ in range(30)])

    limits = ["history.maximumSignalsPerExecution=20", "limit.historyCount.suggestContinueAsNew=20"]
    async with dev_server(dynamic_config=limits) as server, asyncio.timeout(LONG):
        async with serving(app, server.client):
            run = await listens.start()
            await until_subscribed(run)
        sent = [await app.send_event({"name": name, "id": f"{name} {n}", "data": {"n": n}}) for n in range(30)]
        assert [len(each.runs) for each in sent] == [1] * 30
        async with serving(app, server.client):
            assert await run.result() == list(range(30))
            started = [await (await app.get_run(each.runs[0].workflow_id)).result() for each in sent]
        assert started == list(range(30))


async def test_events_of_one_sender_stay_in_order_when_an_answer_of_temporal_is_lost(
    app: steporal.Client, name: str, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = [1]

    async def signalled(temporal: temporalio.client.Client, receiver: str, signal: str, messages: Any) -> bool:
        if lost and messages[0]["name"] == name and messages[0]["data"]["n"] in lost:
            lost.clear()
            raise RPCError("deadline exceeded", RPCStatusCode.DEADLINE_EXCEEDED, b"")
        return await late.signalled(temporal, receiver, signal, messages)

    monkeypatch.setattr(topics_client, "signalled", signalled)

    @app.workflow(id="listens")
    async def listens(ctx: Context[Any], step: Step) -> Any:
        listener = await step.ext.listen("listen", event=name, timeout="1h")
        return [(event := await listener.next("next")) and event.data["n"] for _ in range(3)]

    async with workers(app), asyncio.timeout(LONG):
        run = await listens.start()
        await until_subscribed(run)
        for n in range(3):
            event = {"name": name, "id": f"{name} {n}", "data": {"n": n}}
            try:
                await app.send_event(event)
            except steporal.SendEventError:
                assert n == 1
                await app.send_event(event)
        assert not lost
        assert await run.result() == [0, 1, 2]


async def test_a_topic_whose_history_is_long_receives_events_later(
    app: steporal.Client, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events come with larger ones, which nobody waits for, while no worker is up: more than a topic takes."""
    monkeypatch.setattr(late, "FULL_BYTES", 100_000)
    monkeypatch.setattr(late, "CHECKED_BYTES", 30_000)

    @app.workflow(id="listens")
    async def listens(ctx: Context[Any], step: Step) -> Any:
        listener = await step.ext.listen("listen", event=name, if_exp="async.data.n >= 0", timeout="1h")
        return sorted([(event := await listener.next("next")) and event.data["n"] for _ in range(30)])

    limits = ["limit.historySize.suggestContinueAsNew=50000"]
    async with dev_server(dynamic_config=limits) as server, asyncio.timeout(LONG):
        async with serving(app, server.client):
            run = await listens.start()
            await until_subscribed(run)
        for n in range(30):
            large = {"name": name, "data": {"n": -1, "large": random.randbytes(5_000).hex()}}
            await app.send_event([large, {"name": name, "data": {"n": n}}])
        described = await server.client.get_workflow_handle(topic_id(name)).describe()
        assert described.raw_description.workflow_execution_info.history_size_bytes < 150_000
        async with serving(app, server.client):
            assert await run.result() == list(range(30))


@asynccontextmanager
async def serving(app: steporal.Client, temporal: temporalio.client.Client) -> AsyncIterator[None]:
    """A worker of an app, which stays registered."""
    app.temporal = temporal
    plugin = app.plugin()
    async with Worker(temporal, task_queue=app.task_queue, plugins=[plugin]):
        await plugin.registered.wait()
        yield


async def until_subscribed(run: steporal.Run[Any]) -> None:
    """Wait until the history has the marker of the local activity that subscribes."""
    while not any(each.HasField("marker_recorded_event_attributes") for each in await history_of(run)):
        await asyncio.sleep(0.05)


async def history_of(run: steporal.Run[Any]) -> Sequence[HistoryEvent]:
    return (await run.temporal.fetch_history()).events


# --- strangers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [None, 5, {}, [], [5], [{"topic": ""}], [{"topic": "a", "count": 10**9}]])
async def test_a_message_that_is_no_list_of_topics_harms_no_shard(
    app: steporal.Client, scene: Scene, sender: Sender, name: str, message: Any
) -> None:
    await scene.until_complete(sender, name)
    try:
        await scene.shard(name).execute_update(LIST_TOPIC, to_raw(message))
    except WorkflowUpdateFailedError as err:
        assert isinstance(err.cause, ApplicationError) and err.cause.type == "UnreadableMessageError"
    waits = waiting(app, name)
    async with scene.workers(app):
        run = await waits.start()
        await until_waiting(run)
        await sender.send(name, n=1)
        assert await run.result() == 1


async def test_a_shard_that_somebody_has_started_with_what_is_no_memo_knows_that_it_does_not_know(
    app: steporal.Client, scene: Scene, sender: Sender, name: str
) -> None:
    waits = waiting(app, name)
    await scene.until_complete(sender, name)
    async with scene.workers(app):
        run = await waits.start()
        await until_waiting(run)
        await scene.shard(name).terminate()
        await scene.temporal.start_workflow(
            "steporal.topics",
            to_raw({"looks": "none"}),
            id=directory_id(shard_of(name)),
            task_queue="steporal",
            memo={"topic:a": 5, f"topic:{name}": {"parts": [{"count": 0}]}, "unlisted": "no"},
        )
        await sender.send(name, n=1)
        assert await run.result() == 1
