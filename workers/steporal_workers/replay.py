"""``steporal replay``: checks that the code of an app fits the histories of its runs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import temporalio.client
from rich.markup import escape
from rich.table import Table
from temporalio.client import WorkflowHistory
from temporalio.converter import DataConverter

import steporal
from steporal.operations.replay import ReplayedRun, histories_of, replay

from .output import console, print_json, say
from .problems import Mistake

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
    if temporal is None:
        histories = _from_files(options.files)
    else:
        histories = histories_of(
            client,
            temporal,
            workflow=options.workflow,
            where=options.where,
            closed=options.closed,
            limit=options.limit,
        )
    count = 0
    misfits = []
    async for run in replay(client, histories, converter):
        count += 1
        if count % 100 == 0:
            say(f"{count:,} runs …")
        if run.misfit is not None:
            misfits.append(run)
    return _report(client, count, misfits, as_json=options.as_json)


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


def _report(client: steporal.Client, count: int, misfits: Sequence[ReplayedRun], *, as_json: bool) -> int:
    if as_json:
        shown = [
            {"workflow": each.workflow, "workflow_id": each.workflow_id, "run_id": each.run_id, "why": each.misfit}
            for each in misfits
        ]
        print_json({"replayed": count, "misfits": shown})
        return int(bool(misfits))
    if misfits:
        table = Table("workflow", "run", "what does not fit")
        for each in misfits:
            table.add_row(escape(each.workflow), escape(each.workflow_id), escape(each.misfit or ""))
        console().print(table)
    runs = f"{count:,} run{'s' * (count != 1)} of app {client.id!r}"
    if misfits:
        say(f"{escape(runs)}: [red]{len(misfits):,} would be stuck[/] with this code, but lose nothing; {_ADVICE}")
    else:
        say(f"{escape(runs)}: [green]all fit this code[/]")
    return int(bool(misfits))
