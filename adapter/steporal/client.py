"""The client: define workflows, start runs, send events."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Literal, overload
from weakref import WeakKeyDictionary

import temporalio.client
import temporalio.converter
from temporalio import workflow as temporal_workflow
from temporalio.client import (
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import RawValue, RetryPolicy, WorkflowIDReusePolicy
from temporalio.envconfig import ClientConfig
from temporalio.exceptions import (
    ApplicationError,
    CancelledError,
    TerminatedError,
    WorkflowAlreadyStartedError,
)
from temporalio.service import RPCError
from typing_extensions import TypeVar

from .checks import check_step_functions
from .converter import from_raw, to_json, validate
from .definition import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_RETRY,
    FAILURE_SUFFIX,
    Handler,
    RunFailure,
    Workflow,
    WorkflowExt,
    WorkflowReference,
    check_ext,
    check_handler,
    check_id,
    check_max_attempts,
    check_park_after,
    check_retry,
    check_schema,
    check_triggers,
    collect,
)
from .durations import Duration
from .errors import (
    AlreadyStartedError,
    DefinitionError,
    InvalidArgumentError,
    InvalidInputError,
    RunCancelledError,
    RunFailedError,
    SendEventError,
    SendSignalError,
    UnserializableError,
)
from .events import EventLike, SendEventResult, new_ulid, prepare_events
from .http import Secret
from .outside import check_outside
from .routing import schedules
from .routing.catalog import App, Entry, Listed
from .routing.dispatch import FAILED, Dispatcher
from .routing.finding import find_run, is_missing, run_not_found
from .routing.lookup import find_listed
from .routing.signalling import ANSWER_TIMEOUT, Mailboxes
from .runtime.failures import stack_of
from .runtime.limits import to_limited
from .runtime.start import Origin
from .runtime.storage import check_storage, most_with
from .sealed import DECRYPTION_KEYS, ENCRYPTION_KEYS, check_told
from .search_attributes import of_run, start_indexed
from .signals import SendSignalResult, check_signal, signal_data
from .sinks import EventSink, InngestSink, define_sink
from .tracing import signalling, starting
from .triggers import CronTrigger, EventTrigger, Trigger, event_trigger
from .types import JSON

if TYPE_CHECKING:
    from .plugin import SteporalPlugin

I = TypeVar("I", default=Any)  # noqa: E741
O = TypeVar("O", default=Any)  # noqa: E741


class Run(Generic[O]):
    """A run that was started.

    Attributes:
        workflow_id: Temporal's workflow id of the run.
        run_id: The run's id, as the handler sees it in ``ctx.run_id``.
        event_id: The id of the event that started it.
    """

    __slots__ = ("_client", "_handle", "_output_type", "event_id", "run_id", "workflow_id")

    def __init__(
        self, client: temporalio.client.Client, handle: WorkflowHandle[Any, Any], event_id: str, output_type: Any
    ) -> None:
        self._client = client
        self._handle = handle
        self._output_type = output_type
        self.workflow_id = handle.id
        self.run_id = handle.first_execution_run_id or handle.run_id or ""
        self.event_id = event_id

    def __repr__(self) -> str:
        return f"<Run {self.workflow_id!r}>"

    @property
    def temporal(self) -> WorkflowHandle[Any, Any]:
        """Temporal's own handle, to cancel, terminate or describe the run."""
        return self._handle

    async def result(self) -> O:
        """Wait for the run's end, and return what the handler returned, as its annotations type it.

        Raises:
            RunFailedError: The run failed, timed out or was terminated.
            RunCancelledError: The run was cancelled.
            RunNotFoundError: Temporal has no such run, or no longer: its retention has passed.
        """
        check_outside("run.result", "steporal.client.Run.result")
        handle = self._handle
        while True:
            try:
                raw = await handle.result()
                break
            except WorkflowFailureError as err:
                after = await self._after_reset() if isinstance(err.cause, TerminatedError) else None
                if after is None:
                    raise _run_error(self.workflow_id, err.cause) from err
                handle = after
            except RPCError as err:
                if not is_missing(err):
                    raise
                raise run_not_found(self.workflow_id) from None
        data = from_raw(raw) if isinstance(raw, RawValue) else raw
        output: O = data if self._output_type is None else validate(data, self._output_type)
        return output

    async def _after_reset(self) -> WorkflowHandle[Any, Any] | None:
        """The execution that goes on with the run, if it was not terminated but reset."""
        latest = await self._client.get_workflow_handle(self.workflow_id).describe()
        first = latest.raw_description.workflow_execution_info.first_run_id
        if latest.status == WorkflowExecutionStatus.TERMINATED or (self.run_id and first != self.run_id):
            return None
        return self._client.get_workflow_handle(self.workflow_id, run_id=latest.run_id, result_type=RawValue)

    async def cancel(self) -> None:
        """Ask Temporal to cancel the run."""
        check_outside("run.cancel", "steporal.client.Run.cancel")
        await self._handle.cancel()


