"""A run by its id."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime

from temporalio.client import Client, WorkflowExecution, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from steporal.wire.names import ARBITER, DIRECTORY, LATE, MAILBOX, SHARD, TOPIC

from ..problems import Failure

_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_SYSTEM = (SHARD, ARBITER, DIRECTORY, TOPIC, LATE, MAILBOX)

_INDEXING_SECONDS = 1.0
"""Temporal finds a run by its run id a moment after its start."""


async def find_run(temporal: Client, id: str) -> WorkflowExecutionDescription | None:
    """The last execution of a run, by Temporal's workflow id or by ``ctx.run_id``; None if there is none."""
    found = await describe(temporal, id)
    if found is None and _RUN_ID.fullmatch(id):
        return await _by_run_id(temporal, id)
    return found


async def get_run(temporal: Client, id: str) -> WorkflowExecutionDescription:
    """The same.

    Raises:
        Failure: There is none; or it is one of Steporal's own workflows, which are nobody's to end or to run again.
    """
    found = await find_run(temporal, id)
    if found is not None and found.workflow_type in _SYSTEM:
        raise Failure(f"{id!r} is not a run: it is Steporal's own workflow {found.workflow_type!r}")
    if found is None:
        raise Failure(
            f"there is no run {id!r} in namespace {temporal.namespace!r}; a run has an id of its own, ctx.run_id, and "
            "Temporal's workflow id: {app}/{workflow}/{event id}. `steporal runs list` shows the last ones, and "
            "`steporal runs list --event-id ID` those that an event has started"
        )
    return found


async def describe(temporal: Client, id: str, run_id: str | None = None) -> WorkflowExecutionDescription | None:
    """The last execution with a workflow id, or that with Temporal's run id; None if there is none."""
    try:
        return await temporal.get_workflow_handle(id, run_id=run_id).describe()
    except RPCError as err:
        if err.status == RPCStatusCode.NOT_FOUND:
            return None
        raise


def is_open(found: WorkflowExecution) -> bool:
    """Whether a run has not ended."""
    return found.status == WorkflowExecutionStatus.RUNNING


def first_run_id(found: WorkflowExecutionDescription) -> str:
    """The run's own id: that of its first execution."""
    return found.raw_description.workflow_execution_info.first_run_id or found.run_id


async def started(temporal: Client, found: WorkflowExecutionDescription) -> datetime:
    """When the first of the executions of a run that continued as new began."""
    first = first_run_id(found)
    if first != found.run_id:
        earlier = await describe(temporal, found.id, first)
        return earlier.start_time if earlier else found.start_time
    return found.start_time


async def _by_run_id(temporal: Client, run_id: str) -> WorkflowExecutionDescription | None:
    until = asyncio.get_running_loop().time() + _INDEXING_SECONDS
    while True:
        async for execution in temporal.list_workflows(f"RunId = '{run_id}'", limit=1):
            found, latest = await describe(temporal, execution.id, run_id), await describe(temporal, execution.id)
            if found and latest and first_run_id(found) == first_run_id(latest):
                return latest  # the run has continued as new since
            return found
        if asyncio.get_running_loop().time() > until:
            return None
        await asyncio.sleep(0.1)
