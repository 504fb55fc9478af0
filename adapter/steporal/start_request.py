"""Start of a run: one description for all who start runs.

Clients, events, reruns, steps that invoke a workflow, and schedules describe a start alike. :func:`start_run` is how
code outside workflows starts a run; a step starts a child workflow, and a schedule is given the request's parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import temporalio.client
from temporalio.client import WorkflowHandle
from temporalio.common import RawValue, TypedSearchAttributes, WorkflowIDReusePolicy

from .observability.search_attributes import of_run, start_indexed
from .types import JSON
from .wire.start import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """A run to start.

    Attributes:
        app: The app's id.
        workflow: The workflow's id, which is the Temporal workflow type.
        workflow_id: Temporal's workflow id of the run.
        task_queue: The task queue of the run.
        origin: What starts the run.
        data: Its input, as plain JSON.
        state: State of another run that this one begins with.
        summary: Line for Temporal's UI.
        note: Paragraph for Temporal's UI, below what ``origin`` says.
        memo: Memo of the run, by key.
        start_signal: Signal that is sent with the start; Temporal then accepts the start of a run that is running.
    """

    app: str
    workflow: str
    workflow_id: str
    task_queue: str
    origin: Origin
    data: JSON
    state: RawValue | None = None
    summary: str | None = None
    note: str = ""
    memo: Mapping[str, JSON] | None = None
    start_signal: str | None = None

    def arguments(self) -> list[RawValue]:
        """Return the arguments of the Temporal workflow."""
        arguments = self.origin.arguments(self.data)
        return arguments if self.state is None else [*arguments, self.state]

    def search_attributes(self) -> TypedSearchAttributes:
        """Return the search attributes of the run, for namespaces that have them."""
        return of_run(self.app, self.workflow, self.origin.name, self.origin.id)

    def details(self) -> str:
        """Return what Temporal's UI says about the start, as Markdown."""
        return "\n\n".join(filter(None, (self.origin.details(), self.note)))


async def start_run(temporal: temporalio.client.Client, request: StartRequest) -> WorkflowHandle[Any, RawValue]:
    """Start a run.

    Raises:
        WorkflowAlreadyStartedError: A run has the same workflow id, or had it within Temporal's retention.
        RPCError: Temporal refused, or could not be reached.
    """

    async def start(attributes: TypedSearchAttributes) -> WorkflowHandle[Any, RawValue]:
        handle: WorkflowHandle[Any, RawValue] = await temporal.start_workflow(
            request.workflow,
            args=request.arguments(),
            id=request.workflow_id,
            task_queue=request.task_queue,
            result_type=RawValue,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            search_attributes=attributes,
            memo=request.memo,
            start_signal=request.start_signal,
            static_summary=request.summary,
            static_details=request.details(),
        )
        return handle

    return await start_indexed(temporal, request.search_attributes(), start)
