"""A load balancer: asks gateways whether they are ready, and sends requests to those that are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx

from tests.chaos.effects import clock

PROBE_SECONDS = 0.4
"""How often it asks; less than the time that gateways go on after they have said that they stop."""

NO_ANSWER = 0
"""The status of a request whose connection ended without an answer."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that a gateway was given.

    Attributes:
        kind: What it was for.
        status: What it was answered, or ``NO_ANSWER``.
        began: When, by ``clock``.
        seconds: How long it took.
        gateway: Who was asked; it was ready when it was last asked for that.
        said: Of an error, what was wrong.
    """

    kind: str
    status: int
    began: float
    seconds: float
    gateway: str
    said: str = ""

    @property
    def is_error(self) -> bool:
        return self.status == NO_ANSWER or self.status >= 500


@dataclass(slots=True)
class _Gateway:
    name: str
    http: httpx.AsyncClient
    is_ready: bool = False


@dataclass(slots=True)
class Balancer:
    """Hands requests to the gateways that are ready, in turn.

    Attributes:
        asked: All requests that were handed to a gateway.
        unready: How often a gateway was taken out.
        idle_seconds: How long there was no gateway that was ready.
    """

    asked: list[Asked] = field(default_factory=list)
    unready: int = 0
    idle_seconds: float = 0.0
    _gateways: list[_Gateway] = field(default_factory=list)
    _turn: count[int] = field(default_factory=count)

    async def ask(
        self, kind: str, method: str, path: str, *, headers: Mapping[str, str] | None = None, json: Any = None
    ) -> httpx.Response | None:
        """Hand on a request, with connections that are kept; None if it was not answered.

        It is sent once: whoever asks decides whether it may be sent again. Where no gateway is ready, it waits for one.
        """
        gateway = await self._next()
        began, answer, status, said = clock(), None, NO_ANSWER, ""
        try:
            answer = await gateway.http.request(method, path, headers=headers, json=json)
            status, said = answer.status_code, answer.text[:300] if answer.is_error else ""
        except httpx.TransportError as err:
            said = f"{type(err).__name__}: {err}"
        self.asked.append(Asked(kind, status, began, clock() - began, gateway.name, said))
        return answer

    async def _next(self) -> _Gateway:
        began = clock()
        while not (ready := [gateway for gateway in self._gateways if gateway.is_ready]):
            await asyncio.sleep(0.02)
        self.idle_seconds = max(self.idle_seconds, clock() - began)
        return ready[next(self._turn) % len(ready)]

    async def _probe(self, gateway: _Gateway) -> None:
        async with httpx.AsyncClient(base_url=gateway.http.base_url, timeout=4) as http:
            while True:
                is_ready = False
                with suppress(httpx.TransportError):
                    is_ready = (await http.get("/ready")).status_code == 200
                self.unready += gateway.is_ready and not is_ready
                gateway.is_ready = is_ready
                await asyncio.sleep(PROBE_SECONDS)


@asynccontextmanager
async def balancing(urls: Mapping[str, str], api_key: str) -> AsyncIterator[Balancer]:
    """Balance between gateways while the context lasts.

    Args:
        urls: Where they are, by name.
        api_key: What opens them.
    """
    balancer = Balancer()
    headers = {"authorization": f"Bearer {api_key}"}
    balancer._gateways = [
        _Gateway(name, httpx.AsyncClient(base_url=url, timeout=60, headers=headers)) for name, url in urls.items()
    ]
    probes = [asyncio.create_task(balancer._probe(gateway)) for gateway in balancer._gateways]
    try:
        yield balancer
    finally:
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
        for gateway in balancer._gateways:
            await gateway.http.aclose()
