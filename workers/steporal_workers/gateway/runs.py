"""``/v1/runs`` and ``/v1/events/{id}/runs``: what became of runs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.common import RawValue
from temporalio.service import RPCError, RPCStatusCode

import steporal
from steporal.errors import RunFailedError
from steporal.routing.catalog.reading import Match
from steporal.routing.inngest_bridge import unmarked_id
from steporal.rpc import bounded
from steporal.run_handle import Run
from steporal.types import JSON
from steporal.wire.workflow_ids import run_name, workflow_id_of

from ..runs.finding import describe, find_run, first_run_id, started
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
"""Inngest's names; whatever else Temporal says, the run goes on."""


class RunApi:
    """Looks at runs of workflows that the catalog lists, and cancels them."""

    def __init__(self, client: steporal.Client) -> None:
        self._client = client

    async def of_event(self, request: Request) -> Response:
        """The runs that an event started, the first first."""
        event_id = unmarked_id(request.path_params["id"])
        temporal = await self._temporal()
        snapshot = await self._client.sending.dispatcher(temporal).catalog.read_all()
        memory = AnswerMemory(body_of(request))

        async def look(match: Match) -> dict[str, JSON] | None:
            found = await describe(temporal, workflow_id_of(match.app, match.workflow, event_id))
            if found is None or found.workflow_type != match.workflow:
                return None
            return await self._shown(found, memory)

        # Where one fails, the others end with it: nothing takes memory for a request that has been answered.
        runs = [run for run in await bounded(look, snapshot.workflows) if run]
        return enveloped(sorted(runs, key=lambda run: (run["run_started_at"], run["function_id"])))

    async def one(self, request: Request) -> Response:
        """One run: looked at, or cancelled."""
        return await (self.cancel(request) if request.method == "DELETE" else self.get(request))

    async def get(self, request: Request) -> Response:
        """One run."""
        memory = AnswerMemory(body_of(request))
        return enveloped(await self._shown(await self._find(request.path_params["id"]), memory))

    async def cancel(self, request: Request) -> Response:
        """Ask Temporal to cancel a run; it may do its last steps before it ends."""
        found = await self._find(request.path_params["id"])
        status = status_of(found)
        if status == "Running":
            temporal = await self._temporal()
            handle = temporal.get_workflow_handle(found.id, first_execution_run_id=first_run_id(found))
            try:
                await handle.cancel()
            except RPCError as err:
                if err.status != RPCStatusCode.NOT_FOUND:
                    raise
                raise Problem(409, f"run {found.id!r} has just ended") from None
        elif status != "Cancelled":
            raise Problem(409, f"run {found.id!r} has ended: {status}")
        return Response(status_code=204)

    # --- find ------------------------------------------------------------------------------------------------------

    async def _temporal(self) -> Client:
        return await self._client.connect()

    async def _find(self, id: str) -> WorkflowExecutionDescription:
        """A run by its run id, or by its workflow id, of a workflow that the catalog lists: no others are ours."""
        temporal = await self._temporal()
        found = await find_run(temporal, id)
        if found is not None:
            catalog = self._client.sending.dispatcher(temporal).catalog
            for fresh in (False, True):
                if (await catalog.read_workflows([found.workflow_type], fresh=fresh)).with_id(found.workflow_type):
                    return found
        raise Problem(
            404,
            f"there is no run {id[:200]!r}; a run has a run id, and a workflow id: {{app}}/{{workflow}}/{{event id}}",
        )

    # --- show ------------------------------------------------------------------------------------------------------

    async def _shown(self, found: WorkflowExecutionDescription, memory: AnswerMemory) -> dict[str, JSON]:
        status = status_of(found)
        return {
            "run_id": first_run_id(found),
            "run_started_at": iso(await started(await self._temporal(), found)),
            "function_id": found.workflow_type,
            "event_id": name.event_id if (name := run_name(found.id)) else found.id,
            "status": status,
            "ended_at": iso(found.close_time) if found.close_time else None,
            "output": None if status in ("Running", "Cancelled") else await self._output(found, memory),
            "workflow_id": found.id,
        }

    async def _output(self, found: WorkflowExecutionDescription, memory: AnswerMemory) -> JSON:
        """What a run returned; of one that failed, its error.

        Raises:
            Problem: 503: there is no memory for it now. 413: it takes more than there is.
        """
        temporal = await self._temporal()
        handle = temporal.get_workflow_handle(found.id, run_id=found.run_id, result_type=RawValue)
        try:
            async with memory.of_result() as arrived:
                return await Run(temporal, handle, "", None, arrived).result()
        except RunFailedError as err:
            memory.take_text(err.message, err.stack or "")
            return {"name": err.name, "message": err.message, "stack": err.stack}
        except RPCError as err:
            if err.status != RPCStatusCode.NOT_FOUND:
                raise
            return None  # Temporal has just forgotten it


def status_of(found: WorkflowExecutionDescription) -> str:
    """A run's status, as Inngest names it."""
    return _STATUSES.get(found.status, "Running") if found.status else "Running"
