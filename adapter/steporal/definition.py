"""What was defined: workflows, their triggers and options, as data."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal

import pydantic
from temporalio.common import RetryPolicy
from typing_extensions import TypeVar

from .closures.code import unwrapped
from .context import Context
from .durations import Duration, parse_duration
from .errors import DefinitionError, InvalidArgumentError
from .loops import blocking
from .triggers import CronTrigger, EventTrigger, Trigger
from .types import JSON
from .values.converter import issues, return_type, validate
from .values.type_names import shown, type_label
from .wire.run_input import validated_input

if TYPE_CHECKING:
    from .client import Client, Run
    from .step import Step

I = TypeVar("I", default=Any)  # noqa: E741
O = TypeVar("O", default=Any)  # noqa: E741

Handler = Callable[[Context[I], "Step"], Awaitable[O]]

DEFAULT_MAX_ATTEMPTS = 4
MAX_ID_BYTES = 255  # two of them, and an event id, make one of Temporal's ids of 1,000
MAX_TRIGGERS = 10  # Inngest's limit
MAX_CANCEL_ON = 5  # Inngest's, too

_OF_VALUES = ("value_error", "assertion_error")
"""Pydantic's names for what a validator of the user's finds wrong, which may be right for other values."""

CANCEL_ON_TIMEOUT = timedelta(days=365)
FAILURE_SUFFIX = "-failure"

DEFAULT_HEARTBEAT_TIMEOUT = timedelta(seconds=20)
DEFAULT_CODE_TIMEOUT = timedelta(days=1)

DEFAULT_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1), backoff_coefficient=2.0, maximum_interval=timedelta(minutes=5)
)


@dataclass(frozen=True, slots=True)
class WorkflowReference(Generic[O]):
    """A workflow of another app, by name; made by :func:`reference`."""

    app: str
    id: str
    output_type: Any = None

    def __post_init__(self) -> None:
        check_id(self.app, "the app of a reference")
        check_id(self.id, "the workflow id of a reference")


def reference(app: str, workflow_id: str, *, output_type: type[O] | None = None) -> WorkflowReference[O]:
    """A workflow of another app in the same namespace, to start or to invoke.

    Args:
        app: The other client's id.
        workflow_id: The workflow's id.
        output_type: What its result is validated as; plain JSON without one.

    Raises:
        DefinitionError: One of the ids cannot be an id.
    """
    return WorkflowReference(app, workflow_id, output_type)


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


class FailedWith(pydantic.BaseModel):
    """The error that a run failed with: the class's name, the message and the stack trace."""

    name: str
    message: str
    stack: str = ""


class RunFailure(pydantic.BaseModel):
    """What a failure handler is given: the data of ``inngest/function.failed``.

    Attributes:
        function_id: The failed run's app and workflow, as ``{app}-{workflow}``.
        run_id: The failed run's id.
        workflow_id: Its Temporal workflow id.
        error: The error that it failed with.
        event: What had started it; its ``data`` is the original input.
    """

    function_id: str
    run_id: str
    workflow_id: str
    error: FailedWith
    event: dict[str, Any]


class Workflow(Generic[I, O]):
    """A workflow, as ``client.workflow`` returns it.

    Attributes:
        id: The workflow's id, which is the Temporal workflow type.
        client: The client that it belongs to.
        handler: The decorated function.
        input_schema: What its input is validated by, or None.
        output_type: What its handler's annotations say it returns, or None.
        triggers: What starts it besides being started directly.
        max_attempts: Attempts of each step, and of the body, in all.
        retry: The backoff between attempts.
        ext: Further options.
        park_after: How long its runs only wait before they are parked; None if they never are.
        heartbeat_timeout: How long the worker of a step may send no heartbeat.
        code_timeout: How long a step waits for a worker that has its code.
    """

    def __init__(
        self,
        *,
        id: str,
        client: Client,
        handler: Handler[I, O],
        input_schema: Any,
        triggers: tuple[Trigger, ...],
        max_attempts: int,
        retry: RetryPolicy,
        ext: WorkflowExt,
    ) -> None:
        self.id = id
        self.client = client
        self.handler = handler
        self.input_schema = input_schema
        self.triggers = triggers
        self.max_attempts = max_attempts
        self.retry = retry
        self.ext = ext
        self.park_after: timedelta | None = (
            client.park_after if ext.park_after is None else check_park_after(ext.park_after, f"workflow {id!r}")
        )
        where = f"workflow {id!r}"
        self.heartbeat_timeout: timedelta = (
            client.heartbeat_timeout
            if ext.heartbeat_timeout is None
            else check_heartbeat_timeout(ext.heartbeat_timeout, where)
        )
        self.code_timeout: timedelta = (
            client.code_timeout if ext.code_timeout is None else check_code_timeout(ext.code_timeout, where)
        )
        self.__doc__ = handler.__doc__

    def __repr__(self) -> str:
        return f"<Workflow {self.id!r} of {self.client.id!r}>"

    @property
    def app(self) -> str:
        """The id of the client that it belongs to."""
        return self.client.id

    @property
    def output_type(self) -> Any:
        """What its handler's annotations say it returns, or None."""
        return return_type(self.handler)

    async def start(self, input: I | JSON = None, *, id: str | None = None) -> Run[O]:
        """Start a run; the same as ``client.start_workflow(workflow, input)``."""
        return await self.client.start_workflow(self, input, id=id)

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


