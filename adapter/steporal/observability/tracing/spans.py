"""Names and attributes of spans. They never contain data of events, inputs or results, or messages of exceptions."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    get_current_span,
    get_tracer_provider,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from temporalio.exceptions import ApplicationError

from ...sdk.traces import provider_outside_workflows
from ...types import JSON

if TYPE_CHECKING:
    from ...events import ReceivedEvent

Attributes = dict[str, str | int]

SCOPE = "steporal"

# OpenTelemetry's semantic conventions:
ERROR_TYPE = "error.type"
_SYSTEM = "messaging.system"
_OPERATION = "messaging.operation.name"
_OPERATION_TYPE = "messaging.operation.type"
_DESTINATION = "messaging.destination.name"
_MESSAGE = "messaging.message.id"
_COUNT = "messaging.batch.message_count"

# Steporal's own:
APP = "steporal.app"
WORKFLOW = "steporal.workflow"
RUN = "steporal.run.id"
STEP = "steporal.step.id"
EVENT_ID = "steporal.event.id"
ATTEMPT = "steporal.attempt"
CANCELLED = "steporal.cancelled"
WORKFLOW_ID = "temporal.workflow_id"
RUN_ID = "temporal.run_id"

w3c: TraceContextTextMapPropagator = TraceContextTextMapPropagator()
"""Propagator of ``traceparent`` and ``tracestate``, without baggage, which may hold private data."""


def tracer() -> Tracer:
    """Return the tracer of Steporal's spans, from the provider of the process."""
    return get_tracer_provider().get_tracer(SCOPE)


@contextmanager
def span(
    name: str,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, str | int] | None = None,
    context: Context | None = None,
) -> Iterator[Span]:
    """Make a span current in this context; an exception marks the span as failed."""
    with tracer().start_as_current_span(
        name, context, kind, attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except Exception as err:
            fail(current, error_type(err))
            raise


def fail(span: Span, error: str) -> None:
    """Mark a span as failed, with the error's name only, as its message may contain data."""
    span.set_attribute(ERROR_TYPE, error)
    span.set_status(Status(StatusCode.ERROR))


def error_type(error: BaseException) -> str:
    """Return an error's name, as Temporal records it."""
    return error.type if isinstance(error, ApplicationError) and error.type else type(error).__name__


# --- events --------------------------------------------------------------------------------------------------------


def of_message(operation: str, kind: str, name: str, id: str) -> Attributes:
    """Return the attributes of an operation on an event."""
    return {
        _SYSTEM: "steporal",
        _OPERATION: operation,
        _OPERATION_TYPE: kind,
        _DESTINATION: name,
        _MESSAGE: id,
        EVENT_ID: id,
    }


@contextmanager
def send_span(events: Sequence[ReceivedEvent]) -> Iterator[None]:
    """Make the span in which events are sent: one for all events of a call."""
    names = {event.name for event in events}
    if len(events) == 1:
        attributes = of_message("send", "send", events[0].name, events[0].id)
    else:
        attributes = {_SYSTEM: "steporal", _OPERATION: "send", _OPERATION_TYPE: "send", _COUNT: len(events)}
        if len(names) == 1:
            attributes[_DESTINATION] = events[0].name
    with span(f"send {events[0].name}" if len(names) == 1 else "send events", SpanKind.PRODUCER, attributes):
        yield


@contextmanager
def start_span(workflow: str, workflow_id: str) -> Iterator[None]:
    """Make the span in which a run is started directly."""
    with span(f"start {workflow}", SpanKind.PRODUCER, {WORKFLOW: workflow, WORKFLOW_ID: workflow_id}):
        yield


@contextmanager
def signal_span(signal: str) -> Iterator[None]:
    """Make the span in which a signal is sent; its name omits the signal's, which differs for each run."""
    with span("send signal", SpanKind.PRODUCER, {"steporal.signal": signal}):
        yield


def current_carrier() -> dict[str, str]:
    """Return the current trace as JSON; empty if there is none, or if it is not recorded."""
    carrier: dict[str, str] = {}
    if get_current_span().get_span_context().trace_flags.sampled:
        w3c.inject(carrier)
    return carrier


@contextmanager
def deliver_span(event: Mapping[str, JSON], trace: JSON, workflow_id: str, key: str) -> Iterator[None]:
    """Make the span in which an event is delivered to a run; none if the event has no trace."""
    carrier = trace if isinstance(trace, dict) else {}
    parent = w3c.extract({name: text for name, text in carrier.items() if isinstance(text, str)}, Context())
    if not get_current_span(parent).get_span_context().is_valid:
        token = attach(Context())  # the current context is the topic's, or that of another event
        try:
            yield
        finally:
            detach(token)
        return
    attributes = of_message("deliver", "process", event["name"], event["id"])
    with span(
        f"deliver {event['name']}", SpanKind.PRODUCER, {**attributes, WORKFLOW_ID: workflow_id, STEP: key}, parent
    ):
        yield


# --- spans with known ids ------------------------------------------------------------------------------------------


class _FixedIds(IdGenerator):
    """Generator that returns the ids of a given span context."""

    def __init__(self, context: SpanContext) -> None:
        self._context = context

    def generate_span_id(self) -> int:
        return self._context.span_id

    def generate_trace_id(self) -> int:
        return self._context.trace_id


def _sdk_tracer() -> SdkTracer | None:
    tracer_ = provider_outside_workflows().get_tracer(SCOPE)
    return tracer_ if isinstance(tracer_, SdkTracer) else None  # it is not with OTEL_SDK_DISABLED


def record(
    name: str,
    context: SpanContext,
    parent: Context,
    *,
    start: int,
    end: int,
    kind: SpanKind,
    attributes: Mapping[str, Any],
    link: SpanContext | None = None,
    error: str | None = None,
) -> None:
    """Record a span that has ended, with ids that other spans already use.

    Temporal's tracer draws the ids of spans in a workflow from the workflow's random numbers. But a run's span must
    have the same id in each execution of the run.
    """
    sdk_tracer = _sdk_tracer()
    if sdk_tracer is None:
        return
    mine = copy.copy(sdk_tracer)
    mine.id_generator = _FixedIds(context)
    links = [] if link is None else [Link(link)]
    recorded = mine.start_span(name, parent, kind, attributes, links, start_time=start)
    if error is not None:
        fail(recorded, error)
    recorded.end(end)


def flags_of(name: str, trace_id: int, parent: Context, kind: SpanKind) -> TraceFlags:
    """Return whether a span will be recorded; OpenTelemetry's samplers use the trace's id and the parent's flags."""
    sdk_tracer, above = _sdk_tracer(), get_current_span(parent).get_span_context()
    if sdk_tracer is None:
        return above.trace_flags
    is_sampled = sdk_tracer.sampler.should_sample(parent, trace_id, name, kind).decision is Decision.RECORD_AND_SAMPLE
    others = above.trace_flags & ~TraceFlags.SAMPLED
    return TraceFlags(others | (TraceFlags.SAMPLED if is_sampled else 0))
