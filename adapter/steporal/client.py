"""The client: define workflows, start runs, send events."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, overload

import temporalio.client
import temporalio.converter
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.common import RawValue, RetryPolicy
from temporalio.envconfig import ClientConfig
from temporalio.exceptions import WorkflowAlreadyStartedError
from typing_extensions import TypeVar

from .app import DEFAULT_CODE_TIMEOUT, DEFAULT_HEARTBEAT_TIMEOUT, DEFAULT_MAX_ATTEMPTS, App
from .connecting import Connection, sdk_errors
from .definition import Invocable, WorkflowReference
from .durations import Duration
from .errors import (
    AlreadyStartedError,
    ConnectError,
    DefinitionError,
    InvalidArgumentError,
    NotInForceError,
    SendEventError,
    SendSignalError,
)
from .events import EventLike, ReceivedEvent, SendEventResult, new_ulid, prepare_events
from .http import Secret
from .loops import blocking
from .misuse import explained
from .observability.tracing import signalling, starting
from .outbound.sinks import EventSink, InngestSink, define_sink
from .outside import check_outside
from .routing.catalog.listing import AppList
from .routing.catalog.lookup import find_task_queue
from .routing.catalog.registering import Registrar, Source
from .routing.existing_runs import find_run
from .routing.mailbox_client import ANSWER_TIMEOUT, Mailboxes
from .routing.sending import Sending
from .run_handle import Run
from .signals import SendSignalResult, check_signal, signal_data
from .start_request import StartRequest, start_run
from .triggers import Trigger
from .types import JSON
from .validation import check_id_argument
from .values.encrypted import DECRYPTION_KEYS, ENCRYPTION_KEYS, encrypts
from .values.type_names import shown
from .wire.limits import MAX_WORKFLOW_ID_BYTES, to_limited
from .wire.run_input import InputPayload, encode_foreign_input, encode_input
from .wire.start import Origin
from .wire.storage import check_storage, size_limit_with
from .wire.workflow_ids import workflow_id_of
from .workflow import Handler, Workflow, WorkflowExt

if TYPE_CHECKING:
    from .worker.plugin import SteporalPlugin

logger: logging.Logger = logging.getLogger("steporal")

I = TypeVar("I", default=Any)  # noqa: E741
O = TypeVar("O", default=Any)  # noqa: E741


class Client:
    """An app: its workflows, and its connection to Temporal.

    Creating a client does no I/O. A client works from any number of threads and event loops at once. Its methods are
    async; those that end in ``_sync`` do the same for code without an event loop. After a fork, only a client that was
    not connected before the fork works in the child; see :class:`~steporal.ForkError`.

    Example:
        ::

            client = steporal.Client("shop")

            @client.workflow(id="process-order", input_schema=Order, triggers=[event_trigger("order.placed")])
            async def process_order(ctx: Context[Order], step: Step) -> str: ...

    Args:
        id: The app's id, unique in the Temporal namespace; also its task queue's name.
        temporal: A connected Temporal client; without one, the client connects on first use.
        task_queue: Another name for the task queue.
        max_attempts: Total attempts of each step and of each body. A workflow can set another number.
        retry: Backoff between attempts: 1 s, doubling, up to 5 minutes. A workflow can set another.
        data_converter: Temporal's data converter for the connection that the client makes: its codec (encryption) and
            its external storage (values over 2 MiB) apply to everything that Steporal sends.
        step_packages: Further top-level packages that are the app's own: their functions may be passed to ``step.run``
            by name, and their classes may validate values. The packages that define the client's workflows always
            are. Whoever can write to the namespace can call these functions. See ``docs/security.md``.
        park_after: Time that a run has only waited (sleeps, events, signals, invoked runs) after which it parks:
            Temporal keeps it without its handler, whose code can then be edited freely. ``"never"`` turns parking off.
            A workflow can set another.
        heartbeat_timeout: Time without a heartbeat after which Temporal considers a step interrupted; at least 1 s. The
            run then asks that worker for the outcome, for up to 15 seconds, and begins the step again elsewhere if the
            worker does not answer. A workflow and a step can set another.
        code_timeout: How long a step waits for a worker that has its code, as in a rolling deployment, before it fails
            with the last worker's reason. A workflow can set another.
        revision: The number of this revision of the code, such as that of the CI's build. Of two lists of the app, that
            of the higher revision is in force. By default ``STEPORAL_REVISION``, else the time when the newest of the
            app's modules was changed. See ``docs/operate.md``.

    Raises:
        DefinitionError: An argument is not valid; the message names the client and the value.
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
        heartbeat_timeout: Duration = DEFAULT_HEARTBEAT_TIMEOUT,
        code_timeout: Duration = DEFAULT_CODE_TIMEOUT,
        revision: int | None = None,
    ) -> None:
        self._app = App(
            id,
            task_queue=task_queue,
            max_attempts=max_attempts,
            retry=retry,
            step_packages=step_packages,
            park_after=park_after,
            heartbeat_timeout=heartbeat_timeout,
            code_timeout=code_timeout,
            revision=revision,
        )
        data_converter = check_storage(data_converter, f"client {id!r}")
        self._connection = Connection(self.id, self._new_connection, data_converter)
        if temporal is not None:
            self.temporal = temporal
        self._sending = Sending(self._app)

    def __repr__(self) -> str:
        return f"<Client {self.id!r}>"

    def __reduce__(self) -> NoReturn:
        raise InvalidArgumentError(
            f"client {self.id!r} cannot be pickled or copied, as it has a connection and the functions of its "
            "workflows; import it from its module where it is needed, also in another process"
        )

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

    @explained
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
            id: Its id; the Temporal workflow type. Unique in the app.
            input_schema: A pydantic model, or any type that ``pydantic.TypeAdapter`` takes; types ``ctx.input.data``.
            triggers: What starts it: :func:`~steporal.event_trigger`, :func:`~steporal.cron_trigger`.
            max_attempts: Attempts of each step in all, and of the body; 4 by default, as in StepKit.
            retry: The backoff between attempts.
            ext: Further options: events that cancel a run, a handler of failures.

        Raises:
            DefinitionError: An argument is not valid; the message names the workflow and the value.
        """

        def define(handler: Handler[Any, Any]) -> Workflow[Any, Any]:
            return self._app.define(
                handler,
                self,
                id=id,
                input_schema=input_schema,
                triggers=triggers,
                max_attempts=max_attempts,
                retry=retry,
                ext=ext,
            )

        return define

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
        """Forward events to an external system. Each event is delivered by its own durable run.

        An event is posted as JSON, ``{"name", "data", "id", "ts", "v"}``, in the form of Standard Webhooks
        (https://www.standardwebhooks.com): ``webhook-id`` is the event's id, the same in each attempt, so that the
        receiver can detect duplicates. A 2xx answer ends the delivery. If the connection fails or the answer is 408,
        409, 425, 429 or 5xx, the delivery is retried for up to ``give_up_after``; ``Retry-After`` is honoured. Any
        other answer fails the run at once. A redirect is followed on the same host alone.

        Example:
            ``client.event_sink("order.*", "https://example.com/hooks", secret=steporal.secret("HOOK_SECRET"))``

        Args:
            events: A name, a pattern, or several; ``"*"`` is every event but the system's.
            to: A URL, or an :class:`~steporal.InngestSink`.
            secret: Signs what is sent to a URL: ``whsec_`` and base64, best as :func:`~steporal.secret`. To rotate a
                secret, pass both, separated by a space: each signs.
            id: Its id, unique in the namespace; the Temporal workflow type. Made of the app's id, the events and the
                host, by default.
            if_exp: An expression in CEL that must be true of the event.
            headers: Headers to send, too; their values may be secrets.
            timeout: How long one attempt may take.
            give_up_after: How long to try in all.
            retry: The backoff between attempts: 5 s, doubling, to an hour, by default.
            allow_private: Allow private and loopback addresses.

        Raises:
            DefinitionError: An argument is not valid.
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
        self._app.add_sink(sink)
        return sink

    @property
    def app(self) -> App:
        """Definitions of the app, and the defaults of their options."""
        return self._app

    @property
    def sending(self) -> Sending:
        """Sender of events for the app, through any connection."""
        return self._sending

    @property
    def id(self) -> str:
        """The app's id."""
        return self._app.id

    @property
    def task_queue(self) -> str:
        """The task queue of the app's runs."""
        return self._app.task_queue

    @property
    def step_packages(self) -> set[str]:
        """Top-level packages whose functions are steps of the app, and whose classes its values may have."""
        return self._app.step_packages

    @property
    def sinks(self) -> Mapping[str, EventSink]:
        """The sinks defined so far, by id."""
        return MappingProxyType(self._app.sinks)

    @property
    def workflows(self) -> list[Workflow[Any, Any]]:
        """The workflows defined so far."""
        return list(self._app.workflows.values())

    def get_workflow(self, id: str) -> Workflow[Any, Any]:
        """Return a workflow by its id.

        Raises:
            KeyError: No workflow has this id.
        """
        return self._app.workflows[id]

    def plugin(self) -> SteporalPlugin:
        """Return the Temporal plugin that adds this client's workflows and activities to a Temporal ``Worker``.

        Example:
            ``Worker(temporal, task_queue=client.task_queue, plugins=[client.plugin()])``
        """
        # Imported here: it loads the SDK's worker, which costs 0.1 s that senders need not pay.
        from .worker.plugin import SteporalPlugin

        return SteporalPlugin(self._app, self._connection, self._sending)

    def run(self) -> NoReturn:
        """Serve this client's workflows in the foreground, and end the process: ``python shop.py`` as a worker.

        It does what ``steporal worker`` does, with the same settings: Temporal's own configuration
        (``TEMPORAL_ADDRESS``, ``TEMPORAL_NAMESPACE``, profiles), ``STEPORAL_…`` variables and ``steporal.toml``. On
        Ctrl-C or SIGTERM it lets running steps finish and ends the process with status 0; a second signal ends it at
        once. It needs ``steporal[cli]``.

        The module that calls it is imported a second time, by its own name instead of ``__main__``: all workers of the
        app then name its functions alike. Code after the call never runs.

        Example:
            ::

                if __name__ == "__main__":
                    client.run()

        Raises:
            DefinitionError: A module calls it while it is imported.
            RuntimeError: It is called inside a running event loop, or in a thread.
            ModuleNotFoundError: ``steporal[cli]`` is not installed.
        """
        from .foreground import caller, serve

        serve(self, self.task_queue, caller())

    @property
    def revision(self) -> int | None:
        """Revision of the code, as an argument or ``STEPORAL_REVISION`` gives it; None without either."""
        return self._app.revision

    @revision.setter
    def revision(self, revision: int | None) -> None:
        self._app.revision = revision

    # --- connect ---------------------------------------------------------------------------------------------------

    @property
    def temporal(self) -> temporalio.client.Client:
        """The connected Temporal client.

        Raises:
            ConnectError: The client has not connected yet.
            ForkError: It was connected in the process that this one was forked from.
            NotInBodyError: The caller is the body of a workflow.
        """
        check_outside("client.temporal", "steporal.Client.temporal")
        temporal = self._connection.temporal
        if temporal is None:
            raise ConnectError(f"client {self.id!r} is not connected; `await client.connect()` first")
        return temporal

    @temporal.setter
    def temporal(self, temporal: temporalio.client.Client) -> None:
        if not isinstance(temporal, temporalio.client.Client):
            raise DefinitionError(
                f"temporal of client {self.id!r} is {shown(temporal)}; it takes a temporalio.client.Client, as "
                "`await temporalio.client.Client.connect(...)` returns it"
            )
        self._connection.temporal = temporal

    @property
    def data_converter(self) -> temporalio.converter.DataConverter | None:
        """Data converter of the connection, or, before the client connects, the one passed to it."""
        return self._connection.data_converter

    async def connect(self) -> temporalio.client.Client:
        """Connect to Temporal, unless connected.

        Uses Temporal's own configuration: ``TEMPORAL_ADDRESS``, ``TEMPORAL_NAMESPACE``, ``TEMPORAL_API_KEY``, …, and
        the profiles of its TOML file (https://docs.temporal.io/develop/environment-configuration). With keys in
        ``STEPORAL_ENCRYPTION_KEYS`` or ``STEPORAL_DECRYPTION_KEYS``, what is sent is encrypted (``docs/security.md``).

        Returns:
            The Temporal client, which works in every thread and event loop of this process.

        Raises:
            ConnectError: Temporal does not answer, or its configuration is not valid.
            ForkError: The client was connected in the process that this one was forked from.
        """
        check_outside("client.connect", "steporal.Client.connect")
        return await self._connection.get()

    async def _new_connection(self) -> temporalio.client.Client:
        config = ClientConfig.load_client_connect_config()
        config.setdefault("target_host", "localhost:7233")
        return await temporalio.client.Client.connect(**config, data_converter=self._converter_to_connect())

    def _converter_to_connect(self) -> temporalio.converter.DataConverter:
        converter = self._connection.own_converter or temporalio.converter.DataConverter.default
        if not any(name in os.environ for name in (ENCRYPTION_KEYS, DECRYPTION_KEYS)):
            return converter
        from . import encryption  # imported only if keys are set

        return encryption.data_converter(base=converter)

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
            input: Its input: an instance of its ``input_schema``, or what the schema makes one of. An instance arrives
                as it is, without another validation.
            id: Temporal's workflow id, of at most 255 bytes in UTF-8; ``{app}/{workflow}/{event id}`` by default.

        Raises:
            InvalidArgumentError: ``workflow`` is neither a workflow nor a reference, or ``id`` cannot be an id; nothing
                was started.
            InvalidInputError: The input does not fit the ``input_schema``, or cannot be sent; nothing was started.
            AlreadyStartedError: There is, or was within Temporal's retention, a run with this ``id``.
            UnknownWorkflowError: The referenced app or workflow is not registered.
            ConnectError: There is no connection to Temporal; nothing was started.
            TemporalCallError: Temporal refused, or did not answer; the run may have been started.
        """
        check_outside("client.start_workflow", "steporal.Client.start_workflow")
        _check_workflow(workflow)
        if id is not None:
            check_id_argument(id, "id")
        input_parts = self._encode_input(workflow, input)
        to_limited(f"the input of workflow {workflow.id!r}", input_parts.both(), size_limit_with(self.data_converter))
        temporal = await self.connect()
        event_id = new_ulid()
        workflow_id = id or workflow_id_of(workflow.app, workflow.id, event_id)
        with sdk_errors(f"starting workflow {workflow.id!r}"):
            request = await self._start_request(temporal, workflow, workflow_id, event_id, input_parts)
            try:
                with starting(temporal, workflow.id, workflow_id):
                    handle = await start_run(temporal, request)
            except WorkflowAlreadyStartedError:
                raise AlreadyStartedError(
                    f"a run with the id {workflow_id!r} was started before; to look at it, get_run({workflow_id!r})"
                ) from None
        return Run(temporal, handle, event_id, workflow)

    async def _start_request(
        self,
        temporal: temporalio.client.Client,
        workflow: Workflow[Any, Any] | WorkflowReference[Any],
        workflow_id: str,
        event_id: str,
        input_parts: InputPayload,
    ) -> StartRequest:
        dispatcher = self._sending.dispatcher(temporal)
        if isinstance(workflow, WorkflowReference):
            task_queue = await find_task_queue(dispatcher.catalog, workflow.app, workflow.id)
        else:
            task_queue = workflow.task_queue
        is_finish_listened = await dispatcher.is_finish_listened()
        return StartRequest(
            app=workflow.app,
            workflow=workflow.id,
            workflow_id=workflow_id,
            task_queue=task_queue,
            origin=Origin.of_invoke(event_id, is_finish_listened, input_parts.exact),
            data=input_parts.data,
        )

    def _encode_input(self, workflow: Workflow[Any, Any] | WorkflowReference[Any], input: Any) -> InputPayload:
        if isinstance(workflow, WorkflowReference):
            return encode_foreign_input(workflow.id, input)
        packages = workflow.step_packages
        return encode_input(workflow.id, workflow.input_schema, input, secrets=self._encrypts, packages=packages)

    def _encrypts(self) -> bool:
        temporal = self._connection.temporal
        return encrypts(self._converter_to_connect() if temporal is None else temporal.data_converter)

    @overload
    def start_workflow_sync(self, workflow: Workflow[I, O], input: I, *, id: str | None = None) -> Run[O]: ...

    @overload
    def start_workflow_sync(
        self, workflow: Workflow[Any, O] | WorkflowReference[O], input: JSON = None, *, id: str | None = None
    ) -> Run[O]: ...

    def start_workflow_sync(
        self, workflow: Workflow[Any, Any] | WorkflowReference[Any], input: Any = None, *, id: str | None = None
    ) -> Run[Any]:
        """Block until ``client.start_workflow(...)`` is done, in code without an event loop.

        Any number of threads may call it at once.

        Raises:
            EventLoopError: An event loop is running in this thread; await :meth:`start_workflow` there.
        """
        return blocking("client.start_workflow", self.start_workflow, workflow, input, id=id)

    async def get_run(
        self, workflow_id: str, workflow: Workflow[Any, O] | WorkflowReference[O] | None = None
    ) -> Run[O]:
        """Find a run that was started before, by its Temporal workflow id.

        Args:
            workflow_id: ``run.workflow_id``.
            workflow: Its workflow, which types its result; plain JSON without one.

        Raises:
            InvalidArgumentError: ``workflow_id`` cannot be an id; ``workflow`` is neither a workflow nor a reference.
            RunNotFoundError: No run has this workflow id.
            ConnectError: There is no connection to Temporal.
            TemporalCallError: Temporal refused, or could not be reached.
        """
        check_outside("client.get_run", "steporal.Client.get_run")
        if workflow is not None:
            _check_workflow(workflow)
        check_id_argument(workflow_id, "workflow_id", max_bytes=MAX_WORKFLOW_ID_BYTES)
        with sdk_errors(f"finding run {workflow_id!r}"):
            temporal = await self.connect()
            found = await find_run(temporal, workflow_id)
            handle = temporal.get_workflow_handle(
                workflow_id, first_execution_run_id=found.run_id, result_type=RawValue
            )
        return Run(temporal, handle, found.event_id, workflow)

    def get_run_sync(self, workflow_id: str, workflow: Workflow[Any, O] | WorkflowReference[O] | None = None) -> Run[O]:
        """Block until ``client.get_run(...)`` is done, in code without an event loop.

        Any number of threads may call it at once.

        Raises:
            EventLoopError: An event loop is running in this thread; await :meth:`get_run` there.
        """
        return blocking("client.get_run", self.get_run, workflow_id, workflow)

    async def send_event(self, event_or_events: EventLike | Sequence[EventLike]) -> SendEventResult:
        """Send events: each starts the workflows that have a trigger for it, in every app of the namespace.

        An event that has a trigger in this client, which no worker has registered yet, is held back for up to two
        seconds, once; if its workflows are not registered then, a warning is logged, and they do not start.

        Args:
            event_or_events: One event or up to 5,000, as :class:`~steporal.SentEvent` or a dict with its keys.

        Returns:
            The ids, in order: the given ones, else new ULIDs; and the runs that the events have started.

        Raises:
            InvalidEventError: An event cannot be sent; nothing was.
            SendEventError: Temporal could not be reached, or refused; some may have been sent. Sending the same
                events again with the error's ``ids`` starts nothing twice.
        """
        check_outside("client.send_event", "steporal.Client.send_event")
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        return await self.send_prepared(
            prepare_events(event_or_events, new_id=lambda position: new_ulid(), now_ms=now_ms)
        )

    def send_event_sync(self, event_or_events: EventLike | Sequence[EventLike]) -> SendEventResult:
        """Block until ``client.send_event(...)`` is done, in code without an event loop.

        Any number of threads may call it at once.

        Raises:
            EventLoopError: An event loop is running in this thread; await :meth:`send_event` there.
        """
        return blocking("client.send_event", self.send_event, event_or_events)

    async def send_prepared(self, events: Sequence[ReceivedEvent]) -> SendEventResult:
        """Send events that :func:`~steporal.events.prepare_events` has checked, as :meth:`send_event` does."""
        ids = [event.id for event in events]
        with sdk_errors("Temporal did not accept the events", partial(SendEventError, ids=ids)):
            return await self._sending.dispatch(await self.connect(), events)

    async def send_signal(self, signal: str, data: JSON = None) -> SendSignalResult:
        """Send a signal to the run that waits for it; nothing happens if none does.

        Args:
            signal: The signal's name.
            data: Its data: JSON, or what pydantic makes JSON of.

        Returns:
            The id of the run that received it, or None.

        Raises:
            InvalidArgumentError: The name is not valid; nothing was sent.
            UnserializableError: The data cannot be sent as JSON; nothing was sent.
            PayloadTooLargeError: The data has more than 2 MiB, or 8 MiB with external storage; nothing was sent.
            InvalidInputError: The data does not fit the ``schema`` of the step that waits, which has not received it
                and waits on.
            SendSignalError: Temporal could not be reached, or refused, or no worker was up to answer; a run may have
                received it or not.
        """
        check_outside("client.send_signal", "steporal.Client.send_signal")
        try:
            check_signal(signal)
        except (TypeError, ValueError) as err:
            raise InvalidArgumentError(str(err)) from None
        encoded = signal_data(signal, data)
        raw = to_limited(f"the data of signal {signal!r}", encoded, size_limit_with(self.data_converter))
        with sdk_errors(f"Temporal did not accept signal {signal!r}", SendSignalError):
            temporal = await self.connect()
            mailboxes = Mailboxes(temporal)
            with signalling(temporal, signal):
                mailbox_wait = await mailboxes.find(signal)
                try:
                    received = (
                        await mailboxes.send(signal, mailbox_wait.run_id, raw, id=new_ulid()) if mailbox_wait else None
                    )
                except WorkflowUpdateRPCTimeoutOrCancelledError as err:
                    seconds = ANSWER_TIMEOUT.total_seconds()
                    raise SendSignalError(
                        f"signal {signal!r}: a run waits for it, but no worker answered within {seconds:.0f} s; the "
                        "run may still receive the signal. Check that a worker of its app is running"
                    ) from err
        return SendSignalResult(run_id=received)

    def send_signal_sync(self, signal: str, data: JSON = None) -> SendSignalResult:
        """Block until ``client.send_signal(...)`` is done, in code without an event loop.

        Any number of threads may call it at once.

        Raises:
            EventLoopError: An event loop is running in this thread; await :meth:`send_signal` there.
        """
        return blocking("client.send_signal", self.send_signal, signal, data)

    # --- register --------------------------------------------------------------------------------------------------

    async def sync(self, *, changed_only: bool = False, take_over: bool = False) -> AppList:
        """Register this client's workflows and triggers in the namespace's catalog, and its cron schedules.

        Workflows that this client does not define are dropped from the app's list, with a warning in the log. Every
        worker does this when it starts, and confirms it every minute. Another list of the app stays in force if its
        revision is higher, or if it is that of the current version in Worker Versioning.

        Args:
            changed_only: Whether to leave the schedules alone where they are registered as the code has them, as
                workers do. Otherwise each is looked at, and one that somebody has deleted is made again.
            take_over: Whether this list comes into force whatever list of the app is in force now. One without
                workflows, which removes the app, always does.

        Raises:
            CatalogFullError: The list is too large, or the catalog has no room for it. What was registered before
                stays as it is.
            NotInForceError: Another list of the app stays in force.
            ConnectError: There is no connection to Temporal.
            TemporalCallError: Temporal refused, or did not answer.
        """
        # Imported here: it loads the SDK's worker.
        from .worker.serving import registry_worker, system_worker

        check_outside("client.sync", "steporal.Client.sync")
        source = Source.of(self._app, is_worker=False)
        take_over = take_over or not any(self._app.definitions())
        with sdk_errors(f"registering app {self.id!r}"):
            temporal = await self.connect()
            # A worker in a namespace that does not exist ends with an error of the SDK's core.
            await temporal.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=temporal.namespace))
            async with system_worker(temporal), registry_worker(temporal, self.id, "sync"):
                outcome = await Registrar(self._app, temporal, source).confirm(
                    thorough=not changed_only, take_over=take_over
                )
        if outcome.why_not:
            raise NotInForceError(f"app {self.id!r} was not registered: {outcome.why_not}")
        return outcome.app


def _check_workflow(workflow: object) -> None:
    if not isinstance(workflow, Invocable | WorkflowReference):
        raise InvalidArgumentError(
            f"workflow is {shown(workflow)}; pass what client.workflow returned, or steporal.reference(app, id)"
        )
