"""Steps of a run, read from its history in Temporal."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.common import RawValue
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError, FailureError

from ..errors import StepError, UnknownKeyError
from ..routing.catalog.reading import Snapshot
from ..runtime.children import read_end
from ..runtime.inbox import read_delivery
from ..runtime.signal_inbox import read_signal
from ..runtime.steps.invoke import invoking_step
from ..types import JSON
from ..values.converter import from_raw
from ..values.encrypted import UNREADABLE, check_failure_decrypted, check_readable
from ..values.readable import plain
from ..wire.failures import stack_of, step_of
from ..wire.names import (
    BACKOFF_AFTER,
    DELIVER,
    ENDED,
    FETCH,
    FIND_MAILBOX,
    GOES_ON,
    JOIN_STEP,
    OPEN_MAILBOX,
    PARKS,
    POST_EVENT,
    RUN_STEP,
    SEND_EVENT,
    SEND_SIGNAL,
    SIGNALLED,
    SUBSCRIBE_RUN,
    UNTIL_CODE,
    UNTIL_NEXT_ATTEMPT,
    UNTIL_TS,
)
from ..wire.run_state import read_outcome, read_run_state
from ..wire.sent_events import unpack
from ..wire.step_activities import BEFORE
from ..wire.waits import NextWait
from ..wire.workflow_ids import workflow_id_of

Kind = Literal[
    "step",
    "local",
    "event",
    "sleep",
    "wait",
    "listen",
    "next",
    "signal",
    "invoke",
    "send signal",
    "fetch",
    "post",
    "pause",
    "tell",
]
"""Kinds of entries. ``next`` is an event of a listener. The last three are not steps: a sink's delivery, a pause, and
an event about the run's end."""

State = Literal["running", "completed", "failed", "cancelled", "terminated", "timed out"]

_KINDS: dict[str, Kind] = {
    RUN_STEP: "step",
    SEND_EVENT: "event",
    SEND_SIGNAL: "send signal",
    FIND_MAILBOX: "send signal",
    FETCH: "fetch",
    POST_EVENT: "post",
}
_LOCAL_ACTIVITY = "core_local_activity"
_PAUSES = (BACKOFF_AFTER, UNTIL_TS)
_OF_NO_STEP = (PARKS, GOES_ON, UNTIL_CODE, UNTIL_NEXT_ATTEMPT)


@dataclass(slots=True)
class StepEntry:
    """Step of a run.

    Attributes:
        id: The step's id.
        kind: The kind of step.
        start: The time at which it was scheduled; None if that part of the history no longer exists.
        end: The time of its end.
        attempts: The number of attempts.
        retried_after: The error of the attempt before the last.
        stack: The user's frames of the stack trace of the last error.
        next_attempt: The time of the next attempt.
        names: The events or the signal that it waits for; the workflow and the run that it invokes.
        box: The listener from which it waits for an event.
        sent: The events that it sends.
        result: Its result; for events that it sent, a ``SendEventResult`` as a dict.
        error: The error with which it failed.
    """

    id: str
    kind: Kind
    start: datetime | None
    end: datetime | None = None
    state: State = "running"
    attempts: int = 1
    retried_after: str | None = None
    stack: str = ""
    next_attempt: datetime | None = None
    names: tuple[str, ...] = ()
    box: str | None = None
    sent: list[dict[str, JSON]] = field(default_factory=list)
    result: JSON = None
    error: str | None = None

    @property
    def duration(self) -> timedelta:
        """Time that it took, including the time between attempts."""
        return self.end - self.start if self.start and self.end else timedelta(0)

    @property
    def is_step(self) -> bool:
        """True if the body called it as a step."""
        return self.kind not in ("pause", "tell", "post")

    def started_runs(self, snapshot: Snapshot) -> list[str]:
        """Return the workflow ids of the runs that its events started."""
        if self.state != "completed":
            return []
        matches = [(match, event["id"]) for event in self.sent for match in snapshot.matches(event)]
        return [workflow_id_of(match.app, match.workflow, id) for match, id in matches]


