"""``steporal recover``: continues runs whose histories the code does not fit, and prints their outcomes."""

from __future__ import annotations

from collections.abc import Sequence

import temporalio.client
from rich.markup import escape
from rich.table import Table

import steporal
from steporal.durations import format_duration
from steporal.operations.app_runs import has_worker
from steporal.operations.recover import Recovered, RecoverOptions, StuckRun, recover_runs

from .output import console, print_json, say

_SHOWN = 50


async def run_recover(
    client: steporal.Client, temporal: temporalio.client.Client, options: RecoverOptions, *, as_json: bool = False
) -> int:
    """Find the runs that are stuck, and continue them; return the exit status: 1 if some are still stuck.

    Args:
        client: The app, with the code that the runs are to continue with.
        temporal: The connection.
        options: The flags.
        as_json: Print JSON.
    """
    recovered = await recover_runs(client, temporal, options)
    if as_json:
        print_json({"runs": recovered.count, "stuck": [_json(run) for run in recovered.stuck]})
    else:
        is_served = not recovered.stuck or await has_worker(temporal, client.task_queue)
        _print(client, recovered, options, is_served=is_served)
    return int(any(run.is_still_stuck for run in recovered.stuck))


def advice_of(run: StuckRun) -> str:
    """Return the remedy for a run that was not recovered; empty if it was."""
    if run.state != "busy":
        return run.advice
    return (
        f"step {', '.join(map(repr, run.running))} is running: try again when it has finished, or use --interrupt, "
        "which begins it again"
    )


def _json(run: StuckRun) -> dict[str, object]:
    return {
        "workflow": run.workflow,
        "workflow_id": run.workflow_id,
        "run_id": run.run_id,
        "why": run.why,
        "state": run.state,
        "finished_steps": run.steps,
        "begin_again": list(run.again),
        "advice": advice_of(run),
    }


def _print(client: steporal.Client, recovered: Recovered, options: RecoverOptions, *, is_served: bool) -> None:
    count, stuck = recovered.count, recovered.stuck
    runs = f"{count:,} open run{'s' * (count != 1)} of app {client.id!r}"
    if not stuck:
        say(f"{escape(runs)}: [green]all fit this code[/]; nothing to recover")
        return
    console().print(_table(stuck))
    if len(stuck) > _SHOWN:
        say(f"and {len(stuck) - _SHOWN:,} more")
    remaining = [run for run in stuck if run.is_still_stuck]
    done = sum(run.state in ("recovered", "recoverable") for run in stuck)
    verb = "would be recovered" if options.dry_run else "recovered"
    say(
        f"{escape(runs)}: {len(stuck):,} do not fit this code; [green]{done:,} {verb}[/], "
        f"{f'[red]{len(remaining):,} not[/]' if remaining else '0 not'}"
    )
    if any(run.state == "busy" for run in remaining):
        say(f"waited {format_duration(options.timeout)} for running steps; to wait longer, use --timeout DURATION")
    if done and not is_served:
        queue = escape(repr(client.task_queue))
        say(f"no worker polls task queue {queue}: the runs resume when a worker with this code does")


def _table(stuck: Sequence[StuckRun]) -> Table:
    table = Table("workflow", "run", "state", "finished steps", "begin again", "why")
    for run in stuck[:_SHOWN]:
        table.add_row(
            escape(run.workflow),
            escape(run.workflow_id),
            run.state,
            str(run.steps),
            escape(", ".join(run.again)) or "-",
            escape(advice_of(run) or run.why),
        )
    return table
