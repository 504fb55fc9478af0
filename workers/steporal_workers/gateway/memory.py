"""Memory for the bodies of requests and the values made from them: its limits, and each sender's share.

A small body is always accepted, as the memory suffices for one per connection. The other bodies share the rest. A
sender may use half of the rest, or all of it for a single body. A body that has been arriving for a while without being
complete gives way to later ones.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import NoReturn

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .answers import Problem
from .limits import MAX_CONNECTIONS

SMALL_BYTES = 128 * 1024
"""Limit below which a body, with everything that is made from it, is accepted in any case."""

MEMORY_BYTES = 256 * 1024 * 1024
"""Limit for all bodies together; half of what ``deploy/kubernetes`` gives a gateway."""

SHARED_BYTES = MEMORY_BYTES - MAX_CONNECTIONS * SMALL_BYTES
"""Limit for all bodies that are not small; also the limit for a single one."""

PIECE_BYTES = 64 * 1024
"""Size of the pieces in which a response is sent."""

PATIENCE_SECONDS = 5.0
"""Time after which a body that is not small, and still arriving, gives way to others."""

_KEY = "steporal.memory"


class Memory:
    """Memory that is available for bodies that are not small.

    Args:
        max_bytes: The limit.
    """

    def __init__(self, max_bytes: int = SHARED_BYTES) -> None:
        self.max_bytes = max_bytes
        self.remaining = max_bytes
        self.of_sender: Counter[str] = Counter()
        self.coming: dict[Body, None] = {}

    def make_room(self, size: int, body: Body) -> bool:
        """Return whether this much more memory is available for a body; other bodies may have to give way."""
        while not self._has(size, body):
            if (other := self._late(body)) is None:
                return False
            other.give_way()
        return True

    def _has(self, size: int, body: Body) -> bool:
        others = self.of_sender[body.sender] - body.shared
        return size <= self.remaining and (not others or others + body.shared + size <= self.max_bytes // 2)

    def _late(self, body: Body) -> Body | None:
        """Return the body that has been arriving longest, if that is too long."""
        other = next((other for other in self.coming if other is not body), None)
        return other if other is not None and time.monotonic() - other.began > PATIENCE_SECONDS else None


class Body:
    """Memory that one request uses.

    Attributes:
        sender: The key of its sender.
        shared: The amount of shared memory that it holds.
        began: The time when it began to arrive.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._held = 0
        self._task = asyncio.current_task()
        self._gives_way = False
        self._has_ended = False
        self.sender = ""
        self.shared = 0
        self.began = 0.0

    def take(self, size: int) -> None:
        """Take more memory.

        Raises:
            Problem: 413: it exceeds the limit. 503: that much is not available now.
        """
        if self._has_ended:  # nobody would give back memory that is taken now
            _refuse()
        self._hold(self._held + size)

    def give_back(self, size: int) -> None:
        """Give back memory."""
        if not self._has_ended:
            self._hold(self._held - size)

    def _hold(self, held: int) -> None:
        shared = held if held > SMALL_BYTES else 0
        if shared > self._memory.max_bytes:
            raise Problem(413, "the body takes too much memory; send it in several requests")
        more = shared - self.shared
        if more > 0 and not self._memory.make_room(more, self):
            _refuse()
        self._memory.remaining -= more
        self._memory.of_sender[self.sender] += more
        self._held, self.shared = held, shared

    def end(self) -> None:
        """Give back all memory, and take none from now on."""
        if self._has_ended:
            return
        self._has_ended = True
        self._memory.coming.pop(self, None)
        self._memory.remaining += self.shared
        self._memory.of_sender[self.sender] -= self.shared
        if not self._memory.of_sender[self.sender]:
            del self._memory.of_sender[self.sender]
        self._held = self.shared = 0

    async def next_of(self, receive: Receive) -> Message:
        """Return the next message of a request; while its body arrives, other requests may take precedence.

        Raises:
            Problem: 503: no memory is available, or the body had to give way.
        """
        self._refuse_if_late()
        if self not in self._memory.coming:
            self.began = time.monotonic()
            self._memory.coming[self] = None
        try:
            message = await receive()
        except asyncio.CancelledError:
            if self._task is None or self._task.uncancel() == 0:
                self._refuse_if_late()
            raise
        if not message.get("more_body"):
            self._memory.coming.pop(self, None)
        return message

    def _refuse_if_late(self) -> None:
        if self._gives_way:
            _refuse()

    def give_way(self) -> None:
        """Give back all memory for another body; the request is answered with 503."""
        self.end()
        self._gives_way = True
        if self._task is not None:
            self._task.cancel()


def _refuse() -> NoReturn:
    raise Problem(503, "the gateway is busy with other requests; send it again", headers={"Retry-After": "1"})


def body_of(request: Request) -> Body:
    """Return the memory of a request."""
    body: Body = request.scope[_KEY]
    return body


class BodyMemory:
    """Middleware that counts the memory of requests, and refuses bodies while others hold all of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._memory = Memory()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        body = Body(self._memory)

        async def counted() -> Message:
            return await body.next_of(receive)

        async def in_pieces(message: Message) -> None:
            """Send a response in pieces, each after the client has received the one before.

            In one piece, the response would count as sent, and its memory as free, while the server still holds all of
            it for a client that does not read.
            """
            data = message.get("body", b"")
            for start in range(0, len(data) - PIECE_BYTES, PIECE_BYTES):
                await send({**message, "body": data[start : start + PIECE_BYTES], "more_body": True})
            if len(data) > PIECE_BYTES:
                message = {**message, "body": data[-(len(data) % PIECE_BYTES or PIECE_BYTES) :]}
            await send(message)

        try:
            scope[_KEY] = body  # not in a copy: the middlewares for metrics and traces read the route from this scope
            await self._app(scope, counted, in_pieces)
        finally:
            body.end()
