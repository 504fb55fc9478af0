"""Lanes of a topic: what is delivered to runs, in order, and how much of it there is."""

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
    """Its position in the batch's list of events."""

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
    """What the activity delivers."""

    events: list[dict[str, JSON]]
    deliveries: list[Delivery]


@dataclass(frozen=True, slots=True)
class Matched:
    """An event that a subscription waits for.

    Attributes:
        subscription: The subscription.
        event: The event.
        size: How many bytes the event has.
        came: When the topic has taken the event, as far as this execution knows; in seconds since the epoch.
    """

    subscription: Subscription
    event: dict[str, JSON]
    size: int
    came: float


class Lane:
    """Deliveries that go one after the other; those to one run are all in one lane, so that they keep their order."""

    def __init__(self) -> None:
        self.waiting: deque[Matched] = deque()
        self.taken: list[Matched] = []
        self.is_delivering = False

    def put_off(self, held: Sequence[Matched]) -> None:
        """Deliver these after everything else; what waits for their runs comes after them, as each run has an order."""
        runs = {each.subscription.workflow_id for each in held}
        others = [each for each in self.waiting if each.subscription.workflow_id not in runs]
        theirs = [each for each in self.waiting if each.subscription.workflow_id in runs]
        self.waiting = deque([*others, *held, *theirs])

    def next_batch(self) -> Batch:
        """Take from the front what one activity delivers."""
        events: list[dict[str, JSON]] = []
        positions: dict[str, int] = {}
        deliveries: list[Delivery] = []
        size = names = 0
        self.taken.clear()
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
            self.taken.append(self.waiting.popleft())
            deliveries.append(Delivery.of(matched.subscription, positions[matched.event["id"]]))
        return Batch(events=events, deliveries=deliveries)


class Backlog:
    """How many bytes a topic has that are not subscriptions: what has come, and each event that is to be told, once."""

    def __init__(self) -> None:
        self.size: int = 0
        self._uses: Counter[str] = Counter()

    def use(self, matched: Matched) -> None:
        """One more run is to be told of an event."""
        if not self._uses[matched.event["id"]]:
            self.size += matched.size
        self._uses[matched.event["id"]] += 1

    def release(self, matched: Matched) -> None:
        """A run was told."""
        self._uses[matched.event["id"]] -= 1
        if not self._uses[matched.event["id"]]:
            del self._uses[matched.event["id"]]
            self.size -= matched.size
