"""``steporal replay``: checks that the code of an app fits the histories of its runs."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import temporalio.client
from rich.markup import escape
from rich.table import Table
from temporalio.client import WorkflowHistory
from temporalio.common import RawValue
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Replayer

import steporal
from steporal.values.converter import from_raw

from .open_runs import runs_of
from .output import console, print_json, say
from .problems import Mistake

_OURS = "steporal."
_REASON = re.compile(r"\[TMPRL\d+\] .*?(?=\s*(?:\.\.\.|\"|$))")
_ADVICE = (
    "every edit is safe for parked runs, and runs that have waited for `park_after` are parked; park the others "
    "before you replace the workers (`steporal checkpoint`), or keep the old workers for them (`steporal worker "
    "--build-id`)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """The flags of ``steporal replay``.

    Attributes:
        workflow: The id of the workflow whose runs are replayed; all if None.
        where: A further condition, in the query language of Temporal's visibility.
        closed: Whether runs that have ended are replayed, too.
        limit: The maximum number of runs, the most recently started first.
        files: Replay these histories instead of those in Temporal.
        as_json: Print JSON.
    """

    workflow: str | None = None
    where: str | None = None
    closed: bool = False
    limit: int | None = None
    files: tuple[Path, ...] = ()
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Misfit:
    """Run whose history the code does not fit.

    Attributes:
        workflow: The id of its workflow.
        workflow_id: Temporal's workflow id of the run.
        run_id: Temporal's run id of the execution.
        why: The reason.
    """

    workflow: str
    workflow_id: str
    run_id: str
    why: str


async def run_replay(
    client: steporal.Client,
    temporal: temporalio.client.Client | None,
    converter: DataConverter,
    options: ReplayOptions,
) -> int:
    """Replay, print the misfits, and return the exit status: 1 if there are any.

    Args:
        client: The app, with the code that is to be deployed.
        temporal: The connection to Temporal; None if the histories come from files.
        converter: Converts the values in the histories.
        options: The flags.
    """
    histories = _from_files(options.files) if temporal is None else _from_temporal(client, temporal, options)
    replayer = replayer_of(client, converter)
    count = 0
    defined = {workflow.id for workflow in client.workflows} | set(client.sinks)
    unknown: list[Misfit] = []

    async def known() -> AsyncIterator[WorkflowHistory]:
        nonlocal count
        async for history in histories:
            if _workflow(history) not in defined:
                if not await _is_ours(history, converter):  # a native workflow on the same task queue
                    continue
                why = f"app {client.id!r} no longer defines this workflow: no worker would take the run"
                unknown.append(_misfit(history, why))
            count += 1
            if count % 100 == 0:
                say(f"{count:,} runs …")
            if _workflow(history) in defined:
                yield history

    async with replayer.workflow_replay_iterator(known()) as results:
        misfits = [
            _misfit(result.history, reason_of(result.replay_failure))
            async for result in results
            if result.replay_failure is not None
        ]
    return _report(client, count, misfits + unknown, as_json=options.as_json)


def replayer_of(client: steporal.Client, converter: DataConverter) -> Replayer:
    """Return a replayer for the runs of an app with the code on this machine."""
    return Replayer(workflows=[], plugins=[client.plugin()], data_converter=converter)


# --- histories -----------------------------------------------------------------------------------------------------


async def _from_temporal(
    client: steporal.Client, temporal: temporalio.client.Client, options: ReplayOptions
) -> AsyncIterator[WorkflowHistory]:
    listed = runs_of(
        temporal,
        client,
        workflow=options.workflow,
        where=options.where,
        are_open=not options.closed,
        are_defined=False,
        limit=options.limit,
    )
    async for run in listed:
        history = await history_of(temporal, run.id, run.run_id)
        if history is not None:
            yield history


async def history_of(temporal: temporalio.client.Client, workflow_id: str, run_id: str) -> WorkflowHistory | None:
    """Return the history of an execution; None if its retention has just ended."""
    try:
        return await temporal.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
    except RPCError as err:
        if err.status != RPCStatusCode.NOT_FOUND:
            raise
        return None


async def _from_files(files: Sequence[Path]) -> AsyncIterator[WorkflowHistory]:
    for file in files:
        yield read_history(file)


def read_history(file: Path) -> WorkflowHistory:
    """Return a history from a file, in JSON as Temporal's CLI and UI export it.

    Raises:
        Mistake: The file does not contain a history.
    """
    try:
        history = WorkflowHistory.from_json(file.stem, json.loads(file.read_text()))
        history.events[0].workflow_execution_started_event_attributes.workflow_type.name  # noqa: B018
    except (OSError, ValueError, IndexError, KeyError, TypeError) as err:
        raise Mistake(
            f"{str(file)!r} does not contain a history ({type(err).__name__}: {err}); write one by "
            "`temporal workflow show --workflow-id ID --output json > FILE`"
        ) from None
    workflow_id = history.events[0].workflow_execution_started_event_attributes.workflow_id
    return WorkflowHistory(workflow_id or file.stem, history.events)


def _workflow(history: WorkflowHistory) -> str:
    return history.events[0].workflow_execution_started_event_attributes.workflow_type.name


async def _is_ours(history: WorkflowHistory, converter: DataConverter) -> bool:
    """Return whether Steporal started the run, or the run has called an activity of Steporal's."""
    payloads = history.events[0].workflow_execution_started_event_attributes.input.payloads
    if len(payloads) > 1:
        raw = (await converter.decode(payloads, [RawValue] * len(payloads)))[1]
        try:
            added = from_raw(raw)
        except (ValueError, RecursionError):  # the input of a native workflow may be bytes or any JSON
            added = None
        if isinstance(added, dict) and added.get("type") in ("event", "cron", "invoke"):
            return True
    activities = (event.activity_task_scheduled_event_attributes.activity_type.name for event in history.events)
    return any(name.startswith(_OURS) for name in activities)


# --- output --------------------------------------------------------------------------------------------------------


def _misfit(history: WorkflowHistory, why: str) -> Misfit:
    return Misfit(_workflow(history), history.workflow_id, history.run_id, why)


def reason_of(failure: Exception) -> str:
    """Return the reason that Temporal's core gives, without the text around it."""
    text = str(failure)
    match = _REASON.search(text)
    return match[0] if match else next(iter(text.splitlines()), type(failure).__name__)


def _report(client: steporal.Client, count: int, misfits: Sequence[Misfit], *, as_json: bool) -> int:
    if as_json:
        shown = [
            {"workflow": each.workflow, "workflow_id": each.workflow_id, "run_id": each.run_id, "why": each.why}
            for each in misfits
        ]
        print_json({"replayed": count, "misfits": shown})
        return int(bool(misfits))
    if misfits:
        table = Table("workflow", "run", "what does not fit")
        for each in misfits:
            table.add_row(escape(each.workflow), escape(each.workflow_id), escape(each.why))
        console().print(table)
    runs = f"{count:,} run{'s' * (count != 1)} of app {client.id!r}"
    if misfits:
        say(f"{escape(runs)}: [red]{len(misfits):,} would be stuck[/] with this code, but lose nothing; {_ADVICE}")
    else:
        say(f"{escape(runs)}: [green]all fit this code[/]")
    return int(bool(misfits))
