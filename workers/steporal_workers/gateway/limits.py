"""What a stranger can take of the gateway, connections, time, and memory; and when connections end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from .answers import Problem
from .bodies import MAX_BODY_BYTES, TAKE

MAX_CONNECTIONS = 500
"""Each has one request at a time."""

MAX_HEAD_BYTES = 32 * 1024
"""Of a request's first line and headers."""

HEAD_SECONDS = 10.0
BODY_SECONDS = 60.0
"""How long a request's head, and then its body, may take to come."""

IDLE_SECONDS = 75
"""How long a connection is kept for the next request: longer than proxies keep theirs to us, which is a minute in most,
so that they never send a request into one that is being closed."""

SEND_SECONDS = 10.0
"""How long a connection that is closed may take to fetch its last answer."""

MAX_BYTES_OF_BODIES = 8 * MAX_BODY_BYTES
"""Of all requests that are being answered, with what is made of them."""

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class PatientProtocol(H11Protocol):
    """Uvicorn's HTTP/1.1, which by itself waits for ever for a request, and takes any number of connections."""

    _timer: asyncio.TimerHandle | None = None
    _awaited: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See base class."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS and not self._makes_room():
            transport.abort()
        else:
            self._watch()

    def _makes_room(self) -> bool:
        """Whether a connection was closed that is kept for a next request: it would keep others out for a minute."""
        kept = (other for other in self.connections if isinstance(other, PatientProtocol) and other.is_kept)
        if (other := next(kept, None)) is not None:
            other.transport.abort()
            self.connections.discard(other)
        return other is not None

    @property
    def is_kept(self) -> bool:
        """Whether it has had an answer, and no further request has begun to come."""
        return self.timeout_keep_alive_task is not None

    def data_received(self, data: bytes) -> None:
        """See base class."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """See base class."""
        self._stop_timer()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        """See base class."""
        super().timeout_keep_alive_handler()
        self._start_timer(SEND_SECONDS, self.transport.abort)

    def _watch(self) -> None:
        """Wait for what is to come next of a request, from the first moment on."""
        awaited = self.conn.their_state
        if awaited is self._awaited:
            return
        self._awaited = awaited
        if awaited is h11.IDLE:
            self._start_timer(HEAD_SECONDS, self._give_up)
        elif awaited is h11.SEND_BODY:
            self._start_timer(BODY_SECONDS, self._give_up)
        else:
            self._stop_timer()

    def _give_up(self) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # no answer has begun
            self.transport.write(_TOO_SLOW)
        self.transport.close()
        self._start_timer(SEND_SECONDS, self.transport.abort)

    def _start_timer(self, seconds: float, do: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, do)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class BodyMemory:
    """Refuses bodies while those of other requests take all the memory that there is for them."""

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BYTES_OF_BODIES) -> None:
        self._app = app
        self._left = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        held = 0

        def take(more: int) -> None:
            nonlocal held
            if more > self._left:
                raise Problem(
                    503, "the gateway is busy with other requests; send it again", headers={"Retry-After": "1"}
                )
            held += more
            self._left -= more

        async def counted() -> Message:
            message = await receive()
            # Of a body that is too large, nothing is kept.
            take(min(len(message.get("body", b"")), MAX_BODY_BYTES - held))
            return message

        try:
            scope[TAKE] = take  # not in a copy: who measures and traces reads the route there
            await self._app(scope, counted, send)
        finally:
            self._left += held


class LastAnswers:
    """Asks for a new connection after each answer, while the process stops: nobody is to keep one to it."""

    def __init__(self, app: ASGIApp, is_stopping: Callable[[], bool]) -> None:
        self._app = app
        self._is_stopping = is_stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""

        async def last(message: Message) -> None:
            if message["type"] == "http.response.start" and self._is_stopping():
                message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
            await send(message)

        await self._app(scope, receive, last)
