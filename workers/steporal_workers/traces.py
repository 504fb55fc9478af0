"""Traces that a process exports by OpenTelemetry, if it is asked to. OpenTelemetry is imported only then."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import click

from .logs import logger
from .problems import Mistake

if TYPE_CHECKING:
    import temporalio.client
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SpanExporter

Exporter = Literal["otlp", "console", "none"]

EXPORTER = click.Choice(("otlp", "console", "none"), case_sensitive=False)

FLUSH_SECONDS = 5.0
"""How long a process that ends tries to export what it has recorded last."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_EXPORTER = "OTEL_TRACES_EXPORTER"

_HTTP = "opentelemetry.exporter.otlp.proto.http"
_GRPC = "opentelemetry.exporter.otlp.proto.grpc"


def asked_for(given: str | None, variables: Mapping[str, str] = os.environ) -> tuple[Exporter, str]:
    """Where spans are to go, and who says so: the setting, else OpenTelemetry's own variables.

    One of these goes before the setting, as it turns off everything of OpenTelemetry's.

    Raises:
        Mistake: A variable cannot be right.
    """
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return "none", "OTEL_SDK_DISABLED"
    if given is not None:
        return _known(given), "--traces or STEPORAL_TRACES"
    if name := variables.get(_EXPORTER, "").strip():
        if name.lower() not in EXPORTER.choices:
            raise Mistake(f"{_EXPORTER} is {name!r}; it takes one of {', '.join(EXPORTER.choices)}")
        return _known(name), _EXPORTER
    endpoint = next((variable for variable in _ENDPOINTS if variables.get(variable, "").strip()), None)
    return ("none", "default") if endpoint is None else ("otlp", endpoint)


def _known(name: str) -> Exporter:
    match name.lower():
        case "otlp":
            return "otlp"
        case "console":
            return "console"
    return "none"


def exporter_of(given: str | None) -> Exporter:
    """Where spans are to go, and that what this needs is installed.

    Args:
        given: The setting.

    Raises:
        Mistake: The configuration cannot be right, or a package is missing.
    """
    exporter, reason = asked_for(given)
    if exporter != "none":
        _check_installed(exporter, reason)
    if exporter == "otlp" and not _is_grpc():
        _check_endpoints()
    return exporter


@contextmanager
def exporting(exporter: Exporter, service: str) -> Iterator[Sequence[temporalio.client.Plugin]]:
    """Export spans while the context lasts; what was recorded is exported before it ends.

    Args:
        exporter: Where they go.
        service: The service's name, if OpenTelemetry's variables do not say another.

    Yields:
        The plugins that Temporal's client is to have.

    Raises:
        Mistake: The app has a tracer provider that is of no use.
    """
    if exporter == "none":
        yield []
        return
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import ProxyTracerProvider, get_tracer_provider, set_tracer_provider
    from temporalio.contrib.opentelemetry import (
        OpenTelemetryPlugin,
        ReplaySafeTracerProvider,
        create_tracer_provider,
    )

    provider = get_tracer_provider()
    if isinstance(provider, ReplaySafeTracerProvider):  # the app's own, which exports to where the app wants
        try:
            yield [OpenTelemetryPlugin()]
        finally:
            _flush(provider)
        return
    if not isinstance(provider, ProxyTracerProvider):
        kind = type(provider)
        raise Mistake(
            f"traces are on, but the app has set a tracer provider, {kind.__module__}.{kind.__qualname__}, that is not "
            "safe in runs, which are replayed; leave that to steporal, make it by "
            "temporalio.contrib.opentelemetry.create_tracer_provider, or set --traces none"
        )
    provider = create_tracer_provider(resource=_resource(service), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter(exporter)))
    set_tracer_provider(provider)
    try:
        yield [OpenTelemetryPlugin()]
    finally:
        _flush(provider)


def _check_installed(exporter: Exporter, reason: str) -> None:
    packages = ["opentelemetry.sdk", _HTTP] if exporter == "otlp" and not _is_grpc() else ["opentelemetry.sdk"]
    for package in packages:
        if not _is_installed(package):
            raise Mistake(
                f"traces are on ({reason}), and {package!r} is not installed: pip install 'steporal[otel]', "
                "or set --traces none"
            )
    if exporter == "otlp" and _is_grpc() and not _is_installed(_GRPC):
        raise Mistake(
            f"{_protocol()[0]} is 'grpc', which needs another package: "
            "pip install opentelemetry-exporter-otlp-proto-grpc, or set it to http/protobuf"
        )


def _check_endpoints() -> None:
    for variable in _ENDPOINTS:
        url = os.environ.get(variable, "").strip()
        if url and not url.startswith(("http://", "https://")):
            raise Mistake(f"{variable} is {url!r}, which is not a URL; it takes one such as http://localhost:4318")


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _protocol() -> tuple[str, str]:
    """OpenTelemetry's variable that says by which protocol, and what it says."""
    found = next((variable for variable in _PROTOCOLS if os.environ.get(variable)), _PROTOCOLS[-1])
    return found, os.environ.get(found, "") or "http/protobuf"


def _is_grpc() -> bool:
    variable, protocol = _protocol()
    if protocol not in ("grpc", "http/protobuf"):
        raise Mistake(f"{variable} is {protocol!r}; it takes http/protobuf or grpc")
    return protocol == "grpc"


def _resource(service: str) -> Resource:
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    found = Resource.create()
    is_named = not str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service")
    return found if is_named else found.merge(Resource({SERVICE_NAME: service}))


def _exporter(exporter: Exporter) -> SpanExporter:
    if exporter == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stderr)  # standard output is for data
    if _is_grpc():
        return import_module(f"{_GRPC}.trace_exporter").OTLPSpanExporter()  # type: ignore[no-any-return]
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def _flush(provider: object) -> None:
    """Export what is left. A collector that does not answer keeps no process from its end."""
    flushing = threading.Thread(target=provider.shutdown, daemon=True)  # type: ignore[attr-defined]
    flushing.start()
    flushing.join(FLUSH_SECONDS)
    if flushing.is_alive():
        logger.warning(
            "the last spans could not be sent within %g s, and are lost; check that the collector answers",
            FLUSH_SECONDS,
        )