@dataclass(frozen=True, slots=True)
class Delivered:
    """Event that was delivered to a listener."""

    listener: str
    event: dict[str, JSON]
    at: datetime


@dataclass(slots=True)
class Timeline:
    """Run: its steps in the order of their starts, and its end.

    The histories of several executions can be added one after the other; a step that spans executions is one entry.
    """

    workflow_id: str
    workflow: str = ""
    start: datetime | None = None
    end: datetime | None = None
    state: State = "running"
    result: JSON = None
    error: str | None = None
    stack: str = ""
    failed_step: StepError | None = None
    task_failure: str | None = None
    cut: set[str] = field(default_factory=set)
    steps: list[StepEntry] = field(default_factory=list)
    converter: DataConverter = DataConverter.default
    _by_event: dict[int, StepEntry] = field(default_factory=dict)
    _by_id: dict[str, StepEntry] = field(default_factory=dict)
    delivered: list[Delivered] = field(default_factory=list)
    _received: dict[str, JSON] = field(default_factory=dict)
    _unclaimed: list[dict[str, JSON]] = field(default_factory=list)
    _attempts_before: dict[int, int] = field(default_factory=dict)
    _run_id: str = ""

    @property
    def duration(self) -> timedelta:
        """Time that the run took."""
        return self.end - self.start if self.start and self.end else timedelta(0)

    def step(self, id: str) -> StepEntry | None:
        """Return a step by its id, or by the id of its activity, which has a numeric suffix if scheduled again."""
        return self._by_id.get(id) or self._by_id.get(id.rpartition("#")[0])

    def put(self, entry: StepEntry) -> StepEntry:
        """Add a step, or continue the step of the same id."""
        known = self._by_id.get(entry.id)
        if known is None:
            self.steps.append(entry)
            self._by_id[entry.id] = entry
            return entry
        if entry.kind != "sleep":
            known.kind = entry.kind
        known.names = entry.names or known.names
        known.sent += entry.sent
        known.state, known.end = "running", None
        return known

    async def add(self, event: HistoryEvent) -> StepEntry | None:
        """Process the next event of the history; return the step that it ended, if any."""
        at = _time(event.event_time)
        match event.WhichOneof("attributes"):
            case "workflow_execution_started_event_attributes":
                self.workflow = event.workflow_execution_started_event_attributes.workflow_type.name
                self._run_id = event.workflow_execution_started_event_attributes.first_execution_run_id
                self.start = self.start or at
                self.end, self.state, self.task_failure = None, "running", None
                self._by_event.clear()
                await self._resume(event)
            case "workflow_execution_completed_event_attributes":
                result = await self._result(event.workflow_execution_completed_event_attributes.result)
                self._ended(at, "completed", result=result)
            case "workflow_execution_failed_event_attributes":
                failure = event.workflow_execution_failed_event_attributes.failure
                self._ended(at, "failed", error=await self.reason(failure))
                error = await self._error(failure)
                self.stack, self.failed_step = stack_of(error), step_of(error)
            case "workflow_execution_canceled_event_attributes":
                self._ended(at, "cancelled", error="the run was cancelled")
            case "workflow_execution_terminated_event_attributes":
                reason = event.workflow_execution_terminated_event_attributes.reason
                self._ended(at, "terminated", error=f"the run was terminated{': ' * bool(reason)}{reason}")
            case "workflow_execution_timed_out_event_attributes":
                self._ended(at, "timed out", error="the run exceeded a timeout of Temporal's")
            case "workflow_task_failed_event_attributes":
                self.task_failure = _message(await self._error(event.workflow_task_failed_event_attributes.failure))
            case "workflow_task_completed_event_attributes":
                self.task_failure = None
            case "activity_task_scheduled_event_attributes":
                await self._add_activity(event, at)
            case "timer_started_event_attributes":
                await self._add_timer(event, at)
            case "start_child_workflow_execution_initiated_event_attributes":
                child = event.start_child_workflow_execution_initiated_event_attributes
                kind, summary = child.workflow_type.name, await self._summary(event)
                self._begin(event, StepEntry(invoking_step(summary) or kind, "invoke", at, names=(child.workflow_id,)))
            case "workflow_execution_signaled_event_attributes":
                await self._receive(event, at)
            case _:
                return await self._progress(event, at)
        return None

    def _ended(self, at: datetime, state: State, *, result: JSON = None, error: str | None = None) -> None:
        self.end, self.state, self.result, self.error = at, state, result, error

    async def _resume(self, event: HistoryEvent) -> None:
        """Mark the waits for a listener's event, which only the state handed over by the execution before shows."""
        payloads = event.workflow_execution_started_event_attributes.input.payloads
        carried = read_run_state(await self._json(payloads[2])) if len(payloads) > 2 else None
        for key, (_, waiting) in carried.waits.items() if carried else ():
            entry = self._by_id.get(key)
            if entry is not None and isinstance(waiting, NextWait):
                entry.kind, entry.box = "next", waiting.box

    async def _receive(self, event: HistoryEvent, at: datetime) -> None:
        """Process a signal. Anybody can send one, so signals that the run drops are dropped here, too."""
        signaled = event.workflow_execution_signaled_event_attributes
        if signaled.signal_name not in (DELIVER, SIGNALLED, ENDED):
            return
        message = await self._message_of(signaled.input)
        if signaled.signal_name == ENDED:
            if end := read_end(message, self._run_id):
                self._record_end(*end, at)
        elif signaled.signal_name == DELIVER:
            if delivery := read_delivery(message, self._run_id):
                self._deliver(*delivery, at)
        elif signal := read_signal(message, self._run_id):
            self._keep(*signal)

    def _deliver(self, key: str, event: dict[str, Any], at: datetime) -> None:
        waits = self.step(key)
        if waits is not None and waits.kind == "listen":
            self._deliver_to_listener(waits, event, at)
        else:
            self._keep(key, event["data"])

    def _keep(self, key: str, data: JSON) -> None:
        waits = self.step(key)
        self._received[waits.id if waits else key] = data

    def _record_end(self, child: str, ended: JSON, at: datetime) -> None:
        for entry in self.steps:
            if entry.kind == "invoke" and entry.names == (child,) and entry.state == "running":
                outcome = read_outcome(ended)
                entry.end, entry.result, entry.state = at, plain(outcome.value), "completed"
                if outcome.failure is not None:
                    entry.state, entry.error = "failed", f"{outcome.failure.name}: {outcome.failure.message}"

    def _deliver_to_listener(self, listener: StepEntry, event: dict[str, JSON], at: datetime) -> None:
        self.delivered.append(Delivered(listener.id, event, at))
        waits = [entry for entry in self.steps if entry.box == listener.id and entry.state == "running"]
        if waits:
            waits[0].end, waits[0].state, waits[0].result = at, "completed", event["data"]
        else:
            self._unclaimed.append(event)

    async def _add_activity(self, event: HistoryEvent, at: datetime) -> None:
        scheduled = event.activity_task_scheduled_event_attributes
        kind = _KINDS.get(scheduled.activity_type.name, "step")
        name = await self._summary(event) or scheduled.activity_id
        if kind != "post" and not _is_of_step(name, scheduled.activity_id):
            kind = "tell"
        elif scheduled.activity_type.name == JOIN_STEP and (known := self.step(name)) is not None:
            kind = known.kind
        entry = StepEntry(name, kind, at)
        if scheduled.activity_type.name in (RUN_STEP, FETCH) and scheduled.activity_id != name:
            call = await self._json(scheduled.input.payloads[0])
            self._attempts_before[event.event_id] = call.get(BEFORE, {}).get("attempts", 0)
        if scheduled.activity_type.name == SEND_EVENT:
            entry.sent = (await self._json(scheduled.input.payloads[0]))["events"]
        self._begin(event, entry)

    async def _add_timer(self, event: HistoryEvent, at: datetime) -> None:
        name = await self._summary(event) or f"timer {event.timer_started_event_attributes.timer_id}"
        if name.startswith(_OF_NO_STEP):
            return
        waits = self.step(name)
        if waits is not None and waits.end is None:
            self._by_event[event.event_id] = waits
        else:
            self._begin(event, StepEntry(name, "pause" if name.startswith(_PAUSES) else "sleep", at))

    async def _add_marker(self, event: HistoryEvent, at: datetime) -> StepEntry | None:
        """Process a local activity: a step, or the start of a wait."""
        marker = event.marker_recorded_event_attributes
        if marker.marker_name != _LOCAL_ACTIVITY:
            return None
        data = await self._json(marker.details["data"].payloads[0])
        has_failed = marker.HasField("failure")
        result = None if has_failed else await self._json(marker.details["result"].payloads[0])
        match data["activity_type"]:
            case activity if activity == SUBSCRIBE_RUN and isinstance(result, dict):
                if result["kind"] != "cancel":
                    kind: Kind = "wait" if result["kind"] == "once" else "listen"
                    entry = self.put(StepEntry(result["key"], kind, at, names=tuple(result["topics"])))
                    if kind == "listen":
                        entry.end, entry.state = at, "completed"
            case activity if activity == OPEN_MAILBOX and isinstance(result, dict):
                wait = result["wait"]
                known = self.step(wait["key"])
                self.put(StepEntry(known.id if known else wait["key"], "signal", at, names=(wait["signal"],)))
            case activity if activity in _KINDS:
                name = await self._summary(event)
                kind = "local" if activity == RUN_STEP else _KINDS[activity]
                entry = self.put(StepEntry(name, kind if _is_of_step(name, data["activity_id"]) else "tell", at))
                entry.attempts = data["attempt"]
                return await self._close(entry, at, marker.failure if has_failed else None, result)
        return None

    def _begin(self, event: HistoryEvent, entry: StepEntry) -> None:
        self._by_event[event.event_id] = self.put(entry)

    async def _progress(self, event: HistoryEvent, at: datetime) -> StepEntry | None:
        kind = str(event.WhichOneof("attributes"))
        attributes: Any = getattr(event, kind, None)
        match kind:
            case "marker_recorded_event_attributes":
                return await self._add_marker(event, at)
            case "activity_task_started_event_attributes":
                entry = self._by_event[attributes.scheduled_event_id]
                before = self._attempts_before.get(attributes.scheduled_event_id, 0)
                entry.attempts = max(entry.attempts, before + attributes.attempt)
                if attributes.HasField("last_failure"):
                    await self.retries(entry, attributes.last_failure)
            case "activity_task_completed_event_attributes":
                return await self._end(attributes.scheduled_event_id, at, result=attributes.result)
            case "activity_task_failed_event_attributes" | "activity_task_timed_out_event_attributes":
                return await self._end(attributes.scheduled_event_id, at, failure=attributes.failure)
            case "activity_task_canceled_event_attributes":
                return await self._end(attributes.scheduled_event_id, at, state="cancelled")
            case "timer_fired_event_attributes":
                return await self._timer_ended(attributes.started_event_id, at)
            case "timer_canceled_event_attributes":  # of a wait that has ended, successfully or not
                return await self._timer_ended(attributes.started_event_id, at, is_cut=True)
            case "child_workflow_execution_completed_event_attributes":
                return await self._end(attributes.initiated_event_id, at, result=attributes.result)
            case "child_workflow_execution_failed_event_attributes":
                return await self._end(attributes.initiated_event_id, at, failure=attributes.failure)
            case "child_workflow_execution_canceled_event_attributes":
                return await self._child_ended(attributes.initiated_event_id, at, "the run was cancelled")
            case "child_workflow_execution_terminated_event_attributes":
                return await self._child_ended(attributes.initiated_event_id, at, "the run was terminated")
            case "child_workflow_execution_timed_out_event_attributes":
                return await self._child_ended(attributes.initiated_event_id, at, "the run exceeded a timeout")
        return None

    async def _timer_ended(self, begun_by: int, at: datetime, *, is_cut: bool = False) -> StepEntry | None:
        entry = self._by_event.get(begun_by)
        if entry is None or entry.kind == "invoke":  # the timeout of an invoked run, which continues on its own
            return None
        if entry.kind == "next" and entry.state == "completed":
            return entry
        if is_cut and entry.kind == "sleep" and self._unclaimed:  # no subscription was made for it: a listener's
            entry.kind, entry.result = "next", self._unclaimed.pop(0)["data"]
        elif is_cut:
            self.cut.add(entry.id)
            entry.kind = "wait" if entry.kind == "sleep" else entry.kind
        if entry.kind != "next":
            entry.result = self._received.get(entry.id)
        entry.end, entry.state = at, "completed"
        return entry

    async def _child_ended(self, begun_by: int, at: datetime, error: str) -> StepEntry:
        return await self._end(begun_by, at, failure=Failure(message=error))

    async def _end(
        self,
        begun_by: int,
        at: datetime,
        *,
        result: Payloads | None = None,
        failure: Failure | None = None,
        state: State | None = None,
    ) -> StepEntry:
        entry = self._by_event[begun_by]
        value = await self._result(result) if result else None
        ended = await self._close(entry, at, failure, value)
        ended.state = state or ended.state
        return ended

    async def _close(self, entry: StepEntry, at: datetime, failure: Failure | None, result: JSON) -> StepEntry:
        entry.end, entry.result = at, _unpacked(result) if entry.kind in ("event", "tell") else result
        entry.error = None if failure is None else await self.reason(failure)
        entry.stack = "" if failure is None else stack_of(await self._error(failure))
        entry.state = "failed" if entry.error else "completed"
        return entry

    # --- values ------------------------------------------------------------------------------------------------

    async def _json(self, payload: Payload) -> Any:
        return await json_of(payload, self.converter)

    async def _message_of(self, payloads: Payloads) -> JSON:
        """Return a signal's argument; None if it cannot be read, as in the run."""
        try:
            return await self._json(payloads.payloads[0]) if payloads.payloads else None
        except UnknownKeyError:
            raise
        except Exception:
            return None

    async def _result(self, payloads: Payloads) -> JSON:
        """Return the result of a step or the run; a marker if somebody else has answered with an unreadable one."""
        try:
            return plain(await self._json(payloads.payloads[0])) if payloads.payloads else None
        except UnknownKeyError:
            raise
        except Exception:
            return UNREADABLE

    async def _summary(self, event: HistoryEvent) -> str:
        metadata = event.user_metadata
        return str(await self._json(metadata.summary)) if metadata.HasField("summary") else ""

    async def retries(self, entry: StepEntry, failure: Failure) -> None:
        """Record the error of an attempt that is retried."""
        entry.retried_after = await self.reason(failure)
        entry.stack = stack_of(await self._error(failure))

    async def reason(self, failure: Failure) -> str:
        """Return the error in one line."""
        error = await self._error(failure)
        message = _message(error)
        kind = error.type if isinstance(error, ApplicationError) else None
        return f"{kind}: {message}" if kind else message

    async def _error(self, failure: Failure) -> BaseException:
        decoded = Failure()
        decoded.CopyFrom(failure)
        error = await self.converter.decode_failure(decoded)
        check_failure_decrypted(error)
        return error


def _unpacked(result: JSON) -> JSON:
    """Return the result of sent events as the dict of a ``SendEventResult``; return other values unchanged."""
    if not isinstance(result, dict) or "ids" not in result:
        return result
    try:
        return unpack([result]).model_dump()
    except Exception:  # not written by a worker of Steporal
        return UNREADABLE


async def json_of(payload: Payload, converter: DataConverter) -> Any:
    """Return a value in a history as JSON, or as text if it is not JSON."""
    (raw,) = await converter.decode([payload], [RawValue])
    if raw.payload.metadata.get("encoding") == b"json/plain":
        return from_raw(raw)
    check_readable(raw.payload)
    value = converter.payload_converter.from_payload(raw.payload)
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return repr(value)


def _message(error: BaseException) -> str:
    return error.message if isinstance(error, FailureError) else str(error)


def _is_of_step(name: str, activity_id: str) -> bool:
    return activity_id == name or activity_id.startswith(f"{name}#")


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)
