"""Topics: one Temporal workflow for each event name, or pattern of names, that runs wait for.

A topic starts with its first subscription, and ends when it has been idle. It handles its messages one after the other,
in the order of Temporal's history: a subscription sees every event after it, and none before. The topic matches events;
an activity delivers them, because a workflow that signals others itself manages only a few dozen per second. Delivery
is at least once: a run ignores what it has already received.
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
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import FailureError

from ...events import MAX_LEVELS
from ...metrics import DELIVERY_LATENCY, MESSAGES_DROPPED, TOPIC_BACKLOG, TOPIC_EVENTS
from ...sdk.any_arguments import of_any_count
from ...sdk.wait_until import wait_until
from ...types import JSON
from ...values.converter import size_of, to_raw
from ...wire.names import (
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
from ...wire.packed_size import PackedSizes
from ...workflow_kinds import of_kind
from ..messages import drop, message_json, read
from .directory import MAX_PARTS, MAX_PATHS, MORE_PARTS, Wanted, is_listable
from .lanes import Backlog, Lane, Matched
from .subscription import Index, Subscription
from .topic_state import MAX_NESTING, MAX_STATE_BYTES, Event, State, packed_state, restored_state

DELIVERY_HEARTBEAT_TIMEOUT = timedelta(seconds=10)
"""Time that the runs of a lane receive nothing after a worker is killed while it delivers."""

# Running topics replay with these values. To change one, use ``workflow.patched``.

# Continuing as new.
_SIGNALS_PER_EXECUTION = 4_000  # Temporal accepts 10,000
_HISTORY_BYTES_PER_EXECUTION = 8 * 1024 * 1024  # senders wait while a topic has twice as many
_SIGNALS_BEFORE_RETRY = 500  # until the next try, if the state does not fit into the next execution
_MAX_HISTORY_BYTES = 40 * 1024 * 1024  # Temporal terminates a workflow with 50 MiB
_ENDS_AFTER_IDLE = timedelta(minutes=10)
_MAX_CHECK_INTERVAL = timedelta(days=1)

# Pace of work.
_UNITS_PER_TASK = 100_000  # a tenth of a second of a workflow task, which must not take two seconds
_UNITS_OF_A_CANDIDATE = 10
_UNITS_OF_AN_ITEM = 50
_BYTES_PER_UNIT = 25
_YIELD_PAUSE = timedelta(milliseconds=1)
_LANES = 4
_DELIVERY_RETRY_PAUSE = timedelta(seconds=30)

# The directory.
_CONFIRMED_EVERY = timedelta(minutes=20)  # the directory's looks depend on it
_CONFIRMED_WITHIN = timedelta(minutes=2)
_CONFIRMATION_RETRY_PAUSE = timedelta(seconds=30)
_WAITS_PER_PART = 10_000
_BYTES_PER_PART = 3 * 1024 * 1024

# Size limits.
_MAX_WAITS_BYTES = 6 * 1024 * 1024  # below the limit of the next execution's state
_MAX_PACKED_BYTES = 1_700_000  # of compressed waits: beside the remembered ids, in one payload
_MAX_BACKLOG_BYTES = 2 * 1024 * 1024  # of that: the next execution reads it in its first workflow task
_MAX_MATCHED = 20_000  # deliveries that the next execution can be given: to write them takes an eighth of a second
_MATCHED_BYTES = 200  # of one, beside what names the run and the wait
_MAX_EVENT_BYTES = 1024 * 1024  # senders may use half; Temporal accepts 2 MiB in a delivery
_MAX_SEEN_IDS = 10_000
_MAX_ID_BYTES = 32  # bytes up to which an id is remembered unchanged

_MAX_SHOWN_RUNS = 20  # by queries; replays do not depend on it

_DELIVERY_FIELDS = {"workflow_id", "run_id", "key", "kind", "until"}
"""Fields of a subscription that a delivery needs: without the data that the event was compared with."""

_PART_SUFFIX = re.compile(r"-(?P<count>8|64|512)\.(?P<part>\d{1,3})", re.ASCII)

_NO_STATE = to_raw(None)


def topic_id(event: str, count: int = 1, part: int = 0) -> str:
    """Return the Temporal workflow id of a topic, or of one of its parts."""
    return f"{TOPIC}/{event}" if count == 1 else f"{TOPIC}-{count}.{part}/{event}"


def topic_of(workflow_id: str) -> tuple[str, int, int]:
    """Return the event name or pattern, the count of parts, and the part, from a workflow id."""
    parts, _, event = workflow_id.removeprefix(TOPIC).partition("/")
    match = _PART_SUFFIX.fullmatch(parts)
    return (event, int(match["count"]), int(match["part"])) if match is not None else (event, 1, 0)


def topics_of(name: str) -> list[str]:
    """Return the topics of an event's name: for ``a.b/c``, those of ``a.b/c``, ``a.b/*`` and ``a.*``."""
    levels = [i for i, char in enumerate(name[:-1]) if char in "./"][:MAX_LEVELS]
    return [name, *(f"{name[: i + 1]}*" for i in levels if i > 0)]


