"""Topics, as one process speaks with them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

import temporalio.client
from temporalio.common import RawValue
from temporalio.service import RPCError, RPCStatusCode

from ..converter import dumps, to_raw
from ..types import JSON
from .catalog import SYSTEM_TASK_QUEUE, is_about_namespace
from .topic import PUBLISH, SUBSCRIBE, TOPIC, UNSUBSCRIBE, Subscription, subscription_id, topic_id, topics_of

EVENTS_PER_SIGNAL = 50
BYTES_PER_SIGNAL = 512 * 1024

_RPC_TIMEOUT = timedelta(seconds=10)


class Topics:
    """The topics of a namespace."""

    def __init__(self, temporal: temporalio.client.Client) -> None:
        self._temporal = temporal

    async def subscribe(self, topics: Iterable[str], subscription: Subscription) -> None:
        """Subscribe a run; when this returns, it hears of every event that is sent later."""
        message = to_raw([subscription.model_dump(mode="json", exclude_defaults=True)])
        async with asyncio.TaskGroup() as group:
            for topic in topics:
                group.create_task(self._signal_or_start(topic, message))

    async def unsubscribe(self, workflow_id: str, run_id: str, keys: Mapping[str, Sequence[str]]) -> None:
        """End subscriptions of a run, by topic and key."""
        async with asyncio.TaskGroup() as group:
            for topic, of_topic in keys.items():
                ids = to_raw([subscription_id(workflow_id, run_id, key) for key in of_topic])
                group.create_task(self._signal(topic, UNSUBSCRIBE, ids))

    async def publish(self, events: Sequence[dict[str, JSON]]) -> None:
        """Tell the topics that events concern, each in the order of the events."""
        by_topic: dict[str, list[dict[str, JSON]]] = {}
        for event in events:
            for topic in topics_of(event["name"]):
                by_topic.setdefault(topic, []).append(event)
        slots = asyncio.Semaphore(64)

        async def tell(topic: str, concerned: list[dict[str, JSON]]) -> None:
            async with slots:
                for batch in _batches(concerned):
                    if not await self._signal(topic, PUBLISH, to_raw(batch)):
                        return

        async with asyncio.TaskGroup() as group:
            for topic, concerned in by_topic.items():
                group.create_task(tell(topic, concerned))

    async def _signal_or_start(self, topic: str, message: RawValue) -> None:
        await self._temporal.start_workflow(
            TOPIC,
            id=topic_id(topic),
            task_queue=SYSTEM_TASK_QUEUE,
            start_signal=SUBSCRIBE,
            start_signal_args=[message],
            static_summary=f"which runs wait for {topic}"[:200],
            rpc_timeout=_RPC_TIMEOUT,
        )

    async def _signal(self, topic: str, signal: str, message: RawValue) -> bool:
        """Signal a topic; False if there is none, as nobody waits."""
        try:
            await self._temporal.get_workflow_handle(topic_id(topic)).signal(signal, message, rpc_timeout=_RPC_TIMEOUT)
        except RPCError as err:
            if err.status == RPCStatusCode.NOT_FOUND and not is_about_namespace(err):
                return False
            raise
        return True


def _batches(events: Sequence[dict[str, JSON]]) -> list[list[dict[str, JSON]]]:
    batches: list[list[dict[str, JSON]]] = [[]]
    size = 0
    for event in events:
        length = len(dumps(event))
        if batches[-1] and (len(batches[-1]) >= EVENTS_PER_SIGNAL or size + length > BYTES_PER_SIGNAL):
            batches.append([])
            size = 0
        batches[-1].append(event)
        size += length
    return batches
