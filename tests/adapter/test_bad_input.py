"""Events that cannot be sent, calls put on the task queue by hand, and signals that are sent by hand."""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apps import forms
from recording import Workers
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowFailureError
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError
from waiting import until_received, until_waiting

import steporal
from steporal import Context, InvalidEventError, RunFailedError, Step
from steporal.errors import UnknownKeyError
from steporal.events import new_ulid
from steporal.history.reading import SIGNALS
from steporal.history.recovery import rebuild
from steporal.values.encrypted import ENCODING
from steporal.values.type_names import shown
from steporal.wire.failures import NOT_BEGUN
from steporal.wire.names import CHECKPOINT, DELIVER, ENDED, KEY_ID_METADATA, RECOVER, REPORT, SIGNALLED
from steporal.wire.run_state import read_run_state

pytestmark = pytest.mark.outside_runs

BAD_EVENTS: list[tuple[Any, str]] = [
    ({}, "has no name"),
    ({"data": {}}, "has no name"),
    ({"name": ""}, "name is ''"),
    ({"name": 3}, "name is 3"),
    ({"name": "a", "dta": {}}, "unknown key 'dta' (did you mean 'data'?)"),
    ({"name": "a", "data": [1]}, "data is [1]"),
    ({"name": "a", "data": "text"}, "data is 'text'"),
    ({"name": "a", "data": {"at": datetime(2026, 1, 1, tzinfo=UTC)}}, "data.at is"),
    ({"name": "a", "data": {"rows": [{"id": {1, 2}}]}}, "data.rows[0].id is {1, 2}"),
    ({"name": "a", "data": {1: "a"}}, "data has the key 1"),
    ({"name": "a", "data": {"n": float("nan")}}, "data.n is nan"),
    ({"name": "a", "id": ""}, "id is ''"),
    ({"name": "a", "id": 5}, "id is 5"),
    ({"name": "a", "ts": "now"}, "ts is 'now'"),
    ({"name": "a", "ts": -1}, "ts is -1"),
    ({"name": "a", "ts": 1.5}, "ts is 1.5"),
    ({"name": "a", "v": 2}, "v is 2"),
    ({"name": "inngest/function.failed"}, "reserved"),
    ({"name": "steporal/x"}, "reserved"),
    ({"name": "a.*"}, "only triggers can have wildcards"),
    ({"name": "a", "data": {"text": "x" * 512 * 1024}}, "the maximum is 524,288"),
    ("order.placed", "an event is 'order.placed'"),
    (None, "an event is None"),
    ([{"name": "a"}, {"nme": "b"}], "event 1"),
    ([{"name": "a"}] * 5_001, "5,001 events"),
]


@pytest.mark.parametrize(("events", "says"), BAD_EVENTS, ids=[says for _, says in BAD_EVENTS])
async def test_an_event_that_cannot_be_sent_is_refused_outside(events: Any, says: str) -> None:
    unconnected = steporal.Client("never connects")
    with pytest.raises(InvalidEventError) as refused:
        await unconnected.send_event(events)
    assert says in str(refused.value)


@pytest.mark.parametrize("index", [0, 4, 7, 9, 20, 23])
async def test_an_event_that_cannot_be_sent_fails_the_run_at_once(
    app: steporal.Client, workers: Workers, index: int
) -> None:
    events, says = BAD_EVENTS[index]

    @app.workflow(id="sender")
    async def handler(ctx: Context[Any], step: Step) -> None:
        await step.ext.send_event("notify", events)

    async with workers(app):
        with pytest.raises(RunFailedError) as failed:
            await (await handler.start()).result()
    assert failed.value.name in {"InvalidEventError", "EventTooLargeError"}
    assert says in failed.value.message