# --- checks --------------------------------------------------------------------------------------------------------


def check_id(value: object, what: str, *, max_bytes: int = MAX_ID_BYTES) -> str:
    """An id of an app, workflow, run or step: any text that fits into Temporal's ids."""
    if not isinstance(value, str):
        raise DefinitionError(f"{what} is {shown(value)} ({type_label(type(value))}); ids are strings")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise DefinitionError(
            f"{what} is {shown(value)}, which contains half of a surrogate pair; ids are valid Unicode"
        ) from None
    if not value.strip():
        raise DefinitionError(f"{what} is {value!r}; an id cannot be empty")
    if size > max_bytes:
        raise DefinitionError(f"{what} is {shown(value)} with {size:,} bytes in UTF-8; an id has at most {max_bytes:,}")
    if "\0" in value:
        raise DefinitionError(f"{what} is {shown(value)}; an id cannot contain a NUL")
    return value


def check_id_argument(value: object, what: str, *, max_bytes: int = MAX_ID_BYTES) -> str:
    """An id that a method was called with; see :func:`check_id`.

    Raises:
        InvalidArgumentError: It cannot be an id.
    """
    try:
        return check_id(value, what, max_bytes=max_bytes)
    except DefinitionError as err:
        raise InvalidArgumentError(str(err)) from None


