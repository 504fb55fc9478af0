"""Client of topics: subscribes runs, and publishes events."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from weakref import WeakKeyDictionary

import temporalio.client
from temporalio.client import WorkflowQueryRejectedError
from temporalio.common import QueryRejectCondition, RawValue
from temporalio.service import RPCError, RPCStatusCode, ServiceClient

from ...expressions.binding import Key, Path, bind
from ...observability.tracing import with_trace
from ...rpc import is_missing
from ...types import JSON
from ...values.converter import dumps, from_raw, to_raw
from ...wire.names import MATCHED, PUBLISH, SUBSCRIBE, SYSTEM_TASK_QUEUE, TOPIC, UNSUBSCRIBE
from ..batching import MAX_BATCH_BYTES, Call, send_batched
from ..pace import Pace
from .directory import Wanted, is_listable, part_of
from .directory_client import Directory, Shard, parts_for
from .late import Letter, Room, publish_later, signalled
from .subscription import Subscription, subscription_id
from .topic import topic_id, topics_of

EVENTS_PER_SIGNAL = 200
SUBSCRIPTIONS_PER_SIGNAL = 100

_RPC_TIMEOUT = timedelta(seconds=10)
_QUERY_TIMEOUT = timedelta(seconds=3)
_DECISION_SECONDS = 3.0
_PAUSE_SECONDS = 0.05
_NO_WORKER = (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED, RPCStatusCode.FAILED_PRECONDITION)
"""Statuses of a query that no worker answers; the SDK's own timeout is ``CANCELLED``."""


_NO_ROOM = (RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.RESOURCE_EXHAUSTED, RPCStatusCode.FAILED_PRECONDITION)
"""Statuses of a signal that a topic does not accept now, such as one beyond the limit of signals for an execution."""

_rooms: WeakKeyDictionary[ServiceClient, dict[str, Room]] = WeakKeyDictionary()
"""Room in topics, by connection and namespace."""


class Topics:
    """Topics of a namespace."""

    def __init__(self, temporal: temporalio.client.Client) -> None:
        self._temporal = temporal
        self._directory = Directory(temporal)

    async def subscribe(self, topics: Iterable[str], subscription: Subscription) -> dict[str, str]:
        """Subscribe a run. It receives every matching event whose sending starts after this returns.

        Returns:
            For each topic in parts, the Temporal workflow id of the part that holds the subscription.
        """
        data = subscription.model_dump(mode="json", exclude_defaults=True)
        size = len(dumps(data))
        index = _index_of(subscription)
        parts: dict[str, str] = {}

        async def subscribe_to(topic: str) -> None:
            shards = await self._directory.read([topic])
            count = shards[topic].count_for(topic)
            part = _part_for(subscription, index, count)
            receiver = topic_id(topic, count, part)
            start = partial(self._signal_or_start, topic, receiver)
            await self._send_batched(receiver, SUBSCRIBE, [data], size, SUBSCRIPTIONS_PER_SIGNAL, start)
            await self._directory.listed(_wanted(topic, count, index))
            if count > 1:
                parts[topic] = receiver

        async with asyncio.TaskGroup() as group:
            for topic in topics:
                group.create_task(subscribe_to(topic))
        return parts

    async def unsubscribe(self, workflow_id: str, run_id: str, keys: Mapping[str, Sequence[str]]) -> None:
        """End subscriptions of a run, by topic, or by the part that :meth:`subscribe` returned."""
        async with asyncio.TaskGroup() as group:
            for place, of_topic in keys.items():
                receiver = place if is_part(place) else topic_id(place)
                ids = [subscription_id(workflow_id, run_id, key) for key in of_topic]
                signal = partial(self._signal, receiver, UNSUBSCRIBE)
                size = sum(map(len, ids))
                group.create_task(
                    self._send_batched(receiver, UNSUBSCRIBE, ids, size, SUBSCRIPTIONS_PER_SIGNAL, signal)
                )

    async def publish(self, events: Sequence[dict[str, JSON]]) -> set[str]:
        """Send events to the topics that the directory lists, in the given order for each topic.

        Returns:
            The ids of the events that an open topic has received.
        """
        received: set[str] = set()
        by_part = await self._by_part(with_trace(self._temporal, events))
        slots = asyncio.Semaphore(64)

        async def publish(receiver: str, concerned: list[dict[str, JSON]]) -> None:
            async with slots:
                for batch, size in _batches(concerned):
                    send = partial(self._publish, receiver)
                    if not await self._send_batched(receiver, PUBLISH, batch, size, EVENTS_PER_SIGNAL, send):
                        return
                    received.update(event["id"] for event in batch)

        async with asyncio.TaskGroup() as group:
            for receiver, concerned in by_part.items():
                group.create_task(publish(receiver, concerned))
        return received

    async def _by_part(self, events: Sequence[dict[str, JSON]]) -> dict[str, list[dict[str, JSON]]]:
        """Group events by the Temporal workflow id of the topic, or part of a topic, that receives them."""
        topics = {name: topics_of(name) for name in dict.fromkeys(event["name"] for event in events)}
        shards = await self._directory.read(topic for of_name in topics.values() for topic in of_name)
        by_part: dict[str, list[dict[str, JSON]]] = {}
        pace = Pace()
        for event in events:
            for topic in topics[event["name"]]:
                for count, part in parts_for(shards[topic], topic, event):
                    by_part.setdefault(topic_id(topic, count, part), []).append(event)
            await pace.keep()
        return by_part

    async def woken(self, name: str, event_id: str) -> list[str] | None:
        """Ask the topics of a published event for the runs that it was for; return the workflow ids of some of them.

        Returns:
            The workflow ids; None if a topic does not respond, because no worker is up.
        """
        runs: dict[str, None] = {}
        topics = topics_of(name)
        shards = await self._directory.read(topics)
        for receiver in (each for topic in topics for each in _all_parts(shards[topic], topic)):
            matched = await self._decided(receiver, event_id)
            if matched is None:
                return None
            runs |= dict.fromkeys(matched)
        return list(runs)

    async def _decided(self, receiver: str, event_id: str) -> list[str] | None:
        """Return the runs that an event matched, once that is decided; None if it takes too long."""
        until = time.monotonic() + _DECISION_SECONDS
        while True:
            matched = await self._matched(receiver, event_id)
            if matched is not None or time.monotonic() > until:
                return matched
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _matched(self, receiver: str, event_id: str) -> list[str] | None:
        handle = self._temporal.get_workflow_handle(receiver)
        try:
            answer = await handle.query(
                MATCHED,
                event_id,
                result_type=RawValue,
                reject_condition=QueryRejectCondition.NOT_OPEN,
                rpc_timeout=_QUERY_TIMEOUT,
            )
        except WorkflowQueryRejectedError:
            return []  # the topic has ended, because no run waits
        except RPCError as err:
            if is_missing(err):
                return []
            if err.status in _NO_WORKER:
                return None
            raise
        matched: list[str] | None = from_raw(answer)
        return matched

    async def _send_batched(
        self, receiver: str, signal: str, messages: Sequence[object], size: int, max_count: int, call: Call[object]
    ) -> bool:
        return await send_batched(self._temporal, receiver, signal, messages, size=size, max_count=max_count, call=call)

    async def _signal_or_start(self, topic: str, receiver: str, messages: list[object]) -> bool:
        await self._temporal.start_workflow(
            TOPIC,
            id=receiver,
            task_queue=SYSTEM_TASK_QUEUE,
            start_signal=SUBSCRIBE,
            start_signal_args=[to_raw(messages)],
            static_summary=f"runs that wait for {topic}"[:200],
            rpc_timeout=_RPC_TIMEOUT,
        )
        return True

    async def _signal(self, receiver: str, signal: str, messages: list[object]) -> bool:
        """Signal a topic; return False if it does not exist, because no run waits."""
        return await signalled(self._temporal, receiver, signal, messages)

    async def _publish(self, receiver: str, messages: list[object]) -> bool:
        """Send events to a topic, later if it has no room now; return False if the topic does not run.

        Raises:
            RPCError: Temporal could not be reached, or returned an error. If events were sent later after such an
                error, they would arrive after those that the same sender sends next.
        """
        letter = Letter(receiver=receiver, signal=PUBLISH, messages=messages)
        room = _rooms.setdefault(self._temporal.service_client, {}).setdefault(self._temporal.namespace, Room())
        try:
            is_left = await room.is_left(self._temporal, receiver, sum(len(dumps(message)) for message in messages))
            if is_left:
                return await self._signal(receiver, PUBLISH, messages)
        except RPCError as err:
            if err.status not in _NO_ROOM:
                raise
            try:
                await publish_later(self._temporal, letter)
            except RPCError:
                raise err from None
            return True
        await publish_later(self._temporal, letter)
        return True


