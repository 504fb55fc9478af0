"""Requests in traces: each has a span, which goes on with the trace of its ``traceparent``."""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steporal.observability.tracing.spans import fail, span, w3c

from .metering import METHODS, paths_of

_PROBES = ("/health", "/live", "/ready")

_LONGEST_STATE = 512
"""Of ``tracestate``: what W3C asks for at least. It goes along with each event."""


class Traced:
    """Gives each request a span, but those that ask for the gateway's health.

    Args:
        app: What answers the requests.
        routes: The application's; a span has the route's path, which has no ids in it and no keys.
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
            if name == b"traceparent" or (name == b"tracestate" and len(value) <= _LONGEST_STATE)
        },
        Context(),
    )


def _answered(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        fail(span, str(status))