async def test_no_events_are_none(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="sender")
    async def handler(ctx: Context[Any], step: Step) -> list[str]:
        return (await step.ext.send_event("notify", [])).ids

    async with workers(app):
        assert (await app.send_event([])).ids == []
        assert await (await handler.start()).result() == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"timeout": -1}, "timeout is -1"),
        ({"timeout": "soon"}, "timeout is 'soon'"),
        ({"timeout": 1.5}, "timeout is 1.5"),
        ({"timeout": timedelta(0)}, "timeout"),
        ({"max_attempts": 0}, "max_attempts of step 'charge' is 0"),
        ({"heartbeat_timeout": "1ms"}, "heartbeat_timeout is '1ms'; the minimum is 1s"),
        ({"heartbeat_timeout": "1s", "local": True}, "it takes no heartbeat_timeout"),
        ({"max_attempts": True}, "max_attempts of step 'charge' is True"),
        ({"retry": 3}, "retry of step 'charge' is 3"),
        ({"retry": RetryPolicy(maximum_attempts=2)}, "max_attempts=2"),
    ],
)
async def test_an_option_of_a_step_that_cannot_be_fails_the_run_at_once(
    app: steporal.Client, workers: Workers, options: dict[str, Any], says: str
) -> None:
    @app.workflow(id="options")
    async def handler(ctx: Context[Any], step: Step) -> None:
        await step.run("charge", lambda: None, **options)

    async with workers(app):
        with pytest.raises(RunFailedError, match="step 'charge'") as failed:
            await (await handler.start()).result()
    assert failed.value.name == "InvalidArgumentError"
    assert says in failed.value.message


@pytest.mark.parametrize("step_id", ["", "  ", None, 3, "x" * 256])
async def test_a_step_id_that_cannot_be_fails_the_run_at_once(
    app: steporal.Client, workers: Workers, step_id: Any
) -> None:
    @app.workflow(id="ids")
    async def handler(ctx: Context[Any], step: Step) -> None:
        await step.run(step_id, lambda: None)

    async with workers(app):
        with pytest.raises(RunFailedError, match="a step id is") as failed:
            await (await handler.start()).result()
    assert shown(step_id) in failed.value.message


# --- calls put on the task queue by hand ---------------------------------------------------------------------------


@workflow.defn(name="attacker", sandboxed=False)
class Attacker:
    """Puts what it is given on the task queue as a step."""

    @workflow.run
    async def run(self, call: Any) -> Any:
        return await workflow.execute_activity(
            "steporal.run_step",
            call,
            start_to_close_timeout=timedelta(seconds=10),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )


def function(**reference: Any) -> dict[str, Any]:
    return {"$": "function", **reference}


ATTACKS: dict[str, dict[str, Any]] = {
    "a function of the standard library": function(name="os:system"),
    "by way of a module of the app": function(name="apps.forms:asyncio.create_subprocess_shell"),
    "a function that the app imported": function(name="apps.forms:functools.reduce"),
    "a builtin": function(name="builtins:eval"),
    "an attribute of a function": function(name="apps.forms:product.__globals__"),
    "a module that is not loaded": function(name="antigravity:fly"),
    "a root outside the app": function(root="subprocess:run", path="<lambda>", code="0"),
    "in a partial": function(partial=function(name="os:system"), arguments=[], keywords={}),
    "a method of a type": function(method="mro", self={"$": "type", "name": "builtins:int"}),
    "a method of a module": function(method="system", self={"$": "module", "name": "os"}),
    "a private method": function(method="__reduce__", self=[]),
}

