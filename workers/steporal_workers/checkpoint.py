"""``steporal checkpoint``: parks the runs of an app, and prints which of them are parked."""

from __future__ import annotations

from collections.abc import Sequence

import temporalio.client
from rich.markup import escape
from rich.table import Table

import steporal
from steporal.durations import format_duration
from steporal.operations.checkpoint import CheckpointOptions, RequestedRun, park_runs, release_runs

from .output import console, print_json, say

_SHOWN = 50


async def run_checkpoint(
    client: steporal.Client,
    temporal: temporalio.client.Client,
    options: CheckpointOptions,
    *,
    as_json: bool,
) -> int:
    """Park the runs, wait, and print the outcome; return the exit status: 1 if some runs are not parked."""
    runs = await park_runs(client, temporal, options)
    busy = [run for run in runs if run.state == "requested"]
    counts = {state: sum(run.state == state for run in runs) for state in ("parked", "ended")}
    if as_json:
        busy_runs = [
            {"workflow": run.workflow, "workflow_id": run.workflow_id, "busy_with": run.busy_with} for run in busy
        ]
        print_json({**counts, "busy": busy_runs})
        return int(bool(busy))
    if busy:
        console().print(_table(busy))
        if len(busy) > _SHOWN:
            say(f"and {_runs(len(busy) - _SHOWN)} more")
    hold = format_duration(options.hold)
    say(
        f"{_runs(len(runs))}: [green]{counts['parked']} parked[/], {counts['ended']} ended meanwhile, "
        f"{f'[red]{len(busy)} not parked[/]' if busy else '0 not parked'}"
    )
    if counts["parked"] or busy:
        say(f"they begin no step until `steporal checkpoint --release`, or for {hold}: replace the workers now")
    return int(bool(busy))


async def run_release(
    client: steporal.Client,
    temporal: temporalio.client.Client,
    options: CheckpointOptions,
    *,
    as_json: bool,
) -> int:
    """Release the runs that an earlier checkpoint holds, and print how many; return the exit status."""
    released = len(await release_runs(client, temporal, options))
    if as_json:
        print_json({"released": released})
    else:
        say(f"{_runs(released)} released")
    return 0


def _table(busy: Sequence[RequestedRun]) -> Table:
    table = Table("workflow", "run", "not parked because")
    for run in busy[:_SHOWN]:
        table.add_row(escape(run.workflow), escape(run.workflow_id), escape(run.busy_with))
    return table


def _runs(count: int) -> str:
    return f"{count:,} run{'s' * (count != 1)}"