def is_part(place: str) -> bool:
    """Return whether a place is the Temporal workflow id of a part, rather than the name of a topic."""
    return place.startswith(f"{TOPIC}-")


def _index_of(subscription: Subscription) -> tuple[Path, Key] | None:
    """Return the path and the value of a subscription's equality, or None."""
    try:
        return bind(subscription.source, subscription.event).index if subscription.source is not None else None
    except ValueError:
        return None  # the topic drops the subscription


def _part_for(subscription: Subscription, index: tuple[Path, Key] | None, count: int) -> int:
    """Return the part of a subscription: that of its value or, without an equality, that of its run."""
    if count == 1:
        return 0
    return part_of(*index, count) if index is not None else zlib.crc32(subscription.run_id.encode()) % count


def _wanted(topic: str, count: int, index: tuple[Path, Key] | None) -> Wanted:
    if count == 1:
        return Wanted(topic=topic)
    path = index[0] if index is not None and is_listable(index[0]) else None
    return Wanted(topic=topic, count=count, path=path, others=path is None)


def _all_parts(shard: Shard, topic: str) -> list[str]:
    """Return the Temporal workflow ids of a topic, and of all its parts."""
    entry = shard.entries.get(topic)
    counts = dict.fromkeys([1, *(parts.count for parts in entry.parts)] if entry is not None else [1])
    return [topic_id(topic, count, part) for count in counts for part in range(count)]


def _batches(events: Sequence[dict[str, JSON]]) -> list[tuple[list[dict[str, JSON]], int]]:
    """Return events in the given order, grouped for signals, with the size of each group in bytes."""
    batches: list[tuple[list[dict[str, JSON]], int]] = []
    batch: list[dict[str, JSON]] = []
    size = 0
    for event in events:
        length = len(dumps(event))
        if batch and (len(batch) >= EVENTS_PER_SIGNAL or size + length > MAX_BATCH_BYTES):
            batches.append((batch, size))
            batch, size = [], 0
        batch.append(event)
        size += length
    return [*batches, (batch, size)]
