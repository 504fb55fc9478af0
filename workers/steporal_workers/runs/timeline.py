"""What a run did, step by step, read from its history in Temporal."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent

from steporal.converter import plain
from steporal.routing.catalog import Snapshot
from steporal.routing.mailbox import SIGNALLED
from steporal.runtime.endings import SEND_EVENT
from steporal.runtime.inbox import DELIVER
from steporal.types import JSON

Kind = Literal["step", "event", "sleep", "wait", "invoke"]
State = Literal["running", "completed", "failed"]


@dataclass(slots=True)
class StepEntry:
    """A step of a run.

    Attributes:
        id: The step's id.
        kind: What kind of step it is.
        start: When it was scheduled.
        end: When it ended.
        attempts: How often it was tried.
        retried_after: The error of the attempt before the last.
        sent: The events that it sends.
        result: What it returned.
        error: What it failed with.
    """

    id: str
    kind: Kind
    start: datetime
    end: datetime | None = None
    state: State = "running"
    attempts: int = 1
    retried_after: str | None = None
    sent: list[dict[str, JSON]] = field(default_factory=list)
    result: JSON = None
    error: str | None = None

    @property
    def duration(self) -> timedelta:
        """How long it took, with the time between attempts."""
        return (self.end or self.start) - self.start

    def started_runs(self, snapshot: Snapshot) -> list[str]:
        """The workflow ids of the runs that its events have started."""
        if self.state != "completed":
            return []
        return [f"{match.workflow}/{event['id']}" for event in self.sent for match in snapshot.matches(event)]


@dataclass(slots=True)
class Timeline:
    """A run: its steps in the order of their starts, and how it ended."""

    workflow_id: str
    workflow: str = ""
    start: datetime | None = None
    end: datetime | None = None
    state: State = "running"
    result: JSON = None
    error: str | None = None
    steps: list[StepEntry] = field(default_factory=list)
    _by_event: dict[int, StepEntry] = field(default_factory=dict)
    _received: dict[str, JSON] = field(default_factory=dict)

    @property
    def duration(self) -> timedelta:
        """How long the run took."""
        return self.end - self.start if self.start and self.end else timedelta(0)

    def add(self, event: HistoryEvent) -> StepEntry | None:
        """Take the next event of the history; returns the step that it ended, if any."""
        at = _time(event.event_time)
        match event.WhichOneof("attributes"):
            case "workflow_execution_started_event_attributes":
                self.workflow = event.workflow_execution_started_event_attributes.workflow_type.name
                self.start = at
            case "workflow_execution_completed_event_attributes":
                self.end, self.state = at, "completed"
                self.result = _result(event.workflow_execution_completed_event_attributes.result)
            case "workflow_execution_failed_event_attributes":
                self.end, self.state = at, "failed"
                self.error = _reason(event.workflow_execution_failed_event_attributes.failure)
            case "activity_task_scheduled_event_attributes":
                self._add_activity(event, at)
            case "timer_started_event_attributes":
                name = _summary(event) or f"timer {event.timer_started_event_attributes.timer_id}"
                self._begin(event, StepEntry(name, "sleep", at))
            case "start_child_workflow_execution_initiated_event_attributes":
                child = event.start_child_workflow_execution_initiated_event_attributes
                self._begin(event, StepEntry(child.workflow_type.name, "invoke", at))
            case "workflow_execution_signaled_event_attributes":
                self._receive(event)
            case _:
                return self._progress(event, at)
        return None

    def _receive(self, event: HistoryEvent) -> None:
        signaled = event.workflow_execution_signaled_event_attributes
        if signaled.signal_name in (DELIVER, SIGNALLED):
            message = _json(signaled.input.payloads[0])
            self._received[message["key"]] = message["event"]["data"] if "event" in message else message["data"]

    def _add_activity(self, event: HistoryEvent, at: datetime) -> None:
        scheduled = event.activity_task_scheduled_event_attributes
        entry = StepEntry(_summary(event) or scheduled.activity_id, "step", at)
        if scheduled.activity_type.name == SEND_EVENT:
            entry.kind = "event"
            entry.sent = _json(scheduled.input.payloads[0])["events"]
        self._begin(event, entry)

    def _begin(self, event: HistoryEvent, entry: StepEntry) -> None:
        self.steps.append(entry)
        self._by_event[event.event_id] = entry

    def _progress(self, event: HistoryEvent, at: datetime) -> StepEntry | None:
        match event.WhichOneof("attributes"):
            case "activity_task_started_event_attributes":
                started = event.activity_task_started_event_attributes
                entry = self._by_event[started.scheduled_event_id]
                entry.attempts = started.attempt
                if started.HasField("last_failure"):
                    entry.retried_after = _reason(started.last_failure)
                return None
            case "activity_task_completed_event_attributes":
                completed = event.activity_task_completed_event_attributes
                return self._end(completed.scheduled_event_id, at, result=_result(completed.result))
            case "activity_task_failed_event_attributes":
                failed = event.activity_task_failed_event_attributes
                return self._end(failed.scheduled_event_id, at, error=_reason(failed.failure))
            case "timer_fired_event_attributes":
                return self._end(event.timer_fired_event_attributes.started_event_id, at)
            case "timer_canceled_event_attributes":  # of a wait that is over, with what it waited for or without
                entry = self._by_event[event.timer_canceled_event_attributes.started_event_id]
                entry.kind = "wait"
                return self._end(
                    event.timer_canceled_event_attributes.started_event_id, at, result=self._received.get(entry.id)
                )
            case "child_workflow_execution_completed_event_attributes":
                child = event.child_workflow_execution_completed_event_attributes
                return self._end(child.initiated_event_id, at, result=_result(child.result))
            case "child_workflow_execution_failed_event_attributes":
                broken = event.child_workflow_execution_failed_event_attributes
                return self._end(broken.initiated_event_id, at, error=_reason(broken.failure))
        return None

    def _end(self, begun_by: int, at: datetime, *, result: JSON = None, error: str | None = None) -> StepEntry:
        entry = self._by_event[begun_by]
        entry.end, entry.result, entry.error = at, result, error
        entry.state = "failed" if error else "completed"
        return entry


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


def _summary(event: HistoryEvent) -> str:
    data = event.user_metadata.summary.data
    return str(json.loads(data)) if data else ""


def _result(payloads: Payloads) -> JSON:
    return plain(_json(payloads.payloads[0])) if payloads.payloads else None


def _json(payload: Payload) -> JSON:
    return json.loads(payload.data) if payload.data else None


def _reason(failure: Failure) -> str:
    kind = failure.application_failure_info.type
    return f"{kind}: {failure.message}" if kind else failure.message