def check_max_attempts(value: object, where: str) -> int:
    """A number of attempts in all, at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise DefinitionError(f"max_attempts of {where} is {value!r}; it counts all attempts, so the minimum is 1")
    return value


def check_revision(value: object, where: str) -> int | None:
    """Return a revision: a whole number that is not negative, also as text; or None."""
    if value is None:
        return None
    text = value if isinstance(value, str) else str(value) if type(value) is int else ""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise DefinitionError(f"{where} is {value!r}; it takes a whole number, such as that of the CI's build: 1042")
    return int(text)


def check_park_after(value: object, where: str) -> timedelta | None:
    """A duration of at least a second, or None for ``"never"``."""
    if value == "never":
        return None
    try:
        return parse_duration(value, what="park_after", minimum=timedelta(seconds=1))
    except (TypeError, ValueError) as err:
        raise DefinitionError(f'{where}: {err}; or "never"') from None


def check_heartbeat_timeout(value: object, where: str) -> timedelta:
    """Return a duration of at least a second."""
    return _duration(value, "heartbeat_timeout", where, timedelta(seconds=1))


def check_code_timeout(value: object, where: str) -> timedelta:
    """Return a duration."""
    return _duration(value, "code_timeout", where, timedelta(0))


def _duration(value: object, what: str, where: str, minimum: timedelta) -> timedelta:
    try:
        return parse_duration(value, what=what, minimum=minimum)
    except (TypeError, ValueError) as err:
        raise DefinitionError(f"{where}: {err}") from None


def check_retry(value: object, where: str) -> RetryPolicy:
    """A Temporal retry policy that leaves the count to ``max_attempts``."""
    if not isinstance(value, RetryPolicy):
        raise DefinitionError(f"retry of {where} is {value!r}; it takes a steporal.RetryPolicy")
    if value.maximum_attempts:
        raise DefinitionError(
            f"retry of {where} has maximum_attempts={value.maximum_attempts}; set max_attempts={value.maximum_attempts}"
        )
    try:
        value._validate()
    except ValueError as err:
        raise DefinitionError(f"retry of {where}: {err}") from None
    return value


def check_handler(handler: object, workflow_id: str) -> None:
    """An ``async def`` of two positional parameters."""
    where = f"the handler of workflow {workflow_id!r}"
    if not callable(handler):
        raise DefinitionError(f"{where} is {handler!r}; decorate an `async def handler(ctx, step)`")
    if unwrapped(handler) is None:
        raise DefinitionError(
            f"{where} is {handler!r} ({type_label(type(handler))}), which has no name to be found by; decorate an "
            "`async def handler(ctx, step)` and call the other from it"
        )
    name = getattr(handler, "__qualname__", repr(handler))
    if inspect.isasyncgenfunction(inspect.unwrap(handler)):
        raise DefinitionError(f"{where}, {name!r}, yields, which a workflow cannot do; return its result instead")
    if not inspect.iscoroutinefunction(inspect.unwrap(handler)):
        raise DefinitionError(f"{where}, {name!r}, is not async; write `async def {name}(ctx, step)`")
    parameters = inspect.signature(handler).parameters.values()
    kinds = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    positional = [p for p in parameters if p.kind in kinds]
    required = [p for p in parameters if p.default is p.empty and p.kind is not inspect.Parameter.VAR_POSITIONAL]
    if len(positional) != 2 or any(p.kind not in kinds for p in required):
        raise DefinitionError(
            f"{where}, {name!r}, takes ({', '.join(str(p) for p in parameters)}); it is called with two "
            f"arguments: `async def {name}(ctx: Context[...], step: Step)`"
        )
    first, second = positional
    if first.name == "step" or second.name in ("ctx", "context"):
        raise DefinitionError(
            f"{where}, {name!r}, takes ({first}, {second}), but it is called with the context first; swap them: "
            f"`async def {name}({second}, {first})`"
        )


def check_schema(schema: Any, workflow_id: str) -> None:
    """Anything that ``pydantic.TypeAdapter`` takes."""
    if schema is None or (isinstance(schema, type) and issubclass(schema, pydantic.BaseModel)):
        return
    try:
        if isinstance(schema, str):
            raise TypeError("a string may name a type, but it is not one")
        pydantic.TypeAdapter(schema)
    except Exception as err:
        raise DefinitionError(
            f"input_schema of workflow {workflow_id!r} is {shown(schema)}; it takes a pydantic model "
            f"or any type that pydantic.TypeAdapter does: {err}"
        ) from None


def check_triggers(triggers: object, workflow_id: str, input_schema: Any = None) -> tuple[Trigger, ...]:
    """A list of triggers without repetitions, whose cron triggers fit the input schema."""
    where = f"triggers of workflow {workflow_id!r}"
    if isinstance(triggers, str | EventTrigger | CronTrigger) or not isinstance(triggers, Sequence):
        raise DefinitionError(f"{where} is {triggers!r}; it takes a list: triggers=[event_trigger('order.placed')]")
    for trigger in triggers:
        if not isinstance(trigger, EventTrigger | CronTrigger):
            raise DefinitionError(f"{where} has {trigger!r}; write event_trigger(...) or cron_trigger(...)")
    repeated = next((t for i, t in enumerate(triggers) if t in triggers[:i]), None)
    if repeated is not None:
        raise DefinitionError(f"{where} has {repeated!r} twice")
    if len(triggers) > MAX_TRIGGERS:
        raise DefinitionError(
            f"workflow {workflow_id!r} has {len(triggers)} triggers; a workflow has at most {MAX_TRIGGERS}"
        )
    crons = [trigger for trigger in triggers if isinstance(trigger, CronTrigger)]
    for position, cron in enumerate(crons):
        if cron.described in (other.described for other in crons[:position]):
            raise DefinitionError(f"{where} has the schedule {cron.described!r} twice, with different jitter; keep one")
        _check_cron_input(cron, input_schema, workflow_id)
    return tuple(triggers)


def _check_cron_input(cron: CronTrigger, input_schema: Any, workflow_id: str) -> None:
    """Check that the data of a run that a schedule starts can fit the input schema."""
    if input_schema is None:
        return
    moment = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    try:
        validate({"cron": cron.schedule, "scheduledAt": moment, "fireAt": moment}, input_schema)
    except pydantic.ValidationError as err:
        if any(issue["type"] in _OF_VALUES for issue in err.errors()):
            return
        raise DefinitionError(
            f"workflow {workflow_id!r} has cron_trigger({cron.schedule!r}), whose runs have the data "
            f"{{'cron', 'scheduledAt', 'fireAt'}}, and an input_schema that it never fits: {issues(err)}; "
            "allow both in the input_schema (Order | CronTick), or define a workflow of its own for the schedule"
        ) from None
    except Exception:  # a validator of the user's that does not take the sample says nothing about other values
        return


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
    from .expressions.wait_arguments import check_events, check_expression

    if not isinstance(cancel, CancelOn):
        raise DefinitionError(f"{where}: cancel_on has {cancel!r}; write CancelOn(...)")
    try:
        check_events(cancel.event)
        check_expression(cancel.if_exp, cancel.match)
        if cancel.timeout is not None:
            parse_duration(cancel.timeout, what="timeout", minimum=timedelta(milliseconds=1))
    except (ValueError, TypeError) as err:
        raise DefinitionError(f"{where}: CancelOn({cancel.event!r}): {err}") from None
