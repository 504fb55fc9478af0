"""An HTTP server on loopback that remembers what it was asked, and answers by script."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def params(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query)

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """An answer; without a status, the connection is closed instead.

    Attributes:
        until: What to wait for before it is sent.
        endless: Whether the body is repeated until the client hangs up.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    until: asyncio.Event | None = None
    endless: bool = False


@dataclass
class HttpServer:
    """A server that runs.

    Attributes:
        url: Its address.
        asked: The requests so far.
        script: What it answers next, in order; then ``default``.
        in_flight: Requests that are being answered.
        most: The most that were in flight at once.
        sent: Bytes of bodies that it sent.
    """

    url: str = ""
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    script: list[Reply] = field(default_factory=list)
    default: Reply | Callable[[Asked], Reply] = field(default_factory=Reply)
    in_flight: int = 0
    most: int = 0
    sent: int = 0
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    def answers(self, replies: Iterable[Reply]) -> None:
        """Set the script."""
        self.script[:] = replies

    async def until_asked(self, times: int = 1) -> list[Asked]:
        """Wait for a number of requests."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.asked) >= times)
        return self.asked

    def counted(self, header: str) -> Counter[str]:
        """How often each value of a header came."""
        return Counter(asked.headers[header] for asked in self.asked)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = await _read(reader)
            if asked is not None:
                await self._answer(asked, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        async with self.arrived:
            self.asked.append(asked)
            self.arrived.notify_all()
        try:
            default = self.default(asked) if callable(self.default) else self.default
            reply = self.script.pop(0) if self.script else default
            if reply.until is not None:
                await reply.until.wait()
            if reply.status:
                await self._send(asked, reply, writer)
        finally:
            self.in_flight -= 1

    async def _send(self, asked: Asked, reply: Reply, writer: asyncio.StreamWriter) -> None:
        headers = {"connection": "close", **reply.headers}
        if not reply.endless:
            headers.setdefault("content-length", str(len(reply.body)))
        lines = [f"HTTP/1.1 {reply.status} Said", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        writer.write("\r\n".join(lines).encode())
        if asked.method == "HEAD":
            await writer.drain()
            return
        while True:
            writer.write(reply.body)
            await writer.drain()
            self.sent += len(reply.body)
            if not reply.endless:
                return


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, target, headers, body)


@asynccontextmanager
async def http_server(host: str = "127.0.0.1") -> AsyncIterator[HttpServer]:
    """Run a server on a free port."""
    served = HttpServer()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await served.serve(reader, writer)

    listening = await asyncio.start_server(serve, host, 0)
    served.port = listening.sockets[0].getsockname()[1]
    served.url = f"http://{host}:{served.port}"
    try:
        yield served
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listening.wait_closed()
