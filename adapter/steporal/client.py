"""The client: define workflows, start runs, send events."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, overload
from weakref import WeakKeyDictionary

import temporalio.client
import temporalio.converter
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
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
from temporalio.service import RPCError, RPCStatusCode
from typing_extensions import TypeVar

from .checks import check_step_functions
from .connecting import Connection, sdk_errors
from .definition import (
    DEFAULT_CODE_TIMEOUT,
    DEFAULT_HEARTBEAT_TIMEOUT,
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_RETRY,
    FAILURE_SUFFIX,
    Handler,
    RunFailure,
    Workflow,
    WorkflowExt,
    WorkflowReference,
    check_code_timeout,
    check_ext,
    check_handler,
    check_heartbeat_timeout,
    check_id,
    check_id_argument,
    check_max_attempts,
    check_park_after,
    check_retry,
    check_revision,
    check_schema,
    check_triggers,
)
from .durations import Duration
from .errors import (
    AlreadyStartedError,
    ConnectError,
    DefinitionError,
    InvalidArgumentError,
    NotInForceError,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    SendEventError,
    SendSignalError,
)
from .events import MAX_EVENT_ID_BYTES, EventLike, ReceivedEvent, SendEventResult, new_ulid, prepare_events
from .given import Given, given, given_to_other_app
from .http import Secret
from .known_types import package_of
from .loops import blocking
from .main_module import imported_name
from .misuse import explained
from .outside import check_outside
from .routing import schedules
from .routing.calls import is_about_namespace
from .routing.dispatch import FAILED, Dispatcher
from .routing.finding import find_run
from .routing.listing import App, Entry, Listed
from .routing.lookup import find_task_queue
from .routing.registering import Registrar, Source
from .routing.registration import Registration, module_of
from .routing.signalling import ANSWER_TIMEOUT, Mailboxes
from .runtime.failures import attempts_of, stack_of, step_of
from .runtime.limits import MAX_WORKFLOW_ID_BYTES, to_limited
from .runtime.member_names import remember_source
from .runtime.returned import read_result, value_of
from .runtime.start import Origin
from .runtime.storage import check_storage, most_with
from .sealed import DECRYPTION_KEYS, ENCRYPTION_KEYS, check_told, encrypts
from .search_attributes import of_run, start_indexed
from .signals import SendSignalResult, check_signal, signal_data
from .sinks import EventSink, InngestSink, define_sink
from .tracing import signalling, starting
from .triggers import EventTrigger, Trigger, event_trigger
from .type_names import shown
from .types import JSON
from .workflow_ids import workflow_id_of

if TYPE_CHECKING:
    from .plugin import SteporalPlugin

logger: logging.Logger = logging.getLogger("steporal")

REVISION = "STEPORAL_REVISION"

I = TypeVar("I", default=Any)  # noqa: E741
O = TypeVar("O", default=Any)  # noqa: E741


class Run(Generic[O]):
    """A run that was started.

    Attributes:
        workflow_id: Temporal's workflow id of the run.
        run_id: The run's id, as the handler sees it in ``ctx.run_id``.
        event_id: The id of the event that started it.
    """

    __slots__ = ("_arrived", "_client", "_handle", "_workflow", "event_id", "run_id", "workflow_id")

    def __init__(
        self,
        client: temporalio.client.Client,
        handle: WorkflowHandle[Any, Any],
        event_id: str,
        workflow: Workflow[Any, O] | WorkflowReference[O] | None,
        arrived: Callable[[RawValue], None] = lambda result: None,
    ) -> None:
        self._arrived = arrived  # is given the result before it is read, and may refuse it by raising
        self._client = client
        self._handle = handle
        self._workflow = workflow
        self.workflow_id: str = handle.id
        self.run_id: str = handle.first_execution_run_id or handle.run_id or ""
        self.event_id: str = event_id

    def __repr__(self) -> str:
        return f"<Run {self.workflow_id!r}>"

    def __reduce__(self) -> NoReturn:
        raise InvalidArgumentError(
            f"run {self.workflow_id!r} cannot be pickled or copied, as it has a connection; pass its workflow_id on, "
            f"and find it by client.get_run({self.workflow_id!r})"
        )

    @property
    def temporal(self) -> WorkflowHandle[Any, Any]:
        """Temporal's own handle, to cancel, terminate or describe the run, in any event loop of this process."""
        return self._handle

    async def result(self) -> O:
        """Wait for the run's end, and return what the handler returned.

        Of a workflow of this app that is the very value, of the same class; of others, plain JSON, validated by the
        reference's ``output_type``.

        Raises:
            InvalidResultError: What the handler returned does not fit its annotation, or is of a class that this
                process does not have.
            RunFailedError: The run failed, timed out or was terminated.
            RunCancelledError: The run was cancelled.
            RunNotFoundError: Temporal has no such run, or no longer.
            TemporalCallError: Temporal refused, or could not be reached. The run goes on.
        """
        check_outside("run.result", "steporal.Run.result")
        handle = self._handle
        with self._errors("the result of"):
            while True:
                try:
                    raw = await handle.result()
                    self._arrived(raw)
                    break
                except WorkflowFailureError as err:
                    after = await self._after_reset() if isinstance(err.cause, TerminatedError) else None
                    if after is None:
                        raise _run_error(self.workflow_id, err.cause) from err
                    handle = after
        workflow, where = self._workflow, f"run {self.workflow_id!r}"
        packages = workflow.client.step_packages if isinstance(workflow, Workflow) else ()
        output: O = value_of(
            read_result(raw),
            where,
            workflow.output_type if workflow else None,
            is_own=isinstance(workflow, Workflow),
            packages=packages,
        )
        return output

    async def _after_reset(self) -> WorkflowHandle[Any, Any] | None:
        """The execution that goes on with the run, if it was not terminated but reset."""
        latest = await self._client.get_workflow_handle(self.workflow_id).describe()
        first = latest.raw_description.workflow_execution_info.first_run_id
        if latest.status == WorkflowExecutionStatus.TERMINATED or (self.run_id and first != self.run_id):
            return None
        return self._client.get_workflow_handle(self.workflow_id, run_id=latest.run_id, result_type=RawValue)

    def result_sync(self) -> O:
        """Block until ``run.result(...)`` is done, in code without an event loop.

        Any number of threads may call it at once.

        Raises:
            EventLoopError: An event loop is running in this thread; await :meth:`result` there.
        """
        return blocking("run.result", self.result)

    async def cancel(self) -> None:
        """Ask Temporal to cancel the run. A run that has ended stays as it is.

        Raises:
            RunNotFoundError: Temporal has no such run, or no longer.
            TemporalCallError: Temporal refused, or could not be reached.
        """
        check_outside("run.cancel", "steporal.Run.cancel")
        with self._errors("cancelling"):
            try:
                await self._handle.cancel()
            except RPCError as err:
                if err.status != RPCStatusCode.NOT_FOUND:
                    raise
                await (
                    self._handle.describe()
                )  # Temporal's error is the same for ended runs and for those it does not know

    def cancel_sync(self) -> None:
        """Block until ``run.cancel(...)`` is done, in code without an event loop.

        Any number of threads may call it at once.

        Raises:
            EventLoopError: An event loop is running in this thread; await :meth:`cancel` there.
        """
        return blocking("run.cancel", self.cancel)

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        with sdk_errors(f"{what} run {self.workflow_id!r}"):
            try:
                yield
            except RPCError as err:
                if err.status != RPCStatusCode.NOT_FOUND or is_about_namespace(err):
                    raise
                raise RunNotFoundError(
                    f"there is no run {self.workflow_id!r} in namespace {self._client.namespace!r}; Temporal forgets "
                    "runs some time after they have ended, when the namespace's retention period is over"
                ) from err


