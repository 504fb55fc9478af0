"""``steporal runs result``, ``cancel`` and ``terminate``: for one run, or for all that flags select."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click
from rich.markup import escape
from temporalio.client import Client
from temporalio.common import RawValue

import steporal
from steporal.operations.ending import Verb, count_runs, end_run, end_runs
from steporal.operations.finding import first_run_id, get_run, is_open
from steporal.operations.queries import Filters, query_of
from steporal.run_handle import Run

from ..output import print_json, print_line, say
from ..problems import FailedRun, Failure, Mistake, failed_run_json
from .progress import explained

_DONE: dict[Verb, str] = {"cancel": "requested to cancel", "terminate": "terminated"}


async def run_result(temporal: Client, id: str, *, wait: bool, as_json: bool) -> None:
    """Print the result of a run.

    Raises:
        Failure: The run has failed, or has not ended.
    """
    described = await get_run(temporal, id)
    if is_open(described) and not wait:
        raise Failure(
            f"run {described.id!r} has not ended; --wait waits for it, and `steporal runs show` shows what it is doing"
        )
    first = first_run_id(described)
    handle = temporal.get_workflow_handle(described.id, run_id=described.run_id, result_type=RawValue)
    try:
        async with explained(temporal, described.id):
            result = await Run(temporal, handle, "", None).result()
    except steporal.RunFailedError as err:
        if as_json:
            print_json({"workflow_id": described.id, "run_id": first, "error": failed_run_json(err)})
        raise FailedRun(err) from err
    print_json({"workflow_id": described.id, "run_id": first, "result": result} if as_json else result)


async def run_end(temporal: Client, verb: Verb, ids: Sequence[str], *, reason: str | None, as_json: bool) -> None:
    """Cancel or terminate runs; if one cannot be ended, those before it are."""
    ended = []
    for id in ids:
        run = await end_run(temporal, verb, id, reason=reason or f"steporal runs {verb}")
        ended.append(run.workflow_id)
        if not as_json:
            say(f"{_DONE[verb]}: {escape(run.workflow_id)}")
    if as_json:
        print_json({"runs": ended})


async def run_batch(
    temporal: Client, verb: Verb, filters: Filters, *, reason: str | None, is_sure: bool, as_json: bool
) -> None:
    """Cancel or terminate all open runs that the filters select, by a batch operation of Temporal's.

    Raises:
        Mistake: Nobody has confirmed.
    """
    query = await query_of(temporal, filters)
    count = await count_runs(temporal, query)
    if count and not is_sure:
        await asyncio.to_thread(_confirm, f"{verb} {_open_runs(count)} in namespace {temporal.namespace!r}?")
    batch = await end_runs(temporal, verb, query, reason=reason or f"steporal runs {verb}") if count else None
    if as_json:
        print_json({"job_id": batch and batch.job_id, "count": batch.count if batch else 0})
        return
    if batch is None:
        say(escape(f"no open run matches{f'; {query.unknown}' if query.unknown else ''}"))
        return
    print_line(batch.job_id)
    say(
        f"  Temporal's batch job {verb}s {_open_runs(batch.count)}; `temporal batch describe --job-id {batch.job_id}` "
        "shows its progress"
    )


def _open_runs(count: int) -> str:
    return f"{count:,} open run{'s' * (count != 1)}"


def _confirm(question: str) -> None:
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort:
        raise Mistake("nothing was done; --yes does it without confirmation") from None
