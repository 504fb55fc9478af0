"""Messages for people while a command waits for a run: why the run does not progress, on standard error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

from rich.markup import escape
from temporalio.client import Client
from temporalio.service import RPCError

from steporal.history.errors import HistoryError
from steporal.operations.details import DetailsReader, RunDetails
from steporal.operations.finding import describe, is_open
from steporal.operations.late_tasks import LateTask

from ..output import say
from .words import clock

FIRST_AFTER_SECONDS = 2.0
"""Time before the first message, as most runs need no explanation."""

_EVERY_SECONDS = 1.0

Line = tuple[str, str]
"""Kind of the obstacle, and the line that describes it; the line is repeated only after a different obstacle."""


@asynccontextmanager
async def explained(temporal: Client, workflow_id: str) -> AsyncIterator[None]:
    """While the context lasts, print why a run does not progress: no worker, a stuck body, a failing step, a wait."""
    explaining = asyncio.create_task(_explain(temporal, workflow_id))
    try:
        yield
    finally:
        explaining.cancel()
        with suppress(asyncio.CancelledError):
            await explaining


async def _explain(temporal: Client, workflow_id: str) -> None:
    reader = DetailsReader(temporal)
    known: dict[str, str] = {}
    await asyncio.sleep(FIRST_AFTER_SECONDS)
    while True:
        with suppress(RPCError, HistoryError):  # the code that waits for the result reports these
            described = await describe(temporal, workflow_id)
            if described is not None and is_open(described):
                current = dict(_lines(await reader.details_of(described)))
                if _BLOCKED & known.keys() and not _BLOCKED & current.keys():
                    say("  the run continues")
                for matter, line in current.items():
                    if known.get(matter) != line:
                        say(f"  {line}")
                known = current
        await asyncio.sleep(_EVERY_SECONDS)


_STUCK, _NO_WORKER = "stuck", "no worker"
_BLOCKED = {_STUCK, _NO_WORKER}


def _lines(run: RunDetails) -> Iterator[Line]:
    if run.problem is not None:
        yield _STUCK, f"[red]the run is stuck[/]: {escape(run.problem)}"
    elif run.late is not None:
        yield _NO_WORKER, why_late(run.late)
    else:
        yield from _waits(run)


def _waits(run: RunDetails) -> Iterator[Line]:
    for step in run.steps:
        if step.state == "running" and step.retried_after is not None and step.next_attempt is not None:
            failed = f"[yellow]step {escape(repr(step.id))} failed[/]: {escape(step.retried_after)}"
            yield step.id, f"{failed}; attempt {step.attempts} starts at {clock(step.next_attempt)}"
    for wait in run.waits:
        if wait.awaited.step:
            until = f", until {clock(wait.until)}" if wait.until else ""
            yield wait.awaited.step, f"step {escape(repr(wait.awaited.step))} {escape(wait.awaited.what)}{until}"


def why_late(late: LateTask) -> str:
    """Return why no worker takes the next task of a run, in rich's markup."""
    start = "start one: steporal worker MODULE:CLIENT"
    queue = escape(repr(late.task_queue))
    if not late.pollers:
        return f"[yellow]no worker polls task queue {queue}[/]; {start}"
    return (
        f"[yellow]no worker of task queue {queue} takes the run's next task[/]: the {len(late.pollers)} that polled "
        f"it last may be busy or gone; {start}"
    )
