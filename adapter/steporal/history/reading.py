"""Reading of a history: the one place that knows which event of Temporal's means what for a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import Payloads
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.converter import DataConverter

from ..runtime.children import read_end, read_parent
from ..runtime.continuing import read_hold
from ..runtime.inbox import read_delivery
from ..runtime.signal_inbox import read_signal
from ..runtime.steps.invoke import invoking_step
from ..types import JSON
from ..wire.mailbox_wait import Wait
from ..wire.names import (
    ASYNCIO_TIMER,
    BACKOFF_AFTER,
    CHECKPOINT,
    CLOSE_MAILBOX,
    DELIVER,
    ENDED,
    FETCH,
    FIND_END,
    FIND_MAILBOX,
    JOIN_STEP,
    OPEN_MAILBOX,
    POST_EVENT,
    RECOVER,
    REPORT,
    RUN_STEP,
    SEND_EVENT,
    SEND_SIGNAL,
    SIGNALLED,
    START_SIGNAL,
    SUBSCRIBE_RUN,
    UNTIL_TS,
)
from ..wire.run_state import read_recovery, unpacked_outcome
from ..wire.waits import is_of_no_step
from . import facts
from .facts import ActivityKind, EndKind, Fact, TimerKind
from .values import Values

SIGNALS = frozenset({START_SIGNAL, DELIVER, SIGNALLED, REPORT, ENDED, CHECKPOINT})
"""Signals that a run accepts."""

_KINDS: Mapping[str, ActivityKind] = {
    RUN_STEP: "run",
    JOIN_STEP: "join",
    SEND_EVENT: "send event",
    SEND_SIGNAL: "send signal",
    FIND_MAILBOX: "find mailbox",
    FETCH: "fetch",
    FIND_END: "poll",
    POST_EVENT: "post",
}
"""Kinds of activities, by their types."""

_OUTCOMES: frozenset[ActivityKind] = frozenset({"run", "join", "send event", "send signal", "fetch"})
"""Kinds of activities whose outcome is a step's."""

_PARTS: frozenset[ActivityKind] = frozenset({"find mailbox", "poll"})
"""Kinds of activities that are parts of a step; their ids are not the step's."""

_LOCAL_ACTIVITY = "core_local_activity"
"""Marker that Temporal's core records for a local activity."""

_ENDS: Mapping[str, EndKind] = {
    "completed": "completed",
    "failed": "failed",
    "canceled": "cancelled",
    "terminated": "terminated",
    "timed_out": "timed out",
}
"""Ways in which an execution ends, by Temporal's names."""


class _Of(TypedDict):
    number: int
    moment: int


class _End(TypedDict):
    result: Payloads | None
    failure: Failure | None


