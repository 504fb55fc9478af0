"""List of runs, with the facts about each that Temporal's visibility does not have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

from temporalio.client import Client, WorkflowExecution
from temporalio.service import RPCError, RPCStatusCode

from ..events import event_matches
from ..history.facts import ExecutionStarted
from ..history.reading import FactReader
from ..observability.search_attributes import APP, EVENT_ID, EVENT_NAME, WAITING_FOR
from .finding import Status, describe, first_run_id, is_open, status_of
from .queries import PROBLEMS, Query, refused

_AT_ONCE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRun:
    """Run in a list.

    Attributes:
        workflow: The id of its workflow.
        app: The id of its app; None if the namespace has no search attributes.
        workflow_id: Temporal's workflow id of the run.
        run_id: The run's own id, ``ctx.run_id``, which is that of its first execution.
        last_run_id: Temporal's run id of its last execution.
        status: Its status.
        is_stuck: Whether its workflow task fails again and again, as far as the server reports that.
        started: The start of its first execution.
        ended: The time of its end; None if it is open.
        event: The name of the event that started it; None if unknown.
        event_id: That event's id.
        waiting_for: Descriptions of its waits, if it is parked and the namespace has search attributes.
    """

    workflow: str
    app: str | None
    workflow_id: str
    run_id: str
    last_run_id: str
    status: Status
    is_stuck: bool
    started: datetime
    ended: datetime | None
    event: str | None
    event_id: str | None
    waiting_for: tuple[str, ...]


async def list_runs(temporal: Client, query: Query, *, limit: int) -> list[ListedRun]:
    """Return open runs and the runs that ended last, the most recently started first.

    If the query has an event, the namespace has no search attribute for it, and the first event of each run's history
    is read until enough runs match.

    Raises:
        QueryRefusedError: Temporal does not accept the query.
    """
    rows: list[ListedRun] = []
    known: set[tuple[str, str]] = set()
    async for row in _rows(temporal, query, limit=None if query.event else limit):
        if (row.workflow_id, row.run_id) in known:  # an earlier execution of a run that was reset
            continue
        if query.event is None or (row.event is not None and event_matches(query.event, row.event)):
            known.add((row.workflow_id, row.run_id))
            rows.append(row)
        if len(rows) == limit:
            break
    return sorted(rows, key=lambda row: row.started, reverse=True)


async def _rows(temporal: Client, query: Query, *, limit: int | None) -> AsyncIterator[ListedRun]:
    batch: list[WorkflowExecution] = []
    try:
        async for execution in temporal.list_workflows(query.text, limit=limit, page_size=min(limit or 100, 1000)):
            batch.append(execution)
            if len(batch) == _AT_ONCE:
                for row in await _rows_of(temporal, batch):
                    yield row
                batch.clear()
    except RPCError as err:
        raise refused(err, query.where) from None
    for row in await _rows_of(temporal, batch):
        yield row


async def _rows_of(temporal: Client, batch: list[WorkflowExecution]) -> list[ListedRun]:
    rows = await asyncio.gather(*(row_of(temporal, execution) for execution in batch))
    were_reset = await asyncio.gather(*(_was_reset(temporal, row) for row in rows))
    return [row for row, was_reset in zip(rows, were_reset, strict=True) if not was_reset]


async def _was_reset(temporal: Client, row: ListedRun) -> bool:
    """Return whether a terminated execution was reset, as `steporal recover` does, and another execution is open."""
    if row.status != "terminated":
        return False
    latest = await describe(temporal, row.workflow_id)
    return latest is not None and latest.run_id != row.last_run_id and first_run_id(latest) == row.run_id


@dataclass(slots=True)
class _Start:
    """Start of a run; visibility has that of its last execution, and the rest only in search attributes."""

    run_id: str
    moment: datetime
    event: str | None
    event_id: str | None


async def row_of(temporal: Client, execution: WorkflowExecution) -> ListedRun:
    """Return the row of an execution that visibility lists."""
    attributes = execution.typed_search_attributes
    start = _Start(execution.run_id, execution.start_time, attributes.get(EVENT_NAME), attributes.get(EVENT_ID))
    await _read_start(temporal, execution, start)
    has_ended = not is_open(execution)
    return ListedRun(
        workflow=execution.workflow_type,
        app=attributes.get(APP),
        workflow_id=execution.id,
        run_id=start.run_id,
        last_run_id=execution.run_id,
        status=status_of(execution.status),
        is_stuck=not has_ended and bool(attributes.get(PROBLEMS)),
        started=start.moment,
        ended=execution.close_time if has_ended else None,
        event=start.event,
        event_id=start.event_id,
        waiting_for=() if has_ended else tuple(attributes.get(WAITING_FOR) or ()),
    )


async def _read_start(temporal: Client, execution: WorkflowExecution, start: _Start) -> None:
    """Complete the start by the first event of the history."""
    handle = temporal.get_workflow_handle(execution.id, run_id=execution.run_id)
    try:
        async for event in handle.fetch_history_events(page_size=1):
            first = event.workflow_execution_started_event_attributes.first_execution_run_id
            start.run_id = first or execution.run_id
            start.moment = event.event_time.ToDatetime(tzinfo=UTC)  # of a run that was reset, its true start
            started = await FactReader(temporal.data_converter).read(event)
            assert isinstance(started, ExecutionStarted)
            start.event, start.event_id = started.origin.name, started.origin.id
            if started.carried is not None and started.carried.started:
                start.moment = datetime.fromtimestamp(started.carried.started / 1000, UTC)
            break
    except RPCError as err:
        if err.status != RPCStatusCode.NOT_FOUND:
            raise
    except Exception:
        pass  # it is encrypted, or not a run of Steporal's, or anybody started it with any arguments
