"""Topics: nothing is lost and nothing comes twice, whatever happens at the same time."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import temporalio.client
from recording import Workers
from temporalio.client import WorkflowHistory
from temporalio.service import RPCError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import Replayer
from waiting import LONG, until_waiting

import steporal
from steporal import Context, Step
from steporal.events import new_ulid
from steporal.routing.dispatch import first_of
from steporal.routing.topics import delivery, subscription, topic
from steporal.routing.topics.client import Topics
from steporal.routing.topics.delivery import deliver_events
from steporal.routing.topics.lanes import Batch, Delivery
from steporal.routing.topics.topic import DELIVERY_HEARTBEAT_TIMEOUT, TopicWorkflow, topics_of
from steporal.values.converter import to_raw
from steporal_workers.devserver import dev_server


@pytest.fixture
def name() -> str:
    """A name of events that no other test uses."""
    return f"paid.{new_ulid()}"


MANY_AT_ONCE = "the SDK cancels and repeats local activities, by which many runs at once subscribe: minutes"


@pytest.fixture
async def handle(
    name: str, temporal: temporalio.client.Client, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[temporalio.client.WorkflowHandle[Any, Any]]:
    """The topic of those events; all its executions are replayed after the test, with what the test has set."""
    handle = temporal.get_workflow_handle(f"steporal.topic/{name}")
    yield handle
    replayer = Replayer(workflows=[TopicWorkflow])
    for history in await executions(temporal, handle.id):
        await replayer.replay_workflow(history)


async def executions(temporal: temporalio.client.Client, workflow_id: str) -> list[WorkflowHistory]:
    """The histories of a workflow's last execution and of those that it continued."""
    histories: list[WorkflowHistory] = []
    run_id: str | None = None
    while True:
        history = await temporal.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
        histories.append(history)
        run_id = history.events[0].workflow_execution_started_event_attributes.continued_execution_run_id
        if not run_id:
            return histories


def test_an_event_concerns_the_topics_of_its_name_and_of_the_patterns_that_match_it() -> None:
    assert topics_of("order") == ["order"]
    assert topics_of("order.placed") == ["order.placed", "order.*"]
    assert topics_of("a/b.c/d") == ["a/b.c/d", "a/*", "a/b.*", "a/b.c/*"]
    assert len(topics_of("a." * 200 + "b")) == 17, "of each event the senders tell so many, and no more"
    assert topics_of("a.") == ["a."]
    assert topics_of(".a") == [".a"]