def _run_error(workflow_id: str, cause: BaseException) -> RunFailedError:
    if isinstance(cause, CancelledError):
        return RunCancelledError(workflow_id, "CancelledError", "the run was cancelled")
    check_told(cause)
    stack = stack_of(cause)
    if isinstance(cause, ApplicationError):
        return RunFailedError(workflow_id, cause.type or "ApplicationError", cause.message, stack)
    if isinstance(cause, TerminatedError):
        return RunFailedError(workflow_id, "TerminatedError", f"the run was terminated: {cause.message}", stack)
    return RunFailedError(workflow_id, type(cause).__name__, str(cause), stack)


class Client:
    """An app: its workflows, and its connection to Temporal.

    Building one does no I/O.

    Example:
        ::

            client = steporal.Client("shop")

            @client.workflow(id="process-order", input_schema=Order, triggers=[event_trigger("order.placed")])
            async def process_order(ctx: Context[Order], step: Step) -> str: ...

    Args:
        id: The app's id, unique in the Temporal namespace; also its task queue's name.
        temporal: A connected Temporal client; without one, the client connects on first use.
        task_queue: Another name for the task queue.
        max_attempts: Attempts of each step and of each body in all, where a workflow does not say.
        retry: The backoff between attempts, where a workflow does not say: 1 s, doubling, to 5 minutes.
        data_converter: Temporal's data converter for the connection that the client makes: its codec (encryption) and
            its external storage (values over 2 MiB) apply to everything that Steporal sends.
        step_packages: Further top-level packages of which functions may be passed to ``step.run`` by name. The
            packages that define the client's workflows always may.
        park_after: How long a run only waits (sleeps, events, signals, invoked runs) before Temporal holds it without
            its handler, whose code can then be edited freely; or ``"never"``. Where a workflow does not say.
    """

    def __init__(
        self,
        id: str,
        *,
        temporal: temporalio.client.Client | None = None,
        task_queue: str | None = None,
        max_attempts: int = DEFAULT_MAX_ATTEMPTS,
        retry: RetryPolicy | None = None,
        data_converter: temporalio.converter.DataConverter | None = None,
        step_packages: Iterable[str] = (),
        park_after: Duration | Literal["never"] = "1m",
    ) -> None:
        self.id = check_id(id, "a client's id")
        where = f"client {id!r}"
        self.task_queue = self.id if task_queue is None else check_id(task_queue, f"the task_queue of {where}")
        self.max_attempts = check_max_attempts(max_attempts, where)
        self.retry = DEFAULT_RETRY if retry is None else check_retry(retry, where)
        self.step_packages: set[str] = set(step_packages)
        self._data_converter = check_storage(data_converter, where)
        self.park_after = check_park_after(park_after, where)
        self._temporal = temporal
        self._connecting: asyncio.Lock | None = None
        self._workflows: dict[str, Workflow[Any, Any]] = {}
        self._sinks: dict[str, EventSink] = {}
        self._dispatchers: WeakKeyDictionary[temporalio.client.Client, Dispatcher] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<Client {self.id!r}>"

    # --- define ----------------------------------------------------------------------------------------------------

    @overload
    def workflow(
        self,
        *,
        id: str,
        input_schema: type[I],
        triggers: Sequence[Trigger] = (),
        max_attempts: int | None = None,
        retry: RetryPolicy | None = None,
        ext: WorkflowExt | None = None,
    ) -> Callable[[Handler[I, O]], Workflow[I, O]]: ...

    @overload
    def workflow(
        self,
        *,
        id: str,
        input_schema: Any = None,
        triggers: Sequence[Trigger] = (),
        max_attempts: int | None = None,
        retry: RetryPolicy | None = None,
        ext: WorkflowExt | None = None,
    ) -> Callable[[Handler[I, O]], Workflow[I, O]]: ...

    def workflow(
        self,
        *,
        id: str,
        input_schema: Any = None,
        triggers: Sequence[Trigger] = (),
        max_attempts: int | None = None,
        retry: RetryPolicy | None = None,
        ext: WorkflowExt | None = None,
    ) -> Callable[[Handler[Any, Any]], Workflow[Any, Any]]:
        """Define a workflow: decorates an ``async def handler(ctx, step)``.

        Args:
            id: Its id, unique in the app; the Temporal workflow type.
            input_schema: A pydantic model, or any type that ``pydantic.TypeAdapter`` takes; types ``ctx.input.data``.
            triggers: What starts it: :func:`~steporal.event_trigger`, :func:`~steporal.cron_trigger`.
            max_attempts: Attempts of each step in all, and of the body; 4 by default, as in StepKit.
            retry: The backoff between attempts.
            ext: Further options: events that cancel a run, a handler of failures.

        Raises:
            DefinitionError: Something cannot be right; names the workflow and the value.
        """
        loaded_again = temporal_workflow.unsafe.in_sandbox()

        def define(handler: Handler[Any, Any]) -> Workflow[Any, Any]:
            if not loaded_again:
                self._check(id, handler, input_schema)
            definition = Workflow(
                id=id,
                client=self,
                handler=handler,
                input_schema=input_schema,
                triggers=tuple(triggers) if loaded_again else check_triggers(triggers, id),
                max_attempts=self.max_attempts
                if max_attempts is None
                else check_max_attempts(max_attempts, f"workflow {id!r}"),
                retry=self.retry if retry is None else check_retry(retry, f"workflow {id!r}"),
                ext=(ext or WorkflowExt()) if loaded_again else check_ext(ext, id),
            )
            if loaded_again:
                collect(definition)
            else:
                self._workflows[id] = definition
                self.step_packages.add(handler.__module__.partition(".")[0])
            if definition.ext.on_failure is not None:
                self._on_failure(definition, definition.ext.on_failure)
            return definition

        return define

    def _on_failure(self, workflow: Workflow[Any, Any], handler: Handler[Any, Any]) -> None:
        """Define the workflow that starts when a run of ``workflow`` has failed, as Inngest does."""
        function_id = json.dumps(f"{self.id}-{workflow.id}", ensure_ascii=False)
        self.workflow(
            id=workflow.id + FAILURE_SUFFIX,
            input_schema=RunFailure,
            triggers=[event_trigger(FAILED, f"event.data.function_id == {function_id}")],
            max_attempts=workflow.max_attempts,
            retry=workflow.retry,
        )(handler)

    def _check(self, id: str, handler: Handler[Any, Any], input_schema: Any) -> None:
        check_id(id, f"a workflow's id in client {self.id!r}")
        self._check_kept(id)
        check_handler(handler, id)
        if id in self._workflows:
            other = self._workflows[id].handler
            raise DefinitionError(
                f"client {self.id!r} has a workflow {id!r} already, {other.__module__}.{other.__qualname__}; "
                "give each workflow an id of its own"
            )
        check_schema(input_schema, id)
        check_step_functions(handler, id)

    def _check_kept(self, id: str) -> None:
        if id.startswith("steporal."):
            raise DefinitionError(f"workflow id {id!r} starts with 'steporal.', which is kept for system workflows")
        if id in self._sinks:
            raise DefinitionError(
                f"client {self.id!r} has an event_sink {id!r} already; give each an id=... of its own"
            )

    def event_sink(
        self,
        events: str | Sequence[str],
        to: str | InngestSink,
        *,
        secret: str | Secret | None = None,
        id: str | None = None,
        if_exp: str | None = None,
        headers: Mapping[str, str | Secret] | None = None,
        timeout: Duration = "30s",
        give_up_after: Duration = "1d",
        retry: RetryPolicy | None = None,
        allow_private: bool = False,
    ) -> EventSink:
        """Deliver events to a system outside: each event as a durable run of its own.

        An event is posted as JSON, ``{"name", "data", "id", "ts", "v"}``, in the form of Standard Webhooks
        (https://www.standardwebhooks.com): ``webhook-id`` is the event's id, the same in each attempt, so that the
        receiver can tell a repetition. Any 2xx is a delivery. Tried again, for a day, when the connection fails or the
        answer is 408, 409, 425, 429 or 5xx, after the time that its ``Retry-After`` says; any other answer fails the
        run at once. A redirect is followed on the same host alone.

        Example:
            ``client.event_sink("order.*", "https://example.com/hooks", secret=steporal.secret("HOOK_SECRET"))``

        Args:
            events: A name, a pattern, or several; ``"*"`` is every event but the system's.
            to: A URL, or an :class:`~steporal.InngestSink`.
            secret: Signs what is sent to a URL: ``whsec_`` and base64, best as :func:`~steporal.secret`. Two, with a
                blank between, sign twice, while one is changed for the other.
            id: Its id, unique in the namespace; the Temporal workflow type. Made of the app's id, the events and the
                host, by default.
            if_exp: An expression in CEL that must be true of the event.
            headers: Headers to send, too; their values may be secrets.
            timeout: How long one attempt may take.
            give_up_after: How long to try in all.
            retry: The backoff between attempts: 5 s, doubling, to an hour, by default.
            allow_private: Allow addresses that are not the internet's: of private networks, of this machine.

        Raises:
            DefinitionError: Something cannot be right.
        """
        sink = define_sink(
            self.id,
            events,
            to,
            secret=secret,
            id=id,
            if_exp=if_exp,
            headers=headers,
            timeout=timeout,
            give_up_after=give_up_after,
            retry=retry,
            allow_private=allow_private,
        )
        if not temporal_workflow.unsafe.in_sandbox():
            self._check_kept(sink.id)
            if sink.id in self._workflows:
                raise DefinitionError(
                    f"client {self.id!r} has a workflow {sink.id!r} already; give the event_sink an id of its own"
                )
            self._sinks[sink.id] = sink
        return sink

    @property
    def sinks(self) -> Mapping[str, EventSink]:
        """The sinks defined so far, by id."""
        return MappingProxyType(self._sinks)

    @property
    def workflows(self) -> list[Workflow[Any, Any]]:
        """The workflows defined so far."""
        return list(self._workflows.values())

    def get_workflow(self, id: str) -> Workflow[Any, Any]:
        """A workflow by its id.

        Raises:
            KeyError: There is none.
        """
        return self._workflows[id]

    def plugin(self) -> SteporalPlugin:
        """The Temporal plugin that adds this client's workflows and activities to a ``temporalio.worker.Worker``.

        Example:
            ``Worker(temporal, task_queue=client.task_queue, plugins=[client.plugin()])``
        """
        from .plugin import SteporalPlugin  # which takes the SDK's worker along: 0.1 s for who only sends

        return SteporalPlugin(self)

    # --- connect ---------------------------------------------------------------------------------------------------

    @property
    def temporal(self) -> temporalio.client.Client:
        """The connected Temporal client.

        Raises:
            RuntimeError: The client has not connected yet.
            NotInBodyError: The caller is the body of a workflow.
        """
        check_outside("client.temporal", "steporal.client.Client.temporal")
        if self._temporal is None:
            raise RuntimeError(f"client {self.id!r} is not connected; `await client.connect()` first")
        return self._temporal

    @temporal.setter
    def temporal(self, temporal: temporalio.client.Client) -> None:
        self._temporal = temporal

    @property
    def data_converter(self) -> temporalio.converter.DataConverter | None:
        """The data converter of the connection; what was given, until there is one."""
        return self._data_converter if self._temporal is None else self._temporal.data_converter

    async def connect(self) -> temporalio.client.Client:
        """Connect to Temporal, unless connected.

        Uses Temporal's own configuration: ``TEMPORAL_ADDRESS``, ``TEMPORAL_NAMESPACE``, ``TEMPORAL_API_KEY``, …, and
        the profiles of its TOML file (https://docs.temporal.io/develop/environment-configuration). With keys in
        ``STEPORAL_ENCRYPTION_KEYS`` or ``STEPORAL_DECRYPTION_KEYS``, what is sent is encrypted (``docs/security.md``).
        """
        check_outside("client.connect", "steporal.client.Client.connect")
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        async with self._connecting:
            if self._temporal is None:
                config = ClientConfig.load_client_connect_config()
                config.setdefault("target_host", "localhost:7233")
                converter = self._converter_to_connect()
                self._temporal = await temporalio.client.Client.connect(**config, data_converter=converter)
        return self._temporal

    def _converter_to_connect(self) -> temporalio.converter.DataConverter:
        converter = self._data_converter or temporalio.converter.DataConverter.default
        if not any(name in os.environ for name in (ENCRYPTION_KEYS, DECRYPTION_KEYS)):
            return converter
        from . import encryption  # which is loaded where there are keys

        return encryption.data_converter(base=converter)

    def dispatcher(self, temporal: temporalio.client.Client) -> Dispatcher:
        """What sends events into a namespace; one for each Temporal client, as it caches the catalog."""
        found = self._dispatchers.get(temporal)
        if found is None:
            found = self._dispatchers[temporal] = Dispatcher(temporal)
        return found

    # --- start and send --------------------------------------------------------------------------------------------

    @overload
    async def start_workflow(self, workflow: Workflow[I, O], input: I, *, id: str | None = None) -> Run[O]: ...

    @overload
    async def start_workflow(
        self, workflow: Workflow[Any, O] | WorkflowReference[O], input: JSON = None, *, id: str | None = None
    ) -> Run[O]: ...

    async def start_workflow(
        self, workflow: Workflow[Any, Any] | WorkflowReference[Any], input: Any = None, *, id: str | None = None
    ) -> Run[Any]:
        """Start a run.

        Args:
            workflow: A workflow of this client, or :func:`~steporal.reference` to another app's.
            input: Its input: an instance of its ``input_schema``, or JSON that fits it.
            id: Temporal's workflow id; ``{workflow id}/{event id}`` by default.

        Raises:
            InvalidInputError: The input does not fit the ``input_schema``; nothing was started.
            AlreadyStartedError: There is, or was within Temporal's retention, a run with this ``id``.
            UnknownWorkflowError: The referenced app or workflow is not registered.
        """
        check_outside("client.start_workflow", "steporal.client.Client.start_workflow")
        data = _input_json(workflow, input)
        to_limited(f"the input of workflow {workflow.id!r}", data, most_with(self.data_converter))
        temporal = await self.connect()
        event_id = new_ulid()
        workflow_id = f"{workflow.id}/{event_id}" if id is None else check_id(id, "a run's id")
        if isinstance(workflow, WorkflowReference):
            app, _ = await find_listed(self.dispatcher(temporal).catalog, workflow.app, workflow.id)
            task_queue = app.task_queue
        else:
            task_queue = workflow.client.task_queue
        origin = Origin.of_invoke(event_id, await self.dispatcher(temporal).is_finish_listened())
        try:
            with starting(temporal, workflow.id, workflow_id):
                handle = await start_indexed(
                    temporal,
                    of_run(workflow.app, workflow.id, origin.name, event_id),
                    lambda attributes: temporal.start_workflow(
                        workflow.id,
                        args=origin.arguments(data),
                        id=workflow_id,
                        task_queue=task_queue,
                        result_type=RawValue,
                        id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                        search_attributes=attributes,
                        static_details=origin.details(),
                    ),
                )
        except WorkflowAlreadyStartedError:
            raise AlreadyStartedError(
                f"a run with the id {workflow_id!r} was started before; to look at it, get_run({workflow_id!r})"
            ) from None
        return Run(temporal, handle, event_id, workflow.output_type)

    async def get_run(
        self, workflow_id: str, workflow: Workflow[Any, O] | WorkflowReference[O] | None = None
    ) -> Run[O]:
        """Find a run that was started before, by its Temporal workflow id.

        Args:
            workflow_id: ``run.workflow_id``.
            workflow: Its workflow, which types its result.

        Raises:
            RunNotFoundError: No run has this workflow id.
        """
        check_outside("client.get_run", "steporal.client.Client.get_run")
        temporal = await self.connect()
        found = await find_run(temporal, check_id(workflow_id, "a run's workflow id"))
        handle = temporal.get_workflow_handle(workflow_id, first_execution_run_id=found.run_id, result_type=RawValue)
        return Run(temporal, handle, found.event_id, workflow.output_type if workflow else None)

    async def send_event(self, event_or_events: EventLike | Sequence[EventLike]) -> SendEventResult:
        """Send events: each starts the workflows that have a trigger for it, in every app of the namespace.

        Args:
            event_or_events: One event or up to 5,000, as :class:`~steporal.SentEvent` or a dict with its keys.

        Returns:
            The ids, in order: the given ones, else new ULIDs.

        Raises:
            InvalidEventError: An event cannot be sent; nothing was.
            SendEventError: Temporal could not be reached, or refused; some may have been sent. Sending the same
                events again with the error's ``ids`` starts nothing twice.
        """
        check_outside("client.send_event", "steporal.client.Client.send_event")
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        events = prepare_events(event_or_events, new_id=lambda position: new_ulid(), now_ms=now_ms)
        ids = [event.id for event in events]
        try:
            await self.dispatcher(await self.connect()).dispatch(events)
        except (RPCError, RuntimeError) as err:
            raise SendEventError(f"Temporal did not take the events: {err}", ids) from err
        return SendEventResult(ids=ids)

    async def send_signal(self, signal: str, data: JSON = None) -> SendSignalResult:
        """Send a signal to the run that waits for it; nothing happens if none does.

        Args:
            signal: The signal's name.
            data: Its data: JSON, or what pydantic makes JSON of.

        Returns:
            The id of the run that received it, or None.

        Raises:
            InvalidArgumentError: The name is none; nothing was sent.
            UnserializableError: The data is no JSON; nothing was sent.
            PayloadTooLargeError: The data has more than 2 MiB, or 8 MiB with external storage; nothing was sent.
            InvalidInputError: The data does not fit the ``schema`` of the step that waits, which has not received it
                and waits on.
            SendSignalError: Temporal could not be reached, or refused, or no worker was up to answer; a run may have
                received it or not.
        """
        check_outside("client.send_signal", "steporal.client.Client.send_signal")
        try:
            check_signal(signal)
        except (TypeError, ValueError) as err:
            raise InvalidArgumentError(str(err)) from None
        encoded = signal_data(signal, data)
        raw = to_limited(f"the data of signal {signal!r}", encoded, most_with(self.data_converter))
        try:
            temporal = await self.connect()
            mailboxes = Mailboxes(temporal)
            with signalling(temporal, signal):
                held = await mailboxes.find(signal)
                received = await mailboxes.send(signal, held.run_id, raw, id=new_ulid()) if held else None
        except WorkflowUpdateRPCTimeoutOrCancelledError as err:
            seconds = ANSWER_TIMEOUT.total_seconds()
            raise SendSignalError(
                f"signal {signal!r}: no worker has answered in {seconds:.0f} s, though a run waits for it; "
                "it may receive it yet. Is a worker up?"
            ) from err
        except (RPCError, RuntimeError) as err:
            raise SendSignalError(f"Temporal did not take signal {signal!r}: {err}") from err
        return SendSignalResult(run_id=received)

    # --- register --------------------------------------------------------------------------------------------------

    async def sync(self) -> App:
        """Register this client's workflows and triggers in the namespace's catalog, and its cron schedules.

        What is gone from the list since the last time is dropped. Every worker does this when it starts; a worker must
        be up (any app's), as the catalog is a workflow itself.
        """
        check_outside("client.sync", "steporal.client.Client.sync")
        temporal = await self.connect()
        catalog = self.dispatcher(temporal).catalog
        before = (await catalog.read(fresh=True)).apps.get(self.id)
        listed = self.listed()
        crons = {start.id: start for start in self._cron_starts()}
        await schedules.apply(temporal, crons, before.schedules if before else ())
        await catalog.register(listed)
        return listed

    def listed(self) -> App:
        """What :meth:`sync` registers."""
        return App(
            id=self.id,
            task_queue=self.task_queue,
            workflows=tuple(self._listed()),
            schedules=tuple(sorted({start.id for start in self._cron_starts()})),
        )

    def _listed(self) -> Iterator[Listed]:
        for workflow in self.workflows:
            yield Listed(id=workflow.id, triggers=tuple(map(_entry, workflow.triggers)))
        for sink in self.sinks.values():
            entries = (Entry(event=on.event, if_exp=on.if_exp, bridge=sink.is_bridge) for on in sink.triggers)
            yield Listed(id=sink.id, triggers=tuple(entries))

    def _cron_starts(self) -> list[schedules.CronStart]:
        return [
            schedules.CronStart(self.id, workflow.id, self.task_queue, trigger)
            for workflow in self.workflows
            for trigger in workflow.triggers
            if isinstance(trigger, CronTrigger)
        ]


def _entry(trigger: Trigger) -> Entry:
    if isinstance(trigger, EventTrigger):
        return Entry(event=trigger.event, if_exp=trigger.if_exp)
    return Entry(cron=trigger.schedule)


def _input_json(workflow: Workflow[Any, Any] | WorkflowReference[Any], input: Any) -> JSON:
    try:
        data = to_json(input)
    except UnserializableError as err:
        raise InvalidInputError(f"the input of workflow {workflow.id!r} cannot be sent: {err}") from None
    if isinstance(workflow, Workflow):
        workflow.validate_input(data)
    return data
