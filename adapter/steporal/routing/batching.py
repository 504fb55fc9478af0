"""Messages to one receiver, some in each call: while a call is under way, those for the next one gather.

A message that is alone goes at once. Of many, as in a burst, a receiver that takes some hundred calls a second hears
thousands.
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

MOST_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class _Put(Generic[T]):
    messages: Sequence[T]
    size: int
    call: Call[T]
    answered: asyncio.Future[bool]


class Line(Generic[T]):
    """Messages to one receiver, in the order in which they were put in.

    Args:
        most: How many go in one call, unless so many are put in at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: deque[_Put[T]] = deque()
        self._calling: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, and nothing waits."""
        return self._calling is None

    async def put(self, messages: Sequence[T], size: int, call: Call[T]) -> bool:
        """Send messages together with what has gathered; what the call of which they were a part has returned.

        Args:
            messages: Those of one sender; they stay together.
            size: How many bytes they have.
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
            if puts and (count > self._most or size > MOST_BYTES):
                break
            puts.append(self._waiting.popleft())
        return puts


_Lines = dict[tuple[str, str, str], Line[object]]

_lines: WeakKeyDictionary[ServiceClient, PerLoop[_Lines]] = WeakKeyDictionary()
"""By connection; each event loop has lines of its own, by namespace, receiver and signal."""


async def gathered(
    temporal: temporalio.client.Client,
    receiver: str,
    signal: str,
    messages: Sequence[object],
    *,
    size: int,
    most: int,
    call: Call[object],
) -> bool:
    """Send messages to a workflow of a namespace, together with those that others in this loop send it meanwhile."""
    lines = _lines.setdefault(temporal.service_client, PerLoop(dict)).get()
    key = temporal.namespace, receiver, signal
    line = lines.setdefault(key, Line(most))
    try:
        return await line.put(messages, size, call)
    finally:
        if line.is_idle and lines.get(key) is line:
            del lines[key]
