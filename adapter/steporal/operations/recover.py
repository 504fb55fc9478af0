"""Recovery of runs whose histories the code does not fit: resets them, and hands them what they have done."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal
from uuid import uuid4

import temporalio.client
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import PendingActivityState, ResetReapplyType
from temporalio.api.workflowservice.v1 import (
    PauseActivityRequest,
    ResetWorkflowExecutionRequest,
    UnpauseActivityRequest,
)
from temporalio.client import WorkflowExecutionStatus, WorkflowHistory
from temporalio.common import RawValue
from temporalio.service import RPCError, RPCStatusCode
from temporalio.workflow import NondeterminismError

from ..client import Client
from ..errors import SteporalError
from ..history.recovery import Rebuilt, rebuild
from ..routing.outcome import find_end
from ..runtime.handover_size import unconsumed
from ..values.converter import dumps, size_of, to_raw
from ..wire.names import RECOVER, REPORT
from ..wire.storage import size_limit_with
from .app_runs import runs_of, some_at_once
from .replay import history_of, reason_of, replayer_of, workflow_of

State = Literal["recovered", "recoverable", "busy", "not recovered", "ended"]

_DOES_NOT_FIT = re.compile(r"\[TMPRL1100\]")
"""Code in the messages of Temporal's core for a history that the code does not fit; other failures are of the code."""

_BEGUN = (
    PendingActivityState.PENDING_ACTIVITY_STATE_STARTED,
    PendingActivityState.PENDING_ACTIVITY_STATE_PAUSE_REQUESTED,
)

_CANNOT_BE_HELD = (RPCStatusCode.NOT_FOUND, RPCStatusCode.UNIMPLEMENTED)
"""Statuses for an activity that has just ended, and for a server that does not know the call."""

_LOOK_EVERY = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverOptions:
    """Choice of the runs to recover, and the way to recover them.

    Attributes:
        workflow: The id of the workflow whose runs are examined; all if None.
        where: A further condition, in the query language of Temporal's visibility.
        timeout: The time to wait for running steps.
        interrupt: Do not wait for running steps; they begin again.
        dry_run: Change nothing, and return what would be done.
    """

    workflow: str | None = None
    where: str | None = None
    timeout: timedelta = timedelta(minutes=1)
    interrupt: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class StuckRun:
    """Run whose history the code does not fit.

    Attributes:
        workflow: The id of its workflow.
        workflow_id: Temporal's workflow id of the run.
        run_id: Temporal's run id of the execution.
        why: The reason that the code does not fit.
        state: The outcome. ``busy``: a step was still running at the timeout.
        steps: The number of finished steps that it keeps.
        again: The steps that had begun, and begin again.
        running: The ids of the activities of steps that were still running, if it was busy.
        advice: Remedy, if it cannot be recovered.
    """

    workflow: str
    workflow_id: str
    run_id: str
    why: str
    state: State = "recoverable"
    steps: int = 0
    again: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    advice: str = ""

    @property
    def is_still_stuck(self) -> bool:
        """True if the run still does not fit the code."""
        return self.state in ("busy", "not recovered")


@dataclass(frozen=True, slots=True)
class Recovered:
    """Outcome of a recovery.

    Attributes:
        count: The number of open runs that were examined.
        stuck: The runs that were stuck, in any state.
    """

    count: int
    stuck: tuple[StuckRun, ...]


async def recover_runs(client: Client, temporal: temporalio.client.Client, options: RecoverOptions) -> Recovered:
    """Find the runs that are stuck, and continue them.

    Args:
        client: The app, with the code that the runs are to continue with.
        temporal: The connection to its namespace.
        options: The choice of the runs.

    Raises:
        RequestError: The app does not have this workflow.
        QueryRefusedError: Temporal does not accept the condition.
    """
    count, stuck = await _find(client, temporal, options)
    until = time.monotonic() + options.timeout.total_seconds()
    outcomes = await some_at_once(recover_run(temporal, run, options, until=until) for run in stuck)
    return Recovered(count, tuple(outcomes))


async def recover_run(
    temporal: temporalio.client.Client, run: StuckRun, options: RecoverOptions, *, until: float | None = None
) -> StuckRun:
    """Continue a run, if possible, and return its outcome.

    Args:
        temporal: The connection to its namespace.
        run: The run.
        options: The way to recover it.
        until: The end of the wait for running steps, on the monotonic clock; by default, ``options.timeout`` from now.
    """
    if until is None:
        until = time.monotonic() + options.timeout.total_seconds()
    return await _Recovery(temporal, run, options, until).recover()


