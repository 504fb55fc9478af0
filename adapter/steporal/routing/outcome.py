"""End of a run, as read from outside."""

from __future__ import annotations

import temporalio.client
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.service import RPCError, RPCStatusCode

from ..rpc import is_about_namespace
from ..runtime.children import failed_with, was_cancelled
from ..types import JSON
from ..wire.memo import Failure, Outcome
from ..wire.run_result import read_result
from ..wire.run_state import outcome_json


async def find_end(temporal: temporalio.client.Client, workflow_id: str) -> JSON:
    """Return a run's outcome as :func:`~steporal.wire.run_state.outcome_json` writes it; None if the run is open."""
    handle = temporal.get_workflow_handle(workflow_id, result_type=RawValue)
    try:
        if (await handle.describe()).status == WorkflowExecutionStatus.RUNNING:
            return None
        return outcome_json(Outcome(read_result(await handle.result()).as_json()))
    except WorkflowFailureError as err:
        cause = err.cause
        if isinstance(cause, ApplicationError):
            return outcome_json(failed_with(cause))
        if isinstance(cause, CancelledError):
            return outcome_json(was_cancelled())
        return outcome_json(Outcome(failure=Failure(type(cause).__name__, str(cause))))
    except RPCError as err:
        if err.status != RPCStatusCode.NOT_FOUND or is_about_namespace(err):
            raise
        message = f"Temporal no longer has run {workflow_id!r}: it has ended, and its retention period is over"
        return outcome_json(Outcome(failure=Failure("NotFoundError", message)))
