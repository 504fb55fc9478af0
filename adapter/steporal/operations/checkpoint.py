"""Checkpoint: parks the runs of an app, so that its code can be edited under them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

import temporalio.client
from temporalio.client import WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from ..client import Client
from ..history.facts import ExecutionStarted
from ..history.reading import FactReader
from ..wire.names import CHECKPOINT
from .app_runs import has_worker, runs_of, some_at_once
from .errors import HoldTooShortError, OperationError

State = Literal["requested", "parked", "ended"]

_LOOK_EVERY = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointOptions:
    """Choice of the runs to park, and the time to wait for them.

    Attributes:
        workflow: The id of the workflow whose runs are parked; all if None.
        where: A further condition, in the query language of Temporal's visibility.
        hold: The maximum time that runs stay parked.
        timeout: The maximum time to wait until they are parked.
    """

    workflow: str | None = None
    where: str | None = None
    hold: timedelta = timedelta(minutes=10)
    timeout: timedelta = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class RequestedRun:
    """Run that received a request to park, or to resume.

    Attributes:
        workflow: The id of its workflow.
        workflow_id: Temporal's workflow id of the run.
        run_id: Temporal's run id of the execution that received the request.
        state: The outcome.
        busy_with: A description of why it is not parked yet.
    """

    workflow: str
    workflow_id: str
    run_id: str
    state: State = "requested"
    busy_with: str = ""


async def park_runs(
    client: Client, temporal: temporalio.client.Client, options: CheckpointOptions
) -> list[RequestedRun]:
    """Park the runs, and wait for them; return all of them, also those that are still busy at the timeout.

    Args:
        client: The app.
        temporal: The connection to its namespace.
        options: The choice of the runs.

    Raises:
        HoldTooShortError: The runs would resume before all are parked.
        RequestError: The app does not have this workflow.
        QueryRefusedError: Temporal does not accept the condition.
        OperationError: No worker polls the app's task queue.
    """
    if options.hold <= options.timeout:
        raise HoldTooShortError(options.hold, options.timeout)
    await _check_served(client, temporal)
    checkpoint = _Checkpoint(client, temporal, options)
    until = time.monotonic() + options.timeout.total_seconds()
    await checkpoint.request(options.hold.total_seconds())
    while checkpoint.busy() and time.monotonic() < until:
        await checkpoint.look()
        await asyncio.sleep(_LOOK_EVERY)
        await checkpoint.request(options.hold.total_seconds())  # runs that have started meanwhile
    return list(checkpoint.requested.values())


async def release_runs(
    client: Client, temporal: temporalio.client.Client, options: CheckpointOptions
) -> list[RequestedRun]:
    """Let the runs resume that an earlier checkpoint holds; return those that received the request.

    Args:
        client: The app.
        temporal: The connection to its namespace.
        options: The choice of the runs.

    Raises:
        RequestError: The app does not have this workflow.
        QueryRefusedError: Temporal does not accept the condition.
    """
    checkpoint = _Checkpoint(client, temporal, options)
    await checkpoint.request(0)
    return [run for run in checkpoint.requested.values() if run.state == "requested"]


class _Checkpoint:
    def __init__(self, client: Client, temporal: temporalio.client.Client, options: CheckpointOptions) -> None:
        self._client = client
        self._temporal = temporal
        self._options = options
        self.requested: dict[str, RequestedRun] = {}

    def busy(self) -> list[RequestedRun]:
        return [run for run in self.requested.values() if run.state == "requested"]

    async def request(self, hold: float) -> None:
        """Send the request to all runs that have not received it."""
        options = self._options
        listed = runs_of(self._temporal, self._client, workflow=options.workflow, where=options.where)
        new = [run async for run in listed if run.id not in self.requested]
        await some_at_once(self._request(RequestedRun(run.workflow_type, run.id, run.run_id), hold) for run in new)

    async def _request(self, run: RequestedRun, hold: float) -> None:
        """Send the request to the open execution, and remember which execution it was."""
        while True:
            handle = self._temporal.get_workflow_handle(run.workflow_id, run_id=run.run_id)
            try:
                await handle.signal(CHECKPOINT, {"hold": hold})
            except RPCError as err:
                if err.status != RPCStatusCode.NOT_FOUND:
                    raise
                described = await self._described(run)
                if described is not None and described.run_id != run.run_id:
                    run = replace(run, run_id=described.run_id)
                    continue
                run = replace(run, state="ended")
            self.requested[run.workflow_id] = run
            return

    async def look(self) -> None:
        """Update the state of the runs that received the request."""
        for run in await some_at_once(self._looked_at(run) for run in self.busy()):
            self.requested[run.workflow_id] = run

    async def _looked_at(self, run: RequestedRun) -> RequestedRun:
        described = await self._described(run)
        if described is None or described.status != WorkflowExecutionStatus.RUNNING:
            return replace(run, state="ended")
        if described.run_id == run.run_id:
            return replace(run, busy_with=_busy_with(described))
        if await self._is_parked(described):
            return replace(run, state="parked")
        return replace(run, run_id=described.run_id)  # it has continued as new because its history was long

    async def _described(self, run: RequestedRun) -> WorkflowExecutionDescription | None:
        try:
            return await self._temporal.get_workflow_handle(run.workflow_id).describe()
        except RPCError as err:
            if err.status != RPCStatusCode.NOT_FOUND:
                raise
            return None

    async def _is_parked(self, described: WorkflowExecutionDescription) -> bool:
        """Return whether an execution began parked, without the handler."""
        handle = self._temporal.get_workflow_handle(described.id, run_id=described.run_id)
        async for event in handle.fetch_history_events(page_size=1):
            try:
                started = await FactReader(self._temporal.data_converter).read(event)
                carried = started.carried if isinstance(started, ExecutionStarted) else None
            except Exception:  # anybody can start a workflow with any arguments
                return False
            return carried is not None and carried.is_parked and carried.held_until is not None
        return False


def _busy_with(described: WorkflowExecutionDescription) -> str:
    raw = described.raw_description
    if raw.pending_workflow_task.attempt > 1:
        return "its workflow task fails: see the worker's log, and `steporal recover`"
    if raw.pending_activities:
        steps = [f"{pending.activity_id} (attempt {pending.attempt})" for pending in raw.pending_activities]
        return f"in flight: {', '.join(steps)}"
    if raw.HasField("pending_workflow_task"):
        return "its workflow task waits for a worker"
    return "waits for something that is neither a step nor a timer, such as a child workflow by Temporal's own API"


async def _check_served(client: Client, temporal: temporalio.client.Client) -> None:
    if not await has_worker(temporal, client.task_queue):
        raise OperationError(
            f"no worker polls task queue {client.task_queue!r}; runs can park only while a worker with the code that "
            "they were started with serves them: run the checkpoint first, and then stop the worker"
        )
