"""OpenTelemetry traces for Temporal clients that have Temporal's ``OpenTelemetryPlugin``.

That plugin passes the trace context on in Temporal's headers: from the starter to the run, and from the run to its
steps, to signals, and to the next execution. The spans are Steporal's own: one for each run, each step, and each sent
event.

This module does not import OpenTelemetry; the modules that do are imported when a client has that plugin.
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
"""Key of an event for its trace, on its way to and through a topic; runs never see it."""


def is_traced(temporal: temporalio.client.Client) -> bool:
    """Return whether a Temporal client has Temporal's ``OpenTelemetryPlugin``."""
    return _TEMPORALS in sys.modules and has_plugin(temporal.config(active_config=True)["interceptors"])


def has_plugin(interceptors: Iterable[object]) -> bool:
    """Return whether the interceptor of Temporal's ``OpenTelemetryPlugin`` is among the interceptors."""
    module = sys.modules.get(_TEMPORALS)
    return module is not None and any(isinstance(one, module.OpenTelemetryInterceptor) for one in interceptors)


def of_worker(app: str | None = None) -> temporalio.worker.Interceptor:
    """Return the interceptor that makes the spans of a traced worker; Temporal's own must come before it.

    Args:
        app: The app's id.
    """
    from .worker import SpanInterceptor

    return SpanInterceptor(app)


def sending(temporal: temporalio.client.Client, events: Sequence[ReceivedEvent]) -> AbstractContextManager[Any]:
    """Return the span in which events are sent, which is the parent of the runs that they start."""
    if not events or not is_traced(temporal):
        return nullcontext()
    from .spans import send_span

    return send_span(events)


def starting(temporal: temporalio.client.Client, workflow: str, workflow_id: str) -> AbstractContextManager[Any]:
    """Return the span in which a run is started directly."""
    if not is_traced(temporal):
        return nullcontext()
    from .spans import start_span

    return start_span(workflow, workflow_id)


def signalling(temporal: temporalio.client.Client, signal: str) -> AbstractContextManager[Any]:
    """Return the span in which a signal is sent."""
    if not is_traced(temporal):
        return nullcontext()
    from .spans import signal_span

    return signal_span(signal)


def with_trace(temporal: temporalio.client.Client, events: Sequence[dict[str, JSON]]) -> Sequence[dict[str, JSON]]:
    """Return events with the current trace. One call may send events of several senders, so each event has its own."""
    if not is_traced(temporal):
        return events
    from .spans import current_carrier

    carrier = current_carrier()
    return [{**event, TRACE: carrier} for event in events] if carrier else events


def delivering(
    temporal: temporalio.client.Client, event: Mapping[str, JSON], trace: JSON, workflow_id: str, key: str
) -> AbstractContextManager[Any]:
    """Return the span, in the event's trace, in which a topic delivers an event to a run."""
    if not is_traced(temporal):
        return nullcontext()
    from .spans import deliver_span

    return deliver_span(event, trace, workflow_id, key)
