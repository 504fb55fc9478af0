"""``/live`` and ``/ready`` of a worker: a small HTTP server, which needs no further package."""

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
"""Returns what is wrong, or None."""

MAX_CONNECTIONS = 100
"""More than that, and the oldest gives way: a probe sends its request at once."""

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
        host: The address on which it listens.
        port: The port; any free one with 0.
        checks: By name, what must be right for the process to be ready.
        notes: By name, what is shown beside them, and need not be right.

    Yields:
        The base URL.

    Raises:
        Failure: It cannot listen there.
    """
    listening = listener("the health server", host, port)
    server = await asyncio.start_server(_Health(checks, notes or {}).serve, sock=listening, limit=MAX_HEAD_BYTES)
    try:
        yield url_of(listening)
    finally:
        server.close()


class Connected:
    """Checks that Temporal answers; what it finds is good for two seconds, however many ask."""

    def __init__(self, temporal: temporalio.client.Client) -> None:
        self._temporal = temporal
        self._asking = asyncio.Lock()
        self._found: tuple[float, str | None] | None = None

    async def __call__(self) -> str | None:
        """What is wrong, or None."""
        async with self._asking:
            if self._found is None or time.monotonic() - self._found[0] > _FRESH_SECONDS:
                problem = await self._ask()
                self._found = (time.monotonic(), problem)
            return self._found[1]

    async def _ask(self) -> str | None:
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                await self._temporal.workflow_service.get_system_info(GetSystemInfoRequest())
        except TimeoutError:
            return f"Temporal did not answer in {_CALL_SECONDS:g} seconds"
        except RPCError as err:
            return f"Temporal did not answer: {err.message}"
        return None


class _Health:
    """Answers GET and HEAD, one request for each connection."""

    def __init__(self, checks: Mapping[str, Check], notes: Mapping[str, Check]) -> None:
        self._checks = checks
        self._notes = notes
        self._waiting: dict[asyncio.StreamWriter, None] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer what comes over a connection, and close it."""
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
            pass  # whoever asked has gone, or is no client of HTTP
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
        found = {name: await check() for name, check in self._checks.items()}
        noted = {name: await note() for name, note in self._notes.items()}
        checks = {name: problem or "ok" for name, problem in (found | noted).items()}
        for name, problem in found.items():
            if problem is not None:
                return {"status": 503, "error": f"not {name}: {problem}", "checks": checks}
        return {**_OK, "checks": checks}


def _close(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and give it up where its answer is not taken."""
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
