"""A gateway in the tests' process, on a port of its own, and a client that speaks HTTP with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

import steporal
from steporal_workers.gateway.app import create_app
from steporal_workers.gateway.keys import Keys
from steporal_workers.gateway.server import serving


@asynccontextmanager
async def gateway_of(client: steporal.Client, keys: Keys | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """The gateway of a connected client; any key opens it by default."""
    app = create_app(client, keys or Keys.any())
    async with serving(app, "127.0.0.1", 0) as url, httpx.AsyncClient(base_url=url, timeout=30) as http:
        yield http


async def until_ended(http: httpx.AsyncClient, run: str) -> dict[str, Any]:
    """The run, when it has ended."""
    while True:
        found = (await http.get(f"/v1/runs/{run}")).json()
        if found["data"]["ended_at"]:
            return dict(found["data"])
