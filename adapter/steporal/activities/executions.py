"""Step functions that run in this worker, including those whose attempt ended before they did.

Temporal ends an attempt if it has received no heartbeat for the heartbeat timeout. The worker may still be alive: maybe
only the connection was lost, or the server was down. In that case the attempt's function is still running, or has
returned and could not report its result. A later attempt of the step that reaches this worker *joins* that function: it
waits for the result and reports it, and does not run the function a second time. The run tries this first (see
``runtime/steps/activity.py``), on a task queue that only this worker polls.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import temporalio.client
import temporalio.worker
from temporalio import activity
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.failure.v1 import Failure
from temporalio.client import WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.common import RawValue
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from ..sdk.heartbeats import Heartbeats
from ..types import JSON
from ..values.converter import from_raw
from ..wire.failures import NOT_BEGUN, TIMED_OUT
from ..wire.names import JOIN_STEP, STEP_NOT_HERE, WORKER_TASK_QUEUE
from ..wire.step_activities import LAST, is_activity_of
from .announcing import announced, naming_worker
from .reporting import attempts_before

MAX_FAILURES = 100
MAX_FAILURE_BYTES = 256 * 1024
MAX_RESULTS = 10_000
MAX_RESULT_BYTES = 32 * 1024 * 1024
"""Limits of the failures and results of steps that a worker remembers, in case Temporal has not received them."""

LONGEST_THROTTLE = timedelta(seconds=5)
"""Longest time that Temporal's core may hold back a heartbeat. By core's own rule, 80 % of the timeout, a short outage
at the wrong moment would already exceed the timeout."""

_ORPHAN_CHECK_SECONDS = 5.0
_ORPHAN_GRACE_SECONDS = 60.0
"""Time that a function continues after its attempt, while Temporal can be reached and no attempt joins it."""

_SHUTDOWN_SECONDS = 1.0
"""Time that a worker in shutdown waits for an interrupted thread."""

_CALL_TIMEOUT = timedelta(seconds=3)


@dataclass(frozen=True, slots=True)
class StepKey:
    """Identity of a step in an execution of a workflow.

    Attributes:
        namespace: The Temporal namespace.
        workflow_run_id: The Temporal run id of the execution.
        activity_id: The activity by which the step began; unique even if a step with the same id was cancelled.
    """

    namespace: str
    workflow_run_id: str
    activity_id: str

    @staticmethod
    def of(activity_id: str | None) -> StepKey:
        """Return the key of a step of the current activity's run; if None, the step begins with this activity."""
        info = activity.info()
        return StepKey(info.namespace, info.workflow_run_id or "", activity_id or info.activity_id)


@dataclass(slots=True, eq=False)
class Execution:
    """Running step function.

    Attributes:
        step_id: The step's id.
        task: The task that runs the function; its result is the activity's result.
        activity_id: The activity that began it.
        attempt: The attempt of that activity, as Temporal counts.
        ends_at: The end of the step's timeout, on the monotonic clock.
        joined: The number of attempts that wait for it besides the one that began it.
        is_interrupted: Whether :meth:`interrupt` was called; the function may still be running.
    """

    step_id: str
    task: asyncio.Task[RawValue]
    activity_id: str
    attempt: int
    ends_at: float
    joined: int = 0
    is_interrupted: bool = False

    def interrupt(self) -> None:
        """Cancel the coroutine, or raise an error in the thread."""
        if not self.is_interrupted:
            self.is_interrupted = True
            self.task.cancel()


@dataclass(slots=True)
class _Ended:
    """Results and failures of ended functions, the newest last."""

    results: OrderedDict[StepKey, RawValue] = field(default_factory=OrderedDict)
    failures: OrderedDict[StepKey, ApplicationError] = field(default_factory=OrderedDict)
    size: int = 0

    def add(self, key: StepKey, result: RawValue) -> None:
        self.results[key] = result
        self.size += result.payload.ByteSize()
        while len(self.results) > MAX_RESULTS or self.size > MAX_RESULT_BYTES:
            _, oldest = self.results.popitem(last=False)
            self.size -= oldest.payload.ByteSize()

    def forget(self, key: StepKey) -> None:
        self.failures.pop(key, None)
        if (result := self.results.pop(key, None)) is not None:
            self.size -= result.payload.ByteSize()

    def fail(self, key: StepKey, failure: ApplicationError) -> None:
        self.failures[key] = failure
        while len(self.failures) > MAX_FAILURES:
            self.failures.popitem(last=False)


