"""HTTP server for ``/live`` and ``/ready`` of a worker, which needs no further package."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus

import temporalio.client
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
from temporalio.service import RPCError

from .listening import listener, url_of

Check = Callable[[], Awaitable[str | None]]
"""Returns the problem, or None."""

MAX_CONNECTIONS = 100
"""Limit of open connections. Above it the oldest is closed, as a probe sends its request at once."""

MAX_HEAD_BYTES = 8 * 1024
REQUEST_SECONDS = 5.0

_CALL_SECONDS = 3.0
_FRESH_SECONDS = 2.0

_OK = {"status": 200, "message": "OK"}


@asynccontextmanager
async def serving_health(
    host: str, port: int, checks: Mapping[str, Check], notes: Mapping[str, Check] | None = None
) -> AsyncIterator[str]:
    """Serve ``/live`` and ``/ready`` while the context lasts.

    Args:
        host: The address to listen on.
        port: The port; 0 chooses a free one.
        checks: Named checks that must pass for the process to be ready.
        notes: Named checks that are reported too, but need not pass.

    Yields:
        The base URL.

    Raises:
        Failure: The address or port cannot be used.
    """
    listening = listener("the health server", host, port)
    server = await asyncio.start_server(_Health(checks, notes or {}).serve, sock=listening, limit=MAX_HEAD_BYTES)
    try:
        yield url_of(listening)
    finally:
        server.close()


class Connected:
    """Check that Temporal answers; its result is cached for two seconds."""

    def __init__(self, temporal: temporalio.client.Client) -> None:
        self._temporal = temporal
        self._lock = asyncio.Lock()
        self._cached: tuple[float, str | None] | None = None

    async def __call__(self) -> str | None:
        """Return the problem, or None."""
        async with self._lock:
            if self._cached is None or time.monotonic() - self._cached[0] > _FRESH_SECONDS:
                problem = await self._call()
                self._cached = (time.monotonic(), problem)
            return self._cached[1]

    async def _call(self) -> str | None:
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                await self._temporal.workflow_service.get_system_info(GetSystemInfoRequest())
        except TimeoutError:
            return f"Temporal did not answer in {_CALL_SECONDS:g} seconds"
        except RPCError as err:
            return f"Temporal did not answer: {err.message}"
        return None


class _Health:
    """Server of GET and HEAD requests, one per connection."""

    def __init__(self, checks: Mapping[str, Check], notes: Mapping[str, Check]) -> None:
        self._checks = checks
        self._notes = notes
        self._waiting: dict[asyncio.StreamWriter, None] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the request of a connection, and close the connection."""
        self._waiting[writer] = None
        if len(self._waiting) > MAX_CONNECTIONS:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.transport.abort()
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answered(head))
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, ConnectionError):
            pass  # the client has gone, or does not speak HTTP
        finally:
            self._waiting.pop(writer, None)
            _close(writer)

    async def _answered(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD"):
            answer: dict[str, object] = {"status": 405, "error": "only GET and HEAD are supported"}
        elif path == b"/live":
            answer = dict(_OK)
        elif path == b"/ready":
            answer = await self._readiness()
        else:
            answer = {"status": 404, "error": "the paths are /live and /ready"}
        return _response(answer, has_body=method != b"HEAD")

    async def _readiness(self) -> dict[str, object]:
        required = {name: await check() for name, check in self._checks.items()}
        noted = {name: await note() for name, note in self._notes.items()}
        checks = {name: problem or "ok" for name, problem in (required | noted).items()}
        for name, problem in required.items():
            if problem is not None:
                return {"status": 503, "error": f"not {name}: {problem}", "checks": checks}
        return {**_OK, "checks": checks}


def _close(writer: asyncio.StreamWriter) -> None:
    """Close a connection; abort it if its peer does not read the response in time."""
    writer.close()
    if writer.transport.get_write_buffer_size():
        asyncio.get_running_loop().call_later(REQUEST_SECONDS, writer.transport.abort)


def _response(answer: Mapping[str, object], *, has_body: bool) -> bytes:
    status = HTTPStatus(int(str(answer["status"])))
    body = json.dumps(answer).encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body if has_body else b"")
