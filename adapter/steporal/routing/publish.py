"""Topics, as one process speaks with them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial

import temporalio.client
from temporalio.service import RPCError, RPCStatusCode

from ..converter import dumps, to_raw
from ..tracing import with_trace
from ..types import JSON
from .catalog import SYSTEM_TASK_QUEUE, is_about_namespace
from .gathering import MOST_BYTES, Call, gathered
from .topic import PUBLISH, SUBSCRIBE, TOPIC, UNSUBSCRIBE, Subscription, subscription_id, topic_id, topics_of

EVENTS_PER_SIGNAL = 50
SUBSCRIPTIONS_PER_SIGNAL = 100

_RPC_TIMEOUT = timedelta(seconds=10)


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
