"""Subscriptions of runs to events, and an index of those that an event may match."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from ...expressions.binding import Bound, Key, Path, bind, keys_at
from ...expressions.expression import Judgement
from ...types import JSON
from ...values.converter import dumps
from ...wire.limits import FAR_FUTURE

_LATE = 60.0


def subscription_id(workflow_id: str, run_id: str, key: str) -> str:
    """Return the id of a subscription in its topic."""
    return f"{workflow_id}\n{run_id}\n{key}"


class Subscription(BaseModel):
    """Subscription of a run to events.

    Attributes:
        id: The id, unique in the topic.
        workflow_id: The run to deliver to.
        run_id: The first execution of that run.
        key: The run's key of the subscription.
        kind: Whether to deliver one event, to deliver each event, or to cancel the run.
        source: An expression that must be true for the event, or None.
        event: The parts that the expression uses of the event that started the run.
        until: The end of the subscription, in seconds since the epoch.
        ignored: The id of an event that is not delivered: the one that started the run.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    workflow_id: str = Field(max_length=1_000)
    run_id: str = Field(max_length=100)
    key: str = Field(max_length=4_000)
    kind: Literal["once", "each", "cancel"]
    source: str | None = None
    event: dict[str, JSON] = {}
    until: float = Field(allow_inf_nan=False, le=FAR_FUTURE)
    ignored: str | None = Field(default=None, max_length=1_000)

    @property
    def id(self) -> str:
        return subscription_id(self.workflow_id, self.run_id, self.key)

    def has_ended(self, now: float) -> bool:
        """Return whether the subscription has timed out; the run decides that itself, so it gets some more time."""
        return self.until + (0 if self.kind == "cancel" else _LATE) < now


class Index:
    """Index of a topic's subscriptions, to find those that an event may match.

    Attributes:
        all: The subscriptions, by id.
        size: The approximate size of the subscriptions in bytes.
        packed: The upper bound of their compressed size in bytes.
    """

    def __init__(self) -> None:
        self.all: dict[str, Subscription] = {}
        self.size: int = 0
        self.packed: int = 0
        self._sources: Counter[str] = Counter()
        self._bound: dict[str, Bound | None] = {}
        self._by_key: dict[Path, dict[Key, dict[str, None]]] = {}
        self._others: dict[str, None] = {}

    def add(self, subscription: Subscription) -> int:
        """Add a subscription, or replace the one with its id; return the units that this took.

        Raises:
            ValueError: The expression is not valid.
        """
        bound = None if subscription.source is None else bind(subscription.source, subscription.event)
        size = _size_of(subscription)  # before any change, as it raises if the event cannot be written
        self.remove(subscription.id)
        self.all[subscription.id] = subscription
        self.size += size
        self._pack(subscription, 1)
        self._bound[subscription.id] = bound
        self._place(bound)[subscription.id] = None
        return 0 if bound is None else bound.units

    def remove(self, id: str) -> None:
        """Remove a subscription, if it exists."""
        subscription = self.all.pop(id, None)
        if subscription is None:
            return
        self.size -= _size_of(subscription)
        self._pack(subscription, -1)
        bound = self._bound.pop(id)
        place = self._place(bound)
        del place[id]
        if not place and bound is not None and bound.index is not None:
            path, key = bound.index
            del self._by_key[path][key]
            if not self._by_key[path]:
                del self._by_key[path]

    def _pack(self, subscription: Subscription, sign: int) -> None:
        """Add a subscription to ``packed``, or remove it; a shared expression counts once."""
        self.packed += sign * _packed_size_of(subscription)
        if (source := subscription.source) is None:
            return
        was_counted = bool(self._sources[source])
        self._sources[source] += sign
        if was_counted != bool(self._sources[source]):
            self.packed += sign * len(source)
        if not self._sources[source]:
            del self._sources[source]

    @property
    def paths(self) -> list[Path]:
        """Paths at which subscriptions compare events."""
        return list(self._by_key)

    @property
    def has_others(self) -> bool:
        """True if there are subscriptions without an equality."""
        return bool(self._others)

    def _place(self, bound: Bound | None) -> dict[str, None]:
        if bound is None or bound.index is None:
            return self._others
        path, key = bound.index
        return self._by_key.setdefault(path, {}).setdefault(key, {})

    def candidates(self, event: Mapping[str, JSON]) -> list[str]:
        """Return the ids of the subscriptions that an event may match."""
        ids = list(self._others)
        for path, by_key in self._by_key.items():
            for key in keys_at(path, event):
                ids.extend(by_key.get(key, ()))
        return ids

    def judge(self, id: str, event: Mapping[str, JSON]) -> Judgement:
        """Judge whether an event is one that a subscription waits for."""
        bound = self._bound[id]
        if bound is None or self.all[id].ignored == event["id"]:
            return Judgement(self.all[id].ignored != event["id"], units=0)
        return bound.judge(event)


def _size_of(subscription: Subscription) -> int:
    """Return the approximate size of a subscription in bytes."""
    seen = len(dumps(subscription.event)) if subscription.event else 0
    return 200 + len(subscription.workflow_id) + len(subscription.key) + len(subscription.source or "") + seen


_PACKED = 130
"""Upper bound of the compressed size of a subscription with ordinary ids, among thousands; about 50 was measured."""

_ORDINARY = {"workflow_id": 64, "run_id": 36, "key": 32, "ignored": 40}
_ORDINARY_EVENT = 40


def _packed_size_of(subscription: Subscription) -> int:
    """Return an upper bound of a subscription's compressed size. Everything longer than usual counts as random."""
    texts = {name: getattr(subscription, name) or "" for name in _ORDINARY}
    long = sum(max(len(texts[name].encode()) - usual, 0) for name, usual in _ORDINARY.items())
    seen = len(dumps(subscription.event)) if subscription.event else 0
    return _PACKED + long + max(seen - _ORDINARY_EVENT, 0)
