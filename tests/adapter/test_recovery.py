"""Runs that are stuck, as their code was edited under them, go on with what they have done (`steporal recover`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import temporalio.client
from recording import Workers
from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError
from temporalio.worker import Worker
from waiting import TIMER, until_waiting

import steporal
from steporal import CancelOn, Context, RunCancelledError, Step, StepError, WorkflowExt, event_trigger
from steporal.events import new_ulid
from steporal.history.recovery import rebuild
from steporal.operations.recover import RecoverOptions, _Recovery
from steporal.routing.dispatch import Dispatcher
from steporal.routing.mailbox_client import Mailboxes
from steporal.routing.topics.client import Topics
from steporal.routing.topics.subscription import Subscription
from steporal_workers.recover import run_recover

Edit = Callable[[Step], Awaitable[object]]


@pytest.fixture
def app(request: pytest.FixtureRequest) -> steporal.Client:
    return version_of(f"{request.node.name[:80]} {new_ulid()}")


@pytest.fixture
def name() -> str:
    """A name of events and signals that no other test uses."""
    return f"paid.{new_ulid()}"


def version_of(app_id: str, park_after: str = "never") -> steporal.Client:
    """The same app with other code; its runs do not park."""
    return steporal.Client(app_id, park_after=park_after)


async def unedited(step: Step) -> None:
    """What a body of the first version does before everything else."""


async def edited(step: Step) -> None:
    """A step that the history does not have, at the top: no worker can replay the run."""
    await step.run("new at the top", lambda: None)


async def recovered(app: steporal.Client, run: steporal.Run[Any], workers: Workers, **options: Any) -> None:
    """Recover the only run that an app has; it is not to be replayed with the old code."""
    app.temporal = workers.temporal
    where = f"WorkflowId = '{run.workflow_id}'"
    await until_visible(run)
    assert await run_recover(app, workers.temporal, RecoverOptions(where=where, **options)) == 0


def stuck_in(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The runs that the command has found, in what it has printed last."""
    printed = capsys.readouterr()
    assert printed.out, printed.err
    found: list[dict[str, Any]] = json.loads(printed.out)["stuck"]
    return found


async def until_in(run: steporal.Run[Any], steps: set[str]) -> None:
    """Wait until a run is in these waits."""
    async with asyncio.timeout(30):
        while True:
            events = (await run.temporal.fetch_history()).events
            timers = [event.user_metadata.summary.data for event in events if event.event_type == TIMER]
            if steps <= {json.loads(text) for text in timers if text}:
                return
            await asyncio.sleep(0.05)


async def send_when_open(app: steporal.Client, signal: str, data: Any = None) -> None:
    async with asyncio.timeout(30):
        while (await app.send_signal(signal, data)).run_id is None:
            await asyncio.sleep(0.05)


async def until_visible(run: steporal.Run[Any]) -> None:
    client = run.temporal._client
    async with asyncio.timeout(20):
        while not [each async for each in client.list_workflows(f"WorkflowId = '{run.workflow_id}'")]:
            await asyncio.sleep(0.05)


async def until_steps(ran: list[str], count: int) -> None:
    async with asyncio.timeout(20):
        while len(ran) < count:
            await asyncio.sleep(0.03)


