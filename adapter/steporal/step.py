"""Steps, as a handler calls them.

Each method takes the step's id first and returns something to await. A step that has finished is never run again in
the same run: its result comes from the run's memo. An id that is used again in one run, as in a loop, means a further
step: ``id``, ``id:1``, ``id:2``, … in the order of the calls.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, TypeVarTuple, Unpack, overload

from temporalio.common import RetryPolicy

from .definition import Invocable, WorkflowReference
from .durations import Duration
from .events import EventLike, ReceivedEvent, SendEventResult
from .http import FetchRequest, FetchResponse, Secret
from .signals import OnConflict, ReceivedSignal, SendSignalResult
from .step_calls import StepCalls, no_such_step, step_method

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of one ``step.run``, as they were given."""

    max_attempts: int | None = None
    timeout: Duration | None = None
    retry: RetryPolicy | None = None
    task_queue: str | None = None
    output_type: Any = None
    local: bool = False
    heartbeat_timeout: Duration | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Arguments of a wait or a listener, unchecked."""

    event: str | Sequence[str]
    timeout: Duration | datetime
    if_exp: str | None = None
    match: str | None = None


class Listener(Protocol):
    """Keeps the events that come while a run does something else; made by :meth:`StepExt.listen`."""

    async def next(self, step_id: str, *, timeout: Duration | datetime | None = None) -> ReceivedEvent | None:
        """The next event; None when the listener's time is over, or ``timeout`` before it.

        Args:
            step_id: The step's id.
            timeout: How long to wait for it, or until when; as long as the listener listens, by default.
        """

    async def close(self) -> None:
        """Listen no longer."""

    async def __aenter__(self) -> Listener: ...

    async def __aexit__(self, *error: object) -> None: ...


class Steps(Protocol):
    """Performer of steps: an attempt of a handler's body in a Temporal workflow.

    Attributes:
        step_calls: The calls that the body has made.
    """

    step_calls: StepCalls

    def run(
        self, step_id: str, handler: Callable[..., Any], args: tuple[Any, ...], options: RunOptions
    ) -> Coroutine[None, None, Any]:
        """Perform :meth:`Step.run`."""

    def sleep(self, step_id: str, duration: Duration) -> Coroutine[None, None, None]:
        """Perform :meth:`Step.sleep`."""

    def sleep_until(self, step_id: str, when: datetime) -> Coroutine[None, None, None]:
        """Perform :meth:`Step.sleep_until`."""

    def invoke(
        self,
        step_id: str,
        workflow: Invocable[Any, Any] | WorkflowReference[Any],
        data: Any,
        timeout: Duration | datetime | None,
    ) -> Coroutine[None, None, Any]:
        """Perform :meth:`Step.invoke_workflow`."""

    def send_event(
        self, step_id: str, events: EventLike | Sequence[EventLike]
    ) -> Coroutine[None, None, SendEventResult]:
        """Perform :meth:`StepExt.send_event`."""

    def wait_for_event(self, step_id: str, wanted: Wanted) -> Coroutine[None, None, ReceivedEvent | None]:
        """Perform :meth:`StepExt.wait_for_event`."""

    def listen(self, step_id: str, wanted: Wanted) -> Coroutine[None, None, Listener]:
        """Perform :meth:`StepExt.listen`."""

    def wait_for_signal(
        self, step_id: str, signal: str, timeout: Duration | datetime, schema: Any, on_conflict: OnConflict
    ) -> Coroutine[None, None, ReceivedSignal[Any] | None]:
        """Perform :meth:`Step.wait_for_signal`."""

    def send_signal(self, step_id: str, signal: str, data: Any) -> Coroutine[None, None, SendSignalResult]:
        """Perform :meth:`Step.send_signal`."""

    def fetch(self, step_id: str, request: FetchRequest) -> Coroutine[None, None, FetchResponse]:
        """Perform :meth:`StepExt.fetch`."""


class Step:
    """Durable steps: the second argument of a handler.

    Attributes:
        ext: Steps beyond those that every StepKit driver has.
    """

    __slots__ = ("_step_calls", "_steps", "ext")

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._step_calls = steps.step_calls
        self.ext: StepExt = StepExt(steps)

    if not TYPE_CHECKING:  # which would take any name to exist

        def __getattr__(self, name: str) -> Any:
            raise no_such_step("step", name, _METHODS)

    @overload
    def run(
        self,
        step_id: str,
        handler: Callable[[Unpack[Ts]], Any],
        *args: *Ts,
        output_type: type[T],
        max_attempts: int | None = None,
        timeout: Duration | None = None,
        heartbeat_timeout: Duration | None = None,
        retry: RetryPolicy | None = None,
        task_queue: str | None = None,
        local: bool = False,
    ) -> Coroutine[None, None, T]: ...

    @overload
    def run(
        self,
        step_id: str,
        handler: Callable[[Unpack[Ts]], Awaitable[T]],
        *args: *Ts,
        max_attempts: int | None = None,
        timeout: Duration | None = None,
        heartbeat_timeout: Duration | None = None,
        retry: RetryPolicy | None = None,
        task_queue: str | None = None,
        local: bool = False,
    ) -> Coroutine[None, None, T]: ...

    @overload
    def run(
        self,
        step_id: str,
        handler: Callable[[Unpack[Ts]], T],
        *args: *Ts,
        max_attempts: int | None = None,
        timeout: Duration | None = None,
        heartbeat_timeout: Duration | None = None,
        retry: RetryPolicy | None = None,
        task_queue: str | None = None,
        local: bool = False,
    ) -> Coroutine[None, None, T]: ...

    @step_method("step.run")
    def run(
        self,
        step_id: str,
        handler: Callable[[Unpack[Ts]], Any],
        *args: *Ts,
        output_type: Any = None,
        max_attempts: int | None = None,
        timeout: Duration | None = None,
        heartbeat_timeout: Duration | None = None,
        retry: RetryPolicy | None = None,
        task_queue: str | None = None,
        local: bool = False,
    ) -> Coroutine[None, None, Any]:
        """Run a function once, durably, as a Temporal activity, and return what it returned.

        Example:
            ``order = await step.run("create-order", create_order, ctx.input.data)``

        Args:
            step_id: The step's id, as Temporal's UI shows it.
            handler: A lambda, a nested ``def`` or ``async def``, a function of the app, a ``functools.partial``.
                Variables that it captured are sent with their values of this moment. A function that is not
                ``async`` runs in a thread.
            *args: Its positional arguments.
            output_type: What the result is validated as; needed only where the function returns untyped JSON.
            max_attempts: Attempts in all; the workflow's, by default.
            timeout: How long one attempt may take; a day, by default.
            heartbeat_timeout: How long the step's worker may send no heartbeat before the step counts as interrupted;
                the workflow's, by default. Workers send heartbeats by themselves, so the step of a lost worker begins
                again elsewhere about half a minute later, whatever its ``timeout``.
            retry: The backoff between attempts; the workflow's, by default.
            task_queue: Another task queue, of workers with the same code (``steporal worker --task-queue``).
            local: Run it in the worker that runs the workflow, as a Temporal local activity: several times faster, for
                functions of a few seconds at most. It is repeated with its workflow task, whatever ``max_attempts``
                says (``docs/guarantees.md``).

        Raises:
            StepError: The last attempt raised, or one raised :class:`~steporal.NonRetryableError`.
            CaptureError: The function, or a variable that it captured, cannot be sent to a worker.
            NestedStepError: The function calls a step itself.
        """
        options = RunOptions(max_attempts, timeout, retry, task_queue, output_type, local, heartbeat_timeout)
        return self._steps.run(step_id, handler, args, options)

    @step_method("step.sleep")
    def sleep(self, step_id: str, duration: Duration) -> Coroutine[None, None, None]:
        """Sleep for a time, as a Temporal timer, which costs no worker anything.

        Args:
            step_id: The step's id.
            duration: A ``timedelta``, a number of milliseconds, or a string such as ``"90s"``, ``"1h30m"``, ``"7d"``.
        """
        return self._steps.sleep(step_id, duration)

    @step_method("step.sleep_until")
    def sleep_until(self, step_id: str, when: datetime) -> Coroutine[None, None, None]:
        """Sleep until an aware ``datetime``; one in the past returns at once."""
        return self._steps.sleep_until(step_id, when)

    @overload
    def invoke_workflow(
        self, step_id: str, *, workflow: Invocable[I, O], data: I, timeout: Duration | datetime | None = None
    ) -> Coroutine[None, None, O]: ...

    @overload
    def invoke_workflow(
        self,
        step_id: str,
        *,
        workflow: Invocable[Any, O] | WorkflowReference[O],
        data: Any = None,
        timeout: Duration | datetime | None = None,
    ) -> Coroutine[None, None, O]: ...

    @step_method("step.invoke_workflow")
    def invoke_workflow(
        self,
        step_id: str,
        *,
        workflow: Invocable[Any, Any] | WorkflowReference[Any],
        data: Any = None,
        timeout: Duration | datetime | None = None,
    ) -> Coroutine[None, None, Any]:
        """Start another workflow, as a Temporal child workflow, and wait for its result.

        Args:
            step_id: The step's id.
            workflow: A workflow of this client, or :func:`~steporal.reference` to another app's.
            data: Its input.
            timeout: How long to wait, or until when; for ever, by default.

        Raises:
            StepError: The invoked run failed.
            InvokeTimeoutError: It took longer; it goes on.
            InvalidInputError: ``data`` does not fit its ``input_schema``; nothing was started.
        """
        return self._steps.invoke(step_id, workflow, data, timeout)

    @overload
    def wait_for_signal(
        self,
        step_id: str,
        *,
        signal: str,
        timeout: Duration | datetime,
        schema: type[T],
        on_conflict: OnConflict = "fail",
    ) -> Coroutine[None, None, ReceivedSignal[T] | None]: ...

    @overload
    def wait_for_signal(
        self,
        step_id: str,
        *,
        signal: str,
        timeout: Duration | datetime,
        schema: Any = None,
        on_conflict: OnConflict = "fail",
    ) -> Coroutine[None, None, ReceivedSignal[Any] | None]: ...

    @step_method("step.wait_for_signal")
    def wait_for_signal(
        self,
        step_id: str,
        *,
        signal: str,
        timeout: Duration | datetime,
        schema: Any = None,
        on_conflict: OnConflict = "fail",
    ) -> Coroutine[None, None, ReceivedSignal[Any] | None]:
        """Wait for a signal: a message that goes to the one run that waits for its name.

        A wait that is cancelled, as by ``asyncio.wait_for`` or a lost race, frees the name; a signal that came just
        before that is returned all the same, as its sender was told that this run received it.

        Args:
            step_id: The step's id.
            signal: The signal's name, unique in the Temporal namespace, such as ``approval/{order_id}``: any text of
                up to 900 bytes in UTF-8.
            timeout: How long to wait, or until when.
            schema: The type of its data: a pydantic model, or anything that ``pydantic.TypeAdapter`` takes. Data that
                does not fit is refused to its sender, and the wait goes on. A type that only the handler has, such as
                a class defined in it, is checked when the run receives the signal.
            on_conflict: What happens if another run waits for it already: this step fails, or it takes the other's
                place, whose wait goes on to its timeout and then returns None.

        Returns:
            The signal; None if none came in time.

        Raises:
            SignalConflictError: Another run, or another wait of this run, waits for it; both are named.
            InvalidInputError: The data does not fit a ``schema`` that the sender's side could not check; the run fails
                if nothing catches it.
        """
        return self._steps.wait_for_signal(step_id, signal, timeout, schema, on_conflict)

    @step_method("step.send_signal")
    def send_signal(self, step_id: str, *, signal: str, data: Any = None) -> Coroutine[None, None, SendSignalResult]:
        """Send a signal to the run that waits for it; nothing happens if none does.

        It is received at most once, however often the step is tried.

        Args:
            step_id: The step's id.
            signal: The signal's name.
            data: Its data: JSON, or what pydantic makes JSON of.

        Returns:
            The id of the run that received it, or None.

        Raises:
            StepError: Named ``InvalidInputError`` if the data does not fit the ``schema`` of the step that waits.
        """
        return self._steps.send_signal(step_id, signal, data)


class StepExt:
    """Steps beyond those that every StepKit driver has."""

    __slots__ = ("_step_calls", "_steps")

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._step_calls = steps.step_calls

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise no_such_step("step.ext", name, _METHODS)

    @step_method("step.ext.send_event")
    def send_event(
        self, step_id: str, event_or_events: EventLike | Sequence[EventLike]
    ) -> Coroutine[None, None, SendEventResult]:
        """Send events: each starts the workflows that have a trigger for it, in every app of the namespace.

        Args:
            step_id: The step's id.
            event_or_events: One event or up to 5,000, as :class:`~steporal.SentEvent` or a dict with its keys.

        Returns:
            The ids, in order; a generated id depends on the run, the step and the position alone, so that an attempt
            that is made again sends the same ids and starts nothing twice.

        Raises:
            InvalidEventError: An event cannot be sent; nothing was.
        """
        return self._steps.send_event(step_id, event_or_events)

    @step_method("step.ext.sleep_until")
    def sleep_until(self, step_id: str, when: datetime) -> Coroutine[None, None, None]:
        """The same as :meth:`Step.sleep_until`."""
        return self._steps.sleep_until(step_id, when)

    @step_method("step.ext.wait_for_event")
    def wait_for_event(
        self,
        step_id: str,
        *,
        event: str | Sequence[str],
        timeout: Duration | datetime,
        if_exp: str | None = None,
        match: str | None = None,
    ) -> Coroutine[None, None, ReceivedEvent | None]:
        """Wait for an event that is sent after the wait has begun.

        To lose nothing between a step that makes the event happen and the wait for it, use :meth:`listen`.

        Args:
            step_id: The step's id.
            event: Its name, a pattern (``order.*``), or several, of which the first to come wins.
            timeout: How long to wait, or until when.
            if_exp: An expression in CEL that must be true; ``event`` is what started the run, ``async`` the new event:
                ``async.data.order_id == event.data.order_id && async.data.amount > 100``.
            match: Short for an equality of the two events: ``"data.order_id"`` is
                ``event.data.order_id == async.data.order_id``.

        Returns:
            The event; None if none came in time.
        """
        return self._steps.wait_for_event(step_id, Wanted(event, timeout, if_exp, match))

    @step_method("step.ext.listen")
    def listen(
        self,
        step_id: str,
        *,
        event: str | Sequence[str],
        timeout: Duration | datetime,
        if_exp: str | None = None,
        match: str | None = None,
    ) -> Coroutine[None, None, Listener]:
        """Listen for events from now on, and keep those that come until the run asks for them.

        Example:
            ::

                async with await step.ext.listen("paid", event="payment.*", match="data.order_id", timeout="1h") as it:
                    await step.run("charge", charge, order)
                    payment = await it.next("payment")

        Args:
            step_id: The step's id.
            event: As for :meth:`wait_for_event`.
            timeout: How long to listen, or until when.
            if_exp: As for :meth:`wait_for_event`.
            match: As for :meth:`wait_for_event`.

        Returns:
            A listener; ``await listener.next(step_id)`` is the next event, or None when the time is over. It closes
            with the run, with ``async with``, or by ``await listener.close()``.
        """
        return self._steps.listen(step_id, Wanted(event, timeout, if_exp, match))

    @step_method("step.ext.fetch")
    def fetch(
        self,
        step_id: str,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str | Secret] | None = None,
        params: Mapping[str, str | int | float | bool | Secret] | None = None,
        json: Any = None,
        content: bytes | str | None = None,
        timeout: Duration = "30s",
        max_attempts: int | None = None,
        max_response_bytes: int = 1024 * 1024,
    ) -> Coroutine[None, None, FetchResponse]:
        """Make one HTTP request, durably.

        Tried again, as a step is, when the connection fails or the answer is 429 or 5xx, after the time that its
        ``Retry-After`` says; any other answer is returned.

        Args:
            step_id: The step's id.
            method: ``GET``, ``POST``, …
            url: An absolute URL, ``http`` or ``https``.
            headers: Headers. A value that nobody may read in Temporal is ``steporal.secret("NAME")``, which the worker
                takes from its environment.
            params: Query parameters.
            json: A body, as JSON.
            content: A body, as bytes or text; not with ``json``.
            timeout: How long one attempt may take.
            max_attempts: Attempts in all; the workflow's, by default.
            max_response_bytes: How long a body may be; a longer one fails the step.

        Returns:
            Status, headers and body.

        Raises:
            StepError: The last attempt failed.
        """
        request = FetchRequest(
            method, url, headers or {}, params or {}, json, content, timeout, max_attempts, max_response_bytes
        )
        return self._steps.fetch(step_id, request)


def _methods() -> dict[str, str]:
    of = ((StepExt, "step.ext"), (Step, "step"))
    return {name: f"{owner}.{name}" for cls, owner in of for name in vars(cls) if not name.startswith("_")}


_METHODS = _methods()
