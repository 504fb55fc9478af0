"""Traces of requests: each request has a span, which continues the trace of its ``traceparent``."""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steporal.observability.tracing.spans import fail, span, w3c

from .metering import METHODS, paths_of

_PROBES = ("/health", "/live", "/ready")

_MAX_STATE_LENGTH = 512
"""Limit of ``tracestate``; W3C requires at least this length. The value is part of each event."""


class Traced:
    """Middleware that gives each request a span, except probes of the gateway's health.

    Args:
        app: The next application.
        routes: The routes of the application; a span has the route's path, which contains neither ids nor keys.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._paths = paths_of(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request in its span."""
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        attributes = {
            "http.request.method": method,
            "url.scheme": scope["scheme"],
            "network.protocol.version": scope["http_version"],
        }
        name = "HTTP" if method == "_OTHER" else method
        with span(name, SpanKind.SERVER, attributes, _parent(scope)) as current:

            async def answer(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _answered(current, message["status"])
                await send(message)

            try:
                await self._app(scope, receive, answer)
            finally:
                route = self._paths.get(id(scope.get("route")))
                if route is not None:
                    current.update_name(f"{name} {route}")
                    current.set_attribute("http.route", route)


def _parent(scope: Scope) -> Context:
    return w3c.extract(
        {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name == b"traceparent" or (name == b"tracestate" and len(value) <= _MAX_STATE_LENGTH)
        },
        Context(),
    )


def _answered(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        fail(span, str(status))
