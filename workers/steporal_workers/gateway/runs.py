"""``/v1/runs`` and ``/v1/events/{id}/runs``: status of runs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.common import RawValue
from temporalio.service import RPCError, RPCStatusCode

import steporal
from steporal.errors import RunFailedError
from steporal.operations.finding import describe, find_run, first_run_id, started
from steporal.routing.catalog.reading import Match
from steporal.routing.inngest_bridge import unmarked_id
from steporal.rpc import bounded
from steporal.run_handle import Run
from steporal.types import JSON
from steporal.wire.workflow_ids import run_name, workflow_id_of

from .answer_memory import AnswerMemory
from .answers import Problem, enveloped, iso
from .memory import body_of

_STATUSES = {
    WorkflowExecutionStatus.COMPLETED: "Completed",
    WorkflowExecutionStatus.FAILED: "Failed",
    WorkflowExecutionStatus.TERMINATED: "Failed",
    WorkflowExecutionStatus.TIMED_OUT: "Failed",
    WorkflowExecutionStatus.CANCELED: "Cancelled",
}
"""Inngest's names; any other status of Temporal's means that the run is open."""


class RunApi:
    """API that shows and cancels runs of workflows that the catalog lists."""

    def __init__(self, client: steporal.Client) -> None:
        self._client = client

    async def of_event(self, request: Request) -> Response:
        """Respond with the runs that an event started, in the order of their starts."""
        event_id = unmarked_id(request.path_params["id"])
        temporal = await self._temporal()
        snapshot = await self._client.sending.dispatcher(temporal).catalog.read_all()
        memory = AnswerMemory(body_of(request))

        async def look(match: Match) -> dict[str, JSON] | None:
            described = await describe(temporal, workflow_id_of(match.app, match.workflow, event_id))
            if described is None or described.workflow_type != match.workflow:
                return None
            return await self._shown(described, memory)

        # If one fails, the others are cancelled: none takes memory for a request that has been answered.
        runs = [run for run in await bounded(look, snapshot.workflows) if run]
        return enveloped(sorted(runs, key=lambda run: (run["run_started_at"], run["function_id"])))

    async def one(self, request: Request) -> Response:
        """Show or cancel a run."""
        return await (self.cancel(request) if request.method == "DELETE" else self.get(request))

    async def get(self, request: Request) -> Response:
        """Respond with a run."""
        memory = AnswerMemory(body_of(request))
        return enveloped(await self._shown(await self._find(request.path_params["id"]), memory))

    async def cancel(self, request: Request) -> Response:
        """Request the cancellation of a run; it may run its last steps before it ends."""
        described = await self._find(request.path_params["id"])
        status = status_of(described)
        if status == "Running":
            temporal = await self._temporal()
            handle = temporal.get_workflow_handle(described.id, first_execution_run_id=first_run_id(described))
            try:
                await handle.cancel()
            except RPCError as err:
                if err.status != RPCStatusCode.NOT_FOUND:
                    raise
                raise Problem(409, f"run {described.id!r} has just ended") from None
        elif status != "Cancelled":
            raise Problem(409, f"run {described.id!r} has ended: {status}")
        return Response(status_code=204)

    # --- find ------------------------------------------------------------------------------------------------------

    async def _temporal(self) -> Client:
        return await self._client.connect()

    async def _find(self, id: str) -> WorkflowExecutionDescription:
        """Return a run by its run id or workflow id, only if the catalog lists its workflow: others are not ours."""
        temporal = await self._temporal()
        described = await find_run(temporal, id)
        if described is not None:
            catalog = self._client.sending.dispatcher(temporal).catalog
            for fresh in (False, True):
                if (await catalog.read_workflows([described.workflow_type], fresh=fresh)).with_id(
                    described.workflow_type
                ):
                    return described
        raise Problem(
            404,
            f"there is no run {id[:200]!r}; a run has a run id, and a workflow id: {{app}}/{{workflow}}/{{event id}}",
        )

    # --- show ------------------------------------------------------------------------------------------------------

    async def _shown(self, described: WorkflowExecutionDescription, memory: AnswerMemory) -> dict[str, JSON]:
        status = status_of(described)
        return {
            "run_id": first_run_id(described),
            "run_started_at": iso(await started(await self._temporal(), described)),
            "function_id": described.workflow_type,
            "event_id": name.event_id if (name := run_name(described.id)) else described.id,
            "status": status,
            "ended_at": iso(described.close_time) if described.close_time else None,
            "output": None if status in ("Running", "Cancelled") else await self._output(described, memory),
            "workflow_id": described.id,
        }

    async def _output(self, described: WorkflowExecutionDescription, memory: AnswerMemory) -> JSON:
        """Return the result of a run, or the error of a run that failed.

        Raises:
            Problem: 503: no memory is available for it now. 413: it exceeds the limit.
        """
        temporal = await self._temporal()
        handle = temporal.get_workflow_handle(described.id, run_id=described.run_id, result_type=RawValue)
        try:
            async with memory.of_result() as arrived:
                return await Run(temporal, handle, "", None, arrived).result()
        except RunFailedError as err:
            memory.take_text(err.message, err.stack or "")
            return {"name": err.name, "message": err.message, "stack": err.stack}
        except RPCError as err:
            if err.status != RPCStatusCode.NOT_FOUND:
                raise
            return None  # its retention has just ended


def status_of(described: WorkflowExecutionDescription) -> str:
    """Return a run's status, in Inngest's words."""
    return _STATUSES.get(described.status, "Running") if described.status else "Running"
