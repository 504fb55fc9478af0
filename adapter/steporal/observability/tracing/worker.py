"""Spans of a worker: of runs, and of steps.

A run has one span, from its start to its end, whatever the number of its executions and replays. The span's id is
derived from the run's id, so that steps can name it as their parent long before it is recorded, which is when the run
ends. The same applies to steps that the run itself performs, such as waits. Steps that are activities have a span for
each attempt, which is made where the attempt runs.

Commands contain nothing of this but headers, which Temporal does not compare when it replays a run.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, NoReturn

import temporalio.worker
from opentelemetry.context import Context, attach, get_current
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    get_current_span,
    set_span_in_context,
)
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.converter import PayloadConverter
from temporalio.exceptions import FailureError, is_cancelled_exception

from ...errors import InvalidInputError
from ...values.converter import from_raw
from ...wire.memo import Outcome
from ...wire.names import (
    BEGUN_HEADER,
    DELIVER,
    FETCH,
    POST_EVENT,
    RUN_STEP,
    SEND_EVENT,
    SEND_SIGNAL,
    SIGNALLED,
    STEP_HEADER,
)
from ...wire.start import Origin, origin_of
from ...wire.workflow_ids import run_name
from ...workflow_kinds import kind_of
from ..after_task import after_task
from ..run_trace import TRACE, Perform
from .spans import (
    APP,
    ATTEMPT,
    CANCELLED,
    EVENT_ID,
    RUN,
    RUN_ID,
    STEP,
    WORKFLOW,
    WORKFLOW_ID,
    error_type,
    flags_of,
    of_message,
    record,
    span,
)

_PERFORMERS = (RUN_STEP, FETCH, SEND_EVENT, SEND_SIGNAL)

_LATEST = 2**63
"""Limit of times in nanoseconds since the epoch: OpenTelemetry sends times in 64 bits."""

_LONGEST_STEP = 1_000
"""Limit of a step's key in characters; real keys are shorter."""

_step: ContextVar[str | None] = ContextVar("steporal_step", default=None)

_json = PayloadConverter.default


class SpanInterceptor(temporalio.worker.Interceptor):
    """Makes spans of runs and steps.

    Args:
        app: The app's id.
    """

    def __init__(self, app: str | None) -> None:
        self._app = app

    def intercept_activity(
        self, next: temporalio.worker.ActivityInboundInterceptor
    ) -> temporalio.worker.ActivityInboundInterceptor:
        """See base class."""
        return _TracedActivity(next, self._app)

    def workflow_interceptor_class(
        self, input: temporalio.worker.WorkflowInterceptorClassInput
    ) -> type[temporalio.worker.WorkflowInboundInterceptor]:
        """See base class."""
        return _TracedWorkflow


# --- steps that are activities -------------------------------------------------------------------------------------


class _TracedActivity(temporalio.worker.ActivityInboundInterceptor):
    def __init__(self, next: temporalio.worker.ActivityInboundInterceptor, app: str | None) -> None:
        super().__init__(next)
        self._app = app

    async def execute_activity(self, input: temporalio.worker.ExecuteActivityInput) -> Any:
        info = activity.info()
        step = _step_in(input.headers.get(STEP_HEADER))
        if step is not None and info.activity_type in _PERFORMERS:
            name, attributes = f"step {step}", {STEP: step}
        elif info.activity_type == POST_EVENT:
            name, attributes = f"post {info.workflow_type}", {}
        else:
            return await super().execute_activity(input)
        kind, workflow_id = info.workflow_type or "", info.workflow_id or ""
        run = run_name(workflow_id)
        attributes |= {WORKFLOW: kind, WORKFLOW_ID: workflow_id, RUN_ID: info.workflow_run_id or ""}
        attributes |= {APP: self._app} if self._app else {}
        attributes |= {EVENT_ID: run.event_id} if run and run.workflow == kind else {}
        with span(name, SpanKind.INTERNAL, {**attributes, ATTEMPT: info.attempt}) as current:
            try:
                return await super().execute_activity(input)
            except asyncio.CancelledError:
                current.set_attribute(CANCELLED, True)
                raise


def _step_in(payload: Payload | None) -> str | None:
    """Return the step in the header of an activity; None if the header was not written by Steporal."""
    if payload is None:
        return None
    try:
        step = _json.from_payload(payload)
    except Exception:
        return None
    return step if isinstance(step, str) and len(step) <= _LONGEST_STEP else None


