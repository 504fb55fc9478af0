"""Batching of messages to one receiver: messages that arrive during a call are sent together in the next one.

A single message is sent at once. In a burst, a receiver that accepts a few hundred calls per second gets thousands of
messages.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

import temporalio.client
from temporalio.service import ServiceClient

from ..loops import PerLoop

T = TypeVar("T")

Call = Callable[[list[T]], Awaitable[bool]]

MAX_BATCH_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class _Put(Generic[T]):
    messages: Sequence[T]
    size: int
    call: Call[T]
    answered: asyncio.Future[bool]


class Batcher(Generic[T]):
    """Messages to one receiver, in the order in which they were added.

    Args:
        max_count: The limit of messages in one call; messages that are added together are not split.
    """

    def __init__(self, max_count: int) -> None:
        self._max_count = max_count
        self._waiting: deque[_Put[T]] = deque()
        self._calling: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """True if no call is in progress and no message waits."""
        return self._calling is None

    async def put(self, messages: Sequence[T], size: int, call: Call[T]) -> bool:
        """Send messages together with others that have been added; return the result of their call.

        Args:
            messages: The messages of one sender, which stay together.
            size: The size of the messages in bytes.
            call: Sends messages.
        """
        answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Put(messages, size, call, answered))
        if self._calling is None:
            self._calling = asyncio.create_task(self._call())
        return await answered

    async def _call(self) -> None:
        try:
            while self._waiting:
                puts = self._take()
                try:
                    answer = await puts[0].call([message for put in puts for message in put.messages])
                except Exception as err:
                    for put in puts:
                        if not put.answered.done():
                            put.answered.set_exception(err)
                except BaseException:
                    for put in (*puts, *self._waiting):
                        put.answered.cancel()
                    self._waiting.clear()
                    raise
                else:
                    for put in puts:
                        if not put.answered.done():
                            put.answered.set_result(answer)
        finally:
            self._calling = None

    def _take(self) -> list[_Put[T]]:
        puts: list[_Put[T]] = []
        count = size = 0
        while self._waiting:
            put = self._waiting[0]
            count, size = count + len(put.messages), size + put.size
            if puts and (count > self._max_count or size > MAX_BATCH_BYTES):
                break
            puts.append(self._waiting.popleft())
        return puts


_Batchers = dict[tuple[str, str, str], Batcher[object]]

_batchers: WeakKeyDictionary[ServiceClient, PerLoop[_Batchers]] = WeakKeyDictionary()
"""Batchers by connection; each event loop has its own, by namespace, receiver and signal."""


async def send_batched(
    temporal: temporalio.client.Client,
    receiver: str,
    signal: str,
    messages: Sequence[object],
    *,
    size: int,
    max_count: int,
    call: Call[object],
) -> bool:
    """Send messages to a workflow, together with those that others in this loop send to it in the meantime."""
    batchers = _batchers.setdefault(temporal.service_client, PerLoop(dict)).get()
    key = temporal.namespace, receiver, signal
    batcher = batchers.setdefault(key, Batcher(max_count))
    try:
        return await batcher.put(messages, size, call)
    finally:
        if batcher.is_idle and batchers.get(key) is batcher:
            del batchers[key]
