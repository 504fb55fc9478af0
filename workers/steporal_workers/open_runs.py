"""The runs of an app that have not ended."""

from __future__ import annotations

from collections.abc import AsyncIterator

import temporalio.client
from temporalio.client import WorkflowExecution

import steporal

from .problems import Mistake


def query_of(client: steporal.Client, workflow: str | None = None, where: str | None = None) -> str:
    """Temporal's query for the open runs of an app.

    Args:
        client: The app.
        workflow: The id of one of its workflows; all, by default.
        where: A further condition, in Temporal's language.

    Raises:
        Mistake: The app has no such workflow, or none at all.
    """
    ids = [defined.id for defined in client.workflows]
    if workflow is not None:
        if workflow not in ids:
            known = ", ".join(map(repr, sorted(ids))) or "none"
            raise Mistake(f"app {client.id!r} has no workflow {workflow!r}; it has {known}")
        ids = [workflow]
    if not ids:
        raise Mistake(f"app {client.id!r} has no workflows")
    types = ", ".join(map(_quoted, ids))
    query = f"ExecutionStatus = 'Running' AND TaskQueue = {_quoted(client.task_queue)} AND WorkflowType IN ({types})"
    return f"{query} AND ({where})" if where else query


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def open_runs(
    temporal: temporalio.client.Client,
    client: steporal.Client,
    *,
    workflow: str | None = None,
    where: str | None = None,
    limit: int | None = None,
) -> AsyncIterator[WorkflowExecution]:
    """The open runs of an app, as Temporal's visibility lists them, the last started first; see :func:`query_of`."""
    return temporal.list_workflows(query_of(client, workflow, where), limit=limit)
