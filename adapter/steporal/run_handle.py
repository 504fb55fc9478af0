"""A run, as the process that started or found it sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, NoReturn

import temporalio.client
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError, CancelledError, TerminatedError
from temporalio.service import RPCError, RPCStatusCode
from typing_extensions import TypeVar

from .connecting import sdk_errors
from .definition import Invocable, WorkflowReference
from .errors import InvalidArgumentError, RunCancelledError, RunFailedError, RunNotFoundError
from .loops import blocking
from .outside import check_outside
from .rpc import is_about_namespace
from .values.encrypted import check_failure_decrypted
from .wire.failures import attempts_of, stack_of, step_of
from .wire.run_result import read_result, value_of

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
        workflow: Invocable[Any, O] | WorkflowReference[O] | None,
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
        packages = workflow.step_packages if isinstance(workflow, Invocable) else ()
        output: O = value_of(
            read_result(raw),
            where,
            workflow.output_type if workflow else None,
            is_own=isinstance(workflow, Invocable),
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
    check_failure_decrypted(cause)
    stack = stack_of(cause)
    if isinstance(cause, ApplicationError):
        name = cause.type or "ApplicationError"
        return RunFailedError(workflow_id, name, cause.message, stack, attempts_of(cause), step_of(cause))
    if isinstance(cause, TerminatedError):
        return RunFailedError(workflow_id, "TerminatedError", f"the run was terminated: {cause.message}", stack)
    return RunFailedError(workflow_id, type(cause).__name__, str(cause), stack)
