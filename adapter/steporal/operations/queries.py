"""Queries for runs, in the query language of Temporal's visibility."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

import temporalio.client
from temporalio.common import SearchAttributeKey
from temporalio.service import RPCError, RPCStatusCode

from ..observability.search_attributes import APP, EVENT_ID, EVENT_NAME, has_all, keyword
from ..routing.catalog.reading import Catalog, Snapshot
from ..wire.workflow_ids import workflow_id_of
from .errors import OperationError, QueryRefusedError, RequestError

STATUSES = {
    "running": "Running",
    "completed": "Completed",
    "failed": "Failed",
    "cancelled": "Canceled",
    "terminated": "Terminated",
    "timed-out": "TimedOut",
}
"""Temporal's names of statuses, by those of Steporal."""

_SYSTEM = "steporal."
"""Prefix of the types of Steporal's own workflows."""

STUCK = "stuck"
"""Status of a run that is open, and whose workflow task fails again and again."""

PROBLEMS = SearchAttributeKey.for_keyword_list("TemporalReportedProblems")
"""Temporal's attribute since 1.30: set when a workflow task has failed several times, removed when one succeeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Conditions that select runs.

    Attributes:
        workflow: The id of their workflow.
        app: The id of their app.
        status: One of ``STATUSES``, or ``STUCK``.
        event: The name of the event that started them, or a pattern.
        event_id: That event's id.
        since: The earliest start.
        where: A further condition, in the query language of Temporal's visibility.
    """

    workflow: str | None = None
    app: str | None = None
    status: str | None = None
    event: str | None = None
    event_id: str | None = None
    since: datetime | None = None
    where: str | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """Query, and the condition that must be checked on each run because the namespace has no attribute for it.

    Attributes:
        text: The query, in Temporal's query language.
        where: The condition in it that the caller has written.
        event: The name or the pattern of the event that must have started the run.
        unknown: A message about a name in the conditions that no app has registered, which explains an empty result.
    """

    text: str
    where: str | None = None
    event: str | None = None
    unknown: str = ""


async def query_of(temporal: temporalio.client.Client, filters: Filters) -> Query:
    """Return the query for the conditions.

    Raises:
        RequestError: The app does not exist.
    """
    snapshot = await Catalog(temporal).read_all()
    is_indexed = await has_all(temporal)
    conditions = [_of_apps(snapshot, filters.app, is_indexed=is_indexed, namespace=temporal.namespace)]
    if filters.workflow is not None:
        conditions.append(f"WorkflowType = {quoted(filters.workflow)}")
    if filters.status is None:
        conditions.append("ExecutionStatus != 'ContinuedAsNew'")
    elif filters.status == STUCK:
        conditions.append(f"ExecutionStatus = 'Running' AND {PROBLEMS.name} IS NOT NULL")
    else:
        conditions.append(f"ExecutionStatus = {quoted(STATUSES[filters.status])}")
    if filters.event_id is not None:
        conditions.append(_of_event_id(snapshot, filters.event_id, is_indexed=is_indexed))
    if filters.event is not None and is_indexed:
        conditions.append(_of_event(filters.event))
    if filters.since is not None:
        conditions.append(f"StartTime >= {quoted(filters.since.isoformat())}")
    if filters.where:
        conditions.append(f"({filters.where})")
    unknown = _unknown("app", filters.app, snapshot.apps) or _unknown(
        "workflow", filters.workflow, _workflows(snapshot)
    )
    return Query(" AND ".join(conditions), filters.where, None if is_indexed else filters.event, unknown)


def _workflows(snapshot: Snapshot) -> set[str]:
    return {match.workflow for match in snapshot.workflows}


def _unknown(what: str, id: str | None, known: Collection[str]) -> str:
    if id is None or id in known:
        return ""
    close = difflib.get_close_matches(id, known, n=1)
    return f"no {what} {id!r} is registered" + (f"; did you mean {close[0]!r}?" if close else "")


def _of_apps(snapshot: Snapshot, app: str | None, *, is_indexed: bool, namespace: str) -> str:
    """Return the condition for the runs of apps; a namespace also has Steporal's own and native workflows."""
    if app is not None and app in snapshot.apps:
        return f"TaskQueue = {quoted(snapshot.apps[app])}"
    if app is not None and is_indexed:
        return f"{APP.name} = {quoted(keyword(app))}"
    if app is not None:
        known = ", ".join(map(repr, sorted(snapshot.apps))) or "none"
        raise RequestError(f"no app {app!r} is registered in namespace {namespace!r}; registered: {known}")
    if not snapshot.apps:
        return f"WorkflowType NOT STARTS_WITH {quoted(_SYSTEM)}"
    of_catalog = f"TaskQueue IN ({_list(snapshot.apps.values())})"
    return f"({of_catalog} OR {APP.name} IS NOT NULL)" if is_indexed else of_catalog


def _of_event_id(snapshot: Snapshot, event_id: str, *, is_indexed: bool) -> str:
    ids = [workflow_id_of(match.app, match.workflow, event_id) for match in snapshot.workflows]
    conditions = [f"WorkflowId IN ({_list(ids)})"] if ids else []
    if is_indexed:
        conditions.append(f"{EVENT_ID.name} = {quoted(keyword(event_id))}")
    return f"({' OR '.join(conditions)})" if conditions else f"WorkflowId = {quoted(event_id)}"


def _of_event(name: str) -> str:
    if name.endswith("*"):
        return f"{EVENT_NAME.name} STARTS_WITH {quoted(keyword(name[:-1]))}"
    return f"{EVENT_NAME.name} = {quoted(keyword(name))}"


def _list(texts: Iterable[str]) -> str:
    return ", ".join(map(quoted, sorted(set(texts))))


def refused(error: RPCError, where: str | None) -> RPCError | OperationError:
    """Return the error for a query that Temporal refused; ``where`` is the condition that the caller has written."""
    if error.status == RPCStatusCode.INVALID_ARGUMENT and where:
        return QueryRefusedError(where, error.message)
    return error


def quoted(text: str) -> str:
    """Return a text as a value in a query."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
