"""Inbox of a run: events that were delivered and not consumed yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from ..types import JSON
from ..values.converter import dumps


def read_delivery(message: JSON, run_id: str) -> tuple[str, dict[str, Any]] | None:
    """The subscription's key and the event that :data:`DELIVER` brings to a run.

    None if it is for another run, or no such message: anybody can send a signal.
    """
    if not isinstance(message, dict) or message.get("run_id") != run_id:
        return None
    key, event = message.get("key"), message.get("event")
    return (key, event) if isinstance(key, str) and _is_event(event) else None


def _is_event(data: JSON) -> TypeGuard[dict[str, Any]]:
    return (
        isinstance(data, dict)
        and isinstance(data.get("id"), str)
        and isinstance(data.get("name"), str)
        and isinstance(data.get("data"), dict)
        and isinstance(data.get("ts"), int)
        and isinstance(data.get("v"), str | None)
    )


_SEEN_KEPT = 1000
_CAME_KEPT = 100
_CAME_HANDED_OVER = 20


@dataclass(slots=True)
class Box:
    """The events of one subscription.

    Attributes:
        topics: The names and patterns that it has subscribed to.
        until: When it ends, in seconds since the epoch.
        events: What has come and was not taken.
        seen: The ids of the last that have come: topics deliver at least once.
        opened: How many events had come to the run when it was opened.
        is_closed: Whether nothing comes any more.
        size: How many bytes the events have.
        seen_before: How many of the events, which are the first, a body that comes back has had before.
        parts: For each topic in parts, the Temporal workflow id of the part that holds the subscription.
    """

    topics: tuple[str, ...]
    until: float
    opened: int = 0
    events: deque[dict[str, Any]] = field(default_factory=deque)
    seen: dict[str, None] = field(default_factory=dict)
    is_closed: bool = False
    size: int = 0
    seen_before: int = 0
    parts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.size = sum(map(_size_of, self.events))

    def places(self, topics: Iterable[str]) -> tuple[str, ...]:
        """Return where subscriptions are held: in the topics themselves, or in parts of them."""
        return tuple(self.parts.get(topic, topic) for topic in topics)

    def add(self, event: dict[str, Any]) -> None:
        """Take an event, unless it has come before."""
        if event["id"] in self.seen:
            return
        self.seen[event["id"]] = None
        if len(self.seen) > _SEEN_KEPT:
            del self.seen[next(iter(self.seen))]
        self.events.append(event)
        self.size += _size_of(event)

    def take(self) -> dict[str, Any] | None:
        """The next event, if one is there."""
        if not self.events:
            return None
        event = self.events.popleft()
        self.seen_before = max(self.seen_before - 1, 0)
        self.size -= _size_of(event)
        return event


def _size_of(event: dict[str, Any]) -> int:
    return len(dumps(event))


class Inbox:
    """Open subscriptions of a run, by key.

    An event that the run has received, for any subscription, is not delivered to subscriptions that begin later. A
    topic may already have a subscription that the run begins again, because its worker was lost in that moment, and may
    then deliver the event a second time.
    """

    def __init__(self) -> None:
        self.boxes: dict[str, Box] = {}
        self._came: dict[str, int] = {}  # the last events, each with how many had come before
        self._count = 0

    def open(self, key: str, topics: tuple[str, ...], until: float) -> Box:
        """Take what is delivered for a subscription from now on; before the topic is asked, as it may be quick.

        What a run that runs another one again has been given for it, it has already.
        """
        box = self.boxes.setdefault(key, Box(topics, until, self._count))
        box.topics, box.until = topics, until
        return box

    def close(self, key: str) -> Box | None:
        """Take nothing more."""
        box = self.boxes.pop(key, None)
        if box is not None:
            box.is_closed = True
        return box

    def deliver(self, key: str, event: dict[str, JSON]) -> None:
        """Take an event, unless it is not wanted any more or has come before."""
        box, id = self.boxes.get(key), str(event["id"])
        if id not in self._came:
            self._came[id] = self._count
            self._count += 1
            if len(self._came) > _CAME_KEPT:
                del self._came[next(iter(self._came))]
        if box is not None and self._came[id] >= box.opened:
            box.add(event)

    def put(self, key: str, event: dict[str, JSON]) -> None:
        """Put an event into a box that is known to have come for it, before all that the body has not seen yet."""
        if (box := self.boxes.get(key)) is not None:
            box.events.insert(box.seen_before, event)
            box.seen_before += 1
            box.size += _size_of(event)

    def take_back(self, key: str, id: str) -> bool:
        """Take an event out of a box that :meth:`put` has put there; return whether it was there still."""
        box = self.boxes.get(key)
        if box is None:
            return False
        for position in range(box.seen_before):
            if (event := box.events[position])["id"] == id:
                del box.events[position]
                box.seen_before -= 1
                box.size -= _size_of(event)
                return True
        return False

    @property
    def size(self) -> int:
        """Bytes of the events that nobody has consumed."""
        return sum(box.size for box in self.boxes.values())

    def came(self) -> list[str]:
        """The ids of the last events that have come."""
        return list(self._came)[-_CAME_HANDED_OVER:]

    def state(self) -> dict[str, JSON]:
        """Return the state to hand over, beside :meth:`came`."""
        return {key: _state_of(box) for key, box in self.boxes.items()}

    def texts(self) -> Iterator[bytes]:
        """About the JSON of :meth:`state`, piece by piece."""
        for key, box in self.boxes.items():
            yield from map(dumps, box.events)
            yield dumps([key, list(box.topics), box.until, list(box.seen), box.parts])

    def restore(self, state: Mapping[str, Any], came: Sequence[str]) -> None:
        """Go on with what an execution before had; what was delivered to this one already comes after it."""
        self._came = {id: number for number, id in enumerate(came)}
        self._count = len(came)
        for key, box in state.items():
            events, seen = deque(box["events"]), dict.fromkeys(box["seen"])
            topics, parts = tuple(box["topics"]), box.get("parts", {})
            self.boxes[key] = Box(topics, box["until"], events=events, seen=seen, parts=parts)


def _state_of(box: Box) -> dict[str, JSON]:
    state: dict[str, JSON] = {"topics": list(box.topics), "until": box.until}
    state |= {"events": list(box.events), "seen": list(box.seen)}
    return {**state, "parts": box.parts} if box.parts else state
