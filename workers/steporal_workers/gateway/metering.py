"""Metrics of the gateway's requests."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator

from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from temporalio.common import MetricMeter

from steporal.metrics import GATEWAY_REQUEST_DURATION, GATEWAY_REQUESTS, OTHER

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_CONVERTOR = re.compile(r":\w+(?=})")


class Metered:
    """Middleware that counts and times requests. Its labels are known routes and methods, as clients can send any.

    Args:
        app: The next application.
        meter: The meter of the metrics.
        routes: The routes of the application.
    """

    def __init__(self, app: ASGIApp, meter: MetricMeter, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._meter = meter
        self._paths = paths_of(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and count it."""
        began, status = time.monotonic(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            self._count(scope, status, time.monotonic() - began)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = self._paths.get(id(scope.get("route")), OTHER)
        method = scope["method"] if scope["method"] in METHODS else OTHER
        GATEWAY_REQUESTS.add(self._meter, route=route, method=method, status=str(status))
        GATEWAY_REQUEST_DURATION.record(self._meter, seconds, route=route, method=method)


def paths_of(routes: Iterable[BaseRoute]) -> dict[int, str]:
    """Return the paths of an application's routes, by the ``id`` of the route in a request's scope."""
    return {id(route): path for route, path in _paths(routes)}


def _paths(routes: Iterable[BaseRoute], before: str = "") -> Iterator[tuple[BaseRoute, str]]:
    for route in routes:
        if isinstance(route, Mount):
            yield from _paths(route.routes, before + route.path)
        elif isinstance(route, Route):
            yield route, before + _CONVERTOR.sub("", route.path)
