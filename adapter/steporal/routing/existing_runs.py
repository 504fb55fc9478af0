"""Look-up of existing runs by their workflow id."""

from __future__ import annotations

from dataclasses import dataclass

import temporalio.client
from temporalio.client import WorkflowExecutionDescription
from temporalio.common import RawValue
from temporalio.service import RPCError

from ..errors import EncryptionError, RunNotFoundError, UnserializableError
from ..observability.search_attributes import EVENT_ID, keyword
from ..rpc import is_missing
from ..values.converter import from_raw
from ..wire.start import Origin


@dataclass(frozen=True, slots=True)
class ExistingRun:
    """A run that exists in Temporal.

    Attributes:
        run_id: The run's id: that of its first execution.
        event_id: The id of the event that started it.
    """

    run_id: str
    event_id: str


async def find_run(temporal: temporalio.client.Client, workflow_id: str) -> ExistingRun:
    """Find a run, open or closed.

    Raises:
        RunNotFoundError: No run has this workflow id.
    """
    try:
        described = await temporal.get_workflow_handle(workflow_id).describe()
        event_id = await _event_id(temporal, described)
    except RPCError as err:
        if not is_missing(err):
            raise
        raise run_not_found(workflow_id) from None
    first = described.raw_description.workflow_execution_info.first_run_id
    return ExistingRun(first or described.run_id, event_id)


def run_not_found(workflow_id: str) -> RunNotFoundError:
    """Return the error for a run that Temporal does not have."""
    return RunNotFoundError(
        f"no run has the workflow id {workflow_id!r}; workflow ids are '{{app}}/{{workflow}}/{{event id}}', or the id "
        "passed to start_workflow(id=...). Temporal deletes runs after the retention period"
    )


async def _event_id(temporal: temporalio.client.Client, described: WorkflowExecutionDescription) -> str:
    indexed = described.typed_search_attributes.get(EVENT_ID)
    if indexed and keyword(f"{indexed}.") != indexed:  # it was not cut
        return indexed
    added: object = None
    handle = temporal.get_workflow_handle(described.id, run_id=described.run_id)
    async for event in handle.fetch_history_events(page_size=1):
        payloads = event.workflow_execution_started_event_attributes.input.payloads
        if len(payloads) > 1:
            added = await _read(temporal, payloads[1])
        break
    return Origin.of_run(added, described.id).id


async def _read(temporal: temporalio.client.Client, payload: object) -> object:
    """Return what Steporal added to a run's input; None if this process cannot read it."""
    try:
        (raw,) = await temporal.data_converter.decode([payload], [RawValue])  # type: ignore[list-item]
        return from_raw(raw)
    except (EncryptionError, UnserializableError, ValueError):
        return None
