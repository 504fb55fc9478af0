"""``steporal replay``: whether the code of an app fits what its runs have done so far."""

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
    "any edit is safe for runs that are parked, as those are that have waited for `park_after`; ask the others to park "
    "before you replace the workers (`steporal checkpoint`), or keep the old workers for them (`steporal worker "
    "--build-id`)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """The flags of ``steporal replay``.

    Attributes:
        workflow: The id of the only workflow whose runs are replayed.
        where: A further condition, in the query language of Temporal's visibility.
        closed: Whether runs that have ended are replayed, too.
        limit: How many runs are replayed at most; the last started ones are.
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
    """A run that the code does not fit.

    Attributes:
        workflow: The id of its workflow.
        workflow_id: Temporal's workflow id of the run.
        run_id: Temporal's run id of the execution.
        why: What does not fit.
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
    """Replay, and say what does not fit; the exit status: 1 if something does not.

    Args:
        client: The app, with the code that is to be deployed.
        temporal: Where its runs are; None if the histories come from files.
        converter: Reads what is in them.
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
                why = f"app {client.id!r} defines no such workflow any more: no worker would take the run"
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
    return _told(client, count, misfits + unknown, as_json=options.as_json)


def replayer_of(client: steporal.Client, converter: DataConverter) -> Replayer:
    """What replays the runs of an app with the code as it is here."""
    return Replayer(workflows=[], plugins=[client.plugin()], data_converter=converter)


# --- histories -----------------------------------------------------------------------------------------------------


async def _from_temporal(
    client: steporal.Client, temporal: temporalio.client.Client, options: ReplayOptions
) -> AsyncIterator[WorkflowHistory]:
    given = options
    listed = runs_of(
        temporal,
        client,
        workflow=given.workflow,
        where=given.where,
        are_open=not given.closed,
        are_defined=False,
        limit=given.limit,
    )
    async for run in listed:
        history = await history_of(temporal, run.id, run.run_id)
        if history is not None:
            yield history


async def history_of(temporal: temporalio.client.Client, workflow_id: str, run_id: str) -> WorkflowHistory | None:
    """The history of an execution; None if its retention has just ended."""
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
    """A history from a file: JSON as Temporal's command and its UI export it.

    Raises:
        Mistake: The file has something else.
    """
    try:
        history = WorkflowHistory.from_json(file.stem, json.loads(file.read_text()))
        history.events[0].workflow_execution_started_event_attributes.workflow_type.name  # noqa: B018
    except (OSError, ValueError, IndexError, KeyError, TypeError) as err:
        raise Mistake(
            f"{str(file)!r} has no history ({type(err).__name__}: {err}); write one by "
            "`temporal workflow show --workflow-id ID --output json > FILE`"
        ) from None
    workflow_id = history.events[0].workflow_execution_started_event_attributes.workflow_id
    return WorkflowHistory(workflow_id or file.stem, history.events)


def _workflow(history: WorkflowHistory) -> str:
    return history.events[0].workflow_execution_started_event_attributes.workflow_type.name


async def _is_ours(history: WorkflowHistory, converter: DataConverter) -> bool:
    """Whether a run was started by Steporal, or has done what only its runs do."""
    payloads = history.events[0].workflow_execution_started_event_attributes.input.payloads
    if len(payloads) > 1:
        raw = (await converter.decode(payloads, [RawValue] * len(payloads)))[1]
        try:
            added = from_raw(raw)
        except (ValueError, RecursionError):  # a native workflow takes bytes, or somebody has started it with anything
            added = None
        if isinstance(added, dict) and added.get("type") in ("event", "cron", "invoke"):
            return True
    activities = (event.activity_task_scheduled_event_attributes.activity_type.name for event in history.events)
    return any(name.startswith(_OURS) for name in activities)


# --- what is said --------------------------------------------------------------------------------------------------


def _misfit(history: WorkflowHistory, why: str) -> Misfit:
    return Misfit(_workflow(history), history.workflow_id, history.run_id, why)


def reason_of(failure: Exception) -> str:
    """What Temporal's core found, without the words around it."""
    text = str(failure)
    found = _REASON.search(text)
    return found[0] if found else next(iter(text.splitlines()), type(failure).__name__)


def _told(client: steporal.Client, count: int, misfits: Sequence[Misfit], *, as_json: bool) -> int:
    if as_json:
        shown = [
            {"workflow": found.workflow, "workflow_id": found.workflow_id, "run_id": found.run_id, "why": found.why}
            for found in misfits
        ]
        print_json({"replayed": count, "misfits": shown})
        return int(bool(misfits))
    if misfits:
        table = Table("workflow", "run", "what does not fit")
        for found in misfits:
            table.add_row(escape(found.workflow), escape(found.workflow_id), escape(found.why))
        console().print(table)
    runs = f"{count:,} run{'s' * (count != 1)} of app {client.id!r}"
    if misfits:
        say(f"{escape(runs)}: [red]{len(misfits):,} would be stuck[/] with this code, and lose nothing; {_ADVICE}")
    else:
        say(f"{escape(runs)}: [green]all fit this code[/]")
    return int(bool(misfits))