@pytest.mark.needs_cache(MANY_AT_ONCE)
async def test_a_topic_that_continues_as_new_under_fire_loses_nothing(
    app: steporal.Client,
    workers: Workers,
    name: str,
    handle: temporalio.client.WorkflowHandle[Any, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(topic, "_SIGNALS_PER_EXECUTION", 25)
    count = 120

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event("paid", event=name, match="data.n", timeout="1h")
        return event and event.data["n"]

    @app.workflow(id="listens")
    async def listens(ctx: Context[Any], step: Step) -> Any:
        numbers: list[int] = []
        async with await step.ext.listen("listen", event=name, timeout="1h") as listener:
            while len(numbers) < count and (event := await listener.next("next")):
                numbers.append(event.data["n"])
        return numbers

    async with workers(app):
        listening = await listens.start()
        runs = [await waits.start({"n": n}) for n in range(20)]
        for run in [listening, *runs]:
            await until_waiting(run)

        async def send(n: int) -> None:
            await asyncio.sleep(3 * random.random())
            event = {"name": name, "id": f"{name} {n}", "data": {"n": n}}
            await app.send_event(event)
            if n % 3 == 0:
                await app.send_event(event)  # again

        await asyncio.gather(*(send(n) for n in range(count)))
        assert [await run.result() for run in runs] == list(range(20))
        assert sorted(await listening.result()) == list(range(count))
        assert len(await executions(workers.temporal, handle.id)) > 1


async def test_an_event_that_is_sent_again_reaches_no_later_wait_after_its_topic_has_continued_as_new(
    app: steporal.Client,
    workers: Workers,
    name: str,
    handle: temporalio.client.WorkflowHandle[Any, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(topic, "_SIGNALS_PER_EXECUTION", 4)

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event("paid", event=name, timeout="1h")
        return event and event.data["n"]

    async with workers(app), asyncio.timeout(LONG):
        first = await waits.start()
        await until_waiting(first)
        event = {"name": name, "id": f"{name} 1", "data": {"n": 1}}
        await app.send_event(event)
        assert await first.result() == 1
        while len(await executions(workers.temporal, handle.id)) == 1:
            await app.send_event({"name": name, "id": new_ulid(), "data": {"n": 0}})
        second = await waits.start()
        await until_waiting(second)
        await app.send_event(event)
        await app.send_event({"name": name, "id": f"{name} 2", "data": {"n": 2}})
        assert await second.result() == 2


async def test_a_topic_forgets_a_wait_for_one_event_when_that_has_come(
    app: steporal.Client, workers: Workers, name: str, handle: temporalio.client.WorkflowHandle[Any, Any]
) -> None:
    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event("paid", event=name, match="data.n", timeout="1h")
        return event and event.data["n"]

    async with workers(app), asyncio.timeout(LONG):
        received, other = await waits.start({"n": 1}), await waits.start({"n": 2})
        for run in (received, other):
            await until_waiting(run)
        await app.send_event({"name": name, "data": {"n": 1}})
        assert await received.result() == 1
        assert (await handle.query("steporal.subscriptions"))["count"] == 1
        await app.send_event({"name": name, "data": {"n": 2}})
        assert await other.result() == 2


@pytest.mark.needs_cache(MANY_AT_ONCE)
async def test_events_that_come_while_runs_subscribe_and_time_out_are_received_or_not_but_never_twice(
    app: steporal.Client, workers: Workers, name: str, handle: temporalio.client.WorkflowHandle[Any, Any]
) -> None:
    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        received = []
        for _ in range(4):
            event = await step.ext.wait_for_event(
                "paid", event=name, match="data.run", timeout=40 + ctx.input.data["run"]
            )
            received.append(event and event.id)
        return received

    async with workers(app):
        runs = [await waits.start({"run": run}) for run in range(12)]

        async def send(run: int) -> list[str]:
            sent = []
            for _ in range(12):
                await asyncio.sleep(random.random() / 10)
                sent += (await app.send_event({"name": name, "data": {"run": run}})).ids
            return sent

        sent = await asyncio.gather(*(send(run) for run in range(12)))
        for number, run in enumerate(runs):
            received = [id for id in await run.result() if id is not None]
            assert max(Counter(received).values(), default=1) == 1
            assert [id for id in sent[number] if id in received] == received, "in the order in which they were sent"


@pytest.mark.needs_cache(MANY_AT_ONCE)
async def test_what_a_run_has_subscribed_to_before_it_acts_always_arrives(
    app: steporal.Client, workers: Workers, name: str, handle: temporalio.client.WorkflowHandle[Any, Any]
) -> None:
    @app.workflow(id="acts")
    async def acts(ctx: Context[Any], step: Step) -> Any:
        async with await step.ext.listen("listen", event=name, match="data.run", timeout="1h") as listener:
            sent = await step.ext.send_event("act", {"name": name, "data": ctx.input.data})
            event = await listener.next("next")
        return event is not None and event.id == sent.ids[0]

    async with workers(app):
        runs = await asyncio.gather(*(acts.start({"run": run}) for run in range(30)))
        assert all(await asyncio.gather(*(run.result() for run in runs)))


async def test_the_subscriptions_of_dead_runs_disappear(
    app: steporal.Client, workers: Workers, name: str, handle: temporalio.client.WorkflowHandle[Any, Any]
) -> None:
    @app.workflow(id="listens")
    async def listens(ctx: Context[Any], step: Step) -> Any:
        listener = await step.ext.listen("listen", event=name, timeout="1h")
        await listener.next("next")

    async with workers(app):
        run = await listens.start()
        await until_waiting(run)
        assert (await handle.query("steporal.subscriptions"))["some"][0]["workflow_id"] == run.workflow_id
        await run.temporal.terminate()
        await app.send_event({"name": name})
        async with asyncio.timeout(60):
            while (await handle.query("steporal.subscriptions"))["count"]:
                await asyncio.sleep(0.02)


async def test_a_topic_ends_when_nobody_has_waited_for_a_while_and_starts_anew(
    app: steporal.Client,
    workers: Workers,
    name: str,
    handle: temporalio.client.WorkflowHandle[Any, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(topic, "_ENDS_AFTER_IDLE", timedelta(milliseconds=300))
    monkeypatch.setattr(subscription, "_LATE", 0.0)

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event("paid", event=name, timeout="1h" if ctx.input.data else "100ms")
        return event and event.id

    async with workers(app):
        assert await (await waits.start()).result() is None
        await asyncio.wait_for(handle.result(), 60)
        run = await waits.start("longer")
        await until_waiting(run)
        sent = await app.send_event({"name": name})
        assert await run.result() == sent.ids[0]


@pytest.mark.needs_cache(MANY_AT_ONCE)
async def test_an_expression_that_no_index_helps_finds_its_run_among_many(
    app: steporal.Client,
    workers: Workers,
    name: str,
    handle: temporalio.client.WorkflowHandle[Any, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(topic, "_UNITS_PER_TASK", 300)

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event(
            "paid",
            event=name,
            if_exp="async.data.n + 1 > event.data.n && async.data.n < event.data.n + 1",
            timeout="1h",
        )
        return event and event.data["n"]

    async with workers(app):
        runs = await asyncio.gather(*(waits.start({"n": n}) for n in range(30)))
        for run in runs:
            await until_waiting(run)
        for n in random.sample(range(30), 30):
            await app.send_event({"name": name, "data": {"n": n}})
        assert [await run.result() for run in runs] == list(range(30))


async def test_an_event_to_nobody_starts_no_topic(app: steporal.Client, workers: Workers, name: str) -> None:
    async with workers(app):
        await app.send_event({"name": name})
        with pytest.raises(RPCError, match="not found"):
            await workers.temporal.get_workflow_handle(f"steporal.topic/{name}").describe()


@pytest.mark.needs_cache(MANY_AT_ONCE)
async def test_nothing_is_lost_while_workers_come_and_go(
    app: steporal.Client, workers: Workers, name: str, handle: temporalio.client.WorkflowHandle[Any, Any]
) -> None:
    count = 40

    @app.workflow(id="listens")
    async def listens(ctx: Context[Any], step: Step) -> Any:
        numbers: list[int] = []
        async with await step.ext.listen("listen", event=name, timeout="1h") as listener:
            while len(numbers) < count and (event := await listener.next("next")):
                numbers.append(event.data["n"])
        return numbers

    async with workers(app):
        runs = [await listens.start() for _ in range(3)]
        for run in runs:
            await until_waiting(run)

    async def send() -> None:
        for n in range(count):
            await app.send_event({"name": name, "data": {"n": n}})
            await asyncio.sleep(random.random() / 15)

    sending = asyncio.create_task(send())
    while not sending.done():
        async with workers(app):
            await asyncio.sleep(random.random())
    await sending
    async with workers(app):
        for run in runs:
            assert await run.result() == list(range(count))


async def test_a_namespace_that_is_not_there_is_an_error_and_not_a_topic_that_nobody_needs(
    temporal: temporalio.client.Client, name: str
) -> None:
    config = temporal.config()
    config["namespace"] = "gone"
    gone = temporalio.client.Client(**config)
    event = {"name": name, "data": {}, "id": new_ulid(), "ts": 0, "v": None}
    with pytest.raises(RPCError) as of_sender:
        await Topics(gone).publish([event])
    to_a_run = Delivery(workflow_id="order/1", run_id="1", key="wait", kind="once", event=0)
    argument = to_raw(Batch(events=[event], deliveries=[to_a_run]).model_dump(mode="json"))
    with pytest.raises(ExceptionGroup) as of_topic:
        await ActivityEnvironment(client=gone).run(deliver_events, argument)
    for raised in (of_sender, of_topic):
        assert "gone" in str(first_of(raised.value))


async def test_a_worker_that_delivers_says_that_it_is_alive_so_that_another_soon_takes_the_place_of_a_dead_one(
    app: steporal.Client, workers: Workers, name: str, handle: temporalio.client.WorkflowHandle[Any, Any]
) -> None:
    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event("wait", event=name, timeout="1h")
        return event.id if event else None

    async with workers(app):
        run = await waits.start()
        await until_waiting(run)
        sent = await app.send_event({"name": name})
        assert await run.result() == sent.ids[0]
        history = await handle.fetch_history()
    deliveries = [
        event.activity_task_scheduled_event_attributes
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
    assert [delivery.heartbeat_timeout.ToTimedelta() for delivery in deliveries] == [DELIVERY_HEARTBEAT_TIMEOUT]


@pytest.fixture
async def narrow(max_cached_workflows: int) -> AsyncIterator[Workers]:
    """Workers on a server that takes 40 signals for an execution, where others take 10,000."""
    limits = ["history.maximumSignalsPerExecution=40", "limit.historyCount.suggestContinueAsNew=30"]
    async with dev_server(dynamic_config=limits) as server:
        started = Workers(server.client, max_cached_workflows)
        yield started
        await started.replay()


@pytest.mark.needs_cache("the history of a run with thousands of signals, from its start for each of them")
async def test_a_run_that_takes_no_more_signals_now_is_told_later_and_holds_up_nobody(
    app: steporal.Client, narrow: Workers, name: str
) -> None:
    """One that is busy cannot continue as new; one that is parked does, with all that it has not taken."""
    busy = asyncio.Event()

    @app.workflow(id="listens")
    async def listens(ctx: Context[Any], step: Step) -> Any:
        listener = await step.ext.listen("listen", event=name, timeout="1h")
        await step.run("work", lambda: busy.wait())
        heard = [await listener.next("next") for _ in range(100)]
        return [event and event.data["n"] for event in heard]

    @app.workflow(id="parks", ext=steporal.WorkflowExt(park_after="1s"))
    async def parks(ctx: Context[Any], step: Step) -> Any:
        listener = await step.ext.listen("listen", event=name, timeout="1h")
        await step.wait_for_signal("go", signal=name, timeout="1h")
        heard = [await listener.next("next") for _ in range(100)]
        return [event and event.data["n"] for event in heard]

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event("wait", event=name, if_exp="async.data.n == 99", timeout="1h")
        return event and event.data["n"]

    async with narrow(app), asyncio.timeout(90):
        parked, listening = await parks.start(), await listens.start()
        others = [await waits.start() for _ in range(8)]
        for run in (parked, *others):
            await until_waiting(run)
        executions = [await until_continued(parked, parked.run_id)]
        for first in range(0, 100, 20):
            await app.send_event([{"name": name, "data": {"n": n}} for n in range(first, first + 20)])
        assert [await run.result() for run in others] == [99] * 8
        executions.append(await until_continued(parked, executions[-1]))
        await app.send_signal(name)
        assert await parked.result() == list(range(100))
        busy.set()
        assert await listening.result() == list(range(100))


@pytest.mark.needs_cache("the history of a run with many signals, from its start for each of them")
async def test_a_signal_to_a_run_that_takes_no_more_signals_now_is_received_when_it_does_again(
    app: steporal.Client, narrow: Workers, name: str
) -> None:
    busy = asyncio.Event()

    @app.workflow(id="full")
    async def full(ctx: Context[Any], step: Step) -> Any:
        await step.ext.listen("listen", event=name, timeout="1h")
        work = asyncio.create_task(step.run("work", lambda: busy.wait()))
        received = await step.wait_for_signal("go", signal=name, timeout="1h")
        await work
        return received and received.data

    async with narrow(app), asyncio.timeout(90):
        run = await full.start()
        await until_waiting(run)
        while str((await run.temporal.fetch_history()).events).count("steporal.deliver") < 40:
            await app.send_event([{"name": name, "data": {}} for _ in range(20)])
            await asyncio.sleep(0.2)
        sending = asyncio.create_task(app.send_signal(name, "went"))
        await asyncio.sleep(1)
        assert not sending.done(), "a run waits, so nobody is told that none does"
        busy.set()
        assert (await sending).run_id == run.run_id
        assert await run.result() == "went"


@pytest.mark.needs_cache("megabytes of history, from their start for each workflow task")
async def test_a_topic_whose_history_becomes_too_long_drops_events_and_keeps_its_waits(
    app: steporal.Client, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A run accepts no more signals, so the topic can neither deliver its events nor hand them to a next execution."""
    monkeypatch.setattr(topic, "MAX_STATE_BYTES", 300_000)
    monkeypatch.setattr(topic, "_MAX_HISTORY_BYTES", 2_500_000)
    monkeypatch.setattr(delivery, "_PAUSE_SECONDS", 0.2)
    busy = asyncio.Event()

    @app.workflow(id="listens", ext=steporal.WorkflowExt(park_after="1s"))
    async def listens(ctx: Context[Any], step: Step) -> Any:
        listener = await step.ext.listen("listen", event=name, timeout="1h")
        await step.run("work", lambda: busy.wait())
        numbers = []
        while not numbers or numbers[-1] != "last":
            event = await listener.next("next")
            numbers.append(event and event.data["n"])
        return numbers

    limits = ["history.maximumSignalsPerExecution=12", "limit.historySize.suggestContinueAsNew=1000000"]
    async with dev_server(dynamic_config=limits) as server, asyncio.timeout(100):
        workers = Workers(server.client, 1000)
        async with workers(app):
            handle = server.client.get_workflow_handle(f"steporal.topic/{name}")
            run = await listens.start()
            while not await is_subscribed(handle):
                await asyncio.sleep(0.05)
            await app.send_event([{"name": name, "data": {"n": n}} for n in range(12)])
            for n in range(6):
                await app.send_event({"name": name, "data": {"n": f"lost {n}", "large": "x" * 300_000}})
            while len(await executions(server.client, handle.id)) == 1:
                await asyncio.sleep(0.5)
            busy.set()
            await app.send_event({"name": name, "data": {"n": "last"}})
            assert await run.result() == [*range(12), "last"]
        assert any("dropped 6 signals and deliveries" in record.getMessage() for record in caplog.records)


async def is_subscribed(handle: temporalio.client.WorkflowHandle[Any, Any]) -> bool:
    try:
        return bool((await handle.query("steporal.subscriptions"))["count"])
    except RPCError:
        return False


async def until_continued(run: steporal.Run[Any], execution: str) -> str:
    """Wait until a run has continued as new; Temporal's run id of the next execution."""
    while (described := await run.temporal.describe()).run_id == execution:
        await asyncio.sleep(0.02)
    return described.run_id
