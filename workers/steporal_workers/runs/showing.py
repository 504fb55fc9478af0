"""``steporal runs show``: shows a run as text or as JSON."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from temporalio.client import Client

from steporal.history.story import Wait
from steporal.history.timeline import StepEntry
from steporal.operations.details import DetailsReader, RunDetails
from steporal.operations.queries import STUCK
from steporal.types import JSON

from ..output import console, print_json
from ..stacks import own_place
from .progress import why_late
from .words import clock, iso, mark, short, status_text, took

_RESULT_WIDTH = 60
_ERROR_WIDTH = 300
_MAX_IDS = 3
_LOOK_EVERY = 1.0

UI_URL = "STEPORAL_UI_URL"
"""Environment variable for the URL of Temporal's UI."""

_CLOUD = (".tmprl.cloud", ".api.temporal.io")
_WHAT = {
    "step": "",
    "local": "local",
    "next": "waits",
    "pause": "pauses",
    "tell": "",
    "event": "sends",
    "sleep": "sleeps",
    "wait": "waits",
    "listen": "listens",
    "signal": "waits for signal",
    "invoke": "invokes",
    "send signal": "signals",
    "fetch": "fetches",
    "post": "posts",
}


async def run_show(temporal: Client, id: str, *, watch: bool, stack: bool, as_json: bool) -> None:
    """Show a run.

    Args:
        temporal: The connection to the run's namespace.
        id: Temporal's workflow id, or the run's own id.
        watch: Refresh the output until the run ends.
        stack: Show all lines of a stack trace, not only the user's innermost line.
        as_json: Print JSON.
    """
    reader = DetailsReader(temporal)
    run = await reader.read(id)
    if as_json:
        print_json(_json(run, temporal))
        return
    out = console()
    if not watch:
        out.print(_rendered(run, temporal, stack=stack))
        return
    shown = _rendered(run, temporal, stack=stack)
    with Live(shown, console=out, auto_refresh=False, vertical_overflow="visible") as live:
        while run.is_open:
            await asyncio.sleep(_LOOK_EVERY)
            run = await reader.read(run.workflow_id)
            live.update(_rendered(run, temporal, stack=stack), refresh=True)


def ui_url(temporal: Client, workflow_id: str, run_id: str) -> str | None:
    """Return the URL of a run in Temporal's UI: below ``STEPORAL_UI_URL``, on Temporal Cloud, or at a dev server."""
    host, _, port = temporal.service_client.config.target_host.rpartition(":")
    base = os.environ.get(UI_URL)
    if base is None and host.endswith(_CLOUD):
        base = "https://cloud.temporal.io"
    elif base is None and host in ("localhost", "127.0.0.1") and port == "7233":
        base = "http://localhost:8233"  # the UI's port with `steporal dev` and `temporal server start-dev`
    if base is None:
        return None
    path = "/".join(quote(part, safe="") for part in (workflow_id, run_id))
    return f"{base.rstrip('/')}/namespaces/{quote(temporal.namespace, safe='')}/workflows/{path}/history"


# --- text ----------------------------------------------------------------------------------------------------------


def _rendered(run: RunDetails, temporal: Client, *, stack: bool) -> RenderableType:
    shown: list[RenderableType] = [_head(run)]
    shown += [Text(text) for text in _errors(run, stack=stack)]
    if run.steps:
        shown.append(_steps(run.steps))
    if run.waits:
        shown.append(_waits(run.waits))
    if run.problem:
        shown.append(Text.from_markup(f"[red]stuck:[/] {escape(run.problem)}"))
    elif run.late:
        shown.append(Text.from_markup(why_late(run.late)))
    if url := ui_url(temporal, run.workflow_id, run.last_run_id):
        shown.append(Text(url, no_wrap=True, overflow="ignore"))
    return Group(*shown)


def _head(run: RunDetails) -> Table:
    head = Table.grid(padding=(0, 2))
    status = status_text(STUCK if run.problem else run.status)
    ended = "" if run.ended is None else f" in {took(run.ended - run.started)}"
    head.add_row("run", f"[bold]{escape(run.workflow_id)}[/]")
    head.add_row("run id", escape(run.run_id))
    head.add_row("status", f"{status}{ended}{', parked' * run.is_parked}")
    head.add_row("started", f"{clock(run.started)}, by {escape(run.origin.name)} ({escape(run.origin.id)})")
    if run.rerun_of:
        at = run.rerun_of.get("from")
        head.add_row("rerun of", escape(f"{run.rerun_of['workflow_id']}{f', from step {at!r}' if at else ''}"))
    head.add_row("input", escape(short(run.input, _ERROR_WIDTH)))
    if run.error is not None:
        head.add_row("error", f"[red]{escape(short(run.error, _ERROR_WIDTH))}[/]")
    elif run.ended is not None:
        head.add_row("result", escape(short(run.result, _ERROR_WIDTH)))
    if run.executions > 1:
        head.add_row("executions", f"{run.executions:,}: it has continued as new")
    return head


def _steps(steps: Sequence[StepEntry]) -> Table:
    table = Table("step", "what", "started")
    table.add_column("took", justify="right")
    table.add_column("attempts", justify="right")
    table.add_column("result")
    for step in steps:
        attempts = f"[yellow]{step.attempts}[/]" if step.attempts > 1 else str(step.attempts)
        start = "-" if step.start is None else step.start.astimezone().strftime("%H:%M:%S.%f")[:-3]
        name = f"{mark(step.state)} {escape(step.id) if step.is_step else f'[dim]{escape(step.id)}[/]'}"
        table.add_row(name, escape(_what(step)), start, _took(step), attempts, escape(_outcome(step)))
    return table


