"""Recovery of a run's state from its history, without its code.

A run whose code was edited in a way that does not fit its history is stuck: no worker can replay it. Its history still
contains everything that it has done, and a new execution can receive that as if the old one had continued as new.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import Payload, Payloads, RetryPolicy
from temporalio.api.failure.v1 import Failure as FailureMessage
from temporalio.api.history.v1 import HistoryEvent
from temporalio.common import RawValue
from temporalio.converter import DataConverter
from temporalio.exceptions import FailureError

from ..closures.calls import Call
from ..errors import UnknownKeyError
from ..runtime.children import was_cancelled
from ..runtime.steps.activity import Attempts, heartbeat_timeout
from ..runtime.steps.invoke import invoking_step
from ..types import JSON
from ..values.converter import from_raw
from ..values.encrypted import check_readable
from ..wire.failures import NOT_BEGUN, call_of, failure_of, is_cancellation
from ..wire.mailbox_wait import Wait
from ..wire.memo import Failure, Outcome
from ..wire.names import (
    CHECKPOINT,
    CLOSE_MAILBOX,
    DELIVER,
    ENDED,
    FETCH,
    FIND_END,
    FIND_MAILBOX,
    JOIN_STEP,
    OPEN_MAILBOX,
    RECOVER,
    REPORT,
    RUN_STEP,
    SEND_EVENT,
    SEND_SIGNAL,
    SIGNALLED,
    START_SIGNAL,
    SUBSCRIBE_RUN,
)
from ..wire.run_result import read_result
from ..wire.run_state import RunState, read_recovery, read_run_state, unpacked_outcome
from ..wire.step_activities import BEFORE
from .recovered_state import RecoveredState

STEPS = frozenset({RUN_STEP, JOIN_STEP, SEND_EVENT, SEND_SIGNAL, FETCH})
"""Activities whose outcome is a step's."""

SIGNALS = frozenset({START_SIGNAL, DELIVER, SIGNALLED, REPORT, ENDED, CHECKPOINT})
"""Signals that a run accepts."""

_LOCAL_ACTIVITY = "core_local_activity"
"""Marker that Temporal's core records for a local activity."""

_CANCELLED = was_cancelled()


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """State of a run, as its history shows it.

    Attributes:
        run_id: The run's id: that of its first execution.
        carried: The state from which another execution can continue.
        signals: The number of signals in the history that the state includes.
        first_task: The event that completed the first workflow task; None if no task was completed, so nothing is lost.
        last_event: The last event of the history.
        in_flight: The steps that have begun and whose end is not in the history.
        invoked: The number of invoked runs that have ended and whose step is unknown.
        children: The workflow ids of the invoked runs whose end is not in the history.
    """

    run_id: str
    carried: RunState
    signals: int
    first_task: int | None
    last_event: int
    in_flight: tuple[str, ...]
    invoked: int
    children: tuple[str, ...]

    @property
    def finished(self) -> int:
        """Number of finished steps; a history does not show how many events the body has taken from listeners."""
        return len(self.carried.memo) + self.invoked

    def message(self, *, is_stored: bool) -> dict[str, JSON]:
        """Return the message of the signal that hands the state to another execution.

        Args:
            is_stored: Whether the message goes into external storage if it exceeds Temporal's limit.
        """
        return {"carried": from_raw(self.carried.raw(lambda: is_stored)), "signals": self.signals}


async def rebuild(events: Sequence[HistoryEvent], converter: DataConverter) -> Rebuilt:
    """Read the history of an execution, and return the run's state.

    Args:
        events: All events, in order.
        converter: The data converter of the run's workers.
    """
    reader = _Reader(converter)
    for event in events:
        await reader.read(event)
    return reader.rebuilt(events[-1].event_id)


@dataclass(slots=True)
class _Activity:
    """Activity of a step.

    Attributes:
        key: The step's key.
        call: The description of the step's call, if the activity's argument contains it.
        type: The activity's type.
        max_attempts: The maximum number of attempts.
        result: The result.
    """

    key: str
    type: str
    max_attempts: int
    call: Call | None = None
    result: Any = None


