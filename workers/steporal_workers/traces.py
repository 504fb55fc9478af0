"""Export of traces by OpenTelemetry, which is imported only if traces are on."""

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
"""Time that a process that ends takes at most to export its last spans."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_EXPORTER = "OTEL_TRACES_EXPORTER"

_HTTP = "opentelemetry.exporter.otlp.proto.http"
_GRPC = "opentelemetry.exporter.otlp.proto.grpc"


def exporter_and_source(setting: str | None, variables: Mapping[str, str] = os.environ) -> tuple[Exporter, str]:
    """Return where spans go, and the source of that choice: the setting, or else OpenTelemetry's variables.

    ``OTEL_SDK_DISABLED`` takes precedence over the setting, as it turns off all of OpenTelemetry.

    Raises:
        Mistake: A variable is not valid.
    """
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return "none", "OTEL_SDK_DISABLED"
    if setting is not None:
        return _known(setting), "--traces or STEPORAL_TRACES"
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


def exporter_of(setting: str | None) -> Exporter:
    """Return where spans go, and check that the packages for it are installed.

    Args:
        setting: The value of the setting.

    Raises:
        Mistake: The configuration is not valid, or a package is missing.
    """
    exporter, source = exporter_and_source(setting)
    if exporter != "none":
        _check_installed(exporter, source)
    if exporter == "otlp" and not _is_grpc():
        _check_endpoints()
    return exporter


@contextmanager
def exporting(exporter: Exporter, service: str) -> Iterator[Sequence[temporalio.client.Plugin]]:
    """Export spans while the context lasts; recorded spans are exported before it ends.

    Args:
        exporter: The destination.
        service: The service's name, unless OpenTelemetry's variables set another.

    Yields:
        The plugins for Temporal's client.

    Raises:
        Mistake: The app has a tracer provider that cannot be used.
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
    if isinstance(provider, ReplaySafeTracerProvider):  # the app's own provider, with exporters of its choice
        try:
            yield [OpenTelemetryPlugin()]
        finally:
            _flush(provider)
        return
    if not isinstance(provider, ProxyTracerProvider):
        kind = type(provider)
        raise Mistake(
            f"traces are on, but the app has set a tracer provider, {kind.__module__}.{kind.__qualname__}, that is not "
            "safe for replays of runs; leave the provider to Steporal, create it with "
            "temporalio.contrib.opentelemetry.create_tracer_provider, or set --traces none"
        )
    provider = create_tracer_provider(resource=_resource(service), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter(exporter)))
    set_tracer_provider(provider)
    try:
        yield [OpenTelemetryPlugin()]
    finally:
        _flush(provider)


def _check_installed(exporter: Exporter, source: str) -> None:
    packages = ["opentelemetry.sdk", _HTTP] if exporter == "otlp" and not _is_grpc() else ["opentelemetry.sdk"]
    for package in packages:
        if not _is_installed(package):
            raise Mistake(
                f"traces are on ({source}), and {package!r} is not installed: pip install 'steporal[otel]', "
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
    """Return OpenTelemetry's variable for the protocol, and its value."""
    variable = next((variable for variable in _PROTOCOLS if os.environ.get(variable)), _PROTOCOLS[-1])
    return variable, os.environ.get(variable, "") or "http/protobuf"


def _is_grpc() -> bool:
    variable, protocol = _protocol()
    if protocol not in ("grpc", "http/protobuf"):
        raise Mistake(f"{variable} is {protocol!r}; it takes http/protobuf or grpc")
    return protocol == "grpc"


def _resource(service: str) -> Resource:
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    resource = Resource.create()
    is_named = not str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service")
    return resource if is_named else resource.merge(Resource({SERVICE_NAME: service}))


def _exporter(exporter: Exporter) -> SpanExporter:
    if exporter == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stderr)  # standard output is for data
    if _is_grpc():
        return import_module(f"{_GRPC}.trace_exporter").OTLPSpanExporter()  # type: ignore[no-any-return]
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def _flush(provider: object) -> None:
    """Export the remaining spans. A collector that does not answer does not keep the process from ending."""
    flushing = threading.Thread(target=provider.shutdown, daemon=True)  # type: ignore[attr-defined]
    flushing.start()
    flushing.join(FLUSH_SECONDS)
    if flushing.is_alive():
        logger.warning(
            "the last spans could not be sent within %g s, and are lost; check that the collector answers",
            FLUSH_SECONDS,
        )
