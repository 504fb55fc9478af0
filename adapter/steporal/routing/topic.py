"""Which runs wait for an event: one Temporal workflow per event name, or pattern of names, that runs wait for.

A topic starts with its first subscription and ends when it has been idle. What it is sent it takes one after the other,
in the order of Temporal's history: a subscription sees every event after it and none before. It matches; an activity
delivers, as a workflow that signals others itself manages some dozens a second. Delivered is at least once: a run knows
what it has received.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue, RetryPolicy

from ..converter import from_raw, size_of, to_raw
from ..events import MAX_LEVELS
from ..metrics import DELIVERY_LATENCY, TOPIC_BACKLOG, TOPIC_EVENTS
from ..runtime.limits import MAX_PAYLOAD_BYTES
from ..runtime.until import wait_until
from ..types import JSON
from .binding import Bound, Key, Path, bind, keys_at
from .expressions import Judgement

TOPIC = "steporal.topic"
SUBSCRIBE = "steporal.subscribe"
UNSUBSCRIBE = "steporal.unsubscribe"
PUBLISH = "steporal.publish"
DELIVER_EVENTS = "steporal.deliver_events"
MATCHED = "steporal.matched"

DELIVERY_HEARTBEAT_TIMEOUT = timedelta(seconds=10)
"""For as long the runs of a lane hear nothing after a worker was killed while it delivered."""

# What a live topic replays with: other values need ``workflow.patched``.
_SIGNALS_PER_EXECUTION = 4_000  # Temporal takes 10,000
_UNITS_PER_TASK = 100_000  # of evaluations: a tenth of a second of a workflow task, which must not take two
_UNITS_OF_A_CANDIDATE = 10
_UNITS_OF_A_RESTORED = 50
_REMEMBERED = 10_000
_LANES = 4
_DELIVERIES_PER_ACTIVITY = 200
_BYTES_PER_ACTIVITY = 512 * 1024
_IDLE = timedelta(minutes=10)
_LONGEST = timedelta(days=1)
_LATE = 60.0
_SHOWN = 20
_PAUSE = timedelta(milliseconds=1)

_NEW = to_raw(None)


def topic_id(event: str) -> str:
    """The Temporal workflow id of the topic of an event name or pattern."""
    return f"{TOPIC}/{event}"


def topics_of(name: str) -> list[str]:
    """The names and patterns whose topics an event concerns: ``a.b/c`` those of ``a.b/c``, ``a.b/*`` and ``a.*``."""
    levels = [i for i, char in enumerate(name[:-1]) if char in "./"][:MAX_LEVELS]
    return [name, *(f"{name[: i + 1]}*" for i in levels if i > 0)]


def subscription_id(workflow_id: str, run_id: str, key: str) -> str:
    """The id of a subscription in its topic."""
    return f"{workflow_id}\n{run_id}\n{key}"


class Subscription(BaseModel):
    """One run's wish to hear of events.

    Attributes:
        id: Unique in the topic.
        workflow_id: The run to tell.
        run_id: The first execution of that run.
        key: What the run calls the subscription.
        kind: Whether to deliver one event, each event, or to cancel the run.
        source: An expression that must be true of the event, or None.
        event: What the expression sees of the event that started the run.
        until: When it ends, in seconds since the epoch.
        ignored: The id of an event that it does not hear of: the one that started the run.
    """

    model_config = ConfigDict(frozen=True)

    workflow_id: str
    run_id: str
    key: str
    kind: Literal["once", "each", "cancel"]
    source: str | None = None
    event: dict[str, JSON] = {}
    until: float
    ignored: str | None = None

    @property
    def id(self) -> str:
        return subscription_id(self.workflow_id, self.run_id, self.key)

    def has_ended(self, now: float) -> bool:
        """Whether its time is over; a run that waits knows best itself, so it is given a while more."""
        return self.until + (0 if self.kind == "cancel" else _LATE) < now


class Delivery(BaseModel):
    """An event for one subscription."""

    model_config = ConfigDict(frozen=True)

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


class Index:
    """The subscriptions of a topic, so that those that an event may match are found at once."""

    def __init__(self) -> None:
        self.all: dict[str, Subscription] = {}
        self._bound: dict[str, Bound | None] = {}
        self._by_key: dict[Path, dict[Key, dict[str, None]]] = {}
        self._others: dict[str, None] = {}

    def add(self, subscription: Subscription) -> int:
        """Add a subscription, or replace the one with its id; returns the units that this took."""
        self.remove(subscription.id)
        bound = None if subscription.source is None else bind(subscription.source, subscription.event)
        self.all[subscription.id] = subscription
        self._bound[subscription.id] = bound
        self._place(bound)[subscription.id] = None
        return 0 if bound is None else bound.units

    def remove(self, id: str) -> None:
        """Remove a subscription, if it is there."""
        if self.all.pop(id, None) is None:
            return
        bound = self._bound.pop(id)
        place = self._place(bound)
        del place[id]
        if not place and bound is not None and bound.index is not None:
            path, key = bound.index
            del self._by_key[path][key]
            if not self._by_key[path]:
                del self._by_key[path]

    def _place(self, bound: Bound | None) -> dict[str, None]:
        if bound is None or bound.index is None:
            return self._others
        path, key = bound.index
        return self._by_key.setdefault(path, {}).setdefault(key, {})

    def candidates(self, event: Mapping[str, JSON]) -> list[str]:
        """The ids of the subscriptions that an event may match."""
        found = list(self._others)
        for path, by_key in self._by_key.items():
            for key in keys_at(path, event):
                found.extend(by_key.get(key, ()))
        return found

    def judge(self, id: str, event: Mapping[str, JSON]) -> Judgement:
        """Decide whether an event is one that a subscription waits for."""
        bound = self._bound[id]
        if bound is None or self.all[id].ignored == event["id"]:
            return Judgement(self.all[id].ignored != event["id"], units=0)
        return bound.judge(event)


@dataclass(frozen=True, slots=True)
class Matched:
    """An event that a subscription waits for.

    Attributes:
        came: When the topic has taken the event, as far as this execution knows; in seconds since the epoch.
    """

    subscription: Subscription
    event: dict[str, JSON]
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
        size = 0
        self.taken.clear()
        while self.waiting and len(deliveries) < _DELIVERIES_PER_ACTIVITY:
            subscription, event = self.waiting[0].subscription, self.waiting[0].event
            if event["id"] not in positions:
                size += size_of(to_raw(event))
                if events and size > _BYTES_PER_ACTIVITY:
                    break
                positions[event["id"]] = len(events)
                events.append(event)
            self.taken.append(self.waiting.popleft())
            deliveries.append(Delivery.of(subscription, positions[event["id"]]))
        return Batch(events=events, deliveries=deliveries)


@workflow.defn(name=TOPIC, sandboxed=False)
class TopicWorkflow:
    """Knows who waits for an event, and tells them."""

    def __init__(self) -> None:
        self._index = Index()
        self._remembered: dict[str, None] = {}
        self._matched: dict[str, list[str]] = {}
        self._received: deque[tuple[str, Any]] = deque()
        self._lanes = [Lane() for _ in range(_LANES)]
        self._came: dict[str, float] = {}
        self._signals = 0
        self._may_take = _SIGNALS_PER_EXECUTION
        self._units = 0

    # --- what it is sent -------------------------------------------------------------------------------------------

    @workflow.signal(name=SUBSCRIBE, description="Runs wait for events from now on.")
    def subscribe(self, subscriptions: RawValue) -> None:
        """Take subscriptions; one with the id of an earlier one replaces it."""
        self._signals += 1
        self._received.extend((SUBSCRIBE, subscription) for subscription in from_raw(subscriptions))

    @workflow.signal(name=UNSUBSCRIBE, description="Runs wait no longer.")
    def unsubscribe(self, ids: RawValue) -> None:
        """Drop subscriptions, by id."""
        self._signals += 1
        self._received.extend((UNSUBSCRIBE, id) for id in from_raw(ids))

    @workflow.signal(name=PUBLISH, description="Events were sent.")
    def publish(self, events: RawValue) -> None:
        """Take events, in the order in which they were sent."""
        self._signals += 1
        for event in from_raw(events):
            self._received.append((PUBLISH, event))
            self._came.setdefault(event["id"], workflow.time())

    @workflow.query(name="steporal.subscriptions", description="Who waits.")
    def subscriptions(self) -> RawValue:
        """How many subscriptions there are, and some of them."""
        some = [s.model_dump(mode="json") for s in islice(self._index.all.values(), _SHOWN)]
        return to_raw({"count": len(self._index.all), "some": some})

    @workflow.query(name=MATCHED, description="Which runs an event was for.")
    def matched(self, event_id: str) -> RawValue:
        """Some of the runs that an event matched; null until that is decided, and for events of earlier executions."""
        return to_raw(self._matched.get(event_id))

    # --- its life --------------------------------------------------------------------------------------------------

    @workflow.run
    async def run(self, before: RawValue = _NEW) -> None:
        """Live until nobody has waited for a while.

        Args:
            before: What the execution before left, as :meth:`_state` has it.
        """
        await self._restore(read_state(before))
        tasks = [asyncio.create_task(self._work()), *(asyncio.create_task(self._deliver(lane)) for lane in self._lanes)]
        while True:
            signals = self._signals
            try:
                await wait_until(self._is_full, timeout=self._until_next_look(), summary="look for ended subscriptions")
            except TimeoutError:
                self._expire()
                if self._signals == signals and self._is_idle():
                    break
            else:
                await workflow.wait_condition(lambda: not any(lane.is_delivering for lane in self._lanes))
                state = state_payload(self._state())
                if size_of(state) <= MAX_PAYLOAD_BYTES:
                    workflow.continue_as_new(state)
                workflow.logger.error("%d runs wait for one event; the limit is about 35,000", len(self._index.all))
                self._may_take = self._signals + _SIGNALS_PER_EXECUTION
        for task in tasks:
            task.cancel()

    def _is_full(self) -> bool:
        return self._signals >= self._may_take or (
            self._may_take == _SIGNALS_PER_EXECUTION and workflow.info().is_continue_as_new_suggested()
        )

    def _is_idle(self) -> bool:
        return not self._index.all and not self._received and not any(lane.waiting for lane in self._lanes)

    def _until_next_look(self) -> timedelta:
        """Ended subscriptions do no harm, so nobody hurries to drop them."""
        ends = min((subscription.until for subscription in self._index.all.values()), default=0.0)
        return min(max(timedelta(seconds=ends - workflow.time()) + _IDLE, _IDLE), _LONGEST)

    def _expire(self) -> None:
        now = workflow.time()
        for subscription in [s for s in self._index.all.values() if s.has_ended(now)]:
            self._index.remove(subscription.id)

    def _state(self) -> dict[str, JSON]:
        return {
            "version": 1,
            "subscriptions": [s.model_dump(mode="json", exclude_defaults=True) for s in self._index.all.values()],
            "remembered": list(self._remembered),
            "received": list(self._received),
            "matched": [
                [each.subscription.model_dump(mode="json"), each.event] for lane in self._lanes for each in lane.waiting
            ],
        }

    async def _restore(self, state: Mapping[str, JSON]) -> None:
        received = [(kind, value) for kind, value in state.get("received", ())]
        self._received.extendleft(reversed(received))  # signals came before this, in this execution
        self._remembered = dict.fromkeys([*state.get("remembered", ()), *self._remembered])
        for subscription in state.get("subscriptions", ()):
            units = self._index.add(Subscription.model_validate(subscription))
            await self._take_units(units + _UNITS_OF_A_RESTORED)
        for subscription, event in state.get("matched", ()):
            self._send(Matched(Subscription.model_validate(subscription), event, workflow.time()))

    # --- its work --------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            await workflow.wait_condition(lambda: bool(self._received) and not self._is_full())
            kind, value = self._received.popleft()
            if kind == SUBSCRIBE:
                await self._take_units(self._index.add(Subscription.model_validate(value)))
            elif kind == UNSUBSCRIBE:
                self._index.remove(value)
            else:
                await self._take(value)

    async def _take(self, event: dict[str, JSON]) -> None:
        came = self._came.pop(event["id"], workflow.time())
        if event["id"] not in self._remembered:
            self._remember(event["id"])
            runs = await self._match(event, came)
            self._matched[event["id"]] = runs
            TOPIC_EVENTS.add(workflow.metric_meter(), outcome="matched" if runs else "unmatched")

    def _remember(self, event_id: str) -> None:
        self._remembered[event_id] = None
        if len(self._remembered) > _REMEMBERED:
            oldest = next(iter(self._remembered))
            del self._remembered[oldest]
            self._matched.pop(oldest, None)

    async def _match(self, event: dict[str, JSON], came: float) -> list[str]:
        """Send an event to the runs that it matches; the workflow ids of the first of them."""
        runs: list[str] = []
        for id in self._index.candidates(event):
            await self._take_units(_UNITS_OF_A_CANDIDATE)
            subscription = self._index.all.get(id)
            if subscription is None:
                continue
            if subscription.has_ended(workflow.time()):
                self._index.remove(id)
                continue
            judgement = self._index.judge(id, event)
            self._units += judgement.units
            if judgement.is_true:
                if subscription.kind != "each":
                    self._index.remove(id)
                self._send(Matched(subscription, event, came))
                if len(runs) < _SHOWN:
                    runs.append(subscription.workflow_id)
        return runs

    async def _take_units(self, units: int) -> None:
        """Count units of evaluations, and leave the rest to the next workflow task where they are many."""
        self._units += units
        if self._units >= _UNITS_PER_TASK:
            self._units = 0
            await workflow.sleep(_PAUSE)

    def _send(self, matched: Matched) -> None:
        lane = zlib.crc32(matched.subscription.workflow_id.encode()) % _LANES
        self._lanes[lane].waiting.append(matched)

    async def _deliver(self, lane: Lane) -> None:
        while True:
            await workflow.wait_condition(lambda: bool(lane.waiting) and not self._is_full())
            lane.is_delivering = True
            TOPIC_BACKLOG.record(workflow.metric_meter(), self._backlog())
            answer = await workflow.execute_activity(
                DELIVER_EVENTS,
                to_raw(lane.next_batch().model_dump(mode="json")),
                result_type=RawValue,
                start_to_close_timeout=timedelta(minutes=1),
                heartbeat_timeout=DELIVERY_HEARTBEAT_TIMEOUT,
                retry_policy=RetryPolicy(maximum_interval=timedelta(seconds=10)),
            )
            gone, later = _told(from_raw(answer))
            self._measure(lane.taken, gone, later)
            for id in gone:
                self._index.remove(id)
            if later:
                lane.put_off([lane.taken[position] for position in later])
            lane.is_delivering = False

    def _backlog(self) -> int:
        return len(self._received) + sum(len(lane.waiting) for lane in self._lanes)

    def _measure(self, taken: Sequence[Matched], gone: Sequence[str], later: Sequence[int]) -> None:
        meter, now = workflow.metric_meter(), workflow.time()
        for position, each in enumerate(taken):
            if position not in later and each.subscription.id not in gone:
                DELIVERY_LATENCY.record(meter, now - each.came)


def _told(answer: JSON) -> tuple[list[str], list[int]]:
    """The subscriptions whose run is gone, and the positions of what is to be delivered again."""
    return (answer, []) if isinstance(answer, list) else (answer["gone"], answer["later"])


_COMPRESSED = b"binary/zlib"
_COMPRESS_FROM = 64 * 1024


def state_payload(state: JSON) -> RawValue:
    """A state as a payload, compressed where it is large: Temporal takes 2 MiB."""
    raw = to_raw(state)
    if size_of(raw) < _COMPRESS_FROM:
        return raw
    return RawValue(Payload(metadata={"encoding": _COMPRESSED}, data=zlib.compress(raw.payload.data)))


def read_state(raw: RawValue) -> dict[str, JSON]:
    """The state in a payload; that of a new topic is empty."""
    if raw.payload.metadata["encoding"] == _COMPRESSED:
        return json.loads(zlib.decompress(raw.payload.data))  # type: ignore[no-any-return]
    return from_raw(raw) or {}
