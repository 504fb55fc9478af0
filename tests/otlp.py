"""A collector of OpenTelemetry's in the tests' process: takes spans as OTLP over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from http_server import Asked, HttpServer, Reply, http_server
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue


@dataclass(frozen=True, eq=False)
class Received:
    """A span."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    state: str
    start: int
    end: int
    attributes: dict[str, Any]
    links: list[tuple[str, str]]
    failed: bool

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / 1e9


@dataclass
class Collector:
    """What has come.

    Attributes:
        spans: All spans, in the order in which they came.
        bodies: The requests as they were.
    """

    server: HttpServer
    spans: list[Received] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def variables(self) -> dict[str, str]:
        """OpenTelemetry's variables for a process that is to send here, at once."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.server.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}

    def take(self, asked: Asked) -> Reply:
        assert asked.path == "/v1/traces"
        self.bodies.append(asked.body)
        for of_resource in ExportTraceServiceRequest.FromString(asked.body).resource_spans:
            service = _values(of_resource.resource.attributes)["service.name"]
            for scope in of_resource.scope_spans:
                self.spans += [_received(service, span) for span in scope.spans]
        return Reply(headers={"content-type": "application/x-protobuf"})

    def named(self, name: str) -> list[Received]:
        """The spans of this name."""
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Received:
        """The only span of this name."""
        found = self.named(name)
        assert len(found) == 1, (name, found)
        return found[0]

    async def until(self, name: str, times: int = 1) -> list[Received]:
        """Wait for so many spans of a name."""
        return await self.until_true(lambda: len(self.named(name)) >= times and self.named(name), name)

    async def until_true(self, condition: Callable[[], Any], what: str) -> Any:
        try:
            async with asyncio.timeout(30):
                while not (found := condition()):
                    await asyncio.sleep(0.02)
                return found
        except TimeoutError:
            pytest.fail(f"{what!r} has not come: {[span.name for span in self.spans]}")


def _received(service: str, span: Any) -> Received:
    return Received(
        service,
        span.name,
        ["", "internal", "server", "client", "producer", "consumer"][span.kind],
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.trace_state,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _values(span.attributes),
        [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        span.status.code == 2,
    )


def _values(attributes: list[KeyValue]) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """Run a collector on a free port."""
    async with http_server() as server:
        found = Collector(server)
        server.default = found.take
        yield found
