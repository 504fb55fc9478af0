"""State that one execution of a topic hands over to the next, and its payload."""

from __future__ import annotations

import zlib
from typing import Any, ClassVar, cast

from pydantic import BaseModel, ConfigDict, model_validator
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue

from ...errors import UnknownKeyError
from ...types import JSON
from ...values.converter import from_raw, size_of, to_raw
from ...values.packed import unpack_json
from ..messages import drop
from .subscription import Subscription

# Running topics replay with these values. To change one, use ``workflow.patched``.
MAX_STATE_BYTES = 8 * 1024 * 1024  # before compression: writing more takes too much of a workflow task
MAX_NESTING = 200  # senders may use 100; pydantic writes less than 255

_COMPRESSED = b"binary/zlib"
_COMPRESS_FROM = 64 * 1024
_FASTEST_LEVEL = 1  # for a state of megabytes: a third of the time, and little larger


class Event(BaseModel):
    """Event as topics receive it, with the trace that it belongs to, if any."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow")

    id: str
    name: str
    data: dict[str, JSON]
    ts: int


class State(BaseModel):
    """State that one execution of a topic hands over to the next; ``TopicWorkflow._handover_state`` writes it.

    Attributes:
        subscriptions: The subscriptions.
        remembered: The ids of the last events.
        received: The messages that are not handled yet: the signal, its argument, and the time.
        events: The events that are still to be delivered.
        matched: The deliveries: the subscription, the event's position, and the time when the event was received.
        confirmed: The time when the topic last confirmed its entry in the directory.
        has_grown: Whether the topic has requested more parts from the directory.
    """

    subscriptions: list[Subscription] = []
    remembered: list[str] = []
    received: list[tuple[str, Any, float]] = []
    events: list[Event] = []
    matched: list[tuple[Subscription, int, float]] = []
    confirmed: float = 0.0
    has_grown: bool = False

    @model_validator(mode="after")
    def _positions_are_of_events(self) -> State:
        if any(not 0 <= position < len(self.events) for _, position, _ in self.matched):
            raise ValueError("a position does not belong to an event")
        return self


def state_payload(state: JSON) -> RawValue:
    """Return a state as a payload, compressed if it is large. Temporal's limit is 2 MiB."""
    return packed_state(to_raw(state))


def packed_state(raw: RawValue) -> RawValue:
    """Return the payload of a state, compressed if it is large."""
    if size_of(raw) < _COMPRESS_FROM:
        return raw
    return RawValue(Payload(metadata={"encoding": _COMPRESSED}, data=zlib.compress(raw.payload.data, _FASTEST_LEVEL)))


def read_state(raw: RawValue) -> dict[str, JSON]:
    """Return the state in a payload; that of a new topic is empty.

    Raises:
        ValueError: The payload is not a state, or is larger than any state that a topic writes.
    """
    if raw.payload.metadata.get("encoding") != _COMPRESSED:
        return from_raw(raw) or {}
    return cast(dict[str, JSON], unpack_json(raw.payload.data, 2 * MAX_STATE_BYTES))


def restored_state(raw: RawValue) -> State:
    """Return the state that a topic starts with; an empty one if the payload is not valid."""
    try:
        state = State.model_validate(read_state(raw))
    except UnknownKeyError:
        raise
    except Exception as err:
        drop("state", err)
        return State()
    return state
