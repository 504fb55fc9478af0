"""Which runs wait for an event: one Temporal workflow per event name, or pattern of names, that runs wait for.

A topic starts with its first subscription and ends when it has been idle. What it is sent it takes one after the other,
in the order of Temporal's history: a subscription sees every event after it and none before. It matches; an activity
delivers, as a workflow that signals others itself manages some dozens a second. Delivered is at least once: a run knows
what it has received.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import zlib
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any, ClassVar, cast

from pydantic import BaseModel, ConfigDict, model_validator
from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import FailureError

from ..converter import from_raw, size_of, to_raw
from ..errors import UnknownKeyError
from ..events import MAX_LEVELS
from ..metrics import DELIVERY_LATENCY, MESSAGES_DROPPED, TOPIC_BACKLOG, TOPIC_EVENTS
from ..packed import unpack_json
from ..runtime.limits import MAX_PAYLOAD_BYTES
from ..runtime.until import wait_until
from ..types import JSON
from ..wire.names import (
    DELIVER_EVENTS,
    LIST_TOPICS,
    MATCHED,
    PUBLISH,
    SUBSCRIBE,
    SUBSCRIPTIONS,
    TOPIC,
    UNSUBSCRIBE,
    WAIT_REFUSED,
)
from .directory import MAX_PARTS, MAX_PATHS, MORE_PARTS, Wanted, is_listable
from .lanes import Backlog, Lane, Matched
from .messages import drop, of_any_count, read, said
from .subscription import Index, Subscription

DELIVERY_HEARTBEAT_TIMEOUT = timedelta(seconds=10)
"""For as long the runs of a lane hear nothing after a worker was killed while it delivered."""

# What a live topic replays with: other values need ``workflow.patched``.
_SIGNALS_PER_EXECUTION = 4_000  # Temporal takes 10,000
_HISTORY_BYTES_PER_EXECUTION = 8 * 1024 * 1024  # senders wait while a topic has twice as many
_MORE_SIGNALS = 500  # until the next try, where what there is does not fit into the next execution
_UNITS_PER_TASK = 100_000  # a tenth of a second of a workflow task, which must not take two
_UNITS_OF_A_CANDIDATE = 10
_UNITS_OF_AN_ITEM = 50
_BYTES_PER_UNIT = 25
_CONFIRMED_EVERY = timedelta(minutes=20)  # the looks of the directory depend on it
_CONFIRMED_WITHIN = timedelta(minutes=2)
_CONFIRM_AGAIN = timedelta(seconds=30)
_DELIVER_AGAIN = timedelta(seconds=30)
_WAITS_PER_PART = 10_000
_BYTES_PER_PART = 3 * 1024 * 1024
_MAX_WAITS_BYTES = 6 * 1024 * 1024  # below what the next execution can be given
_MAX_PACKED_BYTES = 1_700_000  # of waits, when they are compressed: beside what is remembered, in one payload
_MAX_STATE_BYTES = 8 * 1024 * 1024  # before it is compressed: to write more takes too much of a workflow task
_MAX_BACKLOG_BYTES = 2 * 1024 * 1024  # of that: the next execution reads it in its first workflow task
_MAX_MATCHED = 20_000  # deliveries that the next execution can be given: to write them takes an eighth of a second
_MATCHED_BYTES = 200  # of one, beside what names the run and the wait
_MAX_HISTORY_BYTES = 40 * 1024 * 1024  # Temporal terminates a workflow with 50 MiB
_MAX_NESTING = 200  # senders may have 100; pydantic writes less than 255
_MAX_EVENT_BYTES = 1024 * 1024  # senders may have half; Temporal takes 2 MiB of a delivery
_REMEMBERED = 10_000
_SHORT_ID = 32  # bytes of an id that is remembered as it is
_LANES = 4
_IDLE = timedelta(minutes=10)
_LONGEST = timedelta(days=1)
_SHOWN = 20
_PAUSE = timedelta(milliseconds=1)

_OF_A_DELIVERY = {"workflow_id", "run_id", "key", "kind", "until"}
"""What is needed of a subscription to deliver an event that it has matched: not what it was compared with."""

_PARTS = re.compile(r"-(?P<count>8|64|512)\.(?P<part>\d{1,3})", re.ASCII)

_NEW = to_raw(None)


def topic_id(event: str, count: int = 1, part: int = 0) -> str:
    """Return the Temporal workflow id of a topic, or of one of its parts."""
    return f"{TOPIC}/{event}" if count == 1 else f"{TOPIC}-{count}.{part}/{event}"


def topic_of(workflow_id: str) -> tuple[str, int, int]:
    """Return the event name or pattern, the count of parts, and the part, from a workflow id."""
    parts, _, event = workflow_id.removeprefix(TOPIC).partition("/")
    found = _PARTS.fullmatch(parts)
    return (event, int(found["count"]), int(found["part"])) if found is not None else (event, 1, 0)


def topics_of(name: str) -> list[str]:
    """The names and patterns whose topics an event concerns: ``a.b/c`` those of ``a.b/c``, ``a.b/*`` and ``a.*``."""
    levels = [i for i, char in enumerate(name[:-1]) if char in "./"][:MAX_LEVELS]
    return [name, *(f"{name[: i + 1]}*" for i in levels if i > 0)]


class Event(BaseModel):
    """An event, as topics are sent it; with the trace that it is part of, if there is one."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow")

    id: str
    name: str
    data: dict[str, JSON]
    ts: int


@dataclass(frozen=True, slots=True)
class Received:
    """A message that has come and was not taken yet.

    Attributes:
        kind: The signal.
        message: What it brought, not read yet.
        came: When, in seconds since the epoch.
        size: How many bytes it has.
    """

    kind: str
    message: RawValue
    came: float
    size: int

    @classmethod
    def of(cls, kind: str, message: RawValue, came: float) -> Received:
        """A message, with its size."""
        return cls(kind, message, came, size_of(message))


class State(BaseModel):
    """What one execution of a topic leaves to the next; :meth:`TopicWorkflow._state` writes it.

    Attributes:
        subscriptions: Who waits.
        remembered: The ids of the last events.
        received: What had come and was not taken: the signal, what it brought, and when.
        events: The events that runs are still to be told of.
        matched: Which runs, each with the event's position, and when it came.
        confirmed: When the topic last confirmed its entry in the directory.
        has_grown: Whether the topic has asked the directory for more parts.
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
            raise ValueError("a position is of no event")
        return self


@workflow.defn(name=TOPIC, sandboxed=False)
class TopicWorkflow:
    """Knows who waits for an event, and tells them."""

    def __init__(self) -> None:
        self._index = Index()
        self._remembered: dict[str, None] = {}
        self._matched: dict[str, list[str]] = {}
        self._received: deque[Received] = deque()
        self._backlog = Backlog()
        self._lanes = [Lane() for _ in range(_LANES)]
        self._signals = 0
        self._tried: tuple[int, int] | None = None
        self._is_leaving = False
        self._is_working = False
        self._units = 0
        self._confirmed = 0.0
        self._is_confirming = False
        self._has_grown = False

    # --- what it is sent -------------------------------------------------------------------------------------------

    @workflow.signal(name=SUBSCRIBE, description="Runs wait for events from now on.")
    @of_any_count
    def subscribe(self, subscriptions: RawValue) -> None:
        """Take subscriptions; one with the id of an earlier one replaces it."""
        self._receive(SUBSCRIBE, subscriptions)

    @workflow.signal(name=UNSUBSCRIBE, description="Runs wait no longer.")
    @of_any_count
    def unsubscribe(self, ids: RawValue) -> None:
        """Drop subscriptions, by id."""
        self._receive(UNSUBSCRIBE, ids)

    @workflow.signal(name=PUBLISH, description="Events were sent.")
    @of_any_count
    def publish(self, events: RawValue) -> None:
        """Take events, in the order in which they were sent."""
        self._receive(PUBLISH, events)

    def _receive(self, kind: str, message: RawValue) -> None:
        """Keep a message as it is: ten thousand may come in one workflow task."""
        self._signals += 1
        received = Received.of(kind, message, workflow.time())
        self._received.append(received)
        self._backlog.size += received.size

    @workflow.query(name=SUBSCRIPTIONS, description="Who waits.")
    def subscriptions(self) -> RawValue:
        """How many subscriptions there are, and some of them."""
        some = [s.model_dump(mode="json") for s in islice(self._index.all.values(), _SHOWN)]
        return to_raw({"count": len(self._index.all), "some": some})

    @workflow.query(name=MATCHED, description="Which runs an event was for.")
    def matched(self, event_id: str) -> RawValue:
        """Some of the runs that an event matched; null until that is decided, and for events of earlier executions."""
        return to_raw(self._matched.get(_short(event_id)))

    # --- its life --------------------------------------------------------------------------------------------------

    @workflow.run
    async def run(self, before: RawValue = _NEW) -> None:
        """Live until nobody has waited for a while.

        Args:
            before: What the execution before left, as :meth:`_state` has it.
        """
        await self._restore(_read_state(before))
        tasks = [asyncio.create_task(self._work()), *(asyncio.create_task(self._deliver(lane)) for lane in self._lanes)]
        tasks.append(asyncio.create_task(self._confirm()))
        while True:
            signals = self._signals
            try:
                await wait_until(self._is_full, timeout=self._until_next_look(), summary="look for ended subscriptions")
            except TimeoutError:
                self._expire()
                if self._signals == signals and self._is_idle():
                    break
            else:
                await self._leave()
        for task in tasks:
            task.cancel()

    def _is_full(self) -> bool:
        """Whether to continue as new; where that was too much, when half of it is done, or much more has come."""
        if self._tried is not None:
            signals, size = self._tried
            is_worth_a_try = self._signals >= signals + _MORE_SIGNALS or 0 < size >= 2 * self._backlog.size
            return is_worth_a_try or (self._is_near_the_end() and self._has_events())
        info = workflow.info()
        is_long = info.is_continue_as_new_suggested() or info.get_current_history_size() >= _HISTORY_BYTES_PER_EXECUTION
        return is_long or self._signals >= _SIGNALS_PER_EXECUTION

    def _is_near_the_end(self) -> bool:
        """Return whether Temporal would soon terminate the topic for the size of its history."""
        return workflow.info().get_current_history_size() > _MAX_HISTORY_BYTES

    def _has_events(self) -> bool:
        return any(each.kind == PUBLISH for each in self._received) or any(lane.waiting for lane in self._lanes)

    async def _leave(self) -> None:
        """Continue as new with what is left to do; where that is too much, go on with it instead."""
        self._is_leaving = True
        await workflow.wait_condition(
            lambda: not (self._is_working or self._is_confirming or any(lane.is_delivering for lane in self._lanes))
        )
        state = self._state_that_fits()
        if state is None and self._is_near_the_end():
            self._lose_backlog()
            state = self._state_that_fits()
        if state is not None:
            workflow.continue_as_new(state)
        if self._tried is None:
            workflow.logger.warning(
                "%d waits, and %d bytes of events that are to be told, do not fit into the next execution yet",
                len(self._index.all),
                self._backlog.size,
            )
        self._tried = self._signals, self._backlog.size
        self._is_leaving = False

    def _state_that_fits(self) -> RawValue | None:
        matched = [each.subscription for lane in self._lanes for each in lane.waiting]
        if self._backlog.size > _MAX_BACKLOG_BYTES or len(matched) > _MAX_MATCHED:
            return None
        names = sum(_MATCHED_BYTES + len(each.workflow_id) + len(each.key) for each in matched)
        if self._index.size + self._backlog.size + names > _MAX_STATE_BYTES:
            return None
        state = state_payload(self._state())
        return state if size_of(state) <= MAX_PAYLOAD_BYTES else None

    def _lose_backlog(self) -> None:
        """Drop events that were not told, lest Temporal terminates the topic with all its subscriptions."""
        self._remembered.clear()  # which may be what does not fit
        events = [each for each in self._received if each.kind == PUBLISH]
        lost = len(events) + sum(len(lane.waiting) for lane in self._lanes)
        workflow.logger.error("dropped %d signals and deliveries of events: more came than can be told", lost)
        MESSAGES_DROPPED.add(workflow.metric_meter(), lost)
        self._received = deque(each for each in self._received if each.kind != PUBLISH)
        for lane in self._lanes:
            lane.waiting.clear()
        self._backlog = Backlog()
        self._backlog.size = sum(each.size for each in self._received)

    def _is_idle(self) -> bool:
        return not self._index.all and not self._is_working and not self._left()

    def _until_next_look(self) -> timedelta:
        """Ended subscriptions do no harm, so nobody hurries to drop them."""
        ends = min((subscription.until for subscription in self._index.all.values()), default=0.0)
        return min(max(timedelta(seconds=ends - workflow.time()) + _IDLE, _IDLE), _LONGEST)

    def _expire(self) -> None:
        now = workflow.time()
        for subscription in [s for s in self._index.all.values() if s.has_ended(now)]:
            self._index.remove(subscription.id)

    def _state(self) -> dict[str, JSON]:
        """What the next execution goes on with: each event once, however many runs are to be told of it."""
        matched = [each for lane in self._lanes for each in lane.waiting]
        events = {each.event["id"]: each.event for each in matched}
        positions = {id: position for position, id in enumerate(events)}
        waiting = [(each, positions[each.event["id"]]) for each in matched]
        return {
            "version": 1,
            "subscriptions": [s.model_dump(mode="json", exclude_defaults=True) for s in self._index.all.values()],
            "remembered": list(self._remembered),
            "received": [[each.kind, said(each.message, _MAX_NESTING), each.came] for each in self._received],
            "events": list(events.values()),
            "matched": [
                [each.subscription.model_dump(mode="json", include=_OF_A_DELIVERY), position, each.came]
                for each, position in waiting
            ],
            "confirmed": self._confirmed,
            "has_grown": self._has_grown,
        }

    async def _restore(self, state: State) -> None:
        before = [Received.of(kind, to_raw(message), came) for kind, message, came in state.received]
        self._received.extendleft(reversed(before))  # signals came before this, in this execution
        self._backlog.size += sum(each.size for each in before)
        self._remembered = dict.fromkeys([*state.remembered, *self._remembered])
        self._confirmed, self._has_grown = state.confirmed or workflow.time(), state.has_grown
        for subscription in state.subscriptions:
            await self._take_units(self._subscribe(subscription) + _UNITS_OF_AN_ITEM)
        events = [event.model_dump(mode="json") for event in state.events]
        sizes = [size_of(to_raw(event)) for event in events]
        for subscription, position, came in state.matched:
            await self._take_units(_UNITS_OF_A_CANDIDATE)
            self._send(Matched(subscription, events[position], sizes[position], came))

    # --- its work --------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            await workflow.wait_condition(lambda: bool(self._received) and not self._is_leaving)
            self._is_working = True
            received = self._received.popleft()
            await self._take(received)
            self._backlog.size -= received.size
            self._is_working = False

    async def _take(self, received: Received) -> None:
        items = said(received.message, _MAX_NESTING)
        await self._take_units(received.size // _BYTES_PER_UNIT)
        if not isinstance(items, list):
            drop(f"message for {received.kind}", type(items).__name__)
            return
        for item in items:
            if received.kind == SUBSCRIBE:
                if (subscription := read(Subscription, item, "subscription")) is not None:
                    await self._take_units(self._subscribe_or_refuse(subscription))
            elif received.kind == UNSUBSCRIBE:
                self._unsubscribe(item)
            elif (event := read(Event, item, "event")) is not None:
                if received.size > _MAX_EVENT_BYTES and size_of(to_raw(item)) > _MAX_EVENT_BYTES:
                    drop("event", "it is too large to be delivered")
                else:
                    await self._hear(event.id, item, received.came)
            await self._take_units(_UNITS_OF_AN_ITEM)

    def _subscribe_or_refuse(self, subscription: Subscription) -> int:
        has_room = self._index.size < _MAX_WAITS_BYTES and self._index.packed < _MAX_PACKED_BYTES
        if has_room or subscription.id in self._index.all:
            return self._subscribe(subscription)
        self._refuse(subscription)
        return 0

    def _refuse(self, subscription: Subscription) -> None:
        """Deliver to a run that its subscription is refused."""
        topic, waits = topic_of(workflow.info().workflow_id)[0], len(self._index.all)
        message = (
            f"event {topic!r} has no room for another wait: its topic already holds {waits:,} waits of "
            f"{self._index.size:,} bytes, and the limit is {_MAX_WAITS_BYTES:,} bytes, or less where ids and compared "
            "values are long; use shorter timeouts, or more specific event names"
        )
        if subscription.kind == "cancel":  # to deliver it would cancel the run
            drop(f"cancel_on of run {subscription.workflow_id!r}", message)
            return
        event = {
            "id": str(workflow.uuid4()),
            "name": WAIT_REFUSED,
            "data": {"message": message},
            "ts": _now(),
            "v": None,
        }
        self._send(Matched(subscription, event, size_of(to_raw(event)), workflow.time()))

    def _subscribe(self, subscription: Subscription) -> int:
        """Add a subscription; returns the units that this took."""
        try:
            return self._index.add(subscription)
        except ValueError as err:
            drop("subscription", err)
            return 0

    def _unsubscribe(self, id: JSON) -> None:
        if isinstance(id, str):
            self._index.remove(id)
        else:
            drop("subscription's id", type(id).__name__)

    async def _hear(self, id: str, event: dict[str, JSON], came: float) -> None:
        id = _short(id)
        if id not in self._remembered:
            self._remember(id)
            runs = await self._match(event, came)
            self._matched[id] = runs
            TOPIC_EVENTS.add(workflow.metric_meter(), outcome="matched" if runs else "unmatched")

    def _remember(self, id: str) -> None:
        self._remembered[id] = None
        if len(self._remembered) > _REMEMBERED:
            oldest = next(iter(self._remembered))
            del self._remembered[oldest]
            self._matched.pop(oldest, None)

    async def _match(self, event: dict[str, JSON], came: float) -> list[str]:
        """Send an event to the runs that it matches; the workflow ids of the first of them."""
        runs: list[str] = []
        size = 0
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
                size = size or size_of(to_raw(event))
                self._send(Matched(subscription, event, size, came))
                if len(runs) < _SHOWN:
                    runs.append(subscription.workflow_id)
        return runs

    async def _take_units(self, units: int) -> None:
        """Count units of work, and leave the rest to the next workflow task where they are many."""
        self._units += units
        if self._units >= _UNITS_PER_TASK:
            self._units = 0
            await workflow.sleep(_PAUSE)

    def _send(self, matched: Matched) -> None:
        lane = zlib.crc32(matched.subscription.workflow_id.encode()) % _LANES
        self._lanes[lane].waiting.append(matched)
        self._backlog.use(matched)

    async def _deliver(self, lane: Lane) -> None:
        while True:
            await workflow.wait_condition(lambda: bool(lane.waiting) and not self._is_leaving)
            lane.is_delivering = True
            TOPIC_BACKLOG.record(workflow.metric_meter(), self._left())
            gone, later = await self._deliver_batch(lane)
            self._measure(lane.taken, gone, later)
            for id in gone:
                self._index.remove(id)
            put_off = set(later)
            for position, each in enumerate(lane.taken):
                if position not in put_off:
                    self._backlog.release(each)
            if later:
                lane.put_off([lane.taken[position] for position in later])
            lane.is_delivering = False

    async def _deliver_batch(self, lane: Lane) -> tuple[list[str], list[int]]:
        """Deliver what is at the front of a lane; return as :func:`_told`."""
        try:
            answer = await workflow.execute_activity(
                DELIVER_EVENTS,
                to_raw(lane.next_batch().model_dump(mode="json")),
                result_type=RawValue,
                start_to_close_timeout=timedelta(minutes=1),
                heartbeat_timeout=DELIVERY_HEARTBEAT_TIMEOUT,
                retry_policy=RetryPolicy(maximum_interval=timedelta(seconds=10)),
            )
        except FailureError as err:  # somebody has ended the activity: of itself, it is tried again for ever
            workflow.logger.warning("could not deliver events; trying again in 30 s: %s", err.cause)
            await workflow.sleep(_DELIVER_AGAIN)
            return [], list(range(len(lane.taken)))
        return _told(said(answer), len(lane.taken))

    # --- the directory ---------------------------------------------------------------------------------------------

    async def _confirm(self) -> None:
        """Confirm the topic's entry in the directory while runs wait; ask for more parts when there are many."""
        while True:
            due = timedelta(seconds=self._confirmed - workflow.time()) + _CONFIRMED_EVERY
            with suppress(TimeoutError):
                await wait_until(self._has_outgrown, timeout=max(due, _PAUSE), summary="confirm that runs wait")
            await workflow.wait_condition(lambda: not self._is_leaving)
            if self._index.all:
                self._is_confirming = True
                is_done = await self._list_in_directory()
                self._is_confirming = False
                if not is_done:
                    await workflow.sleep(_CONFIRM_AGAIN)
                    continue
            self._confirmed = workflow.time()

    def _has_outgrown(self) -> bool:
        if self._has_grown or topic_of(workflow.info().workflow_id)[1] * MORE_PARTS > MAX_PARTS:
            return False
        is_large = self._index.size >= _BYTES_PER_PART or self._index.packed >= _MAX_PACKED_BYTES // 2
        return len(self._index.all) >= _WAITS_PER_PART or is_large

    async def _list_in_directory(self) -> bool:
        """Confirm the entry and, if the topic has outgrown its parts, ask for more; return whether that succeeded."""
        topic, count, _ = topic_of(workflow.info().workflow_id)
        wanted = [Wanted(topic=topic, count=count)]
        if count > 1:
            listable = [path for path in self._index.paths if is_listable(path)]
            wanted = [Wanted(topic=topic, count=count, path=path) for path in listable]
            if self._index.has_others or len(self._index.paths) > min(MAX_PATHS, len(listable)):
                wanted = [*wanted[:MAX_PATHS], Wanted(topic=topic, count=count, others=True)]
        grows = self._has_outgrown()
        if grows:
            wanted.append(Wanted(topic=topic, count=count * MORE_PARTS))
        try:
            await workflow.execute_activity(
                LIST_TOPICS,
                to_raw([each.model_dump(mode="json", exclude_defaults=True) for each in wanted]),
                result_type=RawValue,
                start_to_close_timeout=timedelta(seconds=30),
                schedule_to_close_timeout=_CONFIRMED_WITHIN,
                retry_policy=RetryPolicy(maximum_interval=timedelta(seconds=10)),
            )
        except FailureError as err:
            workflow.logger.warning("could not confirm the topic in the directory; trying again in 30 s: %s", err.cause)
            return False
        self._has_grown = self._has_grown or grows
        return True

    def _left(self) -> int:
        return len(self._received) + sum(len(lane.waiting) for lane in self._lanes)

    def _measure(self, taken: Sequence[Matched], gone: Sequence[str], later: Sequence[int]) -> None:
        meter, now = workflow.metric_meter(), workflow.time()
        for position, each in enumerate(taken):
            if position not in later and each.subscription.id not in gone:
                DELIVERY_LATENCY.record(meter, now - each.came)


def _now() -> int:
    return int(workflow.time() * 1000)


def _told(answer: JSON, count: int) -> tuple[list[str], list[int]]:
    """Return the subscriptions whose run is gone, and the positions, below ``count``, of what is to be redelivered."""
    found = answer if isinstance(answer, dict) else {"gone": answer}
    gone, later = found.get("gone"), found.get("later")
    return (
        [id for id in gone if isinstance(id, str)] if isinstance(gone, list) else [],
        [number for number in range(count) if number in later] if isinstance(later, list) else [],
    )


def _short(id: str) -> str:
    """Return what an event's id is remembered as: 10,000 long ones would not fit into the next execution."""
    data = id.encode(errors="surrogatepass")
    return id if len(data) <= _SHORT_ID else hashlib.sha256(data).hexdigest()[:_SHORT_ID]


_COMPRESSED = b"binary/zlib"
_COMPRESS_FROM = 64 * 1024
_QUICKLY = 1  # a state of megabytes, in a third of the time, and little larger


def state_payload(state: JSON) -> RawValue:
    """A state as a payload, compressed where it is large: Temporal takes 2 MiB."""
    raw = to_raw(state)
    if size_of(raw) < _COMPRESS_FROM:
        return raw
    return RawValue(Payload(metadata={"encoding": _COMPRESSED}, data=zlib.compress(raw.payload.data, _QUICKLY)))


def read_state(raw: RawValue) -> dict[str, JSON]:
    """The state in a payload; that of a new topic is empty.

    Raises:
        ValueError: It is none, or larger than any that a topic writes.
    """
    if raw.payload.metadata.get("encoding") != _COMPRESSED:
        return from_raw(raw) or {}
    return cast(dict[str, JSON], unpack_json(raw.payload.data, 2 * _MAX_STATE_BYTES))


def _read_state(raw: RawValue) -> State:
    """A state; an empty one where somebody has started the topic with what is none."""
    try:
        state = State.model_validate(read_state(raw))
    except UnknownKeyError:
        raise
    except Exception as err:
        drop("state", err)
        return State()
    return state