# --- runs ----------------------------------------------------------------------------------------------------------


class RunTrace:
    """Trace of a run in the run itself.

    Attributes:
        parent: The context of the run's starter.
        context: The context of the run.
        begun: The start times of the steps that the run itself performs, in nanoseconds since the epoch.
        sent: The spans that signals were sent from, by event id or step.
    """

    def __init__(self, name: str, parent: Context, begun: dict[str, int], sent: dict[str, SpanContext]) -> None:
        self.name = name
        self.parent = parent
        self.begun = begun
        self.sent = sent
        self._id = workflow.info().first_execution_run_id
        above = get_current_span(parent).get_span_context()
        trace_id = above.trace_id if above.is_valid else _number(f"{self._id}\ntrace", 16)
        flags = flags_of(name, trace_id, parent, SpanKind.CONSUMER)
        self._span = SpanContext(trace_id, _number(f"{self._id}\nrun", 8), True, flags, above.trace_state)
        self.context: Context = set_span_in_context(NonRecordingSpan(self._span), parent)
        self._by_activity: set[str] = set()

    async def step(self, key: str, perform: Perform) -> Outcome:
        """See :class:`~steporal.observability.run_trace.Trace`."""
        _step.set(key)
        parent, start = get_current(), self.begun.setdefault(key, workflow.time_ns())
        try:
            outcome = await perform()
        finally:
            self.begun.pop(key, None)
        if key not in self._by_activity:
            info = workflow.info()
            attributes = {STEP: key, WORKFLOW: info.workflow_type, WORKFLOW_ID: info.workflow_id, RUN_ID: info.run_id}
            failure = None if outcome.failure is None else outcome.failure.name
            link = self._sent(key, outcome)
            self._record(f"step {key}", self.of_step(key), parent, start, SpanKind.INTERNAL, attributes, link, failure)
        return outcome

    def _sent(self, key: str, outcome: Outcome) -> SpanContext | None:
        id = outcome.value.get("id") if isinstance(outcome.value, dict) else None
        return (self.sent.pop(id, None) if isinstance(id, str) else None) or self.sent.pop(key, None)

    def of_step(self, key: str) -> SpanContext:
        """Return the span of a step that the run itself performs."""
        mine = self._span
        return SpanContext(
            mine.trace_id, _number(f"{self._id}\nstep {key}", 8), False, mine.trace_flags, mine.trace_state
        )

    def performs(self, key: str) -> None:
        """Note that an activity performs a step, and makes its spans."""
        self._by_activity.add(key)

    def ended(self, app: str | None, origin: Origin, started: int, failure: str | None, *, is_cancelled: bool) -> None:
        """See :class:`~steporal.observability.run_trace.Trace`."""
        info = workflow.info()
        attributes = of_message("process", "process", origin.name, origin.id) | {
            WORKFLOW: info.workflow_type,
            WORKFLOW_ID: info.workflow_id,
            RUN: self._id,
        }
        attributes |= {APP: app} if app else {}
        if is_cancelled:
            attributes[CANCELLED], failure = True, None
        start = started * 1_000_000
        self._record(self.name, self._span, self.parent, start, SpanKind.CONSUMER, attributes, None, failure)

    def _record(
        self,
        name: str,
        context: SpanContext,
        parent: Context,
        start: int,
        kind: SpanKind,
        attributes: dict[str, Any],
        link: SpanContext | None,
        error: str | None,
    ) -> None:
        if not self._span.trace_flags.sampled:
            return
        end = max(start, workflow.time_ns())
        recording = partial(
            record,
            name,
            context,
            parent,
            start=start,
            end=end,
            kind=kind,
            attributes=attributes,
            link=link,
            error=error,
        )
        after_task(recording)


def _number(text: str, size: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:size]) or 1


