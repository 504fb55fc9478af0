"""``steporal runs list``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.markup import escape
from rich.table import Table
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from steporal.events import event_matches
from steporal.observability.search_attributes import APP, EVENT_ID, EVENT_NAME, WAITING_FOR
from steporal.types import JSON
from steporal.wire.run_state import read_run_state
from steporal.wire.start import Origin

from ..output import console, print_json, say
from ..problems import Failure
from .finding import describe, first_run_id, is_open
from .queries import PROBLEMS, STUCK, Filters, query_of
from .story import arguments_of
from .words import clock, iso, status_of, status_text, took

_AT_ONCE = 20


@dataclass(slots=True)
class Listed:
    """A run in a list.

    Attributes:
        run: Its last execution.
        run_id: The run's own id, ``ctx.run_id``: that of its first execution.
        started: When its first execution began.
        event: The name of the event that started it; None if nobody can say.
        event_id: That event's id.
    """

    run: WorkflowExecution
    run_id: str
    started: datetime
    event: str | None = None
    event_id: str | None = None

    @property
    def ended(self) -> datetime | None:
        """When it ended."""
        return None if is_open(self.run) else self.run.close_time

    @property
    def is_stuck(self) -> bool:
        """Whether its workflow task fails again and again, as far as Temporal says that."""
        return self.ended is None and bool(self.run.typed_search_attributes.get(PROBLEMS))

    @property
    def waiting_for(self) -> list[str]:
        """What it waits for, if it is parked and the namespace has search attributes."""
        return list(self.run.typed_search_attributes.get(WAITING_FOR) or ()) if self.ended is None else []

    def json(self) -> JSON:
        return {
            "workflow": self.run.workflow_type,
            "app": self.run.typed_search_attributes.get(APP),
            "workflow_id": self.run.id,
            "run_id": self.run_id,
            "status": status_of(self.run.status),
            "is_stuck": self.is_stuck,
            "started": iso(self.started),
            "ended": iso(self.ended),
            "event": self.event,
            "event_id": self.event_id,
            "waiting_for": self.waiting_for,
        }


async def run_list(temporal: Client, filters: Filters, *, limit: int, as_json: bool) -> None:
    """List the open runs and the last ones that ended, sorted by their start, the newest first.

    Raises:
        Failure: Temporal does not understand the query.
    """
    query = await query_of(temporal, filters)
    if query.event is not None:
        say(
            f"namespace {escape(repr(temporal.namespace))} has no search attributes (`steporal setup` registers them): "
            "each run is looked at"
        )
    found: list[Listed] = []
    known: set[tuple[str, str]] = set()
    async for listed in _looked_at(temporal, query.text, limit=None if query.event else limit, where=filters.where):
        if (listed.run.id, listed.run_id) in known:  # an earlier execution of a run that was reset
            continue
        if query.event is None or (listed.event is not None and event_matches(query.event, listed.event)):
            known.add((listed.run.id, listed.run_id))
            found.append(listed)
        if len(found) == limit:
            break
    found.sort(key=lambda listed: listed.started, reverse=True)
    if as_json:
        print_json([listed.json() for listed in found])
        return
    if not found:
        why = f"; {query.unknown}" if query.unknown else ""
        say(escape(f"no run matches in namespace {temporal.namespace!r}{why}"))
        return
    console().print(_table(found))
    if len(found) == limit:
        say(f"the last {limit:,}; --limit N shows more")


async def _looked_at(temporal: Client, query: str, *, limit: int | None, where: str | None) -> AsyncIterator[Listed]:
    batch: list[WorkflowExecution] = []
    try:
        async for run in temporal.list_workflows(query, limit=limit, page_size=min(limit or 100, 1000)):
            batch.append(run)
            if len(batch) == _AT_ONCE:
                for listed in await _look_at_all(temporal, batch):
                    yield listed
                batch.clear()
    except RPCError as err:
        raise not_understood(err, where) from None
    for listed in await _look_at_all(temporal, batch):
        yield listed


async def _look_at_all(temporal: Client, batch: list[WorkflowExecution]) -> list[Listed]:
    looked = await asyncio.gather(*(_look(temporal, each) for each in batch))
    goes_on = await asyncio.gather(*(_goes_on(temporal, each) for each in looked))
    return [listed for listed, does in zip(looked, goes_on, strict=True) if not does]


async def _goes_on(temporal: Client, listed: Listed) -> bool:
    """Return whether a terminated execution was reset, as `steporal recover` does, so that another one goes on."""
    if listed.run.status != WorkflowExecutionStatus.TERMINATED:
        return False
    latest = await describe(temporal, listed.run.id)
    return latest is not None and latest.run_id != listed.run.run_id and first_run_id(latest) == listed.run_id


def not_understood(error: RPCError, where: str | None) -> Exception:
    """What a refused query is told as."""
    if error.status == RPCStatusCode.INVALID_ARGUMENT and where:
        return Failure(f"Temporal does not understand --where {where!r}: {error.message}")
    return error


async def _look(temporal: Client, run: WorkflowExecution) -> Listed:
    """What visibility does not say of a run is in its first event."""
    attributes = run.typed_search_attributes
    listed = Listed(run, run.run_id, run.start_time, attributes.get(EVENT_NAME), attributes.get(EVENT_ID))
    handle = temporal.get_workflow_handle(run.id, run_id=run.run_id)
    try:
        async for event in handle.fetch_history_events(page_size=1):
            first = event.workflow_execution_started_event_attributes.first_execution_run_id
            listed.run_id = first or run.run_id
            listed.started = event.event_time.ToDatetime(tzinfo=UTC)  # of a run that was reset, its true start
            values = await arguments_of(event, temporal.data_converter)
            origin = Origin.of_run(values[1] if len(values) > 1 else None, run.id)
            listed.event, listed.event_id = origin.name, origin.id
            carried = read_run_state(values[2]) if len(values) > 2 else None
            if carried is not None and carried.started:
                listed.started = datetime.fromtimestamp(carried.started / 1000, UTC)
            break
    except RPCError as err:
        if err.status != RPCStatusCode.NOT_FOUND:
            raise
    except Exception:
        pass  # it is encrypted, or no run of Steporal's, or somebody has started it with anything
    return listed


def _table(found: list[Listed]) -> Table:
    is_waiting = any(listed.waiting_for for listed in found)
    table = Table("workflow", "run", "status", "started", "took", "event", *(["waits for"] if is_waiting else []))
    for listed in found:
        row = [
            escape(listed.run.workflow_type),
            escape(listed.run.id),
            status_text(STUCK if listed.is_stuck else status_of(listed.run.status)),
            clock(listed.started),
            took((listed.ended or datetime.now(UTC)) - listed.started),
            escape(listed.event or "-"),
        ]
        table.add_row(*row, *([escape("\n".join(listed.waiting_for))] if is_waiting else []))
    return table
