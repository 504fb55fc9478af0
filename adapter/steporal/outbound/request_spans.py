"""Spans of HTTP requests, which pass on the trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

from opentelemetry.trace import Span, SpanKind

from ..observability.tracing.spans import Attributes, fail, span, w3c
from .exchange import Answer, Request

_METHODS = ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE")
_PORTS = {"http": 80, "https": 443}
_STATUS = "http.response.status_code"


@contextmanager
def request_span(request: Request) -> Iterator[tuple[Span, Request]]:
    """Yield the span of a request, and the request with ``traceparent``; the URL's path and query may be secret."""
    parts = urlsplit(request.url)
    method = request.method if request.method in _METHODS else "_OTHER"
    attributes: Attributes = {"http.request.method": method, "server.address": parts.hostname or ""}
    if port := parts.port or _PORTS.get(parts.scheme):
        attributes["server.port"] = port
    with span(method if method != "_OTHER" else "HTTP", SpanKind.CLIENT, attributes) as current:
        carried: dict[str, str] = {}
        w3c.inject(carried)
        names = {name.lower() for name, _ in request.headers}
        if "traceparent" not in names:
            request = replace(request, headers=[*request.headers, *carried.items()])
        yield current, request


def answered(span: Span, answer: Answer) -> None:
    """Record the response on a request's span."""
    span.set_attribute(_STATUS, answer.status)
    if answer.status >= 400:
        fail(span, str(answer.status))