async def _find(
    client: Client, temporal: temporalio.client.Client, options: RecoverOptions
) -> tuple[int, list[StuckRun]]:
    """Return the number of runs, and those that the code does not fit."""
    executions: dict[str, str] = {}
    stuck = []

    async def histories() -> AsyncIterator[WorkflowHistory]:
        async for run in runs_of(temporal, client, workflow=options.workflow, where=options.where):
            if run.id not in executions and (execution := await _open_execution(temporal, run.id)):
                executions[run.id] = execution
                if history := await history_of(temporal, run.id, execution):
                    yield history

    async with replayer_of(client, temporal.data_converter).workflow_replay_iterator(histories()) as results:
        async for result in results:
            if result.replay_failure is not None:
                run_id = executions[result.history.workflow_id]
                stuck.append(_stuck(result.history, run_id, result.replay_failure))
    return len(executions), stuck


async def _open_execution(temporal: temporalio.client.Client, workflow_id: str) -> str | None:
    """Return the run id of the open execution. Visibility may lag behind, and list an execution that was reset."""
    try:
        described = await temporal.get_workflow_handle(workflow_id).describe()
    except RPCError as err:
        if err.status != RPCStatusCode.NOT_FOUND:
            raise
        return None
    return described.run_id if described.status == WorkflowExecutionStatus.RUNNING else None


def _stuck(history: WorkflowHistory, run_id: str, failure: Exception) -> StuckRun:
    run = StuckRun(workflow_of(history), history.workflow_id, run_id, reason_of(failure))
    if isinstance(failure, NondeterminismError) and _DOES_NOT_FIT.search(str(failure)):
        return run
    advice = "its body fails, whatever the run has done: correct the code, and the run continues"
    return replace(run, state="not recovered", advice=advice)


