"""``steporal runs result``, ``cancel`` and ``terminate``: one run, or all that a query finds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal
from uuid import uuid4

import click
from rich.markup import escape
from temporalio.api.batch.v1 import BatchOperationCancellation, BatchOperationTermination
from temporalio.api.workflowservice.v1 import StartBatchOperationRequest
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.service import RPCError, RPCStatusCode

import steporal
from steporal.run_handle import Run

from ..output import print_json, print_line, say
from ..problems import FailedRun, Failure, Mistake, failed_run_json
from .finding import first_run_id, get_run, is_open
from .listing import not_understood
from .progress import explained
from .queries import Filters, query_of
from .words import status_of

Verb = Literal["cancel", "terminate"]

_DONE: dict[Verb, str] = {"cancel": "asked to cancel", "terminate": "terminated"}


async def run_result(temporal: Client, id: str, *, wait: bool, as_json: bool) -> None:
    """Print the result of a run.

    Raises:
        Failure: There is no such run, it has failed, or it goes on.
    """
    found = await get_run(temporal, id)
    if is_open(found) and not wait:
        raise Failure(f"run {found.id!r} has not ended; --wait waits, and `steporal runs show` says what it does")
    first = first_run_id(found)
    handle = temporal.get_workflow_handle(found.id, run_id=found.run_id, result_type=RawValue)
    try:
        async with explained(temporal, found.id):
            result = await Run(temporal, handle, "", None).result()
    except steporal.RunFailedError as err:
        if as_json:
            print_json({"workflow_id": found.id, "run_id": first, "error": failed_run_json(err)})
        raise FailedRun(err) from err
    print_json({"workflow_id": found.id, "run_id": first, "result": result} if as_json else result)


async def run_end(temporal: Client, verb: Verb, ids: Sequence[str], *, reason: str | None, as_json: bool) -> None:
    """Cancel or terminate runs.

    Raises:
        Failure: There is no such run, or it has ended; the others before it are ended.
    """
    ended = []
    for id in ids:
        found = await get_run(temporal, id)
        if not is_open(found):
            raise Failure(f"run {found.id!r} has ended already: {status_of(found.status)}")
        handle = temporal.get_workflow_handle(found.id, first_execution_run_id=first_run_id(found))
        try:
            await (
                handle.cancel() if verb == "cancel" else handle.terminate(reason=reason or "steporal runs terminate")
            )
        except RPCError as err:
            if err.status != RPCStatusCode.NOT_FOUND:
                raise
            raise Failure(f"run {found.id!r} has just ended") from None
        ended.append(found.id)
        if not as_json:
            say(f"{_DONE[verb]}: {escape(found.id)}")
    if as_json:
        print_json({"runs": ended})


async def run_batch(
    temporal: Client, verb: Verb, filters: Filters, *, reason: str | None, is_sure: bool, as_json: bool
) -> None:
    """Cancel or terminate all open runs that are meant, by a batch operation of Temporal's.

    Raises:
        Failure: Temporal does not understand the query.
        Mistake: A flag needs search attributes, and the namespace has none; or nobody is there to be asked.
    """
    query = await query_of(temporal, filters)
    if query.event is not None:
        raise Mistake(
            f"--event needs search attributes, which namespace {temporal.namespace!r} does not have; "
            "`steporal setup` registers them, for runs that start from then on"
        )
    try:
        count = (await temporal.count_workflows(query.text)).count
    except RPCError as err:
        raise not_understood(err, filters.where) from None
    if count == 0:
        print_json({"job_id": None, "count": 0}) if as_json else say(
            escape(f"no open run matches{f'; {query.unknown}' if query.unknown else ''}")
        )
        return
    runs = f"{count:,} open run{'s' * (count != 1)}"
    if not is_sure:
        await asyncio.to_thread(_confirm, f"{verb} {runs} in namespace {temporal.namespace!r}?")
    job_id = f"steporal-{verb}-{uuid4()}"
    identity = temporal.identity
    request = StartBatchOperationRequest(
        namespace=temporal.namespace,
        visibility_query=query.text,
        job_id=job_id,
        reason=reason or f"steporal runs {verb}",
    )
    if verb == "cancel":
        request.cancellation_operation.CopyFrom(BatchOperationCancellation(identity=identity))
    else:
        request.termination_operation.CopyFrom(BatchOperationTermination(identity=identity))
    await temporal.workflow_service.start_batch_operation(request)
    if as_json:
        print_json({"job_id": job_id, "count": count})
        return
    print_line(job_id)
    say(f"  Temporal's batch job {verb}s {runs}; `temporal batch describe --job-id {job_id}` shows its progress")


def _confirm(question: str) -> None:
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort:
        raise Mistake("nothing was done; --yes does it without asking") from None
