"""What happens around the runs that are recorded."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from temporalio.common import RawValue
from temporalio.testing import TimeSkipper

import steporal
from steporal import InvalidInputError
from steporal.routing.catalog.arbiter import arbiter_id
from steporal.routing.catalog.shards import shard_id, shard_of_app
from steporal.routing.mailbox import mailbox_id
from steporal.routing.mailbox_client import Mailboxes
from steporal.routing.topics.client import Topics
from steporal.routing.topics.directory import Wanted, directory_id, shard_of
from steporal.routing.topics.directory_client import Directory
from steporal.routing.topics.late import Letter, publish_later
from steporal.routing.topics.subscription import Subscription
from steporal.routing.topics.topic import topic_id
from steporal.runtime.steps import invoke
from steporal.wire.names import ARBITER, DELIVER, DIRECTORY, LATE, MAILBOX, PUBLISH, SHARD, TOPIC
from steporal.wire.run_state import RunState
from steporal.wire.start import Origin

from . import app
from .stage import Handle, Stage, checkpoint, children_of, ended, recover, until, until_done, until_parked, until_seen

shop = app.shop


# --- steps ---------------------------------------------------------------------------------------------------------


async def orders(stage: Stage) -> None:
    """A run for each way in which one starts."""
    run = await stage.start("", app.process_order, app.Order(order_id="1", amount=2.0))
    event = {"name": "order.placed", "id": "event", "data": {"order_id": "2", "amount": 1}}
    by_event = await stage.started_by(app.process_order, event)
    await shop.send_event(event)  # again
    later = {**event, "id": "later", "ts": int(time.time() * 1000) + 1500}
    by_later = await stage.started_by(app.process_order, later)
    await shop.send_event(later)
    unfit = await stage.started_by(app.process_order, {**event, "id": "unfit", "data": {"amount": 1}})
    data = {"order_id": "3"}
    await stage.temporal.start_workflow("process-order", data, id="order 3", task_queue=shop.task_queue)
    await ended(run, by_event, by_later, unfit, stage.keep("process-order.foreign", "order 3"))


async def failing(stage: Stage) -> None:
    await ended(
        await stage.start("", app.step_failures),
        await stage.start("", app.body_attempts),
        await stage.start("", app.fetches, stage.http.url),
    )
    for how in ("body", "step"):
        run = await stage.start(how, app.fails, how)
        await ended(run, stage.keep(f"fails-failure.{how}", f"{shop.id}/fails-failure/{run.first_execution_run_id}"))


async def outlasting(stage: Stage) -> None:
    await ended(await stage.start("", app.outlasts))


async def yearly(stage: Stage, name: str = "cron") -> None:
    """A schedule that fires."""
    (schedule,) = [listed async for listed in await stage.temporal.list_schedules()]
    handle = stage.temporal.get_schedule_handle(schedule.id)
    await handle.trigger()

    async def has_fired() -> bool:
        return bool((await handle.describe()).info.recent_actions)

    await until(has_fired)
    (fired,) = (await handle.describe()).info.recent_actions
    await ended(stage.keep(f"yearly.{name}", fired.action.workflow_id))


async def invoking(stage: Stage) -> None:
    run = await stage.start("", app.invokes)
    await ended(run)
    own, anothers, *_ = await children_of(run)
    await ended(stage.keep("child", own), stage.keep("pack", anothers))


async def deliveries(stage: Stage) -> None:
    ids = ("delivered", "busy", "refused")
    await shop.send_event([{"name": "hook.called", "id": id} for id in ids])
    later = {"name": "hook.called", "id": "later", "ts": int(time.time() * 1000) + 1500}
    await shop.send_event(later)
    await shop.send_event(later)  # again
    await shop.send_event({"name": "unheard", "id": "broken"})
    await ended(*(stage.keep(f"hook.{id}", f"{shop.id}/hook/{id}") for id in (*ids, "later")))
    await ended(stage.keep("hook.given-up", f"{shop.id}/hook-in-vain/broken"))


# --- events --------------------------------------------------------------------------------------------------------


async def waiting(stage: Stage) -> None:
    event = {"name": "waits.start", "id": "event", "data": {"order": 1}}
    run = await stage.started_by(app.waits_for_events, event)
    await until_seen(run, "matching")
    for order in (2, 1):
        await shop.send_event({"name": "waits.paid", "id": f"paid {order}", "data": {"order": order}})
    await until_seen(run, "several")
    await shop.send_event([{"name": "paid.late", "id": "a"}, {"name": "waits.b", "id": "b"}])
    await ended(run)
    for name in ("waits.paid", "paid.*"):
        stage.keep(f"{TOPIC}.{name.replace('*', 'all')}", topic_id(name))


async def listening(stage: Stage) -> None:
    run = await stage.start("", app.listens)
    await until_seen(run, "act")
    for n in (0, 1):
        await shop.send_event({"name": f"heard.{n}", "id": f"heard {n}", "data": {"n": n}})
    await until_seen(run, DELIVER)
    await delivered_again(run)
    for n in (1, 2, 3):
        await shop.send_event({"name": f"heard.{n}", "id": f"heard {n}", "data": {"n": n}})
    await ended(run)
    stage.keep(f"{TOPIC}.listeners", topic_id("heard.*"))


async def delivered_again(run: Handle) -> None:
    """What a topic does whose activity is tried again."""
    for event in (await run.fetch_history()).events:
        signaled = event.workflow_execution_signaled_event_attributes
        if signaled.signal_name == DELIVER:
            await run.signal(DELIVER, RawValue(signaled.input.payloads[0]))


async def stopping(stage: Stage) -> None:
    """Runs that an event cancels, and one that a user does."""
    event = {"name": "cancelled.start", "id": "event", "data": {"order": 1}}
    by_event = await stage.started_by(app.cancelled_by_events, event)
    run = await stage.start("", app.cancelled)
    await until_seen(by_event, "long")
    await shop.send_event([{"name": "cancelled.stop", "data": {"order": order}} for order in (2, 1)])
    for text in ("event", "signal", "child"):
        await until_seen(run, text)
    await until(lambda: Mailboxes(stage.temporal).find("cancelled/never"))
    await run.cancel()
    await ended(by_event, run)
    stage.keep(f"{TOPIC}.cancelling", topic_id("cancelled.stop"))


async def ended_topic(stage: Stage) -> None:
    """A topic confirms that a run waits, and ends when its last subscription has ended."""
    subscription = Subscription(workflow_id="gone", run_id="gone", key="wait", kind="once", until=time.time() + 5_000)
    await Topics(TimeSkipper(stage.temporal).client).subscribe(["ended"], subscription)
    await ended(stage.keep(f"{TOPIC}.ended", topic_id("ended")))


async def listed(stage: Stage) -> None:
    """A shard of the directory: a topic is listed, and gets parts."""
    directory = Directory(stage.temporal)
    await directory.listed(Wanted(topic="listed"))
    await directory.list_topics([Wanted(topic="listed", count=8, path=("data", "id"))])
    await directory.list_topics([Wanted(topic="listed", count=8, others=True)])
    stage.keep(DIRECTORY, directory_id(shard_of("listed")))


async def listed_often(stage: Stage) -> None:
    """A shard that continues as new."""
    directory = Directory(stage.temporal)
    for _ in range(14):
        await directory.list_topics([Wanted(topic="listed"), Wanted(topic="listed", count=8)])
    stage.keep(f"{DIRECTORY}.long", directory_id(shard_of("listed")))


async def published_late(stage: Stage) -> None:
    """A topic that could not be told when the event was sent has ended by now."""
    letter = Letter(receiver=topic_id("nobody"), signal=PUBLISH, messages=[])
    await ended(stage.keep(LATE, await publish_later(stage.temporal, letter)))


# --- signals -------------------------------------------------------------------------------------------------------


async def until_open(stage: Stage, signal: str, run: Handle) -> None:
    async def is_open() -> bool:
        held = await Mailboxes(stage.temporal).find(signal)
        return held is not None and held.wait.run_id == run.first_execution_run_id

    await until(is_open)


async def approval(stage: Stage, name: str, **wanted: Any) -> Handle:
    """A run that waits for a signal, and its mailbox, kept."""
    signal = wanted.setdefault("signal", name)
    run = await stage.start(name, app.waits_for_signal, wanted)
    await until_open(stage, signal, run)
    if signal == name:
        stage.keep(f"{MAILBOX}.{name}", mailbox_id(signal))
    return run


async def signals(stage: Stage) -> None:
    run = await approval(stage, "received", order=True)
    await shop.send_signal("received", {"order_id": "1"})
    sent = await approval(stage, "sent", order=True)
    sender = await stage.start("", app.sends_signals, "sent")
    unfit = await approval(stage, "unfit", order=True)
    with suppress(InvalidInputError):  # the wait goes on
        await shop.send_signal("unfit", "no order")
    await shop.send_signal("unfit", {"order_id": "2"})
    late = await approval(stage, "timeout", timeout="1s")
    left = await stage.start("", app.leaves_a_signal, "left")
    await until_open(stage, "left", left)
    stage.keep(f"{MAILBOX}.left", mailbox_id("left"))
    await ended(run, sent, sender, unfit, late, left)


async def contested_signals(stage: Stage) -> None:
    first = await approval(stage, "first", signal="contested", timeout="10s")
    refused = await stage.start("refused", app.waits_for_signal, {"signal": "contested"})
    await ended(refused)
    second = await approval(stage, "second", signal="contested", replace=True)
    stage.keep(f"{MAILBOX}.replaced", mailbox_id("contested"))
    await ended(first)
    await shop.send_signal("contested", "to the second")
    await ended(second)


async def raced_signals(stage: Stage) -> None:
    run = await stage.start("", app.races_for_signal, "raced")
    await until_seen(run, "backoff")
    await until_open(stage, "raced", run)
    await shop.send_signal("raced", "won")
    await ended(run)
    stage.keep(f"{MAILBOX}.raced", mailbox_id("raced"))


async def lost_signals(stage: Stage) -> None:
    """Mailboxes of runs that were terminated: one that is sent to, and one that is not."""
    gone = await approval(stage, "gone")
    forgotten = await approval(stage, "forgotten", timeout="2s")
    await gone.terminate()
    await forgotten.terminate()
    await shop.send_signal("gone", "to nobody")
    await ended(stage.temporal.get_workflow_handle(mailbox_id("forgotten")))
    cancelled = await approval(stage, "cancelled")
    await stage.temporal.get_workflow_handle(mailbox_id("cancelled")).cancel()
    await cancelled.cancel()
    await ended(cancelled)


# --- runs of several executions ------------------------------------------------------------------------------------


async def parked(stage: Stage, name: str, *kinds: str) -> Handle:
    """A run that waits for something, and is parked."""
    event = {"name": "parks.start", "id": name, "data": {"for": kinds, "id": name}}
    run = await stage.started_by(app.parks, event)
    await until_parked(run)
    return run


async def parking(stage: Stage) -> None:
    """Each kind of wait, by itself."""
    kinds = ("sleep", "no event", "no signal", "child", "child fails", "child is late", "backoff", "timer", "timeout")
    runs = [await parked(stage, kind.replace(" ", "-"), kind) for kind in kinds]
    by_event = await parked(stage, "event", "event")
    by_signal = await parked(stage, "signal", "signal")
    await shop.send_event({"name": "parks.event", "data": {"id": "event"}})
    await shop.send_signal("parks/signal", "yes")
    await ended(*runs, by_event, by_signal)
    (asked,) = await children_of(runs[kinds.index("child")])
    stage.keep("child.asked", asked)


async def parking_until_it_begins(stage: Stage) -> None:
    """A run whose event has a time in the future."""
    later = int(time.time() * 1000) + 10_000
    event = {"name": "parks.start", "id": "later", "data": {"for": [], "id": "later"}, "ts": later}
    run = await stage.started_by(app.parks, event)
    await shop.send_event(event)
    await until_parked(run)
    await ended(run)


async def parking_for_all(stage: Stage) -> None:
    kinds = ("sleep", "event", "no event", "signal", "no signal", "child", "child fails", "child is late")
    run = await parked(stage, "all", *kinds)
    await shop.send_event({"name": "parks.event", "data": {"id": "all"}})
    await shop.send_signal("parks/all", "yes")
    await ended(run)
    listener = await stage.start("", app.parks_listening)
    await until_parked(listener)
    for n in range(2):
        await shop.send_event({"name": "parks.heard", "id": f"parks.heard {n}", "data": {"n": n}})
    await until_parked(listener, 2)
    topic = stage.keep(f"{TOPIC}.repeated", topic_id("parks.heard"))
    for n in (0, 2, 3):
        await shop.send_event({"name": "parks.heard", "id": f"parks.heard {n}", "data": {"n": n}})
        await until_done(topic)
    await ended(listener)


async def leaving_parked(stage: Stage) -> None:
    """Runs that end while they are parked, or are parked still."""
    by_user = await parked(stage, "cancelled", "long sleep", "signal")
    by_event = await parked(stage, "cancelled-by-event", "long sleep", "event")
    await by_user.cancel()
    await shop.send_event({"name": "parks.stop", "data": {"id": "cancelled-by-event"}})
    await ended(by_user, by_event)
    await parked(stage, "still", "long sleep", "event", "signal")


async def checkpoints(stage: Stage) -> None:
    """Runs that are held at work until the time is over, or until they are released; and one that is parked already."""
    held = await stage.start("held", app.works)
    released = await stage.start("released", app.works)
    for run, hold in ((held, 1.0), (released, 60.0)):
        await until_seen(run, "work")
        await checkpoint(run, hold)
    await until_parked(released)
    await checkpoint(released, 0)
    twice = await parked(stage, "checkpoint", "sleep")
    await checkpoint(twice, 1.0)
    await ended(held, released, twice)


async def recovering(stage: Stage) -> None:
    """What ``steporal recover`` does to a run that is stuck."""
    run = await stage.start("", app.is_recovered)
    await until_open(stage, "recovered", run)
    for text in ("recovered", "child", "sleep"):
        await until_seen(run, text)
    await until_done(run)
    await recover(run)
    await shop.send_event({"name": "recovered", "id": "recovered"})
    await shop.send_signal("recovered", "yes")
    await ended(run)


# --- after all others ----------------------------------------------------------------------------------------------


async def lost_subscriber(stage: Stage) -> None:
    """A topic finds out that a run is gone."""
    run = await stage.start("terminated", app.waits_for_events, {"order": 1})
    await until_seen(run, "matching")
    topic = stage.temporal.get_workflow_handle(topic_id("waits.paid"))
    await run.terminate()
    await shop.send_event({"name": "waits.paid", "id": "to nobody", "data": {"order": 1}})
    await until_seen(topic, "to nobody")


async def gone_child(stage: Stage) -> None:
    """A child that cannot report its end, as it was terminated: the run looks."""
    with patch.object(invoke, "LOOK_AFTER", timedelta(seconds=2)):
        run = await parked(stage, "child-is-gone", "child is gone")
        (child,) = await children_of(run)
        await stage.temporal.get_workflow_handle(child).terminate()
        await ended(run)


async def told_ends(stage: Stage) -> None:
    """Runs whose ends somebody hears of, as nobody does of those before."""
    await shop.sending.dispatcher(stage.temporal).catalog.read_all(fresh=True)
    run = await stage.start("told", app.child, {"of": "told"})
    failed = await stage.start("told", app.fails, "body")
    stopped = await stage.start("told-cancelled", app.child, {"of": "told", "sleep": "1h"})
    await until_seen(stopped, "a while")
    await stopped.cancel()
    await ended(run, failed, stopped)
    await ended(stage.keep("hears-of-ends", f"{app.audit.id}/hears-of-ends/{stopped.first_execution_run_id}"))


async def registering(stage: Stage) -> None:
    """An app that changes until its workflow and a shard have continued as new, and is removed then."""
    for number in range(45):
        client = steporal.Client("another", temporal=stage.temporal, revision=number)

        @client.workflow(id="work", triggers=[steporal.event_trigger(f"work.{number}")])
        async def work(ctx: steporal.Context[Any], step: steporal.Step) -> None: ...

        await client.sync(changed_only=True)
    await steporal.Client("another", temporal=stage.temporal).sync()
    stage.keep(ARBITER, arbiter_id("another"))
    stage.keep(SHARD, shard_id(shard_of_app("another")))


# --- on a server that suggests early to continue as new ------------------------------------------------------------


async def crowd(stage: Stage) -> None:
    """A topic delivers to many runs at once, and to each wait once."""
    runs = [(await app.waits_in_a_crowd.start(id=f"waits-in-a-crowd/{n}")).temporal for n in range(6)]
    stage.keep("waits-in-a-crowd", "waits-in-a-crowd/0")
    for run in runs:
        await until_seen(run, "steporal.subscribe")
    topic = stage.keep(f"{TOPIC}.crowd", topic_id("crowd"))
    for number in range(4):
        await shop.send_event({"name": "crowd", "id": f"crowd {number}"})
        await until_done(topic)
    await ended(*runs)


async def long_runs(stage: Stage) -> None:
    stepping = await stage.start("", app.loops)
    hearing = await stage.start("", app.loops_listening)
    await until_seen(hearing, "listen")
    await until_open(stage, "loops/done", hearing)
    for n in range(30):
        await shop.send_event({"name": "loops.heard", "id": f"loops.heard {n}", "data": {"n": n}})
    await shop.send_signal("loops/done", "done")
    await ended(stepping, hearing)
    stage.keep(f"{TOPIC}.long", topic_id("loops.heard"))


# --- on a server with search attributes ----------------------------------------------------------------------------


async def indexed(stage: Stage) -> None:
    """Runs that have search attributes, which change as they park and wake; a schedule's give themselves theirs."""
    await yearly(stage, "indexed")
    run = await parked(stage, "indexed", "sleep", "event", "signal", "child")
    await shop.send_event({"name": "parks.event", "data": {"id": "indexed"}})
    await shop.send_signal("parks/indexed", "yes")
    await ended(run)


async def begun_with_steps(stage: Stage) -> None:
    """A run that begins with a finished step of another, as ``steporal runs rerun --from`` starts it."""
    origin = Origin("event", "rerun", "parks.start", listened=False)
    kept = RunState(is_parked=False, started=0, seed="", memo={"before": ([{"before": "another"}], 0)})
    arguments = [*origin.arguments({"for": ["sleep"], "id": "rerun"}), kept.raw(lambda: False)]
    await stage.temporal.start_workflow("parks", args=arguments, id="parks/rerun", task_queue=shop.task_queue)
    await ended(stage.keep("parks.rerun", "parks/rerun"))


TOGETHER = (
    orders, failing, yearly, invoking, waiting, listening, stopping, ended_topic, listed, published_late, signals,
    contested_signals, raced_signals, lost_signals, parking, parking_until_it_begins, parking_for_all, leaving_parked,
    checkpoints, recovering, deliveries,
)  # fmt: skip
"""Scenes that may be played at once."""