class _Sends:
    """Steps that send events, each by one or more activities.

    Such a step is finished when the workflow task after a batch has not started another batch.
    """

    def __init__(self) -> None:
        self._batches: dict[str, list[_Activity]] = {}
        self._seen: dict[str, int] = {}

    @property
    def under_way(self) -> list[str]:
        return list(self._batches)

    def begin(self, batch: _Activity) -> None:
        self._batches.setdefault(batch.key, []).append(batch)

    def has_sent_all(self, key: str) -> bool:
        return all(batch.result is not None for batch in self._batches.get(key, []))

    def give_up(self, key: str) -> None:
        self._batches.pop(key, None)

    def task_done(self) -> None:
        """Note that the body has seen which batches are sent."""
        for key, batches in self._batches.items():
            if self.has_sent_all(key):
                self._seen[key] = len(batches)

    def take_finished(self) -> list[tuple[str, Outcome]]:
        """Return the steps that have started no further batch since."""
        finished = []
        for key, count in self._seen.items():
            batches = self._batches.get(key, [])
            if len(batches) == count:
                finished.append((key, Outcome([batch.result for batch in batches], call=batches[0].call)))
                del self._batches[key]
        self._seen.clear()
        return finished


class _Reader:
    """Reader that follows a history event by event and builds the run's state."""

    def __init__(self, converter: DataConverter) -> None:
        self._converter = converter
        self._run_id = ""
        self._state: RecoveredState
        self._signals_read = 0
        self._early: list[tuple[str, JSON]] = []  # signals before the run begins, which a recovery takes back
        self._is_first = True  # whether this is the run's first execution
        self._task_began = Timestamp()
        self._first_task: int | None = None
        self._activities: dict[int, _Activity] = {}
        self._sends = _Sends()
        self._attempts: dict[str, Attempts] = {}  # of steps whose outcome a worker may still have
        self._calls: dict[str, Any] = {}  # of steps that a later attempt may join
        self._lost: dict[str, None] = {}  # steps among them whose last attempt was interrupted

    def rebuilt(self, last_event: int) -> Rebuilt:
        self._end_sends()
        in_flight = [*(each.key for each in self._activities.values()), *self._sends.under_way, *self._lost]
        return Rebuilt(
            self._run_id,
            self._state.carried(),
            self._signals_read,
            self._first_task,
            last_event,
            tuple(dict.fromkeys(in_flight)),
            self._state.ends_seen,
            tuple(self._state.children()),
        )

    async def read(self, event: HistoryEvent) -> None:
        kind = event.WhichOneof("attributes")
        handle: Callable[[HistoryEvent], Coroutine[Any, Any, None]] | None = getattr(self, f"_{kind}", None)
        if handle is not None:
            await handle(event)

    # --- the execution and its tasks -------------------------------------------------------------------------------

    async def _workflow_execution_started_event_attributes(self, event: HistoryEvent) -> None:
        started = event.workflow_execution_started_event_attributes
        self._run_id = started.first_execution_run_id
        values = [await self._json(payload) for payload in started.input.payloads]
        carried = read_run_state(values[2]) if len(values) > 2 else None
        self._is_first = carried is None or not carried.started
        if carried is None or not carried.started:
            moment = event.event_time.ToDatetime(tzinfo=UTC).timestamp()
            carried = carried or RunState(is_parked=False, started=0, seed="")
            carried = carried.model_copy(update={"started": int(moment * 1000)})
        is_new = self._is_first and not carried.base
        self._state = RecoveredState(self._run_id, started.workflow_id, carried, is_first=is_new)

    async def _workflow_task_scheduled_event_attributes(self, event: HistoryEvent) -> None:
        self._end_sends()

    async def _workflow_task_started_event_attributes(self, event: HistoryEvent) -> None:
        self._task_began = event.event_time
        self._state.now = _seconds(event.event_time)
        self._state.moment = event.event_time.ToNanoseconds()

    async def _workflow_task_completed_event_attributes(self, event: HistoryEvent) -> None:
        if self._first_task is None:
            self._first_task = event.event_id
            if self._is_first:
                self._state.first_task(self._task_began.ToDatetime(tzinfo=UTC).isoformat())
        self._state.task_done()
        self._sends.task_done()

    def _end_sends(self) -> None:
        for key, outcome in self._sends.take_finished():
            self._state.remember(key, outcome)

    async def _workflow_execution_cancel_requested_event_attributes(self, event: HistoryEvent) -> None:
        self._state.cancelled()

    # --- signals ---------------------------------------------------------------------------------------------------

    async def _workflow_execution_signaled_event_attributes(self, event: HistoryEvent) -> None:
        signal = event.workflow_execution_signaled_event_attributes
        message = await self._signalled(signal.input)
        if signal.signal_name == RECOVER:
            if self._first_task is None:
                self._recover(message)
        elif signal.signal_name in SIGNALS:
            self._signals_read += 1
            received = signal.signal_name, message
            if self._first_task is None:
                self._early.append(received)
            self._state.signal(*received)

    def _recover(self, message: JSON) -> None:
        """Apply a recovery as the run does: first the handed-over state, then the signals that it does not include."""
        if recovery := read_recovery(message):
            carried, known = recovery
            self._state.recover(carried)
            for early in self._early[known:]:
                self._state.signal(*early)

    # --- activities ------------------------------------------------------------------------------------------------

    async def _activity_task_scheduled_event_attributes(self, event: HistoryEvent) -> None:
        scheduled = event.activity_task_scheduled_event_attributes
        key, kind = await self._summary(event), scheduled.activity_type.name
        if _is_of_step(key, scheduled.activity_id, kind):
            self._state.begun(key, scheduled.activity_id)
            argument = await self._first(scheduled.input)
            call = self._calls.get(key) if kind == JOIN_STEP else _call(argument)
            activity = _Activity(key, kind, scheduled.retry_policy.maximum_attempts, call)
            self._activities[event.event_id] = activity
            self._lost.pop(key, None)
            if kind in (RUN_STEP, FETCH):
                self._calls[key] = call
                self._attempts[key] = _attempts(scheduled.retry_policy, argument)
            if kind == SEND_EVENT:
                self._state.sends_more(key)
                self._sends.begin(activity)

    async def _activity_task_completed_event_attributes(self, event: HistoryEvent) -> None:
        completed = event.activity_task_completed_event_attributes
        activity = self._activities.pop(completed.scheduled_event_id, None)
        if activity is not None:
            activity.result = await self._first(completed.result)
            if activity.type != SEND_EVENT:
                self._state.finished(activity.key, Outcome(activity.result, call=activity.call))
            elif self._sends.has_sent_all(activity.key):
                self._state.sent(activity.key)

    async def _activity_task_failed_event_attributes(self, event: HistoryEvent) -> None:
        failed = event.activity_task_failed_event_attributes
        await self._activity_failed(failed.scheduled_event_id, failed.failure)

    async def _activity_task_timed_out_event_attributes(self, event: HistoryEvent) -> None:
        timed_out = event.activity_task_timed_out_event_attributes
        await self._activity_failed(timed_out.scheduled_event_id, timed_out.failure)

    async def _activity_task_cancel_requested_event_attributes(self, event: HistoryEvent) -> None:
        # The body no longer waits for the activity, so its end does not matter.
        await self._activity_failed(event.activity_task_cancel_requested_event_attributes.scheduled_event_id, None)

    async def _activity_task_canceled_event_attributes(self, event: HistoryEvent) -> None:
        await self._activity_failed(event.activity_task_canceled_event_attributes.scheduled_event_id, None)

    async def _activity_failed(self, scheduled: int, failure: FailureMessage | None) -> None:
        activity = self._activities.pop(scheduled, None)
        if activity is None:
            return
        self._sends.give_up(activity.key)
        if failure is not None:
            outcome = await self._failed(failure, activity.max_attempts)
            outcome = self._followed(activity, outcome)
            self._fail(activity.key, replace(outcome, call=outcome.call or activity.call))

    def _followed(self, activity: _Activity, outcome: Outcome) -> Outcome:
        """Return the outcome that the run sees: an interrupted step continues if it has another attempt."""
        attempts = self._attempts.get(activity.key)
        if attempts is None or outcome.failure is None:
            return outcome
        is_join = activity.type == JOIN_STEP
        if (beat := heartbeat_timeout(outcome)) is not None:
            if is_join or not attempts.never_began(beat):
                attempts.timed_out(beat, is_join=is_join)
            goes_on = True
        elif is_join:
            failure, goes_on = attempts.not_joined(outcome.failure)
            outcome = Outcome(failure=failure)
        else:
            return outcome
        if goes_on:
            self._lost[activity.key] = None
            return _CANCELLED  # which is not remembered
        return outcome

    def _fail(self, key: str, outcome: Outcome) -> None:
        """Record the failure of a step, unless it was cancelled or begins again."""
        if outcome.failure != _CANCELLED.failure and outcome.failure and outcome.failure.name not in NOT_BEGUN:
            self._state.finished(key, outcome)

    async def _marker_recorded_event_attributes(self, event: HistoryEvent) -> None:
        marker = event.marker_recorded_event_attributes
        if marker.marker_name != _LOCAL_ACTIVITY:
            return
        data = await self._first(marker.details["data"])
        text = await self._summary(event)
        completed = data["complete_time"]
        if not marker.HasField("failure"):
            returned = await self._outcome(marker.details["result"])
            with self._state.local(_moment(completed)):
                self._local_done(data, text, returned)
        elif _is_of_step(text, data["activity_id"], data["activity_type"]):
            self._state.begun(text, data["activity_id"])
            failed = await self._failed(marker.failure, data["attempt"])
            with self._state.local(_moment(completed)):
                self._fail(text, failed)

    def _local_done(self, data: dict[str, Any], text: str, returned: Outcome) -> None:
        kind, result = data["activity_type"], returned.value
        if kind == SUBSCRIBE_RUN and result is not None:
            topics, parts = result["topics"], result.get("parts", {})
            self._state.subscribed(result["key"], result["kind"], topics, result["until"], parts)
        elif kind == OPEN_MAILBOX:
            self._state.opened(text, result.get("step"), Wait.model_validate(result["wait"]), result["run_id"])
        elif kind == CLOSE_MAILBOX and not result:
            self._state.closed_in_vain(text)
        elif kind == FIND_MAILBOX and result is None:  # no run waits for the signal, which ends the sending step
            self._state.finished(text, returned)
        elif kind == FIND_END:
            self._state.looked_at_child(text, unpacked_outcome(result))
        elif kind == FIND_MAILBOX:
            self._state.sends_to(text, result, returned.call)
        elif _is_of_step(text, data["activity_id"], kind):
            self._state.begun(text, data["activity_id"])
            self._state.finished(text, returned)

    # --- timers ----------------------------------------------------------------------------------------------------

    async def _timer_started_event_attributes(self, event: HistoryEvent) -> None:
        if text := await self._summary(event):  # a timer of the body's own asyncio.sleep has no summary
            lasts = event.timer_started_event_attributes.start_to_fire_timeout.ToNanoseconds() / 1e9
            self._state.timer_started(event.event_id, text, _seconds(event.event_time) + lasts)

    async def _timer_fired_event_attributes(self, event: HistoryEvent) -> None:
        self._state.timer_fired(event.timer_fired_event_attributes.started_event_id)

    async def _timer_canceled_event_attributes(self, event: HistoryEvent) -> None:
        self._state.timer_cancelled(event.timer_canceled_event_attributes.started_event_id)

    # --- invoked runs ----------------------------------------------------------------------------------------------

    async def _start_child_workflow_execution_initiated_event_attributes(self, event: HistoryEvent) -> None:
        child = event.start_child_workflow_execution_initiated_event_attributes.workflow_id
        self._state.invoked(child, invoking_step(await self._summary(event)))

    async def _start_child_workflow_execution_failed_event_attributes(self, event: HistoryEvent) -> None:
        self._state.not_invoked(event.start_child_workflow_execution_failed_event_attributes.workflow_id)

    async def _child_workflow_execution_completed_event_attributes(self, event: HistoryEvent) -> None:
        completed = event.child_workflow_execution_completed_event_attributes
        self._child_ended(completed, Outcome(await self._returned(completed.result)))

    async def _child_workflow_execution_failed_event_attributes(self, event: HistoryEvent) -> None:
        failed = event.child_workflow_execution_failed_event_attributes
        self._child_ended(failed, await self._failed(failed.failure, 0))

    async def _child_workflow_execution_canceled_event_attributes(self, event: HistoryEvent) -> None:
        self._child_ended(event.child_workflow_execution_canceled_event_attributes, _CANCELLED)

    async def _child_workflow_execution_terminated_event_attributes(self, event: HistoryEvent) -> None:
        failure = Failure("TerminatedError", "the run was terminated")
        self._child_ended(event.child_workflow_execution_terminated_event_attributes, Outcome(failure=failure))

    async def _child_workflow_execution_timed_out_event_attributes(self, event: HistoryEvent) -> None:
        failure = Failure("TimeoutError", "the run exceeded a timeout of Temporal's")
        self._child_ended(event.child_workflow_execution_timed_out_event_attributes, Outcome(failure=failure))

    def _child_ended(self, attributes: Any, outcome: Outcome) -> None:
        self._state.child_ended(attributes.workflow_execution.workflow_id, outcome)

    # --- values ----------------------------------------------------------------------------------------------------

    async def _first(self, payloads: Payloads) -> JSON:
        return await self._json(payloads.payloads[0]) if payloads.payloads else None

    async def _outcome(self, payloads: Payloads) -> Outcome:
        if not payloads.payloads:
            return Outcome()
        (raw,) = await self._converter.decode([payloads.payloads[0]], [RawValue])
        return Outcome(self._read(raw), call=Call.of_result(raw))

    async def _returned(self, payloads: Payloads) -> JSON:
        if not payloads.payloads:
            return None
        (raw,) = await self._converter.decode([payloads.payloads[0]], [RawValue])
        return read_result(raw, self._read).as_json()

    async def _signalled(self, payloads: Payloads) -> JSON:
        """Return the message of a signal; None if it cannot be read, as in the run itself."""
        if not payloads.payloads:
            return None
        (raw,) = await self._converter.decode([payloads.payloads[0]], [RawValue])
        try:
            return self._read(raw)
        except UnknownKeyError:
            raise
        except Exception:
            return None

    async def _json(self, payload: Payload) -> JSON:
        (raw,) = await self._converter.decode([payload], [RawValue])
        return self._read(raw)

    def _read(self, raw: RawValue) -> JSON:
        if raw.payload.metadata.get("encoding") != b"json/plain":
            check_readable(raw.payload)
            return self._converter.payload_converter.from_payload(raw.payload)
        return from_raw(raw)

    async def _summary(self, event: HistoryEvent) -> str:
        if not event.user_metadata.HasField("summary"):
            return ""
        (text,) = await self._converter.decode([event.user_metadata.summary], [str])
        return str(text)

    async def _failed(self, failure: FailureMessage, max_attempts: int) -> Outcome:
        error = await self._converter.decode_failure(failure)
        if is_cancellation(error):
            return _CANCELLED
        assert isinstance(error, FailureError)
        return Outcome(failure=failure_of(error, max_attempts), call=call_of(error))


def _call(argument: JSON) -> Call | None:
    """Return the call in the argument of a step's activity."""
    return Call.read(argument.get("call")) if isinstance(argument, dict) else None


def _attempts(policy: RetryPolicy, argument: JSON) -> Attempts:
    """Return the attempts of a step, including those of earlier activities that were cancelled."""
    before = argument.get(BEFORE) if isinstance(argument, dict) else None
    begun = before["attempts"] if before else 0
    return Attempts(policy.maximum_attempts + begun, tuple(policy.non_retryable_error_types), begun)


def _is_of_step(key: str, activity_id: str, kind: str) -> bool:
    return kind in STEPS and (activity_id == key or activity_id.startswith(f"{key}#"))


def _moment(written: dict[str, int]) -> int:
    """Return a time from the marker of a local activity, written by Temporal's core, in nanoseconds since the epoch."""
    return Timestamp(seconds=written["seconds"], nanos=written["nanos"]).ToNanoseconds()


def _seconds(moment: Timestamp) -> float:
    return moment.ToNanoseconds() / 1e9
