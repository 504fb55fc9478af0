"""Runs of an app, from Temporal's visibility, and its workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any, TypeVar

import temporalio.client
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import WorkflowExecution
from temporalio.service import RPCError

from ..client import Client
from .errors import RequestError
from .queries import quoted, refused

T = TypeVar("T")

_AT_ONCE = 20


async def runs_of(
    temporal: temporalio.client.Client,
    client: Client,
    *,
    workflow: str | None = None,
    where: str | None = None,
    are_open: bool = True,
    are_defined: bool = True,
    limit: int | None = None,
) -> AsyncIterator[WorkflowExecution]:
    """Yield the executions of an app's runs, the most recently started first.

    Args:
        temporal: The connection.
        client: The app.
        workflow: The id of one of its workflows; all by default.
        where: A further condition, in Temporal's query language.
        are_open: Leave out runs that have ended.
        are_defined: Leave out runs of workflows that the app does not define; its task queue may also serve native
            workflows.
        limit: The maximum number of runs.

    Raises:
        RequestError: The app does not have this workflow.
        QueryRefusedError: Temporal does not accept the condition.
    """
    query = _query(client, workflow, where, are_open, are_defined)
    try:
        async for run in temporal.list_workflows(query, limit=limit):
            yield run
    except RPCError as err:
        raise refused(err, where) from None


async def has_worker(temporal: temporalio.client.Client, task_queue: str) -> bool:
    """Return whether a worker polls a task queue for workflow tasks."""
    described = await temporal.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=temporal.namespace,
            task_queue=TaskQueue(name=task_queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
    )
    return bool(described.pollers)


async def some_at_once(operations: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Perform operations on many runs, with a limit on concurrent calls to Temporal; return their results."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(operation: Coroutine[Any, Any, T]) -> T:
        async with slots:
            return await operation

    return await asyncio.gather(*map(one, operations))


def _query(client: Client, workflow: str | None, where: str | None, are_open: bool, are_defined: bool) -> str:
    conditions = [f"TaskQueue = {quoted(client.task_queue)}"]
    ids = [defined.id for defined in client.workflows]
    if workflow is not None:
        if workflow not in ids:
            known = ", ".join(map(repr, sorted(ids))) or "none"
            raise RequestError(f"app {client.id!r} has no workflow {workflow!r}; it has {known}")
        conditions.append(f"WorkflowType = {quoted(workflow)}")
    elif are_defined:
        if not ids:
            raise RequestError(f"app {client.id!r} has no workflows")
        conditions.append(f"WorkflowType IN ({', '.join(map(quoted, ids))})")
    if are_open:
        conditions.append("ExecutionStatus = 'Running'")
    if where:
        conditions.append(f"({where})")
    return " AND ".join(conditions)