@dataclass(frozen=True, slots=True)
class Received:
    """Message that was received and is not handled yet.

    Attributes:
        kind: The name of the signal.
        message: The argument, not parsed yet.
        received_at: The time in seconds since the epoch.
        size: The size in bytes.
    """

    kind: str
    message: RawValue
    received_at: float
    size: int

    @classmethod
    def of(cls, kind: str, message: RawValue, received_at: float) -> Received:
        """Return a message with its size."""
        return cls(kind, message, received_at, size_of(message))


@workflow.defn(name=TOPIC, sandboxed=False)
@of_kind("system")
class TopicWorkflow:
    """Holds the subscriptions to an event, and delivers the event."""

    def __init__(self) -> None:
        self._index = Index()
        self._seen_ids: dict[str, None] = {}
        self._runs_by_event: dict[str, list[str]] = {}
        self._received: deque[Received] = deque()
        self._backlog = Backlog()
        self._lanes = [Lane() for _ in range(_LANES)]
        self._signals = 0
        self._failed_attempt_at: tuple[int, int] | None = None
        self._packed = PackedSizes()
        self._is_continuing = False
        self._is_working = False
        self._units = 0
        self._confirmed_at = 0.0
        self._is_confirming = False
        self._has_grown = False

    # --- messages --------------------------------------------------------------------------------------------------

    @workflow.signal(name=SUBSCRIBE, description="Subscribe runs to events.")
    @of_any_count
    def subscribe(self, subscriptions: RawValue) -> None:
        """Add subscriptions; a subscription with the id of an earlier one replaces it."""
        self._receive(SUBSCRIBE, subscriptions)

    @workflow.signal(name=UNSUBSCRIBE, description="Remove subscriptions.")
    @of_any_count
    def unsubscribe(self, ids: RawValue) -> None:
        """Remove subscriptions by id."""
        self._receive(UNSUBSCRIBE, ids)

    @workflow.signal(name=PUBLISH, description="Publish events.")
    @of_any_count
    def publish(self, events: RawValue) -> None:
        """Receive events, in the order in which they were sent."""
        self._receive(PUBLISH, events)

    def _receive(self, kind: str, message: RawValue) -> None:
        """Store a message without parsing it: ten thousand may arrive in one workflow task."""
        self._signals += 1
        received = Received.of(kind, message, workflow.time())
        self._received.append(received)
        self._backlog.size += received.size

    @workflow.query(name=SUBSCRIPTIONS, description="Show the subscriptions.")
    def subscriptions(self) -> RawValue:
        """Return the number of subscriptions, and some of them."""
        some = [s.model_dump(mode="json") for s in islice(self._index.all.values(), _MAX_SHOWN_RUNS)]
        return to_raw({"count": len(self._index.all), "some": some})

    @workflow.query(name=MATCHED, description="Show the runs that an event matched.")
    def matched(self, event_id: str) -> RawValue:
        """Return some of the runs that an event matched; null if undecided, or for events of earlier executions."""
        return to_raw(self._runs_by_event.get(_short(event_id)))

    # --- execution -------------------------------------------------------------------------------------------------

    @workflow.run
    async def run(self, handed_over: RawValue = _NO_STATE) -> None:
        """Run until no run has waited for some time.

        Args:
            handed_over: The state that the previous execution handed over, as :meth:`_handover_state` writes it.
        """
        await self._restore(restored_state(handed_over))
        tasks = [asyncio.create_task(self._handle_messages())]
        tasks += [asyncio.create_task(self._deliver(lane)) for lane in self._lanes]
        tasks.append(asyncio.create_task(self._keep_entry_confirmed()))
        while True:
            signals = self._signals
            try:
                await wait_until(self._is_full, timeout=self._expiry_interval(), summary="look for ended subscriptions")
            except TimeoutError:
                self._expire()
                if self._signals == signals and self._is_idle():
                    break
            else:
                await self._continue_as_new()
        for task in tasks:
            task.cancel()

    def _is_full(self) -> bool:
        """Return whether to continue as new; after a failed try, once the backlog has halved or much was received."""
        if self._failed_attempt_at is not None:
            signals, size = self._failed_attempt_at
            has_received_many = self._signals >= signals + _SIGNALS_BEFORE_RETRY
            has_halved = size > 0 and self._backlog.size <= size / 2
            return has_received_many or has_halved or (self._is_near_the_end() and self._has_events())
        info = workflow.info()
        is_long = info.is_continue_as_new_suggested() or info.get_current_history_size() >= _HISTORY_BYTES_PER_EXECUTION
        return is_long or self._signals >= _SIGNALS_PER_EXECUTION

    def _is_near_the_end(self) -> bool:
        """Return whether Temporal would soon terminate the topic because of the size of its history."""
        return workflow.info().get_current_history_size() > _MAX_HISTORY_BYTES

    def _has_events(self) -> bool:
        return any(each.kind == PUBLISH for each in self._received) or any(lane.waiting for lane in self._lanes)

    async def _continue_as_new(self) -> None:
        """Continue as new with the remaining work; if its state is too large, go on working instead."""
        self._is_continuing = True
        await workflow.wait_condition(
            lambda: not (self._is_working or self._is_confirming or any(lane.is_delivering for lane in self._lanes))
        )
        state = self._state_that_fits()
        if state is None and self._is_near_the_end():
            self._drop_backlog()
            state = self._state_that_fits()
        if state is not None:
            workflow.continue_as_new(state)  # does not return
        self._note_failed_attempt()
        self._is_continuing = False

    def _note_failed_attempt(self) -> None:
        """Log the first attempt whose state did not fit, and note when this was."""
        if self._failed_attempt_at is None:
            workflow.logger.warning(
                "%d waits and %d bytes of undelivered events do not fit into the next execution yet",
                len(self._index.all),
                self._backlog.size,
            )
        self._failed_attempt_at = self._signals, self._backlog.size

    def _state_that_fits(self) -> RawValue | None:
        waiting = [each.subscription for lane in self._lanes for each in lane.waiting]
        if self._backlog.size > _MAX_BACKLOG_BYTES or len(waiting) > _MAX_MATCHED:
            return None
        names = sum(_MATCHED_BYTES + len(each.workflow_id) + len(each.key) for each in waiting)
        if self._index.size + self._backlog.size + names > MAX_STATE_BYTES:
            return None
        raw = to_raw(self._handover_state())
        state = packed_state(raw)
        return None if self._packed.is_too_large(size_of(state), size_of(raw)) else state

    def _drop_backlog(self) -> None:
        """Drop undelivered events, so that Temporal does not terminate the topic with all its subscriptions."""
        self._seen_ids.clear()  # which may be the part that does not fit
        events = [each for each in self._received if each.kind == PUBLISH]
        dropped = len(events) + sum(len(lane.waiting) for lane in self._lanes)
        workflow.logger.error(
            "dropped %d signals and deliveries of events: more arrived than can be delivered", dropped
        )
        MESSAGES_DROPPED.add(workflow.metric_meter(), dropped)
        self._received = deque(each for each in self._received if each.kind != PUBLISH)
        for lane in self._lanes:
            lane.waiting.clear()
        self._backlog = Backlog()
        self._backlog.size = sum(each.size for each in self._received)

    def _is_idle(self) -> bool:
        return not self._index.all and not self._is_working and not self._backlog_count()

    def _expiry_interval(self) -> timedelta:
        """Return the time until ended subscriptions are dropped; they do no harm, so this is not urgent."""
        ends = min((subscription.until for subscription in self._index.all.values()), default=0.0)
        interval = timedelta(seconds=ends - workflow.time()) + _ENDS_AFTER_IDLE
        return min(max(interval, _ENDS_AFTER_IDLE), _MAX_CHECK_INTERVAL)

    def _expire(self) -> None:
        now = workflow.time()
        for subscription in [s for s in self._index.all.values() if s.has_ended(now)]:
            self._index.remove(subscription.id)

    def _handover_state(self) -> dict[str, JSON]:
        """Return the hand-over state: each event once, however many deliveries it has."""
        waiting = [each for lane in self._lanes for each in lane.waiting]
        events = {each.event["id"]: each.event for each in waiting}
        positions = {id: position for position, id in enumerate(events)}
        return {
            "version": 1,
            "subscriptions": [s.model_dump(mode="json", exclude_defaults=True) for s in self._index.all.values()],
            "remembered": list(self._seen_ids),
            "received": [
                [each.kind, message_json(each.message, MAX_NESTING), each.received_at] for each in self._received
            ],
            "events": list(events.values()),
            "matched": [
                [
                    each.subscription.model_dump(mode="json", include=_DELIVERY_FIELDS),
                    positions[each.event["id"]],
                    each.received_at,
                ]
                for each in waiting
            ],
            "confirmed": self._confirmed_at,
            "has_grown": self._has_grown,
        }

    async def _restore(self, state: State) -> None:
        before = [Received.of(kind, to_raw(message), received_at) for kind, message, received_at in state.received]
        self._received.extendleft(reversed(before))  # signals of this execution may already be in the queue
        self._backlog.size += sum(each.size for each in before)
        self._seen_ids = dict.fromkeys([*state.remembered, *self._seen_ids])
        self._confirmed_at, self._has_grown = state.confirmed or workflow.time(), state.has_grown
        for subscription in state.subscriptions:
            await self._spend_units(self._subscribe(subscription) + _UNITS_OF_AN_ITEM)
        events = [event.model_dump(mode="json") for event in state.events]
        sizes = [size_of(to_raw(event)) for event in events]
        for subscription, position, received_at in state.matched:
            await self._spend_units(_UNITS_OF_A_CANDIDATE)
            self._send(Matched(subscription, events[position], sizes[position], received_at))

    # --- work ------------------------------------------------------------------------------------------------------

    async def _handle_messages(self) -> None:
        while True:
            await workflow.wait_condition(lambda: bool(self._received) and not self._is_continuing)
            self._is_working = True
            received = self._received.popleft()
            await self._handle(received)
            self._backlog.size -= received.size
            self._is_working = False

    async def _handle(self, received: Received) -> None:
        items = message_json(received.message, MAX_NESTING)
        await self._spend_units(received.size // _BYTES_PER_UNIT)
        if not isinstance(items, list):
            drop(f"message for {received.kind}", type(items).__name__)
            return
        # A handed-over state may contain any kind.
        handle = {SUBSCRIBE: self._handle_subscription, UNSUBSCRIBE: self._handle_unsubscription}.get(
            received.kind, self._handle_published
        )
        for item in items:
            await handle(item, received)
            await self._spend_units(_UNITS_OF_AN_ITEM)

    async def _handle_subscription(self, item: JSON, received: Received) -> None:
        subscription = read(Subscription, item, "subscription")
        if subscription is not None:
            await self._spend_units(self._subscribe_or_refuse(subscription))

    async def _handle_unsubscription(self, item: JSON, received: Received) -> None:
        if isinstance(item, str):
            self._index.remove(item)
        else:
            drop("subscription's id", type(item).__name__)

    async def _handle_published(self, item: Any, received: Received) -> None:
        event = read(Event, item, "event")
        if event is None:
            return
        if received.size > _MAX_EVENT_BYTES and size_of(to_raw(item)) > _MAX_EVENT_BYTES:
            drop("event", "it is too large to be delivered")
        else:
            await self._handle_event(event.id, item, received.received_at)

    def _subscribe_or_refuse(self, subscription: Subscription) -> int:
        has_room = self._index.size < _MAX_WAITS_BYTES and self._index.packed < _MAX_PACKED_BYTES
        if has_room or subscription.id in self._index.all:
            return self._subscribe(subscription)
        self._refuse(subscription)
        return 0

    def _refuse(self, subscription: Subscription) -> None:
        """Deliver a refusal to the run of a subscription."""
        topic, waits = topic_of(workflow.info().workflow_id)[0], len(self._index.all)
        message = (
            f"no run can wait for event {topic!r} now: its topic already holds {waits:,} waits ({self._index.size:,} "
            f"bytes of at most {_MAX_WAITS_BYTES:,}; fewer if ids and compared values are long). Use shorter timeouts "
            "or more specific event names"
        )
        if subscription.kind == "cancel":  # delivering the refusal would cancel the run
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
        """Add a subscription; return the units that this took."""
        try:
            return self._index.add(subscription)
        except ValueError as err:
            drop("subscription", err)
            return 0

    async def _handle_event(self, id: str, event: dict[str, JSON], received_at: float) -> None:
        id = _short(id)
        if id not in self._seen_ids:
            self._mark_seen(id)
            runs = await self._match(event, received_at)
            self._runs_by_event[id] = runs
            TOPIC_EVENTS.add(workflow.metric_meter(), outcome="matched" if runs else "unmatched")

    def _mark_seen(self, id: str) -> None:
        self._seen_ids[id] = None
        if len(self._seen_ids) > _MAX_SEEN_IDS:
            oldest = next(iter(self._seen_ids))
            del self._seen_ids[oldest]
            self._runs_by_event.pop(oldest, None)

    async def _match(self, event: dict[str, JSON], received_at: float) -> list[str]:
        """Queue an event for the runs that it matches; return the workflow ids of the first of them."""
        runs: list[str] = []
        size = 0
        for id in self._index.candidates(event):
            await self._spend_units(_UNITS_OF_A_CANDIDATE)
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
                self._send(Matched(subscription, event, size, received_at))
                if len(runs) < _MAX_SHOWN_RUNS:
                    runs.append(subscription.workflow_id)
        return runs

    async def _spend_units(self, units: int) -> None:
        """Count units of work; after many, leave the rest to the next workflow task."""
        self._units += units
        if self._units >= _UNITS_PER_TASK:
            self._units = 0
            await workflow.sleep(_YIELD_PAUSE)

    def _send(self, matched: Matched) -> None:
        lane = zlib.crc32(matched.subscription.workflow_id.encode()) % _LANES
        self._lanes[lane].waiting.append(matched)
        self._backlog.use(matched)

    async def _deliver(self, lane: Lane) -> None:
        while True:
            await workflow.wait_condition(lambda: bool(lane.waiting) and not self._is_continuing)
            lane.is_delivering = True
            TOPIC_BACKLOG.record(workflow.metric_meter(), self._backlog_count())
            ended, to_retry = await self._deliver_batch(lane)
            self._measure(lane.in_flight, ended, to_retry)
            for id in ended:
                self._index.remove(id)
            requeued = set(to_retry)
            for position, each in enumerate(lane.in_flight):
                if position not in requeued:
                    self._backlog.release(each)
            if to_retry:
                lane.requeue([lane.in_flight[position] for position in to_retry])
            lane.is_delivering = False

    async def _deliver_batch(self, lane: Lane) -> tuple[list[str], list[int]]:
        """Deliver a batch from the front of a lane; return a result as of :func:`_delivery_outcome`."""
        try:
            answer = await workflow.execute_activity(
                DELIVER_EVENTS,
                to_raw(lane.next_batch().model_dump(mode="json")),
                result_type=RawValue,
                start_to_close_timeout=timedelta(minutes=1),
                heartbeat_timeout=DELIVERY_HEARTBEAT_TIMEOUT,
                retry_policy=RetryPolicy(maximum_interval=timedelta(seconds=10)),
            )
        except FailureError as err:  # a user has ended the activity, which otherwise retries for ever
            workflow.logger.warning("could not deliver events; retrying in 30 s: %s", err.cause)
            await workflow.sleep(_DELIVERY_RETRY_PAUSE)
            return [], list(range(len(lane.in_flight)))
        return _delivery_outcome(message_json(answer), len(lane.in_flight))

    # --- the directory ---------------------------------------------------------------------------------------------

    async def _keep_entry_confirmed(self) -> None:
        """Confirm the topic's entry in the directory while runs wait; request more parts if there are many."""
        while True:
            due = timedelta(seconds=self._confirmed_at - workflow.time()) + _CONFIRMED_EVERY
            with suppress(TimeoutError):
                await wait_until(self._has_outgrown, timeout=max(due, _YIELD_PAUSE), summary="confirm that runs wait")
            await workflow.wait_condition(lambda: not self._is_continuing)
            if self._index.all:
                self._is_confirming = True
                is_done = await self._confirm_entry()
                self._is_confirming = False
                if not is_done:
                    await workflow.sleep(_CONFIRMATION_RETRY_PAUSE)
                    continue
            self._confirmed_at = workflow.time()

    def _has_outgrown(self) -> bool:
        if self._has_grown or topic_of(workflow.info().workflow_id)[1] * MORE_PARTS > MAX_PARTS:
            return False
        is_large = self._index.size >= _BYTES_PER_PART or self._index.packed >= _MAX_PACKED_BYTES // 2
        return len(self._index.all) >= _WAITS_PER_PART or is_large

    async def _confirm_entry(self) -> bool:
        """Confirm the entry, and request more parts if the topic has outgrown them; return whether that succeeded."""
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
            workflow.logger.warning("could not confirm the topic in the directory; retrying in 30 s: %s", err.cause)
            return False
        self._has_grown = self._has_grown or grows
        return True

    def _backlog_count(self) -> int:
        return len(self._received) + sum(len(lane.waiting) for lane in self._lanes)

    def _measure(self, in_flight: Sequence[Matched], ended: Sequence[str], to_retry: Sequence[int]) -> None:
        meter, now = workflow.metric_meter(), workflow.time()
        for position, each in enumerate(in_flight):
            if position not in to_retry and each.subscription.id not in ended:
                DELIVERY_LATENCY.record(meter, now - each.received_at)


def _now() -> int:
    return int(workflow.time() * 1000)


def _delivery_outcome(answer: JSON, count: int) -> tuple[list[str], list[int]]:
    """Return the subscriptions whose run no longer exists, and the positions below ``count`` to deliver again."""
    outcome = answer if isinstance(answer, dict) else {"gone": answer}
    ended, to_retry = outcome.get("gone"), outcome.get("later")
    return (
        [id for id in ended if isinstance(id, str)] if isinstance(ended, list) else [],
        [number for number in range(count) if number in to_retry] if isinstance(to_retry, list) else [],
    )


def _short(id: str) -> str:
    """Return the form in which an event's id is remembered: 10,000 long ids would not fit into the next execution."""
    data = id.encode(errors="surrogatepass")
    return id if len(data) <= _MAX_ID_BYTES else hashlib.sha256(data).hexdigest()[:_MAX_ID_BYTES]
