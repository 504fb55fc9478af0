"""``steporal recover``: resets runs whose histories the code does not fit, and hands them what they have done."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import uuid4

import temporalio.client
from rich.markup import escape
from rich.table import Table
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

import steporal
from steporal.durations import format_duration
from steporal.errors import SteporalError
from steporal.history.recovery import Rebuilt, rebuild
from steporal.routing.outcome import find_end
from steporal.runtime.continuing import untaken
from steporal.values.converter import dumps, size_of, to_raw
from steporal.wire.names import RECOVER, REPORT
from steporal.wire.storage import most_with

from .open_runs import has_worker, runs_of, some_at_once
from .output import console, print_json, say
from .replay import history_of, reason_of, replayer_of

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
_SHOWN = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverOptions:
    """The flags of ``steporal recover``.

    Attributes:
        workflow: The id of the workflow whose runs are examined; all if None.
        where: A further condition, in the query language of Temporal's visibility.
        timeout: The time to wait for running steps.
        interrupt: Do not wait for running steps; they begin again.
        dry_run: Print what would be done, and change nothing.
        as_json: Print JSON.
    """

    workflow: str | None = None
    where: str | None = None
    timeout: timedelta = timedelta(minutes=1)
    interrupt: bool = False
    dry_run: bool = False
    as_json: bool = False


@dataclass(slots=True)
class Stuck:
    """Run whose history the code does not fit.

    Attributes:
        workflow: The id of its workflow.
        workflow_id: Temporal's workflow id of the run.
        run_id: Temporal's run id of the execution.
        why: The reason that the code does not fit.
        state: The outcome.
        steps: The number of finished steps that it keeps.
        again: The steps that had begun, and begin again.
        advice: Remedy, if it was not recovered.
    """

    workflow: str
    workflow_id: str
    run_id: str
    why: str
    state: State = "recoverable"
    steps: int = 0
    again: tuple[str, ...] = ()
    advice: str = ""


async def run_recover(client: steporal.Client, temporal: temporalio.client.Client, options: RecoverOptions) -> int:
    """Find the runs that are stuck, and continue them; return the exit status: 1 if some are still stuck.

    Args:
        client: The app, with the code that the runs are to continue with.
        temporal: The connection.
        options: The flags.
    """
    count, stuck = await recover_runs(client, temporal, options)
    is_served = not stuck or await has_worker(temporal, client.task_queue)
    return _report(client, count, stuck, options, is_served=is_served)


async def recover_runs(
    client: steporal.Client, temporal: temporalio.client.Client, options: RecoverOptions
) -> tuple[int, list[Stuck]]:
    """Find the runs that are stuck, and continue them; return the number of open runs, and those that were stuck."""
    count, stuck = await _find(client, temporal, options)
    recovery = _Recovery(temporal, options)
    await some_at_once(recovery.recover(run) for run in stuck)
    return count, stuck


async def _find(
    client: steporal.Client, temporal: temporalio.client.Client, options: RecoverOptions
) -> tuple[int, list[Stuck]]:
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


def _stuck(history: WorkflowHistory, run_id: str, failure: Exception) -> Stuck:
    workflow = history.events[0].workflow_execution_started_event_attributes.workflow_type.name
    run = Stuck(workflow, history.workflow_id, run_id, reason_of(failure))
    if not isinstance(failure, NondeterminismError) or not _DOES_NOT_FIT.search(str(failure)):
        run.state = "not recovered"
        run.advice = "its body fails, whatever the run has done: correct the code, and the run continues"
    return run


class _Recovery:
    def __init__(self, temporal: temporalio.client.Client, options: RecoverOptions) -> None:
        self._temporal = temporal
        self._options = options
        self._until = time.monotonic() + options.timeout.total_seconds()

    async def recover(self, run: Stuck) -> None:
        """Continue a run, if possible."""
        if run.state != "recoverable":
            return
        try:
            await self._recover(run)
        except RPCError as err:
            if err.status == RPCStatusCode.NOT_FOUND:
                run.state = "ended"
            else:
                run.state, run.advice = "not recovered", f"Temporal refused: {err.message} ({err.status.name})"
        except SteporalError as err:  # such as a missing key for an encrypted value
            run.state, run.advice = "not recovered", str(err)
        except Exception as err:  # anybody who may write to the namespace may have answered as a worker: go on
            run.state = "not recovered"
            run.advice = (
                f"its history contains something that no worker of Steporal writes ({type(err).__name__}: "
                f"{str(err)[:200]}); terminate it"
            )

    async def _recover(self, run: Stuck) -> None:
        while (rebuilt := await self._rebuilt(run)) is not None:
            if self._options.dry_run:
                return
            if running := await self._until_idle(run):
                run.state = "busy"
                run.advice = (
                    f"step {', '.join(map(repr, running))} is running: try again when it has finished, or use "
                    "--interrupt, which begins it again"
                )
                return
            held = await self._hold(run)
            try:
                if not self._options.interrupt and await self._running(run):  # a step has begun meanwhile
                    continue
                await self._handle(run).signal(RECOVER, self._message(rebuilt))
                if await self._is_all(run, rebuilt.last_event):
                    await self._reset(run, rebuilt)
                    run.state = "recovered"
                    return
            finally:
                if run.state != "recovered":
                    await self._release(run, held)

    async def _hold(self, run: Stuck) -> list[str]:
        """Pause the activities that wait for a worker or their next attempt; return the ids of those that were paused.

        If the server cannot pause activities, a step may still begin before the reset; it then begins again after it.
        """
        held = []
        for pending in (await self._handle(run).describe()).raw_description.pending_activities:
            if pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED:
                try:
                    await self._temporal.workflow_service.pause_activity(
                        PauseActivityRequest(
                            namespace=self._temporal.namespace,
                            execution=self._execution(run),
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

    async def _release(self, run: Stuck, held: Sequence[str]) -> None:
        for activity_id in held:
            with suppress(RPCError):  # the run has ended, or somebody has released the activity
                await self._temporal.workflow_service.unpause_activity(
                    UnpauseActivityRequest(
                        namespace=self._temporal.namespace, execution=self._execution(run), id=activity_id
                    )
                )

    def _execution(self, run: Stuck) -> WorkflowExecution:
        return WorkflowExecution(workflow_id=run.workflow_id, run_id=run.run_id)

    def _handle(self, run: Stuck) -> temporalio.client.WorkflowHandle[Any, Any]:
        return self._temporal.get_workflow_handle(run.workflow_id, run_id=run.run_id)

    async def _until_idle(self, run: Stuck) -> list[str]:
        """Wait for the running steps unless they are to be interrupted; return those still running at the timeout."""
        while (running := await self._running(run)) and not self._options.interrupt:
            if time.monotonic() >= self._until:
                return running
            await asyncio.sleep(_LOOK_EVERY)
        return []

    async def _running(self, run: Stuck) -> list[str]:
        described = await self._handle(run).describe()
        return [
            pending.activity_id for pending in described.raw_description.pending_activities if pending.state in _BEGUN
        ]

    async def _rebuilt(self, run: Stuck) -> Rebuilt | None:
        """Return what the run has done; None if it cannot be handed over, with the reason in the run's advice."""
        history = await history_of(self._temporal, run.workflow_id, run.run_id)
        if history is None:
            run.state = "ended"
            return None
        rebuilt = await rebuild(history.events, self._temporal.data_converter)
        if not self._options.dry_run:
            for child in rebuilt.children:
                await self._request_end(child, run, rebuilt)
        run.steps, run.again = rebuilt.finished, rebuilt.in_flight
        size = size_of(self._message(rebuilt))
        max_bytes = most_with(self._temporal.data_converter)(size)
        if size > max_bytes:
            run.state = "not recovered"
            run.advice = (
                f"{_largest_part(rebuilt)} have {size:,} bytes, and the limit of a hand-over is "
                f"{max_bytes:,}: start a worker with the code that the run was started with"
            )
            return None
        return rebuilt

    def _message(self, rebuilt: Rebuilt) -> RawValue:
        return to_raw(rebuilt.message(is_stored=self._temporal.data_converter.external_storage is not None))

    async def _request_end(self, child: str, run: Stuck, rebuilt: Rebuilt) -> None:
        """Have an invoked run report its end to its parent; if it has ended, read its end."""
        parent = {"workflow_id": run.workflow_id, "run_id": rebuilt.run_id}
        try:
            await self._temporal.get_workflow_handle(child).signal(REPORT, to_raw(parent))
        except RPCError as err:
            if err.status != RPCStatusCode.NOT_FOUND:
                raise
            if (end := await find_end(self._temporal, child)) is not None:
                rebuilt.carried.ended[child] = end

    async def _is_all(self, run: Stuck, seen: int) -> bool:
        """Return whether only signals arrived since; signals are reapplied after what was handed over."""
        since = [event async for event in self._handle(run).fetch_history_events() if event.event_id > seen]
        kinds = {str(event.WhichOneof("attributes")) for event in since}
        return all(kind.startswith(("workflow_task_", "workflow_execution_signaled")) for kind in kinds)

    async def _reset(self, run: Stuck, rebuilt: Rebuilt) -> None:
        await self._temporal.workflow_service.reset_workflow_execution(
            ResetWorkflowExecutionRequest(
                namespace=self._temporal.namespace,
                workflow_execution=self._execution(run),
                reason="steporal recover: the code does not fit the history",
                workflow_task_finish_event_id=rebuilt.first_task or 0,
                request_id=str(uuid4()),
                reset_reapply_type=ResetReapplyType.RESET_REAPPLY_TYPE_ALL_ELIGIBLE,
            )
        )
        if rebuilt.carried.is_cancelled:  # Temporal does not reapply a cancellation
            await self._temporal.get_workflow_handle(run.workflow_id).cancel()