class _Recovery:
    """Recovery of one run."""

    def __init__(
        self, temporal: temporalio.client.Client, run: StuckRun, options: RecoverOptions, until: float
    ) -> None:
        self._temporal = temporal
        self._run = run
        self._options = options
        self._until = until

    async def recover(self) -> StuckRun:
        """Continue the run, if possible, and return its outcome."""
        if self._run.state != "recoverable":
            return self._run
        try:
            await self._recover()
        except RPCError as err:
            if err.status == RPCStatusCode.NOT_FOUND:
                self._is("ended")
            else:
                self._is("not recovered", f"Temporal refused: {err.message} ({err.status.name})")
        except SteporalError as err:  # such as a missing key for an encrypted value
            self._is("not recovered", str(err))
        except Exception as err:  # anybody who may write to the namespace may have answered as a worker: go on
            self._is(
                "not recovered",
                f"its history contains something that no worker of Steporal writes ({type(err).__name__}: "
                f"{str(err)[:200]}); terminate it",
            )
        return self._run

    def _is(self, state: State, advice: str = "") -> None:
        self._run = replace(self._run, state=state, advice=advice)

    async def _recover(self) -> None:
        while (rebuilt := await self._rebuilt()) is not None:
            if self._options.dry_run:
                return
            if running := await self._until_idle():
                self._run = replace(self._run, state="busy", running=tuple(running))
                return
            held = await self._hold()
            try:
                if not self._options.interrupt and await self._running():  # a step has begun meanwhile
                    continue
                await self._handle().signal(RECOVER, self._message(rebuilt))
                if await self._is_all(rebuilt.last_event):
                    await self._reset(rebuilt)
                    self._is("recovered")
                    return
            finally:
                if self._run.state != "recovered":
                    await self._release(held)

    async def _hold(self) -> list[str]:
        """Pause the activities that wait for a worker or their next attempt; return the ids of those that were paused.

        If the server cannot pause activities, a step may still begin before the reset; it then begins again after it.
        """
        held = []
        for pending in (await self._handle().describe()).raw_description.pending_activities:
            if pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED:
                try:
                    await self._temporal.workflow_service.pause_activity(
                        PauseActivityRequest(
                            namespace=self._temporal.namespace,
                            execution=self._execution(),
                            id=pending.activity_id,
                            reason="steporal recover: the run is about to be reset",
                        )
                    )
                except RPCError as err:
                    if err.status not in _CANNOT_BE_HELD:
                        raise
                else:
                    held.append(pending.activity_id)
        return held

    async def _release(self, held: Sequence[str]) -> None:
        for activity_id in held:
            with suppress(RPCError):  # the run has ended, or somebody has released the activity
                await self._temporal.workflow_service.unpause_activity(
                    UnpauseActivityRequest(
                        namespace=self._temporal.namespace, execution=self._execution(), id=activity_id
                    )
                )

    def _execution(self) -> WorkflowExecution:
        return WorkflowExecution(workflow_id=self._run.workflow_id, run_id=self._run.run_id)

    def _handle(self) -> temporalio.client.WorkflowHandle[Any, Any]:
        return self._temporal.get_workflow_handle(self._run.workflow_id, run_id=self._run.run_id)

    async def _until_idle(self) -> list[str]:
        """Wait for the running steps unless they are to be interrupted; return those still running at the timeout."""
        while (running := await self._running()) and not self._options.interrupt:
            if time.monotonic() >= self._until:
                return running
            await asyncio.sleep(_LOOK_EVERY)
        return []

    async def _running(self) -> list[str]:
        described = await self._handle().describe()
        return [
            pending.activity_id for pending in described.raw_description.pending_activities if pending.state in _BEGUN
        ]

    async def _rebuilt(self) -> Rebuilt | None:
        """Return what the run has done; None if it cannot be handed over, for the reason that the run's row gives."""
        history = await history_of(self._temporal, self._run.workflow_id, self._run.run_id)
        if history is None:
            self._is("ended")
            return None
        rebuilt = await rebuild(history.events, self._temporal.data_converter)
        if not self._options.dry_run:
            for child in rebuilt.children:
                await self._request_end(child, rebuilt)
        self._run = replace(self._run, steps=rebuilt.finished, again=rebuilt.in_flight)
        size = size_of(self._message(rebuilt))
        max_bytes = size_limit_with(self._temporal.data_converter)(size)
        if size > max_bytes:
            self._is(
                "not recovered",
                f"{_largest_part(rebuilt)} have {size:,} bytes, and the limit of a hand-over is "
                f"{max_bytes:,}: start a worker with the code that the run was started with",
            )
            return None
        return rebuilt

    def _message(self, rebuilt: Rebuilt) -> RawValue:
        return to_raw(rebuilt.message(is_stored=self._temporal.data_converter.external_storage is not None))

    async def _request_end(self, child: str, rebuilt: Rebuilt) -> None:
        """Have an invoked run report its end to its parent; if it has ended, read its end."""
        parent = {"workflow_id": self._run.workflow_id, "run_id": rebuilt.run_id}
        try:
            await self._temporal.get_workflow_handle(child).signal(REPORT, to_raw(parent))
        except RPCError as err:
            if err.status != RPCStatusCode.NOT_FOUND:
                raise
            if (end := await find_end(self._temporal, child)) is not None:
                rebuilt.carried.ended[child] = end

    async def _is_all(self, seen: int) -> bool:
        """Return whether only signals arrived since; signals are reapplied after what was handed over."""
        since = [event async for event in self._handle().fetch_history_events() if event.event_id > seen]
        kinds = {str(event.WhichOneof("attributes")) for event in since}
        return all(kind.startswith(("workflow_task_", "workflow_execution_signaled")) for kind in kinds)

    async def _reset(self, rebuilt: Rebuilt) -> None:
        await self._temporal.workflow_service.reset_workflow_execution(
            ResetWorkflowExecutionRequest(
                namespace=self._temporal.namespace,
                workflow_execution=self._execution(),
                reason="steporal recover: the code does not fit the history",
                workflow_task_finish_event_id=rebuilt.first_task or 0,
                request_id=str(uuid4()),
                reset_reapply_type=ResetReapplyType.RESET_REAPPLY_TYPE_ALL_ELIGIBLE,
            )
        )
        if rebuilt.carried.is_cancelled:  # Temporal does not reapply a cancellation
            await self._temporal.get_workflow_handle(self._run.workflow_id).cancel()


def _largest_part(rebuilt: Rebuilt) -> str:
    """Return a description of the largest part of the state that the run is handed."""
    carried = rebuilt.carried
    boxes = {key: (len(box["events"]), len(dumps(box["events"]))) for key, box in carried.boxes.items()}
    if sum(size for _, size in boxes.values()) > len(dumps(carried.memo)):
        return unconsumed(boxes, rebuilt.finished)
    return f"the results of its {rebuilt.finished:,} steps"
