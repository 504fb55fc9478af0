"""The SDK's runtime, of which each process has one: where its core logs to, and who receives its metrics."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from .listening import cannot_listen
from .logs import core_logging
from .problems import Mistake

if TYPE_CHECKING:
    from temporalio.runtime import OpenTelemetryConfig, PrometheusConfig, Runtime

DEFAULT_HOST = "127.0.0.1"

_EXPORTED_EVERY = timedelta(seconds=10)
_OTLP_HTTP_PATH = "/v1/metrics"

_runtime: Runtime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsOptions:
    """Receivers of a process's metrics.

    Attributes:
        host: The address on which Prometheus scrapes them.
        port: The port; 0 turns scraping off.
        otlp_url: The OpenTelemetry collector that receives them.
    """

    host: str = DEFAULT_HOST
    port: int = 0
    otlp_url: str | None = None

    @classmethod
    def of(cls, options: dict[str, Any]) -> MetricsOptions:
        """Take the metrics options out of a command's options."""
        return cls(
            host=options.pop("metrics_host"), port=options.pop("metrics_port"), otlp_url=options.pop("metrics_otlp_url")
        )

    @property
    def are_on(self) -> bool:
        """True if metrics have a receiver."""
        return bool(self.port or self.otlp_url)

    def config(self) -> PrometheusConfig | OpenTelemetryConfig | None:
        """Return the options for Temporal's SDK.

        Raises:
            Mistake: The options conflict.
        """
        if not self.are_on:
            return None
        if self.port and self.otlp_url:
            raise Mistake(
                f"both --metrics-port {self.port} and --metrics-otlp-url are set, but the SDK has one exporter of "
                "metrics; set one of them"
            )
        from temporalio.runtime import OpenTelemetryConfig, PrometheusConfig

        from steporal.metrics import buckets

        if self.otlp_url:
            return OpenTelemetryConfig(
                url=self.otlp_url,
                http=urlsplit(self.otlp_url).path.endswith(_OTLP_HTTP_PATH),
                metric_periodicity=_EXPORTED_EVERY,
                durations_as_seconds=True,
                histogram_bucket_overrides=buckets(),
            )
        return PrometheusConfig(
            bind_address=_numeric(self.host, self.port),
            counters_total_suffix=True,
            unit_suffix=True,
            durations_as_seconds=True,
            histogram_bucket_overrides=buckets(),
        )


def set_up_runtime(*, is_quiet: bool = True, metrics: MetricsOptions | None = None) -> None:
    """Create the runtime of this process; only the first call has an effect.

    Call this before the process connects to Temporal.

    Args:
        is_quiet: Leave out of the log what the worker logs itself.
        metrics: The receivers of the metrics; None for none.

    Raises:
        Mistake: The options conflict, or cannot be used.
        Failure: The port is in use.
    """
    global _runtime
    if _runtime is not None:
        return
    from temporalio.runtime import Runtime, TelemetryConfig

    metrics = metrics or MetricsOptions()
    telemetry = TelemetryConfig(
        logging=core_logging(is_quiet=is_quiet), metrics=metrics.config(), attach_service_name=bool(metrics.otlp_url)
    )
    try:
        _runtime = Runtime(telemetry=telemetry)
    except ValueError as err:
        if metrics.port:
            raise cannot_listen("the metrics server", metrics.host, metrics.port, _reason(err)) from None
        raise Mistake(f"--metrics-otlp-url {metrics.otlp_url!r} cannot be used: {err}") from None
    Runtime.set_default(_runtime, error_if_already_set=False)


def _numeric(host: str, port: int) -> str:
    """Return an address in the form that the SDK's core takes, which does not resolve names."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as err:
        raise Mistake(f"--metrics-host {host!r} is not an address: {err.strerror or err}") from None
    return f"[{address[0]}]:{port}" if family == socket.AF_INET6 else f"{address[0]}:{port}"


def _reason(error: ValueError) -> str:
    """Return the cause from an error message of the SDK's core."""
    return str(error).removeprefix("Failed starting Prometheus exporter: ").partition(" (os error")[0]


def otlp_url(value: str) -> str:
    """Check a collector's URL; the type of an option."""
    try:
        parts = urlsplit(value)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        raise click.BadParameter(
            f"{value!r} is not the URL of a collector; use one such as http://localhost:4317, or "
            f"http://localhost:4318{_OTLP_HTTP_PATH} for OTLP over HTTP"
        )
    return value