def _largest_part(rebuilt: Rebuilt) -> str:
    """Return a description of the largest part of the state that the run is handed."""
    carried = rebuilt.carried
    boxes = {key: (len(box["events"]), len(dumps(box["events"]))) for key, box in carried.boxes.items()}
    if sum(size for _, size in boxes.values()) > len(dumps(carried.memo)):
        return untaken(boxes, rebuilt.finished)
    return f"the results of its {rebuilt.finished:,} steps"


# --- output --------------------------------------------------------------------------------------------------------


def _report(
    client: steporal.Client, count: int, stuck: Sequence[Stuck], options: RecoverOptions, *, is_served: bool
) -> int:
    remaining = [run for run in stuck if run.state in ("busy", "not recovered")]
    if options.as_json:
        print_json(
            {
                "runs": count,
                "stuck": [
                    {
                        "workflow": run.workflow,
                        "workflow_id": run.workflow_id,
                        "run_id": run.run_id,
                        "why": run.why,
                        "state": run.state,
                        "finished_steps": run.steps,
                        "begin_again": list(run.again),
                        "advice": run.advice,
                    }
                    for run in stuck
                ],
            }
        )
        return int(bool(remaining))
    runs = f"{count:,} open run{'s' * (count != 1)} of app {client.id!r}"
    if not stuck:
        say(f"{escape(runs)}: [green]all fit this code[/]; nothing to recover")
        return 0
    console().print(_table(stuck))
    if len(stuck) > _SHOWN:
        say(f"and {len(stuck) - _SHOWN:,} more")
    done = sum(run.state in ("recovered", "recoverable") for run in stuck)
    verb = "would be recovered" if options.dry_run else "recovered"
    say(
        f"{escape(runs)}: {len(stuck):,} do not fit this code; [green]{done:,} {verb}[/], "
        f"{f'[red]{len(remaining):,} not[/]' if remaining else '0 not'}"
    )
    if any(run.state == "busy" for run in remaining):
        say(f"waited {format_duration(options.timeout)} for running steps; to wait longer, use --timeout DURATION")
    if done and not is_served:
        queue = escape(repr(client.task_queue))
        say(f"no worker polls task queue {queue}: the runs resume when a worker with this code does")
    return int(bool(remaining))


def _table(stuck: Sequence[Stuck]) -> Table:
    table = Table("workflow", "run", "state", "finished steps", "begin again", "why")
    for run in stuck[:_SHOWN]:
        table.add_row(
            escape(run.workflow),
            escape(run.workflow_id),
            run.state,
            str(run.steps),
            escape(", ".join(run.again)) or "-",
            escape(run.advice or run.why),
        )
    return table
