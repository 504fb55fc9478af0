"""``steporal runs list``: prints the runs that flags select."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.markup import escape
from rich.table import Table
from temporalio.client import Client

from steporal.operations.listing import ListedRun, list_runs
from steporal.operations.queries import STUCK, Filters, query_of
from steporal.types import JSON

from ..output import console, print_json, say
from .words import clock, iso, status_text, took


async def run_list(temporal: Client, filters: Filters, *, limit: int, as_json: bool) -> None:
    """List open runs and the runs that ended last, the most recently started first."""
    query = await query_of(temporal, filters)
    if query.event is not None:
        say(
            f"namespace {escape(repr(temporal.namespace))} has no search attributes (`steporal setup` registers them): "
            "the history of each run is read"
        )
    rows = await list_runs(temporal, query, limit=limit)
    if as_json:
        print_json([_json(row) for row in rows])
        return
    if not rows:
        why = f"; {query.unknown}" if query.unknown else ""
        say(escape(f"no run matches in namespace {temporal.namespace!r}{why}"))
        return
    console().print(_table(rows))
    if len(rows) == limit:
        say(f"the last {limit:,}; --limit N shows more")


def _json(row: ListedRun) -> JSON:
    return {
        "workflow": row.workflow,
        "app": row.app,
        "workflow_id": row.workflow_id,
        "run_id": row.run_id,
        "status": row.status,
        "is_stuck": row.is_stuck,
        "started": iso(row.started),
        "ended": iso(row.ended),
        "event": row.event,
        "event_id": row.event_id,
        "waiting_for": list(row.waiting_for),
    }


def _table(rows: Sequence[ListedRun]) -> Table:
    is_waiting = any(row.waiting_for for row in rows)
    table = Table("workflow", "run", "status", "started", "took", "event", *(["waits for"] if is_waiting else []))
    for row in rows:
        cells = [
            escape(row.workflow),
            escape(row.workflow_id),
            status_text(STUCK if row.is_stuck else row.status),
            clock(row.started),
            took((row.ended or datetime.now(UTC)) - row.started),
            escape(row.event or "-"),
        ]
        table.add_row(*cells, *([escape("\n".join(row.waiting_for))] if is_waiting else []))
    return table
