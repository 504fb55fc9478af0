"""Limits of connections and of their time, which also bound what strangers can use; and the end of connections.

A connection is in one stage at a time, and each stage has a limit:

====================  ==============================================================================================
first line and        :data:`HEAD_SECONDS` from its beginning, or from the first byte of a further request
headers arrive
body arrives          :data:`BODY_SECONDS` in all, and :data:`MIN_BODY_BYTES` in any :data:`BODY_PACE_SECONDS`
request is handled    no limit here; calls to Temporal have their own
response is not read  :data:`SEND_SECONDS`, from when the system's buffer is full, or the connection is being closed
connection is idle    :data:`IDLE_SECONDS`
====================  ==============================================================================================
"""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
import time
from collections.abc import Callable

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from .answers import Problem

MAX_CONNECTIONS = 500
"""Limit of connections; each has one request at a time."""

MAX_HEAD_BYTES = 32 * 1024
"""Limit of a request's first line and headers."""

HEAD_SECONDS = 10.0
BODY_SECONDS = 60.0
"""Limits of the time in which a request's head, and then its body, must arrive."""

MIN_BODY_BYTES = 10 * 1024
BODY_PACE_SECONDS = 10.0
"""Minimum rate of a body: these bytes in each such interval."""

IDLE_SECONDS = 75
"""Time for which a connection is kept for the next request. It exceeds the time for which proxies keep theirs to us,
a minute in most, so that they never send a request on a connection that is being closed."""

SEND_SECONDS = 10.0
"""Limit of the time in which a client must read what was sent, and at the end the last response."""

LATE_SECONDS = 1.0
"""Time after which a connection without a complete head, or with an unread response, gives way to new ones."""

_NO_LINGER = struct.pack("ii", 1, 0)

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class _Stage(enum.Enum):
    """Stage of a connection."""

    HEAD = enum.auto()
    BODY = enum.auto()
    LEFT_BODY = enum.auto()
    """The rest of a body whose request has already been answered."""
    ANSWER = enum.auto()
    SENDING = enum.auto()
    CLOSING = enum.auto()
    KEPT = enum.auto()


class PatientProtocol(H11Protocol):
    """Uvicorn's HTTP/1.1 with limits; by default it waits forever in most stages, with any number of connections."""

    _timer: asyncio.TimerHandle | None = None
    _stage: _Stage | None = None
    _since = 0.0
    _turn: object = None
    _responses = 0
    _read = 0
    _bytes_of_body = 0
    _has_ended = False

    # --- events ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See base class."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS and not self._makes_room():
            transport.abort()
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        """See base class."""
        self._bytes_of_body += len(data)
        super().data_received(data)
        self._watch()

    def eof_received(self) -> None:
        """See base class; asyncio closes the connection once everything is read."""
        super().eof_received()
        self._has_ended = True
        self._watch()

    def on_response_complete(self) -> None:
        """See base class."""
        self._responses += 1
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """See base class."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """See base class."""
        self._read += 1
        super().resume_writing()
        self._watch()

    def timeout_keep_alive_handler(self) -> None:
        """See base class."""
        super().timeout_keep_alive_handler()
        self._watch()

    def shutdown(self) -> None:
        """See base class."""
        super().shutdown()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """See base class."""
        super().connection_lost(exc)
        self._stop_timer()

    def _should_upgrade(self) -> bool:
        return False  # without a warning in the log

    # --- end of a connection ---------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Start the timer of a stage when it begins."""
        stage = self._stage_now()
        turn = (stage, self._responses, self._read)
        if turn == self._turn:
            return
        self._stage, self._turn, self._since = stage, turn, time.monotonic()
        self._stop_timer()
        if stage is _Stage.HEAD:
            self._start_timer(HEAD_SECONDS, self._give_up)
        elif stage in (_Stage.BODY, _Stage.LEFT_BODY):
            self._bytes_of_body = 0
            self._start_timer(min(BODY_PACE_SECONDS, BODY_SECONDS), self._look_at_body)
        elif stage in (_Stage.SENDING, _Stage.CLOSING):
            self._start_timer(SEND_SECONDS, self.abort)

    def _stage_now(self) -> _Stage:
        if self._has_ended or self.transport.is_closing():
            return _Stage.CLOSING
        if self.flow.write_paused:
            return _Stage.SENDING
        if self.conn.their_state is h11.SEND_BODY:
            return _Stage.LEFT_BODY if self.conn.our_state is h11.DONE else _Stage.BODY
        if self.timeout_keep_alive_task is not None:
            return _Stage.KEPT
        return _Stage.HEAD if self.conn.their_state is h11.IDLE else _Stage.ANSWER

    def _look_at_body(self) -> None:
        remaining = self._since + BODY_SECONDS - time.monotonic()
        is_slow = self._bytes_of_body < MIN_BODY_BYTES and not self.flow.read_paused
        if remaining <= 0 or is_slow:
            self._give_up()
        else:
            self._bytes_of_body = 0
            self._start_timer(min(BODY_PACE_SECONDS, remaining), self._look_at_body)

    def _give_up(self) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # no response has begun
            self.transport.write(_TOO_SLOW)
        self.transport.close()
        self._watch()

    def abort(self) -> None:
        """Close the connection at once; the system drops data that was sent but not read, too."""
        connected: socket.socket = self.transport.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()

    def _start_timer(self, seconds: float, do: Callable[[], None]) -> None:
        self._timer = self.loop.call_later(seconds, do)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- making room -----------------------------------------------------------------------------------------------

    def _makes_room(self) -> bool:
        """Return whether another connection was closed for this one; requests that are being handled never are."""
        now = time.monotonic()
        others = (other for other in self.connections if isinstance(other, PatientProtocol) and other is not self)
        ranked = ((rank, other._since, other) for other in others if (rank := other._rank(now)) is not None)
        _, _, other = min(ranked, key=lambda candidate: candidate[:2], default=(0, 0, None))
        if other is not None:
            other.abort()
            self.connections.discard(other)
        return other is not None

    def _rank(self, now: float) -> int | None:
        """Return the rank in which it gives way to another, from 0; None if it does not."""
        if self._stage is _Stage.ANSWER:
            return None
        if self._stage is _Stage.KEPT:
            return 1
        if self._stage is _Stage.BODY:
            return 3
        return 0 if now - self._since > LATE_SECONDS else 2


class StrictFraming:
    """Middleware that refuses a body with two lengths, as a proxy may have used the other (RFC 9112, section 6.1)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        names = {name for name, _ in scope.get("headers", ())}
        if {b"content-length", b"transfer-encoding"} <= names:
            message = "a request must not have both a Content-Length and a Transfer-Encoding"
            await Problem(400, message, headers={"Connection": "close"}).response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class LastAnswers:
    """Middleware that closes each connection after its response while the process stops."""

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