def _errors(run: RunDetails, *, stack: bool) -> Iterator[str]:
    """Yield the errors that the user's own code raised, each with its line: in the body, and in each step."""
    if run.error is not None and run.failed_step is None and run.stack:
        yield "\n".join([run.error, *_lines(run.stack, stack=stack), "  the body of the run"])
    for step in run.steps:
        error = step.error or (step.retried_after if step.state == "running" else None)
        if error is not None and step.stack:
            yield "\n".join([error, *_lines(step.stack, stack=stack), f"  step {step.id!r} {_attempts(step)}"])


def _attempts(step: StepEntry) -> str:
    if step.error is not None:
        return f"failed after {step.attempts} attempt{'s' * (step.attempts != 1)}"
    if step.next_attempt is not None:
        return f"failed; attempt {step.attempts} starts at {clock(step.next_attempt)}"
    return f"failed; attempt {step.attempts} is running"


def _lines(text: str, *, stack: bool) -> list[str]:
    if stack:
        return text.splitlines()
    place = own_place(text)
    return place.lines if place else []


def _what(step: StepEntry) -> str:
    if step.start is None:
        return "kept"
    names = [str(event["name"]) for event in step.sent] or list(step.names)
    return " ".join(filter(None, [_WHAT[step.kind], short(", ".join(names), _RESULT_WIDTH)]))


def _took(step: StepEntry) -> str:
    if step.start is None or step.kind == "local":  # Temporal does not record when a local activity began
        return "-"
    return took(max((step.end or datetime.now(UTC)) - step.start, timedelta(0)))


def _outcome(step: StepEntry) -> str:
    if step.state == "cancelled":
        return "cancelled"
    if step.error is not None:
        return short(step.error, _ERROR_WIDTH)
    if step.state == "running":
        again = f", again at {clock(step.next_attempt)}" if step.next_attempt else ""
        return f"failed: {short(step.retried_after, _ERROR_WIDTH)}{again}" if step.retried_after else ""
    if step.kind in ("event", "tell") and isinstance(step.result, dict) and "ids" in step.result:
        return short(_sent(step.result), _ERROR_WIDTH)
    return "" if step.kind in ("sleep", "listen") else short(step.result, _RESULT_WIDTH)


def _sent(result: dict[str, Any]) -> str:
    """Return a summary of sent events: their ids, the runs that they started, and whether runs wait for them."""
    ids, runs, awaited = result["ids"], result["runs"], result["awaited"]
    facts = [", ".join(ids) if len(ids) <= _MAX_IDS else f"{len(ids):,} events"]
    if runs:
        more = f" and {len(runs) - _MAX_IDS:,} more" if len(runs) > _MAX_IDS else ""
        facts.append(f"started {', '.join(run['workflow_id'] for run in runs[:_MAX_IDS])}{more}")
    if awaited:
        facts.append("runs wait for it" if len(ids) == 1 else f"runs wait for {len(awaited):,} of them")
    return "; ".join(facts)


def _waits(waits: Sequence[Wait]) -> Table:
    table = Table("now", "", "since", "until", title_justify="left")
    for wait in waits:
        step = escape(wait.awaited.step) or "[dim]the body[/]"
        table.add_row(step, escape(wait.awaited.what), clock(wait.since), clock(wait.until))
    return table


# --- JSON ----------------------------------------------------------------------------------------------------------


def _json(run: RunDetails, temporal: Client) -> dict[str, JSON]:
    origin = run.origin
    return {
        "workflow_id": run.workflow_id,
        "run_id": run.run_id,
        "workflow": run.workflow,
        "task_queue": run.task_queue,
        "status": run.status,
        "is_stuck": run.problem is not None,
        "is_parked": run.is_parked,
        "started": iso(run.started),
        "ended": iso(run.ended),
        "event": {"name": origin.name, "id": origin.id, "type": origin.type, "ts": origin.ts},
        "rerun_of": dict(run.rerun_of) if run.rerun_of else None,
        "input": run.input,
        "result": run.result,
        "error": run.error,
        "stack": run.stack or None,
        "failed_step": run.failed_step.step_id if run.failed_step else None,
        "executions": run.executions,
        "problem": run.problem,
        "steps": [_step_json(step) for step in run.steps],
        "waits": [
            {
                "step": wait.awaited.step,
                "kind": wait.awaited.kind,
                "for": list(wait.awaited.names),
                "since": iso(wait.since),
                "until": iso(wait.until),
            }
            for wait in run.waits
        ],
        "ui": ui_url(temporal, run.workflow_id, run.last_run_id),
    }


def _step_json(step: StepEntry) -> dict[str, JSON]:
    return {
        "id": step.id,
        "kind": step.kind,
        "for": list(step.names),
        "state": step.state,
        "started": iso(step.start),
        "ended": iso(step.end),
        "attempts": step.attempts,
        "failed_before": step.retried_after,
        "next_attempt": iso(step.next_attempt),
        "sent": step.sent,
        "result": step.result,
        "error": step.error,
        "stack": step.stack or None,
    }
