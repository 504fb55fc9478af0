"""Preparation of a worker under ``steporal dev``: lints the code, and recovers the runs that an edit left stuck."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import temporalio.client
from rich.markup import escape
from temporalio.service import RPCError

import steporal
from steporal.lint import findings
from steporal.operations.errors import OperationError
from steporal.operations.recover import RecoverOptions, StuckRun, recover_runs

from .dev_log import align
from .output import say
from .recover import advice_of


async def check_and_recover(client: steporal.Client, temporal: temporalio.client.Client) -> None:
    """Print the findings of lint, and recover the runs that do not fit the code.

    A finding does not keep the worker from starting: a process that kept running the old code would only hide the edit
    that the user is looking at. No worker is up meanwhile, so no step of a run to recover is running.
    """
    align(workflow.id for workflow in client.workflows)
    for finding in findings(client):
        say(f"[yellow]lint:[/] {escape(str(finding))}")
    if not client.workflows:
        return
    try:
        with _quiet():
            recovered = await recover_runs(client, temporal, RecoverOptions(interrupt=True, timeout=timedelta(0)))
    except (RPCError, OperationError) as err:
        say(f"[yellow]could not recover runs that the edit may have left stuck[/]: {escape(str(err))}")
        return
    for run in recovered.stuck:
        if line := _line(run):
            say(line)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what bodies log while they are replayed: a replay runs on past the end of the history."""
    logger = logging.getLogger("steporal.workflow")
    logger.addFilter(_nothing)
    try:
        yield
    finally:
        logger.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False


def _line(run: StuckRun) -> str:
    id = f"[bold]{escape(run.workflow_id)}[/]"
    if run.state == "recovered":
        kept = f"{run.steps} finished step{'s' * (run.steps != 1)} kept"
        again = f"; {escape(', '.join(map(repr, run.again)))} begins again" if run.again else ""
        return f"[green]recovered[/] {id}, which the edit left stuck: {kept}{again}"
    if run.state == "ended":
        return ""
    return f"[red]stuck:[/] {id}: {escape(run.why)}; {escape(advice_of(run))}"
