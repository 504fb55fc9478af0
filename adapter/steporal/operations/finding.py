"""Look-up of a run by its id."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from typing import Literal

from temporalio.client import Client, WorkflowExecution, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from ..wire.names import ARBITER, DIRECTORY, LATE, MAILBOX, SHARD, TOPIC
from .errors import NoSuchRunError, OperationError

Status = Literal["running", "completed", "failed", "cancelled", "terminated", "timed-out", "continued"]
"""Statuses of a run. A run that has continued as new has the status of its last execution."""

_STATUSES: dict[WorkflowExecutionStatus, Status] = {
    WorkflowExecutionStatus.COMPLETED: "completed",
    WorkflowExecutionStatus.FAILED: "failed",
    WorkflowExecutionStatus.CANCELED: "cancelled",
    WorkflowExecutionStatus.TERMINATED: "terminated",
    WorkflowExecutionStatus.TIMED_OUT: "timed-out",
    WorkflowExecutionStatus.CONTINUED_AS_NEW: "continued",
}

_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_SYSTEM = (SHARD, ARBITER, DIRECTORY, TOPIC, LATE, MAILBOX)

_INDEXING_SECONDS = 1.0
"""Time for which a look-up by run id is retried, as Temporal's index learns of a run a moment after its start."""


async def find_run(temporal: Client, id: str) -> WorkflowExecutionDescription | None:
    """Return the last execution of a run, by Temporal's workflow id or by ``ctx.run_id``; None if it does not exist."""
    described = await describe(temporal, id)
    if described is None and _RUN_ID.fullmatch(id):
        return await _by_run_id(temporal, id)
    return described


async def get_run(temporal: Client, id: str) -> WorkflowExecutionDescription:
    """Return the last execution of a run, by Temporal's workflow id or by ``ctx.run_id``.

    Raises:
        NoSuchRunError: It does not exist.
        OperationError: It is one of Steporal's own workflows, which users neither end nor run again.
    """
    described = await find_run(temporal, id)
    if described is not None and described.workflow_type in _SYSTEM:
        raise OperationError(f"{id!r} is not a run: it is Steporal's own workflow {described.workflow_type!r}")
    if described is None:
        raise NoSuchRunError(
            f"there is no run {id!r} in namespace {temporal.namespace!r}; a run has its own id, ctx.run_id, and "
            "Temporal's workflow id: {app}/{workflow}/{event id}. `steporal runs list` shows the last ones, and "
            "`steporal runs list --event-id ID` those that an event started"
        )
    return described


async def describe(temporal: Client, id: str, run_id: str | None = None) -> WorkflowExecutionDescription | None:
    """Return the last execution with a workflow id, or the one with Temporal's run id; None if it does not exist."""
    try:
        return await temporal.get_workflow_handle(id, run_id=run_id).describe()
    except RPCError as err:
        if err.status == RPCStatusCode.NOT_FOUND:
            return None
        raise


def is_open(described: WorkflowExecution) -> bool:
    """Return whether a run has not ended."""
    return described.status == WorkflowExecutionStatus.RUNNING


def status_of(status: WorkflowExecutionStatus | None) -> Status:
    """Return a run's status; any status that is not an end counts as running."""
    return _STATUSES.get(status, "running") if status else "running"


def first_run_id(described: WorkflowExecutionDescription) -> str:
    """Return the run's own id, which is that of its first execution."""
    return described.raw_description.workflow_execution_info.first_run_id or described.run_id


async def started(temporal: Client, described: WorkflowExecutionDescription) -> datetime:
    """Return the start of a run's first execution, from which the run may have continued as new."""
    first = first_run_id(described)
    if first != described.run_id:
        earlier = await describe(temporal, described.id, first)
        return earlier.start_time if earlier else described.start_time
    return described.start_time


async def _by_run_id(temporal: Client, run_id: str) -> WorkflowExecutionDescription | None:
    until = asyncio.get_running_loop().time() + _INDEXING_SECONDS
    while True:
        async for execution in temporal.list_workflows(f"RunId = '{run_id}'", limit=1):
            described, latest = await describe(temporal, execution.id, run_id), await describe(temporal, execution.id)
            if described and latest and first_run_id(described) == first_run_id(latest):
                return latest  # the run has continued as new since
            return described
        if asyncio.get_running_loop().time() > until:
            return None
        await asyncio.sleep(0.1)