class FactReader:
    """Reader of the history of an execution, event by event.

    Args:
        converter: The data converter of the run's workers.

    Attributes:
        values: Reader of the values in the facts.
    """

    def __init__(self, converter: DataConverter) -> None:
        self.values: Values = Values(converter)
        self._run_id = ""

    async def read(self, event: HistoryEvent) -> Fact | None:
        """Return the meaning of the next event; None if it has none for a run."""
        kind = str(event.WhichOneof("attributes")).removesuffix("_event_attributes")
        of = _Of(number=event.event_id, moment=event.event_time.ToNanoseconds())
        attributes: Any = getattr(event, f"{kind}_event_attributes", None)
        family, _, what = kind.rpartition("_execution_")
        match kind:
            case "workflow_execution_started":
                return await self._started(event, of)
            case "workflow_execution_signaled":
                return await self._signalled(event, of)
            case "workflow_execution_cancel_requested":
                return facts.CancelRequested(**of)
            case "workflow_task_scheduled":
                return facts.TaskScheduled(**of)
            case "workflow_task_started":
                return facts.TaskStarted(**of)
            case "workflow_task_completed":
                return facts.TaskCompleted(**of)
            case "workflow_task_failed":
                is_reset = attributes.cause == WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW
                reset_from = attributes.base_run_id if is_reset else None
                return facts.TaskFailed(**of, failure=attributes.failure, reset_from=reset_from)
            case "activity_task_scheduled":
                return await self._activity(event, of)
            case "activity_task_started":
                failure = attributes.last_failure if attributes.HasField("last_failure") else None
                scheduled, attempt = attributes.scheduled_event_id, attributes.attempt
                return facts.AttemptStarted(**of, scheduled=scheduled, attempt=attempt, last_failure=failure)
            case "activity_task_completed":
                return facts.ActivityCompleted(**of, scheduled=attributes.scheduled_event_id, result=attributes.result)
            case "activity_task_failed" | "activity_task_timed_out":
                return facts.ActivityFailed(**of, scheduled=attributes.scheduled_event_id, failure=attributes.failure)
            case "activity_task_cancel_requested" | "activity_task_canceled":
                is_requested = kind == "activity_task_cancel_requested"
                scheduled = attributes.scheduled_event_id
                return facts.ActivityCancelled(**of, scheduled=scheduled, is_requested=is_requested)
            case "marker_recorded":
                is_local = attributes.marker_name == _LOCAL_ACTIVITY
                return (await self._local_activity(event, of) if is_local else None) or facts.MarkerRecorded(**of)
            case "timer_started":
                return await self._timer(event, of)
            case "timer_fired":
                return facts.TimerFired(**of, started=attributes.started_event_id)
            case "timer_canceled":
                return facts.TimerCancelled(**of, started=attributes.started_event_id)
            case "start_child_workflow_execution_initiated":
                step = invoking_step(await self.values.summary(event))
                child, workflow = attributes.workflow_id, attributes.workflow_type.name
                return facts.ChildInitiated(**of, child=child, workflow=workflow, step=step)
            case "start_child_workflow_execution_failed":
                return facts.ChildNotStarted(**of, child=attributes.workflow_id)
            case _ if family == "workflow" and what in _ENDS:
                reason = attributes.reason if what == "terminated" else ""
                return facts.ExecutionEnded(**of, end=_ENDS[what], reason=reason, **_end(attributes))
            case _ if family == "child_workflow" and what in _ENDS:
                child, initiated = attributes.workflow_execution.workflow_id, attributes.initiated_event_id
                return facts.ChildEnded(**of, child=child, initiated=initiated, end=_ENDS[what], **_end(attributes))
        return None

    async def _started(self, event: HistoryEvent, of: _Of) -> Fact:
        started = event.workflow_execution_started_event_attributes
        self._run_id = started.first_execution_run_id
        return facts.ExecutionStarted(
            **of,
            workflow=started.workflow_type.name,
            workflow_id=started.workflow_id,
            run_id=started.first_execution_run_id,
            continues=started.continued_execution_run_id or None,
            arguments=tuple([await self.values.shown(payload) for payload in started.input.payloads]),
        )

    # --- signals ---------------------------------------------------------------------------------------------------

    async def _signalled(self, event: HistoryEvent, of: _Of) -> Fact | None:
        signal = event.workflow_execution_signaled_event_attributes
        name = signal.signal_name
        if name != RECOVER and name not in SIGNALS:
            return None
        message = self._message(name, await self.values.message(signal.input))
        return facts.Signalled(**of, is_recovery=name == RECOVER, message=message)

    def _message(self, name: str, message: JSON) -> facts.Message | None:
        """Return a signal's message. Anybody can send one, so those that the run drops are dropped here, too."""
        if name == RECOVER and (recovery := read_recovery(message)):
            return facts.RecoveryRequested(*recovery)
        if name == DELIVER and (delivery := read_delivery(message, self._run_id)):
            return facts.EventDelivered(*delivery)
        if name == SIGNALLED and (signal := read_signal(message, self._run_id)):
            return facts.SignalDelivered(*signal)
        if name == ENDED and (end := read_end(message, self._run_id)):
            return facts.ChildReported(*end)
        if name == REPORT and (parent := read_parent(message)):
            return facts.ReportRequested(parent)
        return facts.HoldRequested(read_hold(message)) if name == CHECKPOINT else None

    # --- activities ------------------------------------------------------------------------------------------------

    async def _activity(self, event: HistoryEvent, of: _Of) -> Fact:
        scheduled = event.activity_task_scheduled_event_attributes
        summary = await self.values.summary(event)
        name = summary or scheduled.activity_id
        kind = _kind(scheduled.activity_type.name, name, scheduled.activity_id)
        return facts.ActivityScheduled(
            **of,
            name=name,
            kind=kind,
            step=summary if summary and kind in _OUTCOMES else None,
            activity_id=scheduled.activity_id,
            argument=scheduled.input.payloads[0] if scheduled.input.payloads else None,
            retry=scheduled.retry_policy,
        )

    async def _local_activity(self, event: HistoryEvent, of: _Of) -> Fact | None:
        marker = event.marker_recorded_event_attributes
        data: Any = await self.values.first(marker.details["data"])
        activity, completed = data["activity_type"], _moment(data["complete_time"])
        if activity in _KINDS and (activity != FIND_END or marker.HasField("failure")):
            return await self._local_step(event, of, data)
        if marker.HasField("failure"):
            return None
        result: Any = (await self.values.outcome(marker.details["result"])).value
        if activity == SUBSCRIBE_RUN and result is not None:
            return facts.Subscribed(
                **of,
                completed=completed,
                key=result["key"],
                purpose=result["kind"],
                topics=result["topics"],
                until=result["until"],
                parts=result.get("parts", {}),
            )
        summary = await self.values.summary(event)
        if activity == OPEN_MAILBOX:
            return facts.MailboxOpened(
                **of,
                completed=completed,
                summary=summary,
                step=result.get("step"),
                wait=Wait.model_validate(result["wait"]),
                mailbox=result["run_id"],
            )
        if activity == CLOSE_MAILBOX and not result:
            return facts.MailboxClosed(**of, completed=completed, summary=summary)
        if activity == FIND_END:
            return facts.ChildPolled(**of, completed=completed, step=summary, outcome=unpacked_outcome(result))
        return None

    async def _local_step(self, event: HistoryEvent, of: _Of, data: Mapping[str, Any]) -> Fact:
        marker = event.marker_recorded_event_attributes
        name, activity_id = await self.values.summary(event), data["activity_id"]
        kind = _kind(data["activity_type"], name, activity_id)
        has_failed = marker.HasField("failure")
        return facts.LocalStep(
            **of,
            completed=_moment(data["complete_time"]),
            name=name,
            kind=kind,
            step=name if kind in _OUTCOMES | _PARTS else None,
            activity_id=activity_id,
            attempts=data["attempt"],
            result=Payloads() if has_failed else marker.details["result"],
            failure=marker.failure if has_failed else None,
        )

    # --- timers ----------------------------------------------------------------------------------------------------

    async def _timer(self, event: HistoryEvent, of: _Of) -> Fact:
        started = event.timer_started_event_attributes
        summary = await self.values.summary(event)
        return facts.TimerStarted(
            **of,
            name=summary or f"timer {started.timer_id}",
            kind=_timer_kind(summary),
            until=of["moment"] / 1e9 + started.start_to_fire_timeout.ToNanoseconds() / 1e9,
        )


