"""A gateway in the tests' process, on a port of its own, and a client that speaks HTTP with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import temporalio.client
from starlette.types import Receive, Scope, Send

import steporal
from steporal import event_trigger
from steporal_workers.gateway.app import create_app
from steporal_workers.gateway.keys import Keys
from steporal_workers.gateway.server import serving

HOST = "127.0.0.1"


@asynccontextmanager
async def gateway_of(client: steporal.Client, keys: Keys | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """The gateway of a connected client; any key opens it by default."""
    app = create_app(client, keys or Keys.any())
    async with serving(app, HOST, 0) as url, httpx.AsyncClient(base_url=url, timeout=30) as http:
        yield http


def greeting(app: steporal.Client) -> tuple[str, str]:
    """Define a workflow that returns its event's data; returns its id, and the event's name."""
    workflow_id, name = f"greet {app.id}", f"{app.id}.came"

    @app.workflow(id=workflow_id, triggers=[event_trigger(name)])
    async def greet(ctx: steporal.Context[Any], step: steporal.Step) -> object:
        return ctx.input.data

    return workflow_id, name


async def count(temporal: temporalio.client.Client, workflow_id: str) -> int:
    """How many runs of a workflow there are, as Temporal's index knows."""
    return (await temporal.count_workflows(f"WorkflowType = '{workflow_id}'")).count


async def until_started(temporal: temporalio.client.Client, workflow_id: str, runs: int) -> None:
    """Wait until Temporal's index knows so many runs of a workflow."""
    async with asyncio.timeout(60):
        while await count(temporal, workflow_id) < runs:
            await asyncio.sleep(0.05)


class Forgetful:
    """The application, but the answers to the first requests are lost on their way, after the work is done."""

    def __init__(self, app: Any, losses: int) -> None:
        self._app = app
        self.lost = 0
        self._losses = losses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.lost == self._losses:
            await self._app(scope, receive, send)
            return
        self.lost += 1

        async def lose(message: object) -> None:
            pass

        await self._app(scope, receive, lose)
        await send({"type": "http.response.start", "status": 502, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


class Wire:
    """A wire to a server that can be cut, and mended."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._streams: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._broken = False
        self.address = ""

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._connected, HOST, 0)
        self.address = f"{HOST}:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self.cut()
        self._server.close()

    def cut(self) -> None:
        self._broken = True
        for stream in self._streams:
            stream.close()

    def mend(self) -> None:
        self._broken = False

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._broken:
            writer.close()
            return
        to_server = await asyncio.open_connection(*self._target)
        self._streams |= {writer, to_server[1]}
        await asyncio.gather(self._carry(reader, to_server[1]), self._carry(to_server[0], writer))
        self._streams -= {writer, to_server[1]}

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(16_384):
                writer.write(data)
                await writer.drain()
        writer.close()
