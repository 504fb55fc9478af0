"""Replay of runs with the code on this machine, which shows whether the code fits their histories."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

import temporalio.client
from temporalio.client import WorkflowHistory
from temporalio.common import RawValue
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Replayer

from ..client import Client
from ..values.converter import from_raw
from .app_runs import runs_of

_OURS = "steporal."
_REASON = re.compile(r"\[TMPRL\d+\] .*?(?=\s*(?:\.\.\.|\"|$))")


@dataclass(frozen=True, slots=True)
class ReplayedRun:
    """Run that was replayed.

    Attributes:
        workflow: The id of its workflow.
        workflow_id: Temporal's workflow id of the run.
        run_id: Temporal's run id of the execution.
        misfit: The reason that the code does not fit its history; None if the code fits.
    """

    workflow: str
    workflow_id: str
    run_id: str
    misfit: str | None


async def replay(
    client: Client, histories: AsyncIterator[WorkflowHistory], converter: DataConverter
) -> AsyncIterator[ReplayedRun]:
    """Replay runs, and yield what each of them shows; those whose workflow the app no longer defines come last.

    Histories of native workflows are left out: they may be on the same task queue.

    Args:
        client: The app, with the code that is to be deployed.
        histories: The histories of the runs.
        converter: Converts the values in the histories.
    """
    defined = {workflow.id for workflow in client.workflows} | set(client.sinks)
    undefined: list[ReplayedRun] = []

    async def of_defined() -> AsyncIterator[WorkflowHistory]:
        async for history in histories:
            if workflow_of(history) in defined:
                yield history
            elif await _is_ours(history, converter):
                why = f"app {client.id!r} no longer defines this workflow: no worker would take the run"
                undefined.append(_replayed(history, why))

    async with replayer_of(client, converter).workflow_replay_iterator(of_defined()) as results:
        async for result in results:
            failure = result.replay_failure
            yield _replayed(result.history, None if failure is None else reason_of(failure))
    for run in undefined:
        yield run


def replayer_of(client: Client, converter: DataConverter) -> Replayer:
    """Return a replayer for the runs of an app with the code on this machine."""
    return Replayer(workflows=[], plugins=[client.plugin()], data_converter=converter)


def _replayed(history: WorkflowHistory, misfit: str | None) -> ReplayedRun:
    return ReplayedRun(workflow_of(history), history.workflow_id, history.run_id, misfit)


def reason_of(failure: Exception) -> str:
    """Return the reason that Temporal's core gives, without the text around it."""
    text = str(failure)
    match = _REASON.search(text)
    return match[0] if match else next(iter(text.splitlines()), type(failure).__name__)


# --- histories -----------------------------------------------------------------------------------------------------


async def histories_of(
    client: Client,
    temporal: temporalio.client.Client,
    *,
    workflow: str | None = None,
    where: str | None = None,
    closed: bool = False,
    limit: int | None = None,
) -> AsyncIterator[WorkflowHistory]:
    """Yield the histories of runs on the app's task queue, also those whose workflow the app does not define.

    Args:
        client: The app.
        temporal: The connection to its namespace.
        workflow: The id of the workflow; all by default.
        where: A further condition, in the query language of Temporal's visibility.
        closed: Whether runs that have ended are included.
        limit: The maximum number of runs, the most recently started first.

    Raises:
        RequestError: The app does not have this workflow.
        QueryRefusedError: Temporal does not accept the condition.
    """
    listed = runs_of(
        temporal, client, workflow=workflow, where=where, are_open=not closed, are_defined=False, limit=limit
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


def workflow_of(history: WorkflowHistory) -> str:
    """Return the id of the workflow whose run the history is."""
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