class Executions:
    """Step functions of one worker.

    Attributes:
        task_queue: The task queue that only this worker polls, for attempts that join.
    """

    def __init__(self) -> None:
        self.task_queue: str = f"{WORKER_TASK_QUEUE}{uuid4().hex}"
        self._running: dict[StepKey, Execution] = {}
        self._ended = _Ended()
        self._graceful_timeout = timedelta(0)

    def configure(self, graceful_timeout: timedelta) -> None:
        """Set how long functions may continue after the worker's shutdown has begun."""
        self._graceful_timeout = graceful_timeout

    def close(self) -> None:
        """Interrupt all running functions."""
        for execution in list(self._running.values()):
            execution.interrupt()

    async def run(
        self, step_id: str, before: Mapping[str, JSON], work: Callable[[], Coroutine[Any, Any, RawValue]]
    ) -> RawValue:
        """Run a step's function for the current activity, or join the function if it already runs.

        Args:
            step_id: The step's id.
            before: The record of earlier activities of the step, from :meth:`Attempts.before`.
            work: Runs the function.
        """
        key = StepKey.of(before.get("activity_id"))
        attempts_before.set(before.get("attempts", 0))
        if activity.info().is_local:
            return await self._wait_for(self._begin(key, step_id, work))
        if (result := self._ended.results.get(key)) is not None:
            return result
        if (failure := self._ended.failures.get(key)) is not None and failure.non_retryable:
            raise failure  # Temporal has not received it, or it would not have started another attempt
        execution = self._running.get(key)
        if execution is not None and _is_replaced(execution):
            execution.interrupt()
            execution = None
        if execution is not None and not execution.is_interrupted:
            async with naming_worker(self.task_queue, at_once=activity.info().attempt > 1):
                return await self._join(execution)
        async with announced(self.task_queue, is_last=bool(before.get(LAST))):
            return await self._wait_for(self._begin(key, step_id, work))

    @activity.defn(name=JOIN_STEP)
    async def join_step(self, argument: RawValue) -> RawValue:
        """Wait for a step's function that this worker runs, or has run.

        Raises:
            ApplicationError: The function raised, or this worker does not know it.
        """
        key = StepKey.of(from_raw(argument)["activity_id"])
        if (result := self._ended.results.get(key)) is not None:
            return result
        if (failure := self._ended.failures.pop(key, None)) is not None:
            raise failure
        execution = self._running.get(key)
        if execution is None or execution.is_interrupted:
            raise ApplicationError("this worker does not run the step", type=STEP_NOT_HERE, non_retryable=True)
        async with naming_worker(self.task_queue, at_once=True):
            return await self._join(execution)

    def _begin(self, key: StepKey, step_id: str, work: Callable[[], Coroutine[Any, Any, RawValue]]) -> Execution:
        self._ended.forget(key)
        info = activity.info()
        lasts = info.start_to_close_timeout.total_seconds() if info.start_to_close_timeout else float("inf")
        task = asyncio.ensure_future(work())
        execution = Execution(step_id, task, info.activity_id, info.attempt, time.monotonic() + lasts)
        if not info.is_local:
            self._running[key] = execution
            task.add_done_callback(lambda _: self._end(key, execution))
        return execution

    def _end(self, key: StepKey, execution: Execution) -> None:
        if self._running.get(key) is execution:
            del self._running[key]
        if execution.task.cancelled():
            return
        error = execution.task.exception()  # read it in any case: asyncio logs an exception that nobody has read
        if execution.is_interrupted:
            return
        if error is None:
            self._ended.add(key, execution.task.result())
        elif not isinstance(error, ApplicationError) or error.type in NOT_BEGUN:  # the step may begin here later
            return
        elif (failure := _without_frames(error)) is not None:
            self._ended.fail(key, failure)

    async def _join(self, execution: Execution) -> RawValue:
        execution.joined += 1
        try:
            return await self._wait_for(execution, owns_slot=False)
        except asyncio.CancelledError:
            if activity.is_cancelled():
                raise
            if time.monotonic() >= execution.ends_at:
                raise ApplicationError(TIMED_OUT, type="TimeoutError") from None
            raise ApplicationError("the step was interrupted", type=STEP_NOT_HERE, non_retryable=True) from None
        finally:
            execution.joined -= 1

    async def _wait_for(self, execution: Execution, *, owns_slot: bool = True) -> RawValue:
        """Wait for a function, and handle a cancellation of the current activity.

        If Temporal has ended the attempt that began the function, that attempt keeps the worker's slot until the
        function ends. Attempts that joined the function end at once.

        Args:
            execution: The function.
            owns_slot: Whether the current attempt began the function.
        """
        try:
            return await asyncio.shield(execution.task)
        except asyncio.CancelledError:
            # The function may end in the same turn of the loop in which the attempt is cancelled; its outcome counts.
            if execution.task.done():
                return execution.task.result()
        details = activity.cancellation_details()
        lost = details is not None and (details.timed_out or details.not_found)
        if lost and time.monotonic() < execution.ends_at and not activity.info().is_local:
            if not owns_slot:
                raise asyncio.CancelledError
            await self._guard_orphan(execution)
        else:
            await self._interrupt(execution, is_leaving=details is not None and details.worker_shutdown)
        if execution.task.done():
            return execution.task.result()
        raise asyncio.CancelledError

    async def _guard_orphan(self, execution: Execution) -> None:
        """Let a function continue after Temporal has ended its attempt, and keep the worker's slot for it."""
        leaving = asyncio.ensure_future(self._time_to_leave())
        alone_since: float | None = None
        try:
            while not execution.task.done():
                alone_since = await _alone_since(execution, alone_since)
                is_forgotten = alone_since is not None and time.monotonic() - alone_since >= _ORPHAN_GRACE_SECONDS
                if leaving.done() or is_forgotten or time.monotonic() >= execution.ends_at:
                    await self._interrupt(execution, is_leaving=leaving.done())
                    return
                pause = min(_ORPHAN_CHECK_SECONDS, execution.ends_at - time.monotonic())
                await asyncio.wait([execution.task, leaving], timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()

    async def _interrupt(self, execution: Execution, *, is_leaving: bool) -> None:
        """Interrupt a function, and wait until it has ended, or until the worker must shut down.

        Waiting keeps the worker's slot. A worker in shutdown does not wait for a thread that hangs.
        """
        execution.interrupt()
        if not is_leaving:
            leaving = asyncio.ensure_future(self._time_to_leave())
            await asyncio.wait([execution.task, leaving], return_when=asyncio.FIRST_COMPLETED)
            leaving.cancel()
        await asyncio.wait([execution.task], timeout=_SHUTDOWN_SECONDS)

    async def _time_to_leave(self) -> None:
        await activity.wait_for_worker_shutdown()
        await asyncio.sleep(self._graceful_timeout.total_seconds())


def _without_frames(error: ApplicationError) -> ApplicationError | None:
    """Return an error with its stack trace as text, which keeps no variables of frames in memory.

    The SDK reports such an error as it was converted here. Return None if the details are not JSON, or are too large.
    """
    converter, failure = DataConverter.default, Failure()
    try:
        converter.failure_converter.to_failure(error, converter.payload_converter, failure)
    except Exception:
        return None
    if failure.ByteSize() > MAX_FAILURE_BYTES:
        return None
    converted = converter.failure_converter.from_failure(failure, converter.payload_converter)
    return converted if isinstance(converted, ApplicationError) else None


def _is_replaced(execution: Execution) -> bool:
    """Return whether the current attempt follows one that Temporal ended by the step's timeout.

    The server never retries after a heartbeat timeout: ``runtime/steps/activity.py`` lists it among the final errors.
    So nothing else ends an attempt whose function still runs.
    """
    info = activity.info()
    return execution.activity_id == info.activity_id and execution.attempt < info.attempt


async def _alone_since(execution: Execution, before: float | None) -> float | None:
    """Return since when no attempt has waited for a function while Temporal could be reached.

    The time is minus infinity if the function's run has ended, or if the step has begun again elsewhere.
    """
    info = activity.info()
    if execution.joined:
        return None
    handle = activity.client().get_workflow_handle(info.workflow_id or "", run_id=info.workflow_run_id)
    try:
        run = await handle.describe(rpc_timeout=_CALL_TIMEOUT)
    except RPCError as err:
        return float("-inf") if err.status == RPCStatusCode.NOT_FOUND else None
    if run.status != WorkflowExecutionStatus.RUNNING or _has_begun_elsewhere(execution, run):
        return float("-inf")
    return time.monotonic() if before is None else before


def _has_begun_elsewhere(execution: Execution, run: WorkflowExecutionDescription) -> bool:
    """Return whether another worker has started an attempt of the step."""
    info = activity.info()
    return any(
        each.activity_type.name == info.activity_type
        and is_activity_of(execution.step_id, each.activity_id)
        and each.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
        and (each.activity_id, each.attempt) != (execution.activity_id, execution.attempt)
        for each in run.raw_description.pending_activities
    )


@asynccontextmanager
async def joinable(temporal: temporalio.client.Client, executions: Executions) -> AsyncIterator[None]:
    """Poll the task queue of one worker's executions while the context lasts."""
    heartbeats = Heartbeats()
    worker = temporalio.worker.Worker(
        temporal,
        task_queue=executions.task_queue,
        activities=[executions.join_step],
        interceptors=[heartbeats],
        max_concurrent_activities=MAX_RESULTS,
        max_concurrent_activity_task_polls=1,
        max_heartbeat_throttle_interval=LONGEST_THROTTLE,
    )
    heartbeats.attach(worker)
    async with worker:
        yield