def _kind(activity: str, name: str, activity_id: str) -> ActivityKind:
    """Return the kind of an activity: that of its type only if its id shows that it is of the step that it names."""
    kind = _KINDS.get(activity)
    if kind == "post" or kind in _PARTS:
        return kind
    if activity_id != name and not activity_id.startswith(f"{name}#"):
        return "report" if kind == "send event" else "other"
    return kind or "native"


def _timer_kind(summary: str) -> TimerKind:
    if not summary:
        return "native"
    if summary.startswith(BACKOFF_AFTER):
        return "backoff"
    if summary.startswith(UNTIL_TS):
        return "start"
    if summary.startswith(ASYNCIO_TIMER):
        return "asyncio"
    return "internal" if is_of_no_step(summary) else "step"


def _end(attributes: Any) -> _End:
    """Return the details of the end of an execution."""
    fields = attributes.DESCRIPTOR.fields_by_name
    return _End(
        result=attributes.result if "result" in fields else None,
        failure=attributes.failure if "failure" in fields else None,
    )


def _moment(written: Mapping[str, int]) -> int:
    """Return a time from the marker of a local activity, written by Temporal's core, in nanoseconds since the epoch."""
    return Timestamp(seconds=written["seconds"], nanos=written["nanos"]).ToNanoseconds()
