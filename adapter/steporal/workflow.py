"""Workflows: a handler, its triggers and its options."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, Protocol

from temporalio.common import RetryPolicy
from typing_extensions import TypeVar

from .context import Context
from .definition import Invocable, RunFailure
from .durations import Duration, parse_duration
from .errors import DefinitionError
from .expressions.wait_arguments import check_events, check_expression
from .loops import blocking
from .run_handle import Run
from .step import Step
from .triggers import Trigger
from .types import JSON
from .validation import check_handler
from .values.converter import return_type
from .wire.run_input import validated_input

I = TypeVar("I", default=Any)  # noqa: E741
O = TypeVar("O", default=Any)  # noqa: E741

Handler = Callable[[Context[I], Step], Awaitable[O]]

MAX_CANCEL_ON = 5
"""Inngest's limit."""

CANCEL_ON_TIMEOUT = timedelta(days=365)
FAILURE_SUFFIX = "-failure"


@dataclass(frozen=True, slots=True)
class CancelOn:
    """An event that cancels a run; running steps get Temporal's cancellation, and ``finally`` may still run steps.

    The event that started the run never cancels it.

    Attributes:
        event: Its name, a pattern (``order.*``), or several.
        if_exp: An expression in CEL that must be true; ``event`` is what started the run, ``async`` the new event.
        match: Short for an equality: ``"data.order_id"`` is ``event.data.order_id == async.data.order_id``.
        timeout: How long after its start an event may cancel the run; a year, by default.
    """

    event: str | Sequence[str]
    if_exp: str | None = None
    match: str | None = None
    timeout: Duration | None = None


@dataclass(frozen=True, slots=True)
class WorkflowExt:
    """Options of a workflow beyond those that every StepKit driver has.

    Attributes:
        cancel_on: Events that cancel a run; at most 5.
        on_failure: A handler that runs as a workflow of its own, ``{id}-failure``, when a run has failed. Its
            ``ctx.input.data`` is a :class:`RunFailure`.
        park_after: How long a run only waits (sleeps, events, signals, invoked runs) before Temporal holds it without
            the handler, so that code can be edited meanwhile; ``"never"``, or None for what the client says.
        heartbeat_timeout: How long the worker of a step may send no heartbeat before the step counts as interrupted;
            the client's by default.
        code_timeout: How long a step waits for a worker that has its code; the client's by default.
    """

    cancel_on: Sequence[CancelOn] = ()
    on_failure: Callable[[Context[RunFailure], Step], Awaitable[Any]] | None = None
    park_after: Duration | Literal["never"] | None = None
    heartbeat_timeout: Duration | None = None
    code_timeout: Duration | None = None


class WorkflowStarter(Protocol):
    """The client that a workflow belongs to."""

    @property
    def id(self) -> str:
        """The app's id."""

    async def start_workflow(self, workflow: Any, input: Any = None, *, id: str | None = None) -> Run[Any]:
        """Start a run; see :meth:`steporal.Client.start_workflow`."""


class Workflow(Invocable[I, O]):
    """A workflow, as ``client.workflow`` returns it.

    Attributes:
        id: The workflow's id, which is the Temporal workflow type.
        app: The id of the client that it belongs to.
        client: The client that it belongs to.
        task_queue: The task queue of its runs.
        step_packages: Top-level packages whose functions are steps of the app.
        handler: The decorated function.
        input_schema: Validates its input; None if any JSON is accepted.
        output_type: Type that the handler's annotations name for the result, or None.
        triggers: Events and schedules that start it.
        max_attempts: Attempts of each step, and of the body, in all.
        retry: The backoff between attempts.
        ext: Further options.
        park_after: Time for which its runs only wait before they are parked; None if they never are.
        heartbeat_timeout: Time for which the worker of a step may send no heartbeat.
        code_timeout: Time for which a step waits for a worker that has its code.
    """

    def __init__(
        self,
        *,
        id: str,
        client: WorkflowStarter,
        task_queue: str,
        step_packages: AbstractSet[str],
        handler: Handler[I, O],
        input_schema: Any,
        triggers: tuple[Trigger, ...],
        max_attempts: int,
        retry: RetryPolicy,
        ext: WorkflowExt,
        park_after: timedelta | None,
        heartbeat_timeout: timedelta,
        code_timeout: timedelta,
    ) -> None:
        self.id = id
        self.client = client
        self.app: str = client.id
        self.task_queue = task_queue
        self.step_packages = step_packages
        self.handler = handler
        self.input_schema = input_schema
        self.triggers = triggers
        self.max_attempts = max_attempts
        self.retry = retry
        self.ext = ext
        self.park_after = park_after
        self.heartbeat_timeout = heartbeat_timeout
        self.code_timeout = code_timeout
        self.__doc__ = handler.__doc__

    def __repr__(self) -> str:
        return f"<Workflow {self.id!r} of {self.app!r}>"

    @property
    def is_bridge(self) -> bool:
        """False: a workflow forwards no events to another system."""
        return False

    @property
    def output_type(self) -> Any:
        """Type that the handler's annotations name for the result, or None."""
        return return_type(self.handler)

    async def start(self, input: I | JSON = None, *, id: str | None = None) -> Run[O]:
        """Start a run; the same as ``client.start_workflow(workflow, input)``."""
        run: Run[O] = await self.client.start_workflow(self, input, id=id)
        return run

    def start_sync(self, input: I | JSON = None, *, id: str | None = None) -> Run[O]:
        """Block until ``workflow.start(...)`` is done, in code without an event loop.

        Any number of threads may call it at once.

        Raises:
            EventLoopError: An event loop is running in this thread; await :meth:`start` there.
        """
        return blocking("workflow.start", self.start, input, id=id)

    def validate_input(self, data: JSON) -> I:
        """``data`` as the input schema has it.

        Raises:
            InvalidInputError: It does not fit.
        """
        return validated_input(self.id, self.input_schema, data)  # type: ignore[no-any-return]


def check_ext(ext: object, workflow_id: str) -> WorkflowExt:
    """Options whose events, expressions and durations can be right."""
    where = f"ext of workflow {workflow_id!r}"
    if ext is None:
        return WorkflowExt()
    if not isinstance(ext, WorkflowExt):
        raise DefinitionError(f"{where} is {ext!r}; it takes a steporal.WorkflowExt(...)")
    if isinstance(ext.cancel_on, CancelOn) or not isinstance(ext.cancel_on, Sequence):
        raise DefinitionError(f"{where}: cancel_on is {ext.cancel_on!r}; it takes a list: cancel_on=[CancelOn(...)]")
    if len(ext.cancel_on) > MAX_CANCEL_ON:
        raise DefinitionError(f"{where}: cancel_on has {len(ext.cancel_on)} entries; the maximum is {MAX_CANCEL_ON}")
    for cancel in ext.cancel_on:
        _check_cancel_on(cancel, where)
    if ext.on_failure is not None:
        check_handler(ext.on_failure, f"{workflow_id}{FAILURE_SUFFIX}")
    return ext


def _check_cancel_on(cancel: object, where: str) -> None:

    if not isinstance(cancel, CancelOn):
        raise DefinitionError(f"{where}: cancel_on has {cancel!r}; write CancelOn(...)")
    try:
        check_events(cancel.event)
        check_expression(cancel.if_exp, cancel.match)
        if cancel.timeout is not None:
            parse_duration(cancel.timeout, what="timeout", minimum=timedelta(milliseconds=1))
    except (ValueError, TypeError) as err:
        raise DefinitionError(f"{where}: CancelOn({cancel.event!r}): {err}") from None
