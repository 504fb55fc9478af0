"""Ends of runs by an operator: cancellation and termination, of one run or of all that a query finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from temporalio.api.batch.v1 import BatchOperationCancellation, BatchOperationTermination
from temporalio.api.workflowservice.v1 import StartBatchOperationRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from .errors import OperationError, UnindexedEventError
from .finding import first_run_id, get_run, is_open, status_of
from .queries import Query, refused

Verb = Literal["cancel", "terminate"]
"""Ways to end a run: a cancelled body may still run steps in ``finally``, a terminated body runs nothing."""


@dataclass(frozen=True, slots=True)
class EndedRun:
    """Run that was terminated, or received a request to cancel.

    Attributes:
        workflow_id: Temporal's workflow id of the run.
        run_id: The run's own id, ``ctx.run_id``.
    """

    workflow_id: str
    run_id: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Batch operation of Temporal's on runs.

    Attributes:
        job_id: The id of the operation.
        count: The number of runs that matched when it was counted.
    """

    job_id: str
    count: int


async def end_run(temporal: Client, verb: Verb, id: str, *, reason: str) -> EndedRun:
    """Cancel or terminate a run.

    Args:
        temporal: The connection to the run's namespace.
        verb: The way to end it.
        id: Temporal's workflow id, or the run's own id.
        reason: The reason of a termination, which Temporal records.

    Raises:
        NoSuchRunError: The run does not exist.
        OperationError: The run has ended.
    """
    described = await get_run(temporal, id)
    if not is_open(described):
        raise OperationError(f"run {described.id!r} has already ended: {status_of(described.status)}")
    first = first_run_id(described)
    handle = temporal.get_workflow_handle(described.id, first_execution_run_id=first)
    try:
        await (handle.cancel() if verb == "cancel" else handle.terminate(reason=reason))
    except RPCError as err:
        if err.status != RPCStatusCode.NOT_FOUND:
            raise
        raise OperationError(f"run {described.id!r} has just ended") from None
    return EndedRun(described.id, first)


async def count_runs(temporal: Client, query: Query) -> int:
    """Return the number of runs that a batch operation would end.

    Raises:
        UnindexedEventError: The query has an event, for which the namespace has no search attribute.
        QueryRefusedError: Temporal does not accept the query.
    """
    if query.event is not None:
        raise UnindexedEventError(temporal.namespace)
    try:
        return (await temporal.count_workflows(query.text)).count
    except RPCError as err:
        raise refused(err, query.where) from None


async def end_runs(temporal: Client, verb: Verb, query: Query, *, reason: str) -> Batch | None:
    """Start a batch operation that cancels or terminates all runs that a query finds; return None if it finds none.

    Args:
        temporal: The connection to the runs' namespace.
        verb: The way to end them.
        query: The query, which must select open runs only.
        reason: The reason, which Temporal records.

    Raises:
        UnindexedEventError: The query has an event, for which the namespace has no search attribute.
        QueryRefusedError: Temporal does not accept the query.
    """
    count = await count_runs(temporal, query)
    if count == 0:
        return None
    job_id = f"steporal-{verb}-{uuid4()}"
    request = StartBatchOperationRequest(
        namespace=temporal.namespace,
        visibility_query=query.text,
        job_id=job_id,
        reason=reason,
    )
    if verb == "cancel":
        request.cancellation_operation.CopyFrom(BatchOperationCancellation(identity=temporal.identity))
    else:
        request.termination_operation.CopyFrom(BatchOperationTermination(identity=temporal.identity))
    await temporal.workflow_service.start_batch_operation(request)
    return Batch(job_id, count)