def _run_error(workflow_id: str, cause: BaseException) -> RunFailedError:
    if isinstance(cause, CancelledError):
        return RunCancelledError(workflow_id, "CancelledError", "the run was cancelled")
    check_told(cause)
    stack = stack_of(cause)
    if isinstance(cause, ApplicationError):
        name = cause.type or "ApplicationError"
        return RunFailedError(workflow_id, name, cause.message, stack, attempts_of(cause), step_of(cause))
    if isinstance(cause, TerminatedError):
        return RunFailedError(workflow_id, "TerminatedError", f"the run was terminated: {cause.message}", stack)
    return RunFailedError(workflow_id, type(cause).__name__, str(cause), stack)


class Client:
    """An app: its workflows, and its connection to Temporal.

    Building one does no I/O. A client works from any number of threads and event loops at once. Its methods are async;
    those that end in ``_sync`` do the same for code without an event loop. After a fork, only a client that was not
    connected before the fork works in the child; see :class:`~steporal.ForkError`.

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
        step_packages: Further top-level packages that are the app's own: their functions may be passed to ``step.run``
            by name, and their classes may validate values. The packages that define the client's workflows always
            are. Whoever can write to the namespace can call these functions. See ``docs/security.md``.
        park_after: How long a run only waits (sleeps, events, signals, invoked runs) before Temporal holds it without
            its handler, whose code can then be edited freely; or ``"never"``. Where a workflow does not say.
        heartbeat_timeout: How long the worker of a step may send no heartbeat before the step counts as interrupted; at
            least a second. Then the run asks that worker once more, for up to 15 seconds, and begins the step again
            elsewhere if it does not answer. A workflow and a step can set another.
        code_timeout: How long a step waits for a worker that has its code, as in a rolling deployment, before it fails
            with the last worker's reason. A workflow can set another.
        revision: The number of this revision of the code, such as that of the CI's build. Of two lists of the app, that
            of the higher revision is in force. By default ``STEPORAL_REVISION``, else the time when the newest of the
            app's modules was changed. See ``docs/operate.md``.

    Raises:
        DefinitionError: An argument cannot be right; names the client and the value.
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
        self.id: str = check_id(id, "a client's id")
        where = f"client {id!r}"
        self.task_queue: str = self.id if task_queue is None else check_id(task_queue, f"the task_queue of {where}")
        self.max_attempts: int = check_max_attempts(max_attempts, where)
        self.retry: RetryPolicy = DEFAULT_RETRY if retry is None else check_retry(retry, where)
        self.step_packages: set[str] = _checked_packages(step_packages, where)
        self._data_converter = check_storage(data_converter, where)
        self.park_after: timedelta | None = check_park_after(park_after, where)
        self.heartbeat_timeout: timedelta = check_heartbeat_timeout(heartbeat_timeout, where)
        self.code_timeout: timedelta = check_code_timeout(code_timeout, where)
        self._revision = check_revision(revision, f"revision of {where}")
        self._connection = Connection(self.id, self._new_connection)
        if temporal is not None:
            self.temporal = temporal
        self._workflows: dict[str, Workflow[Any, Any]] = {}
        self._sinks: dict[str, EventSink] = {}
        self._dispatchers: WeakKeyDictionary[temporalio.client.Client, Dispatcher] = WeakKeyDictionary()
        self._registration = Registration(self)

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
            DefinitionError: Something cannot be right; names the workflow and the value.
        """

        def define(handler: Handler[Any, Any]) -> Workflow[Any, Any]:
            self._check(id, handler, input_schema)
            definition = Workflow(
                id=id,
                client=self,
                handler=handler,
                input_schema=input_schema,
                triggers=check_triggers(triggers, id, input_schema),
                max_attempts=self.max_attempts
                if max_attempts is None
                else check_max_attempts(max_attempts, f"workflow {id!r}"),
                retry=self.retry if retry is None else check_retry(retry, f"workflow {id!r}"),
                ext=check_ext(ext, id),
            )
            self._workflows[id] = definition
            self.step_packages |= {package_of(handler.__module__), package_of(imported_name(handler.__module__))}
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
        if len(workflow_id_of(self.id, id, "").encode()) + MAX_EVENT_ID_BYTES > MAX_WORKFLOW_ID_BYTES:
            raise DefinitionError(
                f"workflow {id!r} of client {self.id!r}: the ids are too long together; with an event's id, of at most "
                f"{MAX_EVENT_ID_BYTES} bytes, they make Temporal's workflow id, in which each slash takes two bytes"
            )
        self._check_kept(id)
        check_handler(handler, id)
        if id in self._workflows and not _is_imported_again(self._workflows[id].handler, handler):
            other = self._workflows[id].handler
            raise DefinitionError(
                f"client {self.id!r} has a workflow {id!r} already, {other.__module__}.{other.__qualname__}; "
                "give each workflow its own id"
            )
        check_schema(input_schema, id)
        check_step_functions(handler, id)
        remember_source(handler)

    def _check_kept(self, id: str) -> None:
        if id.startswith("steporal."):
            raise DefinitionError(f"workflow id {id!r} starts with 'steporal.', which is reserved for system workflows")
        if id in self._sinks:
            raise DefinitionError(f"client {self.id!r} has an event_sink {id!r} already; give each its own id=...")

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
        self._check_kept(sink.id)
        if sink.id in self._workflows:
            raise DefinitionError(
                f"client {self.id!r} has a workflow {sink.id!r} already; give the event_sink its own id"
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
            KeyError: No workflow has this id.
        """
        return self._workflows[id]

    def plugin(self) -> SteporalPlugin:
        """The Temporal plugin that adds this client's workflows and activities to a ``temporalio.worker.Worker``.

        Example:
            ``Worker(temporal, task_queue=client.task_queue, plugins=[client.plugin()])``
        """
        from .plugin import SteporalPlugin  # which takes the SDK's worker along: 0.1 s for who only sends

        return SteporalPlugin(self)

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

        serve(self, caller())

    @property
    def revision(self) -> int | None:
        """The revision of the code that was given, here or in ``STEPORAL_REVISION``; None: nobody has given one."""
        if self._revision is not None or REVISION not in os.environ:
            return self._revision
        return check_revision(os.environ[REVISION], REVISION)

    @revision.setter
    def revision(self, revision: int | None) -> None:
        self._revision = check_revision(revision, f"revision of client {self.id!r}")

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
        """The data converter of the connection; what was given, until there is one."""
        temporal = self._connection.temporal
        return self._data_converter if temporal is None else temporal.data_converter

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
        converter = self._data_converter or temporalio.converter.DataConverter.default
        if not any(name in os.environ for name in (ENCRYPTION_KEYS, DECRYPTION_KEYS)):
            return converter
        from . import encryption  # which is loaded where there are keys

        return encryption.data_converter(base=converter)

    def dispatcher(self, temporal: temporalio.client.Client) -> Dispatcher:
        """What sends events into a namespace; one for each Temporal client, as it caches the catalog."""
        found = self._dispatchers.get(temporal)
        return found if found is not None else self._dispatchers.setdefault(temporal, Dispatcher(temporal))

    async def dispatch(self, temporal: temporalio.client.Client, events: Sequence[ReceivedEvent]) -> SendEventResult:
        """Send events, when a worker has registered the triggers that this client has for them, or after a while."""
        dispatcher = self.dispatcher(temporal)
        await self._registration.wait(dispatcher.catalog, events)
        return await dispatcher.dispatch(events)

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
        sent = self._given(workflow, input)
        to_limited(f"the input of workflow {workflow.id!r}", sent.both(), most_with(self.data_converter))
        temporal = await self.connect()
        event_id = new_ulid()
        workflow_id = id or workflow_id_of(workflow.app, workflow.id, event_id)
        with sdk_errors(f"starting workflow {workflow.id!r}"):
            if isinstance(workflow, WorkflowReference):
                task_queue = await find_task_queue(self.dispatcher(temporal).catalog, workflow.app, workflow.id)
            else:
                task_queue = workflow.client.task_queue
            origin = Origin.of_invoke(event_id, await self.dispatcher(temporal).is_finish_listened(), sent.exact)
            try:
                with starting(temporal, workflow.id, workflow_id):
                    handle = await start_indexed(
                        temporal,
                        of_run(workflow.app, workflow.id, origin.name, event_id),
                        lambda attributes: temporal.start_workflow(
                            workflow.id,
                            args=origin.arguments(sent.data),
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
        return Run(temporal, handle, event_id, workflow)

    def _given(self, workflow: Workflow[Any, Any] | WorkflowReference[Any], input: Any) -> Given:
        if isinstance(workflow, WorkflowReference):
            return given_to_other_app(workflow.id, input)
        packages = workflow.client.step_packages
        return given(workflow.id, workflow.input_schema, input, secrets=self._encrypts, packages=packages)

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
            return await self.dispatch(await self.connect(), events)

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
        raw = to_limited(f"the data of signal {signal!r}", encoded, most_with(self.data_converter))
        with sdk_errors(f"Temporal did not accept signal {signal!r}", SendSignalError):
            temporal = await self.connect()
            mailboxes = Mailboxes(temporal)
            with signalling(temporal, signal):
                held = await mailboxes.find(signal)
                try:
                    received = await mailboxes.send(signal, held.run_id, raw, id=new_ulid()) if held else None
                except WorkflowUpdateRPCTimeoutOrCancelledError as err:
                    seconds = ANSWER_TIMEOUT.total_seconds()
                    raise SendSignalError(
                        f"signal {signal!r}: no worker has answered in {seconds:.0f} s, though a run waits for it; "
                        "it may receive it yet. Is a worker up?"
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

    async def sync(self, *, changed_only: bool = False, take_over: bool = False) -> App:
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
        from .serving import registry_worker, system_worker  # which take the SDK's worker along

        check_outside("client.sync", "steporal.Client.sync")
        registrar = Registrar(self, Source.of(self, is_worker=False))
        take_over = take_over or not (self._workflows or self._sinks)
        with sdk_errors(f"registering app {self.id!r}"):
            temporal = await self.connect()
            # A worker in a namespace that does not exist ends with an error of the SDK's core.
            await temporal.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=temporal.namespace))
            async with system_worker(temporal), registry_worker(temporal, self.id, "sync"):
                outcome = await registrar.confirm(thorough=not changed_only, take_over=take_over)
        if outcome.why_not:
            raise NotInForceError(f"app {self.id!r} was not registered: {outcome.why_not}")
        return outcome.app

    def listed(self) -> App:
        """What :meth:`sync` registers."""
        listed = App(
            id=self.id,
            task_queue=self.task_queue,
            modules=tuple(sorted({module_of(workflow.handler) for workflow in self.workflows})),
            workflows=tuple(self._listed()),
        )
        return listed.model_copy(update={"schedules": tuple(sorted(schedules.starts_of(listed)))})

    def _listed(self) -> Iterator[Listed]:
        for workflow in self.workflows:
            yield Listed(id=workflow.id, triggers=tuple(map(_entry, workflow.triggers)))
        for sink in self.sinks.values():
            entries = (Entry(event=on.event, if_exp=on.if_exp, bridge=sink.is_bridge) for on in sink.triggers)
            yield Listed(id=sink.id, triggers=tuple(entries))


def _checked_packages(packages: object, where: str) -> set[str]:
    """Names of top-level packages."""
    names = None if isinstance(packages, str) or not isinstance(packages, Iterable) else list(packages)
    if names is None or not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise DefinitionError(
            f"step_packages of {where} is {shown(packages)}; it takes a list of names of top-level packages: "
            "step_packages=['billing']"
        )
    return set(names)


def _check_workflow(workflow: object) -> None:
    if not isinstance(workflow, Workflow | WorkflowReference):
        raise InvalidArgumentError(
            f"workflow is {shown(workflow)}; pass what client.workflow returned, or steporal.reference(app, id)"
        )


def _is_imported_again(other: Handler[Any, Any], handler: Handler[Any, Any]) -> bool:
    """Return whether a handler is another one of ``__main__``, whose module is now imported by its own name."""
    first, second = (getattr(each, "__code__", None) for each in (other, handler))
    if other.__module__ != "__main__" or first is None or second is None:
        return False
    return bool(first.co_filename == second.co_filename and first.co_qualname == second.co_qualname)


def _entry(trigger: Trigger) -> Entry:
    if isinstance(trigger, EventTrigger):
        return Entry(event=trigger.event, if_exp=trigger.if_exp)
    jitter = None if trigger.jitter is None else trigger.jitter.total_seconds()
    return Entry(cron=trigger.schedule, timezone=trigger.timezone, jitter=jitter)
