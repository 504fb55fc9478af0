"""The tracer provider behind Temporal's provider for workflows, which makes no spans with given times and ids."""

from __future__ import annotations

from opentelemetry.trace import TracerProvider, get_tracer_provider
from temporalio.contrib.opentelemetry import ReplaySafeTracerProvider


def provider_outside_workflows() -> TracerProvider:
    """Return the provider of the process, as code outside workflows uses it."""
    provider: TracerProvider = get_tracer_provider()
    return provider._tracer_provider if isinstance(provider, ReplaySafeTracerProvider) else provider