CAPTURES: dict[str, Any] = {
    "a module": {"$": "module", "name": "os"},
    "a class": {"$": "type", "name": "subprocess:Popen"},
    "a model": {"$": "model", "type": "subprocess:Popen", "value": ["true"]},
    "a function": function(name="os:system"),
    "an unknown tag": {"$": "pickle", "value": "gASVFg"},
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_reference_to_what_is_not_the_apps_own_is_refused(workers: Workers, attack: str) -> None:
    call = {"workflow": "all-forms", "step": "x", "function": ATTACKS[attack], "arguments": ["true"]}
    refused = await call_by_hand(workers, call)
    assert refused.type == "StepCodeNotFoundError", refused.message


@pytest.mark.parametrize("capture", CAPTURES)
async def test_an_argument_that_is_not_the_apps_own_is_refused(workers: Workers, capture: str) -> None:
    reference = function(name="apps.forms:product")
    call = {"workflow": "all-forms", "step": "x", "function": reference, "arguments": [CAPTURES[capture]]}
    refused = await call_by_hand(workers, call)
    assert refused.type in ("StepCodeNotFoundError", "UnserializableError"), refused.message


async def test_the_message_names_what_was_asked_for_and_the_apps_packages(workers: Workers) -> None:
    call = {"workflow": "all-forms", "step": "x", "function": function(name="os:system"), "arguments": ["true"]}
    refused = await call_by_hand(workers, call)
    assert "'os:system' is not a function of the app" in refused.message
    assert "'apps'" in refused.message
    assert refused.type in NOT_BEGUN, "the run begins the step again: another worker may have its code"


@pytest.mark.parametrize("call", [{}, [], None, "text", {"function": {}}, {"function": function(), "step": 1}])
async def test_a_malformed_call_is_an_error_of_the_step_alone(workers: Workers, call: Any) -> None:
    refused = await call_by_hand(workers, call)
    assert refused.message


async def call_by_hand(workers: Workers, call: Any) -> ApplicationError:
    """The error of a step that was put on the task queue by hand."""
    async with workers(forms.client, workflows=[Attacker]):
        workflow_id = f"attack {json.dumps(call)}"[:200]
        with pytest.raises(WorkflowFailureError) as failed:
            await workers.temporal.execute_workflow(
                Attacker.run, call, id=workflow_id, task_queue=forms.client.task_queue
            )
        workers.drop(workflow_id)
        assert await (await forms.recursion.start()).result() == 720, "the worker goes on"
    error = failed.value.cause
    assert isinstance(error, ActivityError)
    assert isinstance(error.cause, ApplicationError)
    return error.cause


async def test_the_attack_works_with_a_function_of_the_app(workers: Workers) -> None:
    call = {"workflow": "all-forms", "step": "x", "function": function(name="apps.forms:product"), "arguments": [2, 4]}
    async with workers(forms.client, workflows=[Attacker]):
        result = await workers.temporal.execute_workflow(
            Attacker.run, call, id="no attack", task_queue=forms.client.task_queue
        )
        workers.drop("no attack")
    assert result == 8
    assert not activity.in_activity()


# --- signals that somebody sends to a run by hand --------------------------------------------------------------------

SHAPES: tuple[Any, ...] = (None, 1, "text", [], {}, {"run_id": None}, {"carried": {}}, {"hold": "long"})


def of_the_right_run(run_id: str, child: str) -> Iterator[tuple[str, Any]]:
    """Signals that say that they are for a run, and have something wrong in them."""
    event = {"name": "paid", "id": "1", "data": {}, "ts": 0, "v": None}
    for key in ("wait", "listen"):
        for wrong in (None, 1, {}, [event], *({**event, field: [1]} for field in event)):
            yield DELIVER, {"run_id": run_id, "key": key, "event": wrong}
    for key in (None, 1, {}):
        yield DELIVER, {"run_id": run_id, "key": key, "event": event}
        yield SIGNALLED, {"run_id": run_id, "key": key, "data": 1}
    for outcome in (None, 1, "text", [], {}, {"name": 1, "message": []}, {"name": "n", "message": "m", "cause": 1}):
        yield ENDED, {"run_id": run_id, "child": child, "outcome": outcome}
    for packed in (1, "?", "ü", "AAAA", base64.b64encode(zlib.compress(b"[")).decode()):
        yield ENDED, {"run_id": run_id, "child": child, "outcome": {"zlib": packed}}
    for workflow_id in (None, 1, {}, "", "x" * 1001):
        yield REPORT, {"workflow_id": workflow_id, "run_id": run_id}
    yield REPORT, {"workflow_id": "x", "run_id": 1}
    for hold in (None, "1", [], {}, -1, float("nan"), 1e300, float("inf")):
        yield CHECKPOINT, {"hold": hold}


RECOVERIES: tuple[Any, ...] = (
    {"carried": 1},
    {"carried": {"zlib": "?"}},
    {"carried": {"is_parked": True}},
    {"carried": {"is_parked": False, "started": 1, "seed": "ff", "memo": {"wait": [5, 1]}}},
    {"carried": {"is_parked": False, "started": 1, "seed": "ff", "waits": {"wait": [True, 5]}}},
    {"carried": {"is_parked": False, "started": 1, "seed": "no number"}},
    {"carried": {"is_parked": False, "started": 1, "seed": "ff", "past": ["step"]}},
    {"carried": {"is_parked": False, "started": 1, "seed": "ff", "past": [["step", "count"]]}},
    {"carried": {"is_parked": False, "started": 1, "seed": "ff", "past": [["step", "count", "now"]]}},
    {"carried": {"is_parked": False, "started": 1, "seed": "ff", "past": [["nothing", "count", 1]]}},
    {"carried": {"is_parked": False, "started": 1, "seed": "ff"}, "signals": "all"},
)


async def test_no_signal_that_somebody_sends_by_hand_hurts_a_run(app: steporal.Client, workers: Workers) -> None:
    name = f"paid.{new_ulid()}"

    @app.workflow(id="child")
    async def child(ctx: Context[Any], step: Step) -> Any:
        signal = await step.wait_for_signal("go", signal=f"{name}.child", timeout="1h")
        return signal and signal.data

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        listener = await step.ext.listen("listen", event=name, timeout="1h")
        event, signal, result = await asyncio.gather(
            step.ext.wait_for_event("wait", event=name, timeout="1h"),
            step.wait_for_signal("signal", signal=name, timeout="1h"),
            step.invoke_workflow("invoke", workflow=child),
        )
        heard = await listener.next("next")
        assert event and signal and heard
        return [event.data, signal.data, result, heard.data]

    async with workers(app), asyncio.timeout(60):
        run = await waits.start()
        await until_waiting(run, 2)
        latest = workers.temporal.get_workflow_handle(run.workflow_id)
        await latest.signal(CHECKPOINT, {"hold": 3600})  # from now on it waits for a signal of the invoked run
        while (await latest.describe()).run_id == run.run_id:
            await asyncio.sleep(0.02)
        await latest.signal(CHECKPOINT, {"hold": 0})
        started = (await latest.fetch_history()).events[0].workflow_execution_started_event_attributes
        waiting = read_run_state(json.loads(started.input.payloads[2].data)).waits  # type: ignore[union-attr]
        wrong = list(of_the_right_run(run.run_id, waiting["invoke"][1].child))
        for signal in SIGNALS:
            wrong += [(signal, shape) for shape in SHAPES]
        for signal, message in wrong:
            await latest.signal(signal, message)
        for signal in SIGNALS:
            await latest.signal(signal)
            await latest.signal(signal, args=[{}, {}])
            await latest.signal(signal, Unreadable())
        await latest.signal(CHECKPOINT, {"hold": 0})
        await app.send_event({"name": name, "data": {"n": 1}})
        await until_received(app, name, "signal")
        await until_received(app, f"{name}.child", "child")
        assert await run.result() == [{"n": 1}, "signal", "child", {"n": 1}]
        await no_failed_tasks(run)


async def test_a_run_that_is_told_nonsense_of_what_it_has_done_begins_as_if_it_were_not(
    app: steporal.Client, workers: Workers
) -> None:
    @app.workflow(id="counts")
    async def counts(ctx: Context[Any], step: Step) -> Any:
        return await step.run("count", lambda: 1)

    async with workers(app), asyncio.timeout(60):
        for number, recovery in enumerate(RECOVERIES):
            id = f"counts/{new_ulid()} {number}"
            await workers.temporal.start_workflow(
                "counts", id=id, task_queue=app.task_queue, start_signal=RECOVER, start_signal_args=[recovery]
            )
            run = await app.get_run(id, counts)
            assert await run.result() == 1
            await no_failed_tasks(run)


async def test_a_signal_that_was_encrypted_with_another_key_is_not_taken_for_nonsense(
    app: steporal.Client, workers: Workers
) -> None:
    @app.workflow(id="sleeps")
    async def sleeps(ctx: Context[Any], step: Step) -> None:
        await step.sleep("for long", "1h")

    sealed = RawValue(Payload(metadata={"encoding": ENCODING, KEY_ID_METADATA: b"another"}, data=b"?"))
    async with workers(app), asyncio.timeout(60):
        run = await sleeps.start()
        await until_waiting(run)
        await run.temporal.signal(DELIVER, sealed)
        while not any(each.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED for each in await events_of(run)):
            await asyncio.sleep(0.02)
        with pytest.raises(UnknownKeyError, match="another"):
            await rebuild(await events_of(run), workers.temporal.data_converter)
        await run.temporal.terminate()
    workers.drop(run.workflow_id)


async def events_of(run: steporal.Run[Any]) -> Sequence[HistoryEvent]:
    return (await run.temporal.fetch_history()).events


class Unreadable(RawValue):
    """A payload that no converter can read."""

    def __init__(self) -> None:
        super().__init__(Payload(metadata={"encoding": b"json/plain"}, data=b"{"))


async def no_failed_tasks(run: steporal.Run[Any]) -> None:
    """No workflow task of a run has failed; and what is read from its history can be."""
    handle = run.temporal._client.get_workflow_handle(run.workflow_id)
    events = (await handle.fetch_history()).events
    failed = [each for each in events if each.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED]
    assert not failed, failed[0]
    assert await rebuild(events, handle._client.data_converter)
