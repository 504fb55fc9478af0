"""HTTP server of the gateway."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp

from ..listening import listener, url_of
from ..logs import Seldom
from .limits import IDLE_SECONDS, MAX_HEAD_BYTES, PatientProtocol

DRAIN_SECONDS = 30
"""Limit of the time in which pending requests are answered when the process stops."""

_LOGGERS = ("uvicorn.error", "steporal.gateway")
_seldom = Seldom()


class _Server(uvicorn.Server):
    """Uvicorn without its own signal handlers: the command handles the signals."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@asynccontextmanager
async def serving(app: ASGIApp, host: str, port: int) -> AsyncIterator[str]:
    """Serve an application while the context lasts; pending requests are answered before it ends.

    Args:
        app: The application.
        host: The address to listen on.
        port: The port; 0 chooses a free one.

    Yields:
        The base URL.

    Raises:
        Failure: The address or port cannot be used.
    """
    listening = listener("the gateway", host, port)
    async with serving_on(app, listening):
        yield url_of(listening)


@asynccontextmanager
async def serving_on(app: ASGIApp, listening: socket.socket) -> AsyncIterator[None]:
    """Serve an application on a socket that already listens, and is closed at the end."""
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,  # paths contain event keys
        server_header=False,
        lifespan="off",
        ws="none",
        http=PatientProtocol,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    server = _Server(config)
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_seldom)
    running = asyncio.create_task(server.serve(sockets=[listening]))
    started = asyncio.create_task(server.listening.wait())
    await asyncio.wait([running, started], return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    try:
        yield
    finally:
        server.should_exit = True
        await running
