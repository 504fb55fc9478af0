"""Memory for the bodies of requests, and for what is made of them: how much there is, and who may have how much of it.

A body that takes little is always let in: all connections together may have one each. The others share what is left. No
sender has more than half of that, unless it sends one body alone, and one that has come for a while without being
complete gives way to those that come after it.
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
"""What a body may take, with all that is made of it, and be let in whatever there is."""

MEMORY_BYTES = 256 * 1024 * 1024
"""Of all bodies; half of what ``deploy/kubernetes`` gives a gateway."""

SHARED_BYTES = MEMORY_BYTES - MAX_CONNECTIONS * SMALL_BYTES
"""Of all bodies that are not small; also the most that one may take."""

PIECE_BYTES = 64 * 1024
"""Of an answer, that is sent at a time."""

PATIENCE_SECONDS = 5.0
"""How long a body that is not small may be coming before it gives way to others."""

_KEY = "steporal.memory"


class Memory:
    """What there is for bodies that are not small.

    Args:
        max_bytes: How much there is.
    """

    def __init__(self, max_bytes: int = SHARED_BYTES) -> None:
        self.max_bytes = max_bytes
        self.left = max_bytes
        self.of_sender: Counter[str] = Counter()
        self.coming: dict[Body, None] = {}

    def make_room(self, size: int, body: Body) -> bool:
        """Whether there is so much more for a body; others may have to give way."""
        while not self._has(size, body):
            if (other := self._late(body)) is None:
                return False
            other.give_way()
        return True

    def _has(self, size: int, body: Body) -> bool:
        others = self.of_sender[body.sender] - body.shared
        return size <= self.left and (not others or others + body.shared + size <= self.max_bytes // 2)

    def _late(self, body: Body) -> Body | None:
        """The body that has been coming for longest, if that is long."""
        other = next((other for other in self.coming if other is not body), None)
        return other if other is not None and time.monotonic() - other.began > PATIENCE_SECONDS else None


class Body:
    """What one request takes.

    Attributes:
        sender: Whose it is: a key.
        shared: How much of the shared memory it has.
        began: When it began to come.
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
        """Take more.

        Raises:
            Problem: 413: it is more than there is at all. 503: there is not so much now.
        """
        if self._has_ended:  # nobody would give back what it took now
            _refuse()
        self._hold(self._held + size)

    def give_back(self, size: int) -> None:
        """Need that much no longer."""
        if not self._has_ended:
            self._hold(self._held - size)

    def _hold(self, held: int) -> None:
        shared = held if held > SMALL_BYTES else 0
        if shared > self._memory.max_bytes:
            raise Problem(413, "the body takes too much memory; send it in several requests")
        more = shared - self.shared
        if more > 0 and not self._memory.make_room(more, self):
            _refuse()
        self._memory.left -= more
        self._memory.of_sender[self.sender] += more
        self._held, self.shared = held, shared

    def end(self) -> None:
        """Take nothing any more."""
        if self._has_ended:
            return
        self._has_ended = True
        self._memory.coming.pop(self, None)
        self._memory.left += self.shared
        self._memory.of_sender[self.sender] -= self.shared
        if not self._memory.of_sender[self.sender]:
            del self._memory.of_sender[self.sender]
        self._held = self.shared = 0

    async def next_of(self, receive: Receive) -> Message:
        """The next message of a request; while it has a body, others may come first.

        Raises:
            Problem: 503: there is no memory for it, or it had to give way.
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
        """Let another have the memory: the request is answered with 503."""
        self.end()
        self._gives_way = True
        if self._task is not None:
            self._task.cancel()


def _refuse() -> NoReturn:
    raise Problem(503, "the gateway is busy with other requests; send it again", headers={"Retry-After": "1"})


def body_of(request: Request) -> Body:
    """What a request takes."""
    found: Body = request.scope[_KEY]
    return found


class BodyMemory:
    """Counts what requests take, and refuses bodies while those of others take all that there is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._memory = Memory()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        body = Body(self._memory)

        async def counted() -> Message:
            return await body.next_of(receive)

        async def in_pieces(message: Message) -> None:
            """Send an answer piece by piece: each waits until the one before is taken.

            In one piece, it would be taken for sent, and its memory given back, while the server still keeps all of it
            for somebody who does not read.
            """
            data = message.get("body", b"")
            for start in range(0, len(data) - PIECE_BYTES, PIECE_BYTES):
                await send({**message, "body": data[start : start + PIECE_BYTES], "more_body": True})
            if len(data) > PIECE_BYTES:
                message = {**message, "body": data[-(len(data) % PIECE_BYTES or PIECE_BYTES) :]}
            await send(message)

        try:
            scope[_KEY] = body  # not in a copy: who measures and traces reads the route there
            await self._app(scope, counted, in_pieces)
        finally:
            body.end()
