"""Traces by OpenTelemetry, for Temporal clients that have Temporal's ``OpenTelemetryPlugin``.

That plugin hands the context of a trace on, in Temporal's headers: from who starts a run to the run, from there to its
steps, to signals, to the next execution. The spans are ours: one for each run, each step, each event that is sent.

This module imports nothing of OpenTelemetry; what does is imported when a client with that plugin comes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from ...types import JSON

if TYPE_CHECKING:
    import temporalio.client
    import temporalio.worker

    from ...events import ReceivedEvent

_TEMPORALS = "temporalio.contrib.opentelemetry"

TRACE = "trace"
"""The key of an event, on its way to a topic and through it, that says of which trace it is; runs never see it."""


def is_traced(temporal: temporalio.client.Client) -> bool:
    """Whether a Temporal client has Temporal's ``OpenTelemetryPlugin``."""
    return _TEMPORALS in sys.modules and has_plugin(temporal.config(active_config=True)["interceptors"])


def has_plugin(interceptors: Iterable[object]) -> bool:
    """Whether the interceptor of Temporal's ``OpenTelemetryPlugin`` is among these."""
    found = sys.modules.get(_TEMPORALS)
    return found is not None and any(isinstance(one, found.OpenTelemetryInterceptor) for one in interceptors)


def of_worker(app: str | None = None) -> temporalio.worker.Interceptor:
    """What makes the spans of a traced worker; Temporal's own interceptor must come before it.

    Args:
        app: The app's id.
    """
    from .worker import SpanInterceptor

    return SpanInterceptor(app)


def sending(temporal: temporalio.client.Client, events: Sequence[ReceivedEvent]) -> AbstractContextManager[Any]:
    """The span in which events are sent; it is the parent of the runs that they start."""
    if not events or not is_traced(temporal):
        return nullcontext()
    from .spans import send_span

    return send_span(events)


def starting(temporal: temporalio.client.Client, workflow: str, workflow_id: str) -> AbstractContextManager[Any]:
    """The span in which a run is started directly."""
    if not is_traced(temporal):
        return nullcontext()
    from .spans import start_span

    return start_span(workflow, workflow_id)


def signalling(temporal: temporalio.client.Client, signal: str) -> AbstractContextManager[Any]:
    """The span in which a signal is sent."""
    if not is_traced(temporal):
        return nullcontext()
    from .spans import signal_span

    return signal_span(signal)


def with_trace(temporal: temporalio.client.Client, events: Sequence[dict[str, JSON]]) -> Sequence[dict[str, JSON]]:
    """Events with the current trace. One call tells a topic of several senders' events, so each event has its own."""
    if not is_traced(temporal):
        return events
    from .spans import current_carrier

    carrier = current_carrier()
    return [{**event, TRACE: carrier} for event in events] if carrier else events


def delivering(
    temporal: temporalio.client.Client, event: Mapping[str, JSON], trace: JSON, workflow_id: str, key: str
) -> AbstractContextManager[Any]:
    """The span, of an event's own trace, in which a topic tells a run of it."""
    if not is_traced(temporal):
        return nullcontext()
    from .spans import deliver_span

    return deliver_span(event, trace, workflow_id, key)
