"""Topics, as one process speaks with them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial

import temporalio.client
from temporalio.client import WorkflowQueryRejectedError
from temporalio.common import QueryRejectCondition, RawValue
from temporalio.service import RPCError, RPCStatusCode

from ..converter import dumps, from_raw, to_raw
from ..tracing import with_trace
from ..types import JSON
from .calls import is_about_namespace
from .gathering import MOST_BYTES, Call, gathered
from .messages import SYSTEM_TASK_QUEUE
from .topic import MATCHED, PUBLISH, SUBSCRIBE, TOPIC, UNSUBSCRIBE, Subscription, subscription_id, topic_id, topics_of

EVENTS_PER_SIGNAL = 50
SUBSCRIPTIONS_PER_SIGNAL = 100

_RPC_TIMEOUT = timedelta(seconds=10)
_QUERY_TIMEOUT = timedelta(seconds=3)
_DECISION_SECONDS = 3.0
_PAUSE_SECONDS = 0.05
_NO_WORKER = (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED, RPCStatusCode.FAILED_PRECONDITION)
"""Statuses of a query that no worker answers; the SDK's own timeout is CANCELLED."""


class Topics:
    """The topics of a namespace."""

    def __init__(self, temporal: temporalio.client.Client) -> None:
        self._temporal = temporal

    async def subscribe(self, topics: Iterable[str], subscription: Subscription) -> None:
        """Subscribe a run; when this returns, it hears of every event that is sent later."""
        data = subscription.model_dump(mode="json", exclude_defaults=True)
        size = len(dumps(data))

        async def tell(topic: str) -> None:
            await self._gathered(
                topic, SUBSCRIBE, [data], size, SUBSCRIPTIONS_PER_SIGNAL, partial(self._signal_or_start, topic)
            )

        async with asyncio.TaskGroup() as group:
            for topic in topics:
                group.create_task(tell(topic))

    async def unsubscribe(self, workflow_id: str, run_id: str, keys: Mapping[str, Sequence[str]]) -> None:
        """End subscriptions of a run, by topic and key."""
        async with asyncio.TaskGroup() as group:
            for topic, of_topic in keys.items():
                ids = [subscription_id(workflow_id, run_id, key) for key in of_topic]
                tell = partial(self._signal, topic, UNSUBSCRIBE)
                size = sum(map(len, ids))
                group.create_task(self._gathered(topic, UNSUBSCRIBE, ids, size, SUBSCRIPTIONS_PER_SIGNAL, tell))

    async def publish(self, events: Sequence[dict[str, JSON]]) -> set[str]:
        """Tell the topics that events concern, each in the order of the events; the ids of events that have one."""
        heard: set[str] = set()
        by_topic: dict[str, list[dict[str, JSON]]] = {}
        for event in with_trace(self._temporal, events):
            for topic in topics_of(event["name"]):
                by_topic.setdefault(topic, []).append(event)
        slots = asyncio.Semaphore(64)

        async def publish(topic: str, concerned: list[dict[str, JSON]]) -> None:
            async with slots:
                for batch, size in _batches(concerned):
                    tell = partial(self._signal, topic, PUBLISH)
                    if not await self._gathered(topic, PUBLISH, batch, size, EVENTS_PER_SIGNAL, tell):
                        return
                    heard.update(event["id"] for event in batch)

        async with asyncio.TaskGroup() as group:
            for topic, concerned in by_topic.items():
                group.create_task(publish(topic, concerned))
        return heard

    async def woken(self, name: str, event_id: str) -> list[str] | None:
        """Ask the topics of an event that was published which runs it was for: the workflow ids of some of them.

        Returns:
            The workflow ids; None if a topic does not answer, as no worker is up.
        """
        runs: dict[str, None] = {}
        for topic in topics_of(name):
            matched = await self._decided(topic, event_id)
            if matched is None:
                return None
            runs |= dict.fromkeys(matched)
        return list(runs)

    async def _decided(self, topic: str, event_id: str) -> list[str] | None:
        """The runs that an event matched, once that is decided; None if that takes long."""
        until = time.monotonic() + _DECISION_SECONDS
        while True:
            matched = await self._matched(topic, event_id)
            if matched is not None or time.monotonic() > until:
                return matched
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _matched(self, topic: str, event_id: str) -> list[str] | None:
        handle = self._temporal.get_workflow_handle(topic_id(topic))
        try:
            answer = await handle.query(
                MATCHED,
                event_id,
                result_type=RawValue,
                reject_condition=QueryRejectCondition.NOT_OPEN,
                rpc_timeout=_QUERY_TIMEOUT,
            )
        except WorkflowQueryRejectedError:
            return []  # it has ended, as nobody waits
        except RPCError as err:
            if err.status == RPCStatusCode.NOT_FOUND and not is_about_namespace(err):
                return []
            if err.status in _NO_WORKER:
                return None
            raise
        matched: list[str] | None = from_raw(answer)
        return matched

    async def _gathered(
        self, topic: str, signal: str, messages: Sequence[object], size: int, most: int, call: Call[object]
    ) -> bool:
        return await gathered(self._temporal, topic, signal, messages, size=size, most=most, call=call)

    async def _signal_or_start(self, topic: str, messages: list[object]) -> bool:
        await self._temporal.start_workflow(
            TOPIC,
            id=topic_id(topic),
            task_queue=SYSTEM_TASK_QUEUE,
            start_signal=SUBSCRIBE,
            start_signal_args=[to_raw(messages)],
            static_summary=f"which runs wait for {topic}"[:200],
            rpc_timeout=_RPC_TIMEOUT,
        )
        return True

    async def _signal(self, topic: str, signal: str, messages: list[object]) -> bool:
        """Signal a topic; False if there is none, as nobody waits."""
        try:
            handle = self._temporal.get_workflow_handle(topic_id(topic))
            await handle.signal(signal, to_raw(messages), rpc_timeout=_RPC_TIMEOUT)
        except RPCError as err:
            if err.status == RPCStatusCode.NOT_FOUND and not is_about_namespace(err):
                return False
            raise
        return True


def _batches(events: Sequence[dict[str, JSON]]) -> list[tuple[list[dict[str, JSON]], int]]:
    """Events in the order given, some for each signal, with their size in bytes."""
    batches: list[tuple[list[dict[str, JSON]], int]] = []
    batch: list[dict[str, JSON]] = []
    size = 0
    for event in events:
        length = len(dumps(event))
        if batch and (len(batch) >= EVENTS_PER_SIGNAL or size + length > MOST_BYTES):
            batches.append((batch, size))
            batch, size = [], 0
        batch.append(event)
        size += length
    return [*batches, (batch, size)]