async def test_no_finished_step_runs_again_and_what_was_awaited_goes_on(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    ran: list[str] = []

    def define(app: steporal.Client, edit: Edit) -> steporal.Workflow[Any, Any]:
        @app.workflow(id="child")
        async def child(ctx: Context[Any], step: Step) -> Any:
            received = await step.wait_for_signal("go", signal=f"{name}.child", timeout="1h")
            return received and [ctx.input.data, received.data]

        @app.workflow(id="quick")
        async def quick(ctx: Context[Any], step: Step) -> Any:
            return ctx.input.data * 2

        @app.workflow(id="busy")
        async def busy(ctx: Context[Any], step: Step) -> Any:
            await edit(step)
            drawn = [ctx.random.random(), str(ctx.uuid4())]
            seen = await step.run("see", lambda: ran.append("see") or [ctx.run_id, drawn])  # type: ignore[func-returns-value]
            local = await step.run("local", lambda: ran.append("local") or 1, local=True)  # type: ignore[func-returns-value]
            await step.sleep("nap", "10ms")
            doubled = await step.invoke_workflow("double", workflow=quick, data=4)
            sent = await step.ext.send_event("tell", {"name": f"{name}.told"})
            failed = None
            try:
                await step.run("fails", lambda: ran.append("fails") or 1 / 0, max_attempts=1)  # type: ignore[func-returns-value]
            except StepError as err:
                failed = [err.name, err.message, err.attempts]
            listener = await step.ext.listen("listen", event=[f"{name}.heard", f"{name}.seen"], timeout="1h")
            early = await step.ext.wait_for_event("early", event=f"{name}.early", timeout="1h")
            never = await step.ext.wait_for_event("never", event=f"{name}.never", timeout="50ms")
            unsignalled = await step.wait_for_signal("unsignalled", signal=f"{name}.never", timeout="50ms")
            signalled = await step.wait_for_signal("first", signal=f"{name}.first", timeout="1h")
            heard = [await listener.next("one"), await listener.next("none", timeout="50ms")]
            waited = await asyncio.gather(
                step.sleep("sleep", "5s"),
                step.ext.wait_for_event("event", event=name, timeout="1h"),
                step.wait_for_signal("signal", signal=name, timeout="1h"),
                step.invoke_workflow("child", workflow=child, data="parent"),
                listener.next("two"),
            )
            last = await step.run("last", lambda: ran.append("last") or "done")  # type: ignore[func-returns-value]
            assert early and signalled and waited[1] and waited[2] and waited[4] and heard[0]
            return {
                "same": seen == [ctx.run_id, drawn],
                "values": [local, doubled, len(sent.ids), failed, never, unsignalled, heard[1], last],
                "events": [early.data, heard[0].data, waited[1].data, waited[4].data],
                "signals": [signalled.data, waited[2].data],
                "child": waited[3],
            }

        return busy

    old, new = app, version_of(app.id)
    busy = define(old, unedited)
    define(new, edited)
    async with workers(old):
        run = await busy.start(None)
        await until_steps(ran, 3)
        await until_waiting(run, 2)
        await old.send_event({"name": f"{name}.heard", "data": {"n": 1}})
        await old.send_event({"name": f"{name}.early", "data": {"early": True}})
        await send_when_open(old, f"{name}.first", "s1")
        await until_in(run, {"sleep", "event", "signal", "two"})
        await old.send_event({"name": f"{name}.heard", "data": {"n": 2}})
    await old.send_event({"name": name, "data": {"while": "stuck"}})
    workers.drop(run.workflow_id)
    await recovered(new, run, workers)
    async with workers(new):
        await send_when_open(new, f"{name}.child", {"go": True})
        await send_when_open(new, name, "s2")
        async with asyncio.timeout(30):
            result = await run.result()
    assert result == {
        "same": True,
        "values": [1, 8, 1, ["ZeroDivisionError", "division by zero", 1], None, None, None, "done"],
        "events": [{"early": True}, {"n": 1}, {"while": "stuck"}, {"n": 2}],
        "signals": ["s1", "s2"],
        "child": ["parent", {"go": True}],
    }
    assert ran == ["see", "local", "fails", "last"]


@pytest.mark.needs_cache("the SDK repeats local activities, of which each run has some")
async def test_runs_that_are_stopped_at_any_moment_go_on(
    app: steporal.Client, workers: Workers, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def define(app: steporal.Client, edit: Edit) -> steporal.Workflow[Any, Any]:
        @app.workflow(id="double")
        async def double(ctx: Context[Any], step: Step) -> Any:
            await step.sleep("a moment", "50ms")
            return ctx.input.data * 2

        @app.workflow(id="talks")
        async def talks(ctx: Context[Any], step: Step) -> Any:
            await edit(step)
            number = ctx.input.data
            name_of_event = f"{name}.{number}"
            never = f"{name_of_event}.never"
            listener = await step.ext.listen("listen", event=name_of_event, timeout="1h")
            total = 0
            for n in range(3):
                await step.run("work", lambda: ran.append(f"{number} work {n}"))
                await step.ext.send_event("say", {"name": name_of_event, "data": {"n": n}})
                heard = await listener.next("hear")
                assert heard
                total += heard.data["n"]
                race = [
                    asyncio.create_task(step.sleep("short", "20ms")),
                    asyncio.create_task(step.ext.wait_for_event("lost", event=f"{name}.never", timeout="1h")),
                    asyncio.create_task(step.wait_for_signal("lost too", signal=never, timeout="1h")),
                ]
                _, losers = await asyncio.wait(race, return_when=asyncio.FIRST_COMPLETED)
                for loser in losers:
                    loser.cancel()
                await asyncio.gather(*race, return_exceptions=True)
                total += await step.invoke_workflow("double", workflow=double, data=n)
                await step.wait_for_signal("pause", signal=never, timeout="30ms")
            await step.run("end", lambda: ran.append(f"{number} end"))
            return total

        return talks

    old, new = app, version_of(app.id)
    talks = define(old, unedited)
    define(new, edited)
    chance = random.Random(4)
    count = 6
    async with workers(old):
        runs = []
        for number in range(count):
            runs.append(await talks.start(number))
            await asyncio.sleep(chance.random() * 0.3)
    workers.drop(*[run.workflow_id for run in runs])
    for run in runs:
        await until_visible(run)
    new.temporal = workers.temporal
    assert await run_recover(new, workers.temporal, RecoverOptions(), as_json=True) == 0
    stuck = stuck_in(capsys)
    assert stuck, "all of them had ended before they could be stopped"
    async with workers(new), asyncio.timeout(60):
        assert [await run.result() for run in runs] == [9] * count
    steps = [f"{r} work {n}" for r in range(count) for n in range(3)] + [f"{r} end" for r in range(count)]
    assert sorted(ran) == sorted(steps)


async def test_a_run_that_continued_as_new_is_recovered_and_again(app: steporal.Client, workers: Workers) -> None:
    """Its base is what the execution before has handed over; then, what the first recovery has."""
    ran: list[str] = []

    def define(app: steporal.Client, top: str) -> steporal.Workflow[Any, Any]:
        @app.workflow(id="stages")
        async def stages(ctx: Context[Any], step: Step) -> Any:
            if top != "v1":
                await step.run(top, lambda: ran.append(top))
            await step.run("one", lambda: ran.append("one"))
            await step.wait_for_signal("park", signal=f"{ctx.run_id}.1", timeout="1h")
            await step.run("two", lambda: ran.append("two"))
            await step.wait_for_signal("stop", signal=f"{ctx.run_id}.2", timeout="1h")
            await step.run("three", lambda: ran.append("three"))
            await step.wait_for_signal("again", signal=f"{ctx.run_id}.3", timeout="1h")
            return ran

        return stages

    versions = [version_of(app.id, "1s"), version_of(app.id), version_of(app.id)]
    stages = [define(version, f"v{number}") for number, version in enumerate(versions, 1)]
    run = None
    for number, version in enumerate(versions, 1):
        async with workers(version), asyncio.timeout(30):
            if run is None:
                run = await stages[0].start(None)
                while (await run.temporal.describe()).run_id == run.run_id:
                    await asyncio.sleep(0.05)
            await send_when_open(version, f"{run.run_id}.{number}")
            if number == 3:
                assert await run.result() == ["one", "two", "v2", "three", "v3"]
            else:
                await until_steps(ran, 2 if number == 1 else 4)
                await until_waiting(run)
                while not await is_waiting_for(version, f"{run.run_id}.{number + 1}"):
                    await asyncio.sleep(0.05)
        if number < 3:
            workers.drop(run.workflow_id)
            await recovered(versions[number], run, workers)


async def is_waiting_for(app: steporal.Client, signal: str) -> bool:
    mailbox = app.temporal.get_workflow_handle(f"steporal.mailbox/{signal}")
    try:
        return (await mailbox.describe()).status == WorkflowExecutionStatus.RUNNING
    except RPCError:
        return False


async def test_who_waits_for_a_run_hears_of_its_end_after_it_was_recovered(
    app: steporal.Client, other_app: steporal.Client, workers: Workers
) -> None:
    def define(app: steporal.Client, edit: Edit) -> steporal.Workflow[Any, Any]:
        @app.workflow(id="child")
        async def child(ctx: Context[Any], step: Step) -> Any:
            await edit(step)
            await step.wait_for_signal("go", signal=f"{app.id}.go", timeout="1h")
            return "child"

        return child

    old, new = app, version_of(app.id)
    define(old, unedited)
    define(new, edited)

    @other_app.workflow(id="parent")
    async def parent(ctx: Context[Any], step: Step) -> Any:
        return await step.invoke_workflow("child", workflow=steporal.reference(old.id, "child"))

    async with workers(other_app), asyncio.timeout(60):
        async with workers(old, is_listed=True):
            run = await parent.start(None)
            waiting = asyncio.create_task(run.result())
            while not await is_waiting_for(old, f"{app.id}.go"):
                await asyncio.sleep(0.05)
            found = [each async for each in workers.temporal.list_workflows(f"TaskQueue = '{old.task_queue}'")]
            child = await old.get_run(found[0].id)
        result = asyncio.create_task(child.result())
        await asyncio.sleep(0.1)
        workers.drop(child.workflow_id)
        await recovered(new, child, workers)
        async with workers(new):
            await send_when_open(new, f"{app.id}.go")
            assert await result == "child"
            assert await waiting == "child"


async def test_a_running_step_is_waited_for_or_begins_again(
    app: steporal.Client, workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []
    go = asyncio.Event()

    def define(app: steporal.Client, edit: Edit) -> steporal.Workflow[Any, Any]:
        @app.workflow(id="slow")
        async def slow(ctx: Context[Any], step: Step) -> Any:
            await edit(step)

            async def works() -> int:
                ran.append("begun")
                if len(ran) == 1:
                    await go.wait()
                return 1

            return await step.run("works", works, task_queue=f"{app.id} steps")

        return slow

    old, new = app, version_of(app.id)
    slow = define(old, unedited)
    define(new, edited)
    new.temporal = workers.temporal
    options = RecoverOptions(timeout=timedelta(milliseconds=300))
    steps = Worker(workers.temporal, task_queue=f"{old.id} steps", plugins=[old.plugin()])
    async with steps, asyncio.timeout(60):
        async with workers(old):
            run = await slow.start(None)
            await until_visible(run)
            await until_steps(ran, 1)
        workers.drop(run.workflow_id)
        assert await run_recover(new, workers.temporal, options, as_json=True) == 1
        (found,) = stuck_in(capsys)
        assert (found["state"], "--interrupt" in found["advice"]) == ("busy", True)

        assert await run_recover(new, workers.temporal, replace(options, dry_run=True), as_json=True) == 0
        (found,) = stuck_in(capsys)
        assert (found["state"], found["begin_again"], found["finished_steps"]) == ("recoverable", ["works"], 0)

        assert await run_recover(new, workers.temporal, replace(options, interrupt=True), as_json=True) == 0
        (found,) = stuck_in(capsys)
        assert (found["state"], found["begin_again"]) == ("recovered", ["works"])
        go.set()
        async with workers(new):
            assert await run.result() == 1
    assert len(ran) == 2


async def test_a_step_that_would_start_in_the_moment_of_the_reset_begins_once(
    app: steporal.Client, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    GIVEN_BACK.clear()
    queue = f"{app.id} steps"
    steps = Worker(workers.temporal, task_queue=queue, plugins=[app.plugin()])
    reset = _Recovery._reset

    async def body(ctx: Context[Any], step: Step, edit: Edit) -> Any:
        await edit(step)
        await step.run("once", give_back, max_attempts=1, task_queue=queue)

    async def later(self: _Recovery, *args: Any) -> None:
        await stack.enter_async_context(steps)  # what the step waits for
        await asyncio.sleep(1)
        await reset(self, *args)

    monkeypatch.setattr(_Recovery, "_reset", later)
    async with contextlib.AsyncExitStack() as stack:
        new, run = await stopped_and_recovered(app, workers, body, until=until_pending)
        async with workers(new), asyncio.timeout(60):
            await run.result()
    assert GIVEN_BACK == ["given back"]


async def test_a_step_that_was_held_for_a_recovery_that_cannot_be_begins_after_all(
    app: steporal.Client, workers: Workers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    until_idle, asked = _Recovery._until_idle, []

    async def not_at_first(self: _Recovery, *args: Any) -> list[str]:
        asked.append(1)
        return await until_idle(self, *args) if len(asked) > 1 else []

    monkeypatch.setattr(_Recovery, "_until_idle", not_at_first)
    queue = f"{app.id} steps"
    begun, may_end = asyncio.Event(), asyncio.Event()

    def define(app: steporal.Client, edit: Edit) -> steporal.Workflow[Any, Any]:
        @app.workflow(id="run")
        async def handler(ctx: Context[Any], step: Step) -> Any:
            await edit(step)

            async def works() -> None:
                begun.set()
                await may_end.wait()

            await asyncio.gather(
                step.run("works", works, task_queue=queue),
                step.run("waits", lambda: 1, task_queue=f"{queue} of nobody"),
            )

        return handler

    old, new = app, version_of(app.id)
    started = define(old, unedited)
    define(new, edited)
    new.temporal = workers.temporal
    async with Worker(workers.temporal, task_queue=queue, plugins=[old.plugin()]), asyncio.timeout(60):
        async with workers(old):
            run = await started.start(None)
            await until_visible(run)
            await begun.wait()
        workers.drop(run.workflow_id)
        options = RecoverOptions(timeout=timedelta(milliseconds=300))
        assert await run_recover(new, workers.temporal, options, as_json=True) == 1
        (found,) = stuck_in(capsys)
        assert (found["state"], len(asked)) == ("busy", 2)
        pending = (await run.temporal.describe()).raw_description.pending_activities
        assert {each.activity_id: each.paused for each in pending} == {"works": False, "waits": False}
        may_end.set()
        await run.temporal.terminate()


async def until_pending(run: steporal.Run[Any]) -> None:
    """Wait until a step of a run waits for a worker."""
    while not (await run.temporal.describe()).raw_description.pending_activities:
        await asyncio.sleep(0.05)


async def test_a_pause_of_the_body_and_what_cancels_the_run_are_kept(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    ran: list[str] = []

    def define(app: steporal.Client, edit: Edit) -> steporal.Workflow[Any, Any]:
        @app.workflow(id="fails", ext=WorkflowExt(cancel_on=[CancelOn(f"{name}.cancel")]), max_attempts=3)
        async def fails(ctx: Context[Any], step: Step) -> Any:
            await edit(step)
            await step.run("a", lambda: ran.append("a"))
            if ctx.attempt < 1:
                raise steporal.RetryAfterError("later", "2s")
            attempt = ctx.attempt
            await step.run("b", lambda: ran.append(f"attempt {attempt}"))
            await step.sleep("long", "1h")

        return fails

    old, new = app, version_of(app.id)
    fails = define(old, unedited)
    define(new, edited)
    async with workers(old):
        run = await fails.start(None)
        await until_waiting(run)
    workers.drop(run.workflow_id)
    await recovered(new, run, workers)
    async with workers(new), asyncio.timeout(60):
        await until_steps(ran, 2)
        await new.send_event({"name": f"{name}.cancel"})
        with pytest.raises(RunCancelledError):
            await run.result()
    assert ran == ["a", "attempt 1"]


async def test_a_sleep_that_an_edit_has_renamed_counts_from_when_the_body_came_to_it(
    app: steporal.Client, workers: Workers
) -> None:
    def define(app: steporal.Client, before: Edit, night: str) -> steporal.Workflow[Any, Any]:
        @app.workflow(id="sleeps")
        async def sleeps(ctx: Context[Any], step: Step) -> Any:
            await before(step)
            await step.run("work", lambda: None)
            await step.sleep(night, "1h")
            await step.sleep("after", "1h")

        return sleeps

    old, new = app, version_of(app.id)
    sleeps = define(old, edited, "night")
    define(new, unedited, "renamed")
    async with workers(old):
        run = await sleeps.start(None)
        before, worked = (
            await deadline_of(run, "night"),
            await time_of(run, EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED),
        )
    workers.drop(run.workflow_id)
    await recovered(new, run, workers)
    latest = await new.get_run(run.workflow_id)
    async with workers(new):
        # As exact as the run's own past, which has milliseconds.
        rounding = timedelta(milliseconds=2)
        assert worked + timedelta(hours=1) - rounding <= await deadline_of(latest, "renamed") <= before + rounding
        await latest.temporal.terminate()


async def deadline_of(run: steporal.Run[Any], sleep: str) -> datetime:
    """Wait until a run sleeps, and return until when."""
    await until_in(run, {sleep})
    events = (await run.temporal.fetch_history()).events
    for event in events:
        if event.event_type == TIMER and event.user_metadata.summary.data == json.dumps(sleep).encode():
            timer = event.timer_started_event_attributes
            done = events[timer.workflow_task_completed_event_id - 1].workflow_task_completed_event_attributes
            began = events[done.started_event_id - 1].event_time.ToDatetime(tzinfo=UTC)  # the workflow's own time
            return began + timer.start_to_fire_timeout.ToTimedelta()
    raise AssertionError(sleep)


async def time_of(run: steporal.Run[Any], kind: EventType.ValueType) -> datetime:
    """When the latest event of a kind was in a run's history."""
    events = reversed((await run.temporal.fetch_history()).events)
    return next(event.event_time.ToDatetime(tzinfo=UTC) for event in events if event.event_type == kind)


GO = asyncio.Event()
GIVEN_BACK: list[str] = []


async def slow() -> str:
    await GO.wait()
    return "slow"


def give_back() -> None:
    GIVEN_BACK.append("given back")


async def stopped_and_recovered(
    app: steporal.Client,
    workers: Workers,
    body: Callable[..., Awaitable[Any]],
    *,
    until: Callable[[steporal.Run[Any]], Awaitable[None]] = until_waiting,
    while_stuck: Callable[[steporal.Run[Any]], Awaitable[object]] | None = None,
    start: Callable[[steporal.Workflow[Any, Any]], Awaitable[steporal.Run[Any]]] | None = None,
    edits: tuple[Edit, Edit] = (unedited, edited),
) -> tuple[steporal.Client, steporal.Run[Any]]:
    """A run whose worker has stopped, and the app with code that does not fit it, after the recovery."""

    def define(app: steporal.Client, edit: Edit) -> steporal.Workflow[Any, Any]:
        @app.workflow(id="run")
        async def handler(ctx: Context[Any], step: Step) -> Any:
            return await body(ctx, step, edit)

        return handler

    new = version_of(app.id)
    define(new, edits[1])
    started = define(app, edits[0])
    async with workers(app):
        run = await (started.start(None) if start is None else start(started))
        await until(run)
    if while_stuck is not None:
        await while_stuck(run)
    workers.drop(run.workflow_id)
    await recovered(new, run, workers)
    return new, run


async def test_a_run_that_was_cancelled_while_it_was_stuck_is_cancelled(app: steporal.Client, workers: Workers) -> None:
    GIVEN_BACK.clear()

    async def body(ctx: Context[Any], step: Step, edit: Edit) -> Any:
        try:
            await edit(step)  # here the cancellation comes
            await step.sleep("for long", "1h")
        finally:
            await step.run("give back", give_back)

    new, run = await stopped_and_recovered(app, workers, body, while_stuck=lambda run: run.cancel())
    async with workers(new), asyncio.timeout(60):
        with pytest.raises(RunCancelledError):
            await run.result()
    assert GIVEN_BACK == ["given back"]


async def test_what_a_wait_has_given_up_stays_given_up(app: steporal.Client, workers: Workers, name: str) -> None:
    """The timeout of an invoked run, and the loser of a race, though they end before the recovery."""

    @app.workflow(id="late")
    async def late(ctx: Context[Any], step: Step) -> str:
        await step.wait_for_signal("go", signal=f"{name}.late", timeout="1h")
        return "late"

    async def body(ctx: Context[Any], step: Step, edit: Edit) -> Any:
        await edit(step)
        taken = []
        try:
            await step.invoke_workflow("invoke", workflow=late, timeout="300ms")
            taken.append("in time")
        except steporal.InvokeTimeoutError:
            taken.append("too late")
        race = asyncio.create_task(step.run("slow", slow))
        done, _ = await asyncio.wait([race], timeout=0.3)
        taken.append("won" if done else "lost")
        race.cancel()
        first = ctx.input.time.isoformat()
        seen = await step.run("see", lambda: first)
        await step.wait_for_signal("stop", signal=name, timeout="1h")
        return [*taken, seen == ctx.input.time.isoformat()]

    GO.clear()

    async def until(run: steporal.Run[Any]) -> None:
        await until_in(run, {"stop"})
        await send_when_open(app, f"{name}.late")
        GO.set()
        await asyncio.sleep(0.5)

    new, run = await stopped_and_recovered(app, workers, body, until=until)
    new.workflow(id="late")(late.handler)
    GO.clear()  # the step begins again, and loses again
    async with workers(new), asyncio.timeout(60):
        await send_when_open(new, name)
        assert await run.result() == ["too late", "lost", True]


@pytest.mark.needs_cache("a timeout that is over before its wait has begun, of an invoked run, is in no history")
async def test_the_time_that_a_body_sees_is_what_it_was(app: steporal.Client, workers: Workers, name: str) -> None:
    """After each kind of step that has ended before the recovery."""

    @app.workflow(id="quick")
    async def quick(ctx: Context[Any], step: Step) -> str:
        return "quick"

    @app.workflow(id="late")
    async def late(ctx: Context[Any], step: Step) -> str:
        await step.wait_for_signal("go", signal=f"{name}.late", timeout="1h")
        return "late"

    seen: list[dict[str, str]] = []
    before: dict[str, str] = {}

    async def body(ctx: Context[Any], step: Step, edit: Edit) -> Any:
        await edit(step)
        times: dict[str, str] = {}
        seen.append(times)

        def now(what: str) -> None:
            times[what] = ctx.now().isoformat()

        await step.run("run", give_back)
        now("run")
        await step.run("local", give_back, local=True)
        now("local")
        await step.sleep("sleep", "30ms")
        now("sleep")
        await step.invoke_workflow("invoke", workflow=quick)
        now("invoke")
        with contextlib.suppress(steporal.InvokeTimeoutError):
            await step.invoke_workflow("invoke in vain", workflow=late, timeout="1s")
        now("invoke in vain")
        listener = await step.ext.listen("listen", event=f"{name}.heard", timeout="1h")
        now("listen")
        await listener.next("next in vain", timeout="50ms")
        now("next in vain")
        await step.ext.send_event("send", [{"name": f"{name}.heard"}, {"name": f"{name}.heard"}])
        now("send")
        await listener.next("next")
        now("next")
        await step.ext.wait_for_event("event in vain", event=f"{name}.never", timeout="500ms")
        now("event in vain")
        await step.ext.wait_for_event("event in no time", event=f"{name}.never", timeout="1ms")
        now("event in no time")
        await listener.next("next at once")
        now("next at once")
        await asyncio.gather(
            step.ext.wait_for_event("event", event=f"{name}.event", timeout="1h"),
            step.wait_for_signal("signal", signal=f"{name}.signal", timeout="1h"),
        )
        now("event and signal")
        await step.wait_for_signal("signal in vain", signal=f"{name}.never", timeout="500ms")
        now("signal in vain")
        await step.wait_for_signal("signal in no time", signal=f"{name}.never", timeout="1ms")
        now("signal in no time")
        await step.send_signal("tell nobody", signal=f"{name}.nobody")
        now("tell nobody")
        await step.wait_for_signal("stop", signal=f"{name}.stop", timeout="1h")
        return times

    async def until(run: steporal.Run[Any]) -> None:
        await until_in(run, {"event", "signal"})
        await app.send_event({"name": f"{name}.event"})
        await send_when_open(app, f"{name}.signal")
        await until_in(run, {"stop"})
        before.update(seen[-1])
        events = (await run.temporal.fetch_history()).events
        rebuilt = await rebuild(events, workers.temporal.data_converter)
        at_once, of_a_listener = 2, 2  # it has two steps at the end of one wait; nobody knows what a listener returned
        assert rebuilt.finished == len(before) + len(["the removed one"]) + at_once - 1 - of_a_listener

    # A step was removed: after a new one, the time is that of its end.
    new, run = await stopped_and_recovered(app, workers, body, until=until, edits=(edited, unedited))
    new.workflow(id="quick")(quick.handler)
    new.workflow(id="late")(late.handler)
    async with workers(new), asyncio.timeout(60):
        await send_when_open(new, f"{name}.stop")
        after = await run.result()
    assert after == before


async def test_ids_that_look_alike_are_kept_apart(app: steporal.Client, workers: Workers, name: str) -> None:
    async def body(ctx: Context[Any], step: Step, edit: Edit) -> Any:
        await edit(step)
        await workflow.sleep(0.01, summary="charge")  # Temporal's own, called like a step
        got = [await step.wait_for_signal("approve", signal=f"{name}/1", timeout="10ms")]
        with contextlib.suppress(asyncio.TimeoutError):
            async with asyncio.timeout(0.01):
                await step.wait_for_signal("again", signal=f"{name}/2", timeout="1h")
        got.append(await step.wait_for_signal("again#2", signal=f"{name}/3", timeout="1h"))
        got.append(await step.wait_for_signal("stop", signal=name, timeout="1h"))
        return [await step.run("charge", lambda: "charged"), *(signal and signal.data for signal in got)]

    async def until(run: steporal.Run[Any]) -> None:
        await send_when_open(app, f"{name}/3", "three")
        await until_in(run, {"stop"})

    new, run = await stopped_and_recovered(app, workers, body, until=until)
    async with workers(new), asyncio.timeout(60):
        await send_when_open(new, name, "stop")
        assert await run.result() == ["charged", None, "three", "stop"]


async def test_a_signal_that_was_sent_before_the_recovery_reaches_no_later_wait(
    app: steporal.Client, other_app: steporal.Client, workers: Workers, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is lost when the mailbox has the signal, and before Temporal hears of it; the step begins again."""
    delivered = asyncio.Event()
    deliver = Mailboxes.send

    async def then_lost(self: Mailboxes, *args: Any, **options: Any) -> Any:
        answer = await deliver(self, *args, **options)
        if not delivered.is_set():
            delivered.set()
            await asyncio.Event().wait()
        return answer

    monkeypatch.setattr(Mailboxes, "send", then_lost)

    @other_app.workflow(id="receiver")
    async def receiver(ctx: Context[Any], step: Step) -> Any:
        first = await step.wait_for_signal("first", signal=name, timeout="1h")
        second = await step.wait_for_signal("second", signal=name, timeout="1h")
        return [first and first.data, second and second.data]

    async def body(ctx: Context[Any], step: Step, edit: Edit) -> Any:
        await edit(step)
        return (await step.send_signal("tell", signal=name, data="from the step")).run_id

    async def until(run: steporal.Run[Any]) -> None:
        await asyncio.wait_for(delivered.wait(), 30)
        await until_in(receiving, {"first", "second"})

    async with workers(other_app):
        receiving = await receiver.start()
        await until_in(receiving, {"first"})
        new, run = await stopped_and_recovered(app, workers, body, until=until)
        async with workers(new), asyncio.timeout(60):
            assert await run.result() == receiving.run_id
            await send_when_open(other_app, name, "from outside")
            assert await receiving.result() == ["from the step", "from outside"]


async def test_events_that_come_while_a_run_subscribes_are_kept(
    app: steporal.Client, workers: Workers, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subscription that takes longer than a workflow task stands in the history after what it has brought."""
    subscribe, may_go_on = Topics.subscribe, asyncio.Event()

    async def slowly(self: Topics, topics: Iterable[str], subscription: Subscription) -> None:
        await subscribe(self, topics, subscription)
        await may_go_on.wait()

    monkeypatch.setattr(Topics, "subscribe", slowly)

    async def body(ctx: Context[Any], step: Step, edit: Edit) -> Any:
        await edit(step)
        listener, once = await asyncio.gather(
            step.ext.listen("listen", event=f"{name}.each", timeout="1h"),
            step.ext.wait_for_event("once", event=f"{name}.once", timeout="1h"),
        )
        await step.wait_for_signal("stop", signal=name, timeout="1h")
        heard = [await listener.next("next") for _ in range(2)]
        return [once and once.data["n"], *(event and event.data["n"] for event in heard)]

    async def until(run: steporal.Run[Any]) -> None:
        for topic in ("each", "once"):
            while not await subscriptions_of(workers.temporal, f"{name}.{topic}"):
                await asyncio.sleep(0.05)
        for n, topic in enumerate(("each", "once", "each")):
            await app.send_event({"name": f"{name}.{topic}", "data": {"n": n}})
        while await signals_of(run) < 3:
            await asyncio.sleep(0.05)
        may_go_on.set()
        await until_in(run, {"stop"})
        kinds = [event.event_type for event in (await run.temporal.fetch_history()).events]
        signalled, told = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED, EventType.EVENT_TYPE_MARKER_RECORDED
        assert kinds.index(signalled) < kinds.index(told)

    started = partial(with_short_tasks, app)
    new, run = await stopped_and_recovered(app, workers, body, until=until, start=started)
    async with workers(new), asyncio.timeout(60):
        await send_when_open(new, name)
        assert await run.result() == [1, 0, 2]


async def test_a_run_that_is_recovered_while_it_tells_of_its_end_is_heard_of_once(
    app: steporal.Client, other_app: steporal.Client, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is lost when all have been told, and before Temporal hears of it; the run tells again."""
    told, dispatch, heard = asyncio.Event(), Dispatcher.dispatch, []
    of_the_run = f"event.data.app == '{app.id}'"

    async def then_lost(self: Dispatcher, events: Any) -> steporal.SendEventResult:
        sent = await dispatch(self, events)
        if not told.is_set() and events[0].data.get("app") == app.id:
            told.set()
            await asyncio.Event().wait()
        return sent

    monkeypatch.setattr(Dispatcher, "dispatch", then_lost)

    @other_app.workflow(id="hears", triggers=[event_trigger("inngest/function.finished", if_exp=of_the_run)])
    async def hears(ctx: Context[Any], step: Step) -> None:
        await step.run("hear", lambda: heard.append(ctx.input.data["result"]))

    async def body(ctx: Context[Any], step: Step, edit: Edit) -> Any:
        await edit(step)
        return "done"

    async def until(run: steporal.Run[Any]) -> None:
        await asyncio.wait_for(told.wait(), 30)

    async with workers(other_app):
        new, run = await stopped_and_recovered(app, workers, body, until=until)
        async with workers(new), asyncio.timeout(60):
            assert await run.result() == "done"
        started = [each async for each in workers.temporal.list_workflows(f"TaskQueue = '{other_app.task_queue}'")]
        for each in started:
            await workers.temporal.get_workflow_handle(each.id).result()
    assert heard == ["done"]


async def with_short_tasks(app: steporal.Client, started: steporal.Workflow[Any, Any]) -> steporal.Run[Any]:
    """A run of which workflow tasks have a second, so that local activities may take longer than they."""
    handle = await app.temporal.start_workflow(
        started.id, id=f"{started.id}/{new_ulid()}", task_queue=app.task_queue, task_timeout=timedelta(seconds=1)
    )
    return await app.get_run(handle.id, started)


async def subscriptions_of(temporal: temporalio.client.Client, topic: str) -> int:
    """How many runs wait for an event."""
    try:
        handle = temporal.get_workflow_handle(f"steporal.topic/{topic}")
        return int((await handle.query("steporal.subscriptions"))["count"])
    except RPCError:
        return 0


async def signals_of(run: steporal.Run[Any]) -> int:
    """How many signals a run has been sent."""
    events = (await run.temporal.fetch_history()).events
    return sum(event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED for event in events)


async def test_runs_that_fit_or_whose_body_is_wrong_are_left_alone(
    app: steporal.Client, workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    def define(app: steporal.Client) -> steporal.Workflow[Any, Any]:
        @app.workflow(id="fits")
        async def fits(ctx: Context[Any], step: Step) -> Any:
            await step.sleep("a while", "1h")

        return fits

    fits = define(app)
    async with workers(app):
        run = await fits.start(None)
        await until_waiting(run)
        await until_visible(run)
        assert await run_recover(app, workers.temporal, RecoverOptions()) == 0
        assert "all fit this code; nothing to recover" in capsys.readouterr().err
        assert (await run.temporal.describe()).run_id == run.run_id


async def test_a_sleep_that_was_over_is_no_result_of_a_step_that_took_its_id(
    app: steporal.Client, workers: Workers
) -> None:
    ran: list[str] = []

    async def slept(step: Step) -> None:
        await step.sleep("pause", "1ms")

    async def ran_instead(step: Step) -> None:
        await edited(step)
        await step.run("pause", lambda: ran.append("pause"))

    async def body(ctx: Context[Any], step: Step, edit: Edit) -> None:
        await edit(step)
        await step.sleep("a while", "1h")

    async def until_asleep(run: steporal.Run[Any]) -> None:
        await until_waiting(run, 2)

    edits = (slept, ran_instead)
    new, run = await stopped_and_recovered(app, workers, body, until=until_asleep, edits=edits)
    latest = await new.get_run(run.workflow_id)
    async with workers(new), asyncio.timeout(60):
        while "was made by sleep or next, but the body now calls run" not in await task_failures(latest):
            await asyncio.sleep(0.05)
        await latest.temporal.terminate()
    workers.drop(run.workflow_id)
    assert ran == []


async def task_failures(run: steporal.Run[Any]) -> str:
    history = await run.temporal.fetch_history()
    return " ".join(event.workflow_task_failed_event_attributes.failure.message for event in history.events)
