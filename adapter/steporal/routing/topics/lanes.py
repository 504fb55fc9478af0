"""Lanes of a topic: queues of deliveries to runs, and their size."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from ...types import JSON
from .subscription import Subscription, subscription_id

# What a live topic replays with: other values need ``workflow.patched``.
_DELIVERIES_PER_ACTIVITY = 200
_BYTES_PER_ACTIVITY = 512 * 1024


class Delivery(BaseModel):
    """An event for one subscription."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    workflow_id: str
    run_id: str
    key: str
    kind: Literal["once", "each", "cancel"]
    event: int
    """Position of the event in the batch's list of events."""

    @classmethod
    def of(cls, subscription: Subscription, event: int) -> Delivery:
        return cls(
            workflow_id=subscription.workflow_id,
            run_id=subscription.run_id,
            key=subscription.key,
            kind=subscription.kind,
            event=event,
        )

    @property
    def subscription_id(self) -> str:
        return subscription_id(self.workflow_id, self.run_id, self.key)


class Batch(BaseModel):
    """Events and deliveries for one activity."""

    events: list[dict[str, JSON]]
    deliveries: list[Delivery]


@dataclass(frozen=True, slots=True)
class Matched:
    """An event that a subscription waits for.

    Attributes:
        subscription: The subscription.
        event: The event.
        size: The size of the event in bytes.
        received_at: When the topic received the event, as far as this execution knows, in seconds since the epoch.
    """

    subscription: Subscription
    event: dict[str, JSON]
    size: int
    received_at: float


class Lane:
    """Queue of deliveries; all deliveries to one run are in the same lane, so that they keep their order."""

    def __init__(self) -> None:
        self.waiting: deque[Matched] = deque()
        self.in_flight: list[Matched] = []
        self.is_delivering = False

    def requeue(self, held: Sequence[Matched]) -> None:
        """Move deliveries behind all others, and behind them those to the same runs, to keep the order of each run."""
        runs = {each.subscription.workflow_id for each in held}
        others = [each for each in self.waiting if each.subscription.workflow_id not in runs]
        theirs = [each for each in self.waiting if each.subscription.workflow_id in runs]
        self.waiting = deque([*others, *held, *theirs])

    def next_batch(self) -> Batch:
        """Take the deliveries for one activity from the front."""
        events: list[dict[str, JSON]] = []
        positions: dict[str, int] = {}
        deliveries: list[Delivery] = []
        size = names = 0
        self.in_flight.clear()
        while self.waiting and len(deliveries) < _DELIVERIES_PER_ACTIVITY:
            matched = self.waiting[0]
            if matched.event["id"] not in positions:
                size += matched.size
                if events and size > _BYTES_PER_ACTIVITY:
                    break
                positions[matched.event["id"]] = len(events)
                events.append(matched.event)
            names += len(matched.subscription.workflow_id) + len(matched.subscription.key)
            if deliveries and names > _BYTES_PER_ACTIVITY:
                break
            self.in_flight.append(self.waiting.popleft())
            deliveries.append(Delivery.of(matched.subscription, positions[matched.event["id"]]))
        return Batch(events=events, deliveries=deliveries)


class Backlog:
    """Size of what a topic holds besides subscriptions: received messages, and each event to deliver, counted once."""

    def __init__(self) -> None:
        self.size: int = 0
        self._uses: Counter[str] = Counter()

    def use(self, matched: Matched) -> None:
        """Count another delivery of an event."""
        if not self._uses[matched.event["id"]]:
            self.size += matched.size
        self._uses[matched.event["id"]] += 1

    def release(self, matched: Matched) -> None:
        """Stop counting a delivery."""
        self._uses[matched.event["id"]] -= 1
        if not self._uses[matched.event["id"]]:
            del self._uses[matched.event["id"]]
            self.size -= matched.size
