"""Runs that only wait are held by Temporal without their handler, and go on where they were, also with other code."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
import temporalio.client
from recording import Workers
from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowExecutionStatus
from waiting import LONG, until_received, until_waiting

import steporal
from steporal import CancelOn, Context, DefinitionError, RunCancelledError, Step, StepError, WorkflowExt, event_trigger
from steporal.events import new_ulid
from steporal.routing.dispatch import Dispatcher
from steporal.runtime.steps import invoke
from steporal.wire.names import CHECKPOINT, ENDED
from steporal.wire.run_state import read_run_state

QUICK = "1s"


@pytest.fixture
def app(request: pytest.FixtureRequest) -> steporal.Client:
    """An app whose runs are parked soon."""
    return version_of(f"{request.node.name[:80]} {new_ulid()}")


@pytest.fixture
def name() -> str:
    """A name of events and signals that no other test uses."""
    return f"paid.{new_ulid()}"


def version_of(app_id: str) -> steporal.Client:
    """The same app with other code."""
    return steporal.Client(
        app_id, park_after=QUICK, retry=steporal.RetryPolicy(initial_interval=timedelta(milliseconds=1))
    )


async def executions(run: steporal.Run[Any]) -> list[temporalio.client.WorkflowExecution]:
    """The executions of a run, the first one first."""
    client = run.temporal._client
    found = {}
    latest = await run.temporal.describe()
    run_id: str | None = latest.raw_description.workflow_execution_info.first_run_id
    while run_id:
        handle = client.get_workflow_handle(run.workflow_id, run_id=run_id)
        found[run_id] = await handle.describe()
        last = [event async for event in handle.fetch_history_events()][-1]
        run_id = last.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return list(found.values())


async def until_parked(run: steporal.Run[Any], times: int = 1) -> None:
    """Wait until a run has continued as new so many times."""
    async with asyncio.timeout(LONG):
        while len(await executions(run)) <= times:
            await asyncio.sleep(0.05)


async def test_a_run_that_sleeps_wakes_with_the_code_of_the_day(app: steporal.Client, workers: Workers) -> None:
    ran: list[str] = []

    @app.workflow(id="sleeps")
    async def before(ctx: Context[Any], step: Step) -> Any:
        first = await step.run("first", lambda: ran.append("first") or 1)  # type: ignore[func-returns-value]
        await step.sleep("night", "4s")
        return first

    edited = version_of(app.id)

    @edited.workflow(id="sleeps")
    async def after(ctx: Context[Any], step: Step) -> Any:
        await step.run("new, before", lambda: ran.append("new, before"))
        first = await step.run("first", lambda: ran.append("again") or 2)  # type: ignore[func-returns-value]
        await step.sleep("night", "4s")
        await step.run("new, after", lambda: ran.append("new, after"))
        return ["edited", first]

    async with workers(app):
        run = await before.start()
        await until_parked(run)
    workers.drop(run.workflow_id)  # its first execution has run the old code
    async with workers(edited):
        assert await run.result() == ["edited", 1]
    assert ran == ["first", "new, before", "new, after"]
    workers.drop(run.workflow_id)


async def test_every_kind_of_wait_is_parked_and_goes_on(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="child")
    async def child(ctx: Context[Any], step: Step) -> Any:
        await step.sleep("s", "3s")
        if ctx.input.data == "fails":
            raise steporal.NonRetryableError("the child is broken")
        return {"child of": ctx.input.data}

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        listener = await step.ext.listen("listen", event=f"{name}.heard", timeout="1h")

        async def fails() -> str:
            try:
                await step.invoke_workflow("fails", workflow=child, data="fails")
            except StepError as err:
                return f"{err.name}: {err.message}"
            return "?"

        async def late() -> str:
            try:
                await step.invoke_workflow("late", workflow=child, data="late", timeout="1500ms")
            except steporal.InvokeTimeoutError as err:
                return type(err).__name__
            return "?"

        results = await asyncio.gather(
            step.sleep("sleep", "3s"),
            step.sleep_until("sleep until", ctx.now() + timedelta(seconds=3)),
            step.ext.wait_for_event("event", event=name, timeout="1h"),
            step.ext.wait_for_event("no event", event=name + ".never", timeout="3s"),
            step.wait_for_signal("signal", signal=name, timeout="1h"),
            step.wait_for_signal("no signal", signal=name + ".never", timeout="3s"),
            step.invoke_workflow("child", workflow=child, data="parent"),
            fails(),
            late(),
        )
        heard = [await listener.next("next"), await listener.next("next")]
        return [
            *results[:2],
            results[2] and results[2].data,
            results[3],
            results[4] and results[4].data,
            *results[5:],
            [event and event.data for event in heard],
        ]

    async with workers(app):
        run = await waits.start()
        await until_parked(run)
        for number in (1, 2):
            await app.send_event({"name": f"{name}.heard", "data": {"n": number}})
        await app.send_event({"name": name, "data": {"amount": 5}})
        assert (await app.send_signal(name, "yes")).run_id == run.run_id
        async with asyncio.timeout(40):
            assert await run.result() == [
                None,
                None,
                {"amount": 5},
                None,
                "yes",
                None,
                {"child of": "parent"},
                "NonRetryableError: the child is broken",
                "InvokeTimeoutError",
                [{"n": 1}, {"n": 2}],
            ]


async def test_days_pass_while_parked_and_the_context_is_the_same(
    app: steporal.Client, workers: Workers, skipping: temporalio.client.Client
) -> None:
    @app.workflow(id="sleeps")
    async def sleeps(ctx: Context[Any], step: Step) -> Any:
        seen = [ctx.run_id, ctx.random.random(), str(ctx.uuid4()), ctx.now().isoformat(), ctx.input.time.isoformat()]
        first = await step.run("see", lambda: seen)
        began = ctx.now()
        await step.sleep("days", "3d")
        days = (ctx.now() - began).days
        await step.sleep("another", "2d")
        return [first == seen, days, (ctx.now() - began).days, ctx.attempt]

    async with workers(app):
        app.temporal = skipping
        run = await sleeps.start()
        assert await run.result() == [True, 3, 5, 0]
        assert len(await executions(run)) == 3


async def test_the_pause_between_two_attempts_of_the_body_is_parked(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="fails")
    async def fails(ctx: Context[Any], step: Step) -> Any:
        await step.run("a", lambda: 1)
        if ctx.attempt == 0:
            raise steporal.RetryAfterError("later", timedelta(seconds=3))
        return ctx.attempt

    async with workers(app):
        run = await fails.start()
        assert await run.result() == 1
        assert len(await executions(run)) == 2


async def test_a_parked_run_that_is_cancelled_cleans_up_where_it_waits(app: steporal.Client, workers: Workers) -> None:
    ran: list[str] = []

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> None:
        try:
            await step.sleep("long", "1h")
        finally:
            await step.run("clean up", lambda: ran.append("clean up"))

    async with workers(app):
        run = await waits.start()
        await until_parked(run)
        await run.cancel()
        with pytest.raises(RunCancelledError):
            await run.result()
    assert ran == ["clean up"]


async def test_a_run_that_is_cancelled_between_two_attempts_of_its_body_is_cancelled_at_once(
    app: steporal.Client, workers: Workers
) -> None:
    attempts: list[int] = []

    @app.workflow(id="waits for its next attempt")
    async def waits(ctx: Context[Any], step: Step) -> None:
        attempts.append(ctx.attempt)
        raise steporal.RetryAfterError("busy", "1h")

    async with workers(app), asyncio.timeout(LONG):
        run = await waits.start()
        await until_parked(run)
        await run.cancel()
        with pytest.raises(RunCancelledError):
            await run.result()
    assert set(attempts) == {0}


async def test_a_run_that_is_cancelled_in_the_moment_in_which_it_parks_is_cancelled(
    app: steporal.Client, workers: Workers
) -> None:
    @app.workflow(id="sleeps")
    async def sleeps(ctx: Context[Any], step: Step) -> Any:
        try:
            await step.sleep("for long", "1h")
        finally:
            await step.run("clean up", lambda: None)

    async with workers(app):
        run = await sleeps.start()
        await until_waiting(run)
    async with asyncio.timeout(60):
        while not any(event.HasField("timer_fired_event_attributes") for event in await events_of(run)):
            await asyncio.sleep(0.05)
        await run.cancel()
        async with workers(app):  # its first task has both
            with pytest.raises(RunCancelledError):
                await run.result()
    assert "clean up" in [event.activity_task_scheduled_event_attributes.activity_id for event in await events_of(run)]


async def test_a_cancellation_in_the_moment_in_which_a_body_begins_anew_reaches_its_next_attempt(
    app: steporal.Client, workers: Workers
) -> None:
    @app.workflow(id="begins anew")
    async def begins_anew(ctx: Context[Any], step: Step) -> None:
        await step.sleep("nap", "5s")
        if ctx.attempt == 0:
            raise steporal.RetryAfterError("at once", "0s")
        await step.sleep("for long", "1h")

    async with workers(app):
        run = await begins_anew.start()
        await until_parked(run)
    await run.cancel()
    async with asyncio.timeout(60):
        while not any(event.HasField("timer_fired_event_attributes") for event in await events_of(run)):
            await asyncio.sleep(0.05)
        async with workers(app):  # its first task has both: as the body comes back, its nap is over
            with pytest.raises(RunCancelledError):
                await run.result()


async def test_a_step_that_is_held_begins_where_the_body_waits_for_it_though_the_run_is_cancelled(
    app: steporal.Client, workers: Workers
) -> None:
    running, go_on = asyncio.Event(), asyncio.Event()

    async def run_long() -> None:
        running.set()
        await asyncio.Event().wait()

    @app.workflow(id="holds")
    async def holds(ctx: Context[Any], step: Step) -> str:
        async def two() -> str:
            await step.run("before", lambda: go_on.wait())
            return await step.run("held", lambda: "held")

        task = asyncio.create_task(two())
        try:
            await step.run("long", run_long)
        except asyncio.CancelledError:
            return await task
        return "was not cancelled"

    async with workers(app), asyncio.timeout(LONG):
        run = await holds.start()
        await running.wait()
        await run.temporal.signal(CHECKPOINT, {"hold": 3600.0})
        go_on.set()
        while not await _has_seen(run, "before"):
            await asyncio.sleep(0.05)
        assert "held" not in await _scheduled(run)
        await run.cancel()
        assert await run.result() == "held"


async def _scheduled(run: steporal.Run[Any]) -> list[str]:
    """The activities of its last execution."""
    return [
        event.activity_task_scheduled_event_attributes.activity_id
        for event in await events_of(run)
        if event.HasField("activity_task_scheduled_event_attributes")
    ]


async def _has_seen(run: steporal.Run[Any], activity_id: str) -> bool:
    """Whether a workflow task was completed since an activity was."""
    ids: dict[int, str] = {}
    is_done = False
    for event in await events_of(run):
        ids[event.event_id] = event.activity_task_scheduled_event_attributes.activity_id
        done = event.activity_task_completed_event_attributes.scheduled_event_id
        if is_done and event.HasField("workflow_task_completed_event_attributes"):
            return True
        is_done = is_done or ids.get(done) == activity_id
    return False


async def test_a_result_of_another_kind_of_step_does_not_go_to_a_call_that_cannot_be_sent(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    edited = version_of(app.id)
    connection = object()

    @app.workflow(id="order")
    async def order(ctx: Context[Any], step: Step) -> None:
        await step.sleep("charge", "1ms")
        await step.wait_for_signal("paid", signal=name, timeout="1h")

    @edited.workflow(id="order")
    async def edited_order(ctx: Context[Any], step: Step) -> Any:
        return await step.run("charge", lambda: connection)

    async with workers(app):
        run = await order.start()
        await until_waiting(run, 2)
        await until_parked(run)
    workers.drop(run.workflow_id)
    async with workers(edited), asyncio.timeout(LONG):
        await until_received(edited, name)
        said = "step 'charge' has become another call: its result was made by sleep, but the body now calls run"
        while not any(
            said in event.workflow_task_failed_event_attributes.failure.message for event in await events_of(run)
        ):
            await asyncio.sleep(0.05)
    await run.temporal.terminate()


@pytest.mark.parametrize("state", ["waits", "is parked"])
async def test_a_run_that_is_cancelled_in_the_moment_in_which_a_checkpoint_is_asked_is_cancelled(
    app: steporal.Client, workers: Workers, state: str
) -> None:
    """The SDK hands over the signal before the cancellation, of which both are in one workflow task."""
    if state == "waits":
        app = steporal.Client(app.id, park_after="never")

    @app.workflow(id="sleeps")
    async def sleeps(ctx: Context[Any], step: Step) -> Any:
        try:
            await step.sleep("for long", "1h")
        finally:
            await step.run("clean up", lambda: None)

    async with workers(app):
        run = await sleeps.start()
        await until_waiting(run)
        if state == "is parked":
            await until_parked(run)
    latest = app.temporal.get_workflow_handle(run.workflow_id)
    await latest.signal(CHECKPOINT, {"hold": 3600.0})
    await latest.cancel()
    async with workers(app), asyncio.timeout(60):
        with pytest.raises(RunCancelledError):
            await run.result()
    assert "clean up" in [event.activity_task_scheduled_event_attributes.activity_id for event in await events_of(run)]


async def events_of(run: steporal.Run[Any]) -> Sequence[HistoryEvent]:
    """What its last execution has done."""
    latest = run.temporal._client.get_workflow_handle(run.workflow_id)
    return (await latest.fetch_history()).events


async def test_an_event_cancels_a_parked_run(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(
        id="waits",
        triggers=[event_trigger(f"{name}.start")],
        ext=WorkflowExt(cancel_on=[CancelOn(f"{name}.stop", match="data.order")]),
    )
    async def waits(ctx: Context[Any], step: Step) -> None:
        await step.sleep("long", "1h")

    async with workers(app):
        sent = await app.send_event({"name": f"{name}.start", "data": {"order": 1}})
        run = await app.get_run(f"{app.id}/waits/{sent.ids[0]}", waits)
        await until_parked(run)
        await app.send_event({"name": f"{name}.stop", "data": {"order": 1}})
        with pytest.raises(RunCancelledError):
            await run.result()


async def test_a_parked_run_of_which_a_child_is_terminated_hears_of_it(
    app: steporal.Client, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invoke, "LOOK_AFTER", timedelta(seconds=2))

    @app.workflow(id="child")
    async def child(ctx: Context[Any], step: Step) -> None:
        await step.wait_for_signal("never", signal=f"never/{ctx.run_id}", timeout="1000d")

    @app.workflow(id="invokes")
    async def invokes(ctx: Context[Any], step: Step) -> Any:
        try:
            await step.invoke_workflow("child", workflow=child)
        except StepError as err:
            return err.name
        return "?"

    async with workers(app):
        run = await invokes.start()
        await until_parked(run)
        history = await app.temporal.get_workflow_handle(run.workflow_id, run_id=run.run_id).fetch_history()
        (started,) = (
            event.child_workflow_execution_started_event_attributes
            for event in history.events
            if event.event_type == EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED
        )
        await app.temporal.get_workflow_handle(started.workflow_execution.workflow_id).terminate()
        assert await run.result() == "TerminatedError"


async def test_a_body_that_waits_for_something_of_temporals_is_not_parked(
    app: steporal.Client, workers: Workers
) -> None:
    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> None:
        native = asyncio.create_task(workflow.execute_activity("never", start_to_close_timeout=timedelta(hours=1)))
        await step.sleep("long", "3s")
        native.cancel()

    async with workers(app):
        run = await waits.start()
        await run.result()
        assert len(await executions(run)) == 1


@pytest.mark.parametrize("park_after", ["never", None])
async def test_a_run_is_not_parked_where_it_should_not_be(workers: Workers, park_after: Any) -> None:
    app = steporal.Client(f"patient {new_ulid()}")  # None: after a minute, by default

    @app.workflow(id="sleeps", ext=WorkflowExt(park_after=park_after))
    async def sleeps(ctx: Context[Any], step: Step) -> None:
        await step.sleep("a while", "2s")

    async with workers(app):
        run = await sleeps.start()
        await run.result()
        assert len(await executions(run)) == 1


async def test_the_body_of_a_parked_run_is_left_alone_when_its_worker_forgets_the_run(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    began: list[str] = []

    @app.workflow(id="waits", ext=steporal.WorkflowExt(park_after="1s"))
    async def waits(ctx: Context[Any], step: Step) -> Any:
        began.append(workflow.info().run_id)
        first, second = await asyncio.gather(
            step.wait_for_signal("first", signal=f"{name} first", timeout="1h"),
            step.wait_for_signal("second", signal=f"{name} second", timeout="1h"),
        )
        return [first and first.data, second and second.data]

    async with workers(app, max_cached_workflows=0), asyncio.timeout(LONG):
        run = await waits.start()
        await until_parked(run)
        latest = workers.temporal.get_workflow_handle(run.workflow_id)
        await latest.signal(CHECKPOINT, {"hold": 3600})
        for _ in range(3):  # for each query, the worker takes the run into its memory, and forgets it before the next
            await latest.query("__stack_trace")
        await until_parked(run, 2)
        assert set(began) == {run.run_id}
        await latest.signal(CHECKPOINT, {"hold": 0})
        for signal in ("first", "second"):
            await until_received(app, f"{name} {signal}", signal)
        assert await run.result() == ["first", "second"]


@pytest.mark.parametrize("value", ["soon", "10ms", -1, 0, 1.5, ""])
def test_when_to_park_is_a_duration_or_never(value: Any) -> None:
    with pytest.raises(DefinitionError, match="park_after"):
        steporal.Client("app", park_after=value)


def at_once(workers: Workers) -> int:
    """How many runs race; without a cache, the SDK cancels and repeats local activities, and many take minutes."""
    return 15 if workers.max_cached_workflows else 3


async def races(
    app: steporal.Client, workers: Workers, handler: Any, send: Callable[[int], Any] | None = None
) -> list[Any]:
    """Have many runs park at the moment when something is sent to them; their results."""
    chance = random.Random()
    async with workers(app):
        runs = [await handler.start({"n": n}) for n in range(at_once(workers))]

        async def sends(n: int) -> None:
            await until_waiting(runs[n])
            await asyncio.sleep(chance.uniform(0.5, 1.4))
            await send(n)

        if send is not None:
            await asyncio.gather(*map(sends, range(len(runs))))
        async with asyncio.timeout(LONG):
            results = await asyncio.gather(*(run.result() for run in runs))
        statuses = [(await run.temporal.describe()).status for run in runs]
        assert set(statuses) == {WorkflowExecutionStatus.COMPLETED}
        return list(results)


@pytest.mark.timeout(4 * LONG)
async def test_an_event_at_the_moment_of_parking_is_not_lost(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        mine = f"async.data.n == {ctx.input.data['n']}"
        event = await step.ext.wait_for_event("event", event=name, if_exp=mine, timeout="1h")
        return event and event.data["n"]

    async def send(n: int) -> None:
        await app.send_event({"name": name, "data": {"n": n}})

    assert await races(app, workers, waits, send) == list(range(at_once(workers)))


@pytest.mark.timeout(4 * LONG)
async def test_a_signal_at_the_moment_of_parking_is_not_lost(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        signal = await step.wait_for_signal("signal", signal=f"{name}/{ctx.input.data['n']}", timeout="1h")
        return signal and signal.data

    async def send(n: int) -> None:
        assert (await app.send_signal(f"{name}/{n}", n)).run_id is not None

    assert await races(app, workers, waits, send) == list(range(at_once(workers)))


@pytest.mark.timeout(4 * LONG)
async def test_a_child_that_ends_at_the_moment_of_parking_is_not_lost(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="child")
    async def child(ctx: Context[Any], step: Step) -> Any:
        await step.sleep("s", ctx.random.randint(700, 1600))
        return ctx.input.data["n"]

    @app.workflow(id="invokes")
    async def invokes(ctx: Context[Any], step: Step) -> Any:
        return await step.invoke_workflow("child", workflow=child, data=ctx.input.data)

    assert await races(app, workers, invokes) == list(range(at_once(workers)))


async def test_a_child_that_is_asked_while_it_tells_of_its_end_answers(
    app: steporal.Client, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatch = Dispatcher.dispatch

    async def slowly(self: Dispatcher, events: Any) -> steporal.SendEventResult:
        await asyncio.sleep(3)
        return await dispatch(self, events)

    @app.workflow(id="child")
    async def child(ctx: Context[Any], step: Step) -> Any:
        return 1

    @app.workflow(id="hears", triggers=[event_trigger("inngest/function.finished", if_exp="event.data.result == 1")])
    async def hears(ctx: Context[Any], step: Step) -> None:
        pass

    @app.workflow(id="invokes")
    async def invokes(ctx: Context[Any], step: Step) -> Any:
        return await step.invoke_workflow("child", workflow=child)

    async with workers(app):
        monkeypatch.setattr(Dispatcher, "dispatch", slowly)
        run = await invokes.start()
        async with asyncio.timeout(30):
            assert await run.result() == 1
        assert len(await executions(run)) == 2


async def test_a_run_keeps_no_results_of_invoked_runs_that_nobody_waits_for_any_more(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="child")
    async def child(ctx: Context[Any], step: Step) -> Any:
        signal = await step.wait_for_signal("go", signal=f"{name}/{ctx.input.data}", timeout="1h")
        return signal and signal.data

    @app.workflow(id="invokes")
    async def invokes(ctx: Context[Any], step: Step) -> Any:
        wanted = asyncio.create_task(step.invoke_workflow("wanted", workflow=child, data="wanted"))
        try:
            await step.invoke_workflow("late", workflow=child, data="late", timeout="2s")
        except steporal.InvokeTimeoutError:
            await step.wait_for_signal("stop", signal=name, timeout="1h")
        return await wanted

    async def until_said(words: str) -> None:
        while words not in str(await events_of(run)):
            await asyncio.sleep(0.05)

    async with workers(app), asyncio.timeout(LONG):
        run = await invokes.start()
        await until_parked(run)  # now both are asked to report their end
        await until_said(f"wait for signal {name} in stop")
        await until_received(app, f"{name}/late", "late")
        await until_said(ENDED)
        await until_parked(run, 2)
        started = (await events_of(run))[0].workflow_execution_started_event_attributes
        carried = read_run_state(json.loads(started.input.payloads[2].data))
        assert carried is not None and carried.ended == {}
        await until_received(app, f"{name}/wanted", "wanted")
        await until_received(app, name)
        assert await run.result() == "wanted"