class _TracedWorkflow(temporalio.worker.WorkflowInboundInterceptor):
    def __init__(self, next: temporalio.worker.WorkflowInboundInterceptor) -> None:
        super().__init__(next)
        self.trace: RunTrace | None = None
        self._sent: dict[str, SpanContext] = {}

    def init(self, outbound: temporalio.worker.WorkflowOutboundInterceptor) -> None:
        super().init(_TracedOutbound(outbound, self))

    async def execute_workflow(self, input: temporalio.worker.ExecuteWorkflowInput) -> Any:
        kind = kind_of(input.type)
        if kind == "system":
            attach(Context())  # its starter is one of many; not detached, as the task has its own context
        elif kind is not None:
            info = workflow.info()
            payload = info.headers.get(BEGUN_HEADER)
            begun = {} if payload is None else _begun(payload)
            self.trace = RunTrace(f"run {info.workflow_type}", get_current(), begun, self._sent)
            attach(self.trace.context)
            if kind == "delivery":
                return await self._deliver(input, self.trace)
            TRACE.set(self.trace)
        return await super().execute_workflow(input)

    async def _deliver(self, input: temporalio.worker.ExecuteWorkflowInput, trace: RunTrace) -> Any:
        info = workflow.info()
        origin = _origin(input.args[1] if len(input.args) > 1 else None, info.workflow_id)
        started = int(info.workflow_start_time.timestamp() * 1000)
        try:
            result = await super().execute_workflow(input)
        except FailureError as err:
            trace.ended(None, origin, started, error_type(err), is_cancelled=is_cancelled_exception(err))
            raise
        trace.ended(None, origin, started, None, is_cancelled=False)
        return result

    async def handle_signal(self, input: temporalio.worker.HandleSignalInput) -> None:
        sender = get_current_span().get_span_context()
        if sender.is_valid and input.signal in (DELIVER, SIGNALLED) and (subject := _of_signal(input.args)) is not None:
            self._sent[subject] = sender
        await super().handle_signal(input)


def _origin(added: RawValue | None, workflow_id: str) -> Origin:
    """Return the origin of a delivery; if its arguments cannot be read, and it fails, the origin from its id."""
    try:
        return origin_of(added, workflow_id)
    except InvalidInputError:
        return Origin.of_run(None, workflow_id)


def _begun(payload: Payload) -> dict[str, int]:
    """Return the start times in the header of a run; empty if the header was not written by Steporal."""
    try:
        begun = _json.from_payload(payload)
    except Exception:
        return {}
    if not isinstance(begun, dict):
        return {}
    return {key: at for key, at in begun.items() if type(at) is int and 0 < at < _LATEST}


def _of_signal(args: Sequence[Any]) -> str | None:
    """Return the subject of a signal: the id of the event that it delivers, or the step that waits for it."""
    try:
        message = from_raw(args[0]) if args and isinstance(args[0], RawValue) else None
    except (ValueError, RecursionError):  # anybody can send a signal, with any content
        return None
    if not isinstance(message, dict):
        return None
    if isinstance(event := message.get("event"), dict):
        return str(event.get("id"))
    key = str(message.get("key"))
    step, _, number = key.rpartition("#")
    return step if step and number.isdecimal() else key


class _TracedOutbound(temporalio.worker.WorkflowOutboundInterceptor):
    def __init__(self, next: temporalio.worker.WorkflowOutboundInterceptor, inbound: _TracedWorkflow) -> None:
        super().__init__(next)
        self._inbound = inbound

    def start_activity(self, input: temporalio.worker.StartActivityInput) -> workflow.ActivityHandle[Any]:
        input.headers = self._of_activity(input.activity, input.headers)
        return super().start_activity(input)

    def start_local_activity(self, input: temporalio.worker.StartLocalActivityInput) -> workflow.ActivityHandle[Any]:
        input.headers = self._of_activity(input.activity, input.headers)
        return super().start_local_activity(input)

    def _of_activity(self, name: str, headers: Any) -> Any:
        trace, key = self._inbound.trace, _step.get()
        if trace is None or key is None or name not in _PERFORMERS:
            return headers
        trace.performs(key)
        return {**headers, STEP_HEADER: _payload(key)}

    async def start_child_workflow(
        self, input: temporalio.worker.StartChildWorkflowInput
    ) -> workflow.ChildWorkflowHandle[Any, Any]:
        trace, key = self._inbound.trace, _step.get()
        if trace is not None and key is not None:
            attach(set_span_in_context(NonRecordingSpan(trace.of_step(key))))  # not detached: the step has its own task
        return await super().start_child_workflow(input)

    def continue_as_new(self, input: temporalio.worker.ContinueAsNewInput) -> NoReturn:
        if (trace := self._inbound.trace) is not None:
            attach(trace.parent)  # so that the next execution derives the same trace
            if trace.begun:
                input.headers = {**input.headers, BEGUN_HEADER: _payload(trace.begun)}
        super().continue_as_new(input)


def _payload(value: Any) -> Payload:
    return _json.to_payload(value)
