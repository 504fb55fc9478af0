"""Events of one execution, as Temporal's server writes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.enums.v1 import EventType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent

LOCAL_ACTIVITY = "core_local_activity"
PATCH = "core_patch"


def payload(value: Any, metadata: Mapping[str, bytes] | None = None) -> Payload:
    """JSON as a payload, with further metadata."""
    text = json.dumps(value, separators=(",", ":")).encode()
    return Payload(metadata={"encoding": b"json/plain", **(metadata or {})}, data=text)


def value_of(payload: Payload) -> Any:
    """The JSON in a payload."""
    return json.loads(payload.data)


def payloads(values: Iterable[Payload]) -> Payloads:
    """Payloads as one message."""
    return Payloads(payloads=list(values))


def timestamp(nanoseconds: int) -> Timestamp:
    """A moment, in nanoseconds since the epoch."""
    return Timestamp(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)


def nanoseconds(moment: Timestamp | Duration) -> int:
    """The inverse of :func:`timestamp`; also the length of a duration."""
    return moment.seconds * 10**9 + moment.nanos


def cancelled(message: str) -> Failure:
    """A failure that says that something was cancelled."""
    failure = Failure(message=message, source="CoreSDK")
    failure.canceled_failure_info.SetInParent()
    return failure


_TYPES = {name.removeprefix("EVENT_TYPE_").lower() + "_event_attributes": value for name, value in EventType.items()}


def kind_of(event: HistoryEvent) -> str:
    """The kind of an event: the name of its attributes, without their suffix."""
    return str(event.WhichOneof("attributes")).removesuffix("_event_attributes")


class History:
    """The events of one execution, in order."""

    def __init__(self) -> None:
        self.events: list[HistoryEvent] = []
        self.size = 0

    def __len__(self) -> int:
        return len(self.events)

    def add(self, now: int, kind: str, **attributes: Any) -> HistoryEvent:
        """Append an event.

        Args:
            now: Its time, in nanoseconds since the epoch.
            kind: The name of its attributes, without their suffix: ``timer_fired``.
            attributes: Its attributes.
        """
        field = f"{kind}_event_attributes"
        event = HistoryEvent(event_id=len(self.events) + 1, event_time=timestamp(now), event_type=_TYPES[field])
        target = getattr(event, field)
        target.SetInParent()
        target.MergeFrom(type(target)(**attributes))
        self.append(event)
        return event

    def append(self, event: HistoryEvent) -> None:
        """Append an event that has its number."""
        self.events.append(event)
        self.size += event.ByteSize()

    def describe(self) -> str:
        """The history for a person, one event a line."""
        lines = []
        for event in self.events:
            kind = kind_of(event)
            at = nanoseconds(event.event_time) / 1e9 % 10**6
            summary = value_of(event.user_metadata.summary) if event.user_metadata.HasField("summary") else ""
            lines.append(f"{event.event_id:4} {at:12.3f} {kind} {summary} {_facts(event)}")
        return "\n".join(lines)


_SHOWN = (
    "activity_id",
    "timer_id",
    "signal_name",
    "scheduled_event_id",
    "started_event_id",
    "initiated_event_id",
)


def _facts(event: HistoryEvent) -> str:
    attributes = getattr(event, f"{kind_of(event)}_event_attributes")
    facts = [f"{name}={value}" for name in _SHOWN if (value := getattr(attributes, name, None))]
    if event.HasField("marker_recorded_event_attributes") and "data" in attributes.details:
        facts.append(attributes.details["data"].payloads[0].data.decode())
    if event.HasField("workflow_execution_signaled_event_attributes") and attributes.input.payloads:
        facts.append(attributes.input.payloads[0].data.decode()[:200])
    return " ".join(facts)
