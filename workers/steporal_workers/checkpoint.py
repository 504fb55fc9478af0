"""``steporal checkpoint``: parks the runs of an app, so that its code can be edited under them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeVar

import temporalio.client
from rich.markup import escape
from rich.table import Table
from temporalio.client import WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.common import RawValue
from temporalio.service import RPCError, RPCStatusCode

import steporal
from steporal.durations import format_duration
from steporal.values.converter import from_raw
from steporal.wire.names import CHECKPOINT
from steporal.wire.run_state import read_run_state

from .open_runs import has_worker, runs_of, some_at_once
from .output import console, print_json, say
from .problems import Failure, Mistake

T = TypeVar("T")

State = Literal["requested", "parked", "ended"]

_LOOK_EVERY = 0.5
_SHOWN = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointOptions:
    """The flags of ``steporal checkpoint``.

    Attributes:
        workflow: The id of the workflow whose runs are parked; all if None.
        where: A further condition, in the query language of Temporal's visibility.
        hold: The maximum time that runs stay parked.
        timeout: The maximum time to wait until they are parked.
        release: Release the runs instead.
        as_json: Print JSON.
    """

    workflow: str | None = None
    where: str | None = None
    hold: timedelta = timedelta(minutes=10)
    timeout: timedelta = timedelta(minutes=1)
    release: bool = False
    as_json: bool = False


@dataclass(slots=True)
class RequestedRun:
    """Run that received a request to park.

    Attributes:
        workflow: The id of its workflow.
        workflow_id: Temporal's workflow id of the run.
        run_id: Temporal's run id of the execution that received the request.
        state: The outcome.
        busy_with: A description of why it is not parked yet.
    """

    workflow: str
    workflow_id: str
    run_id: str
    state: State = "requested"
    busy_with: str = ""


async def run_checkpoint(
    client: steporal.Client, temporal: temporalio.client.Client, options: CheckpointOptions
) -> int:
    """Park the runs, wait, and print the outcome; return the exit status: 1 if some runs are not parked."""
    if not options.release and options.hold <= options.timeout:
        hold, timeout = format_duration(options.hold), format_duration(options.timeout)
        raise Mistake(f"--hold {hold} is not longer than --timeout {timeout}: runs would resume before all are parked")
    checkpoint = _Checkpoint(client, temporal, options)
    if options.release:
        await checkpoint.request(0)
        return _report_released(checkpoint.requested.values(), as_json=options.as_json)
    await _check_served(client, temporal)
    until = time.monotonic() + options.timeout.total_seconds()
    await checkpoint.request(options.hold.total_seconds())
    while checkpoint.busy() and time.monotonic() < until:
        await checkpoint.look()
        await asyncio.sleep(_LOOK_EVERY)
        await checkpoint.request(options.hold.total_seconds())  # runs that have started meanwhile
    return _report(checkpoint, options)


class _Checkpoint:
    def __init__(self, client: steporal.Client, temporal: temporalio.client.Client, options: CheckpointOptions) -> None:
        self._client = client
        self._temporal = temporal
        self._options = options
        self.requested: dict[str, RequestedRun] = {}

    def busy(self) -> list[RequestedRun]:
        return [run for run in self.requested.values() if run.state == "requested"]

    async def request(self, hold: float) -> None:
        """Send the request to all runs that have not received it."""
        options = self._options
        listed = runs_of(self._temporal, self._client, workflow=options.workflow, where=options.where)
        new = [run async for run in listed if run.id not in self.requested]
        await some_at_once(self._request(RequestedRun(run.workflow_type, run.id, run.run_id), hold) for run in new)

    async def _request(self, run: RequestedRun, hold: float) -> None:
        """Send the request to the open execution, and remember which execution it was."""
        while True:
            handle = self._temporal.get_workflow_handle(run.workflow_id, run_id=run.run_id)
            try:
                await handle.signal(CHECKPOINT, {"hold": hold})
            except RPCError as err:
                if err.status != RPCStatusCode.NOT_FOUND:
                    raise
                described = await self._described(run)
                if described is not None and described.run_id != run.run_id:
                    run.run_id = described.run_id
                    continue
                run.state = "ended"
            self.requested[run.workflow_id] = run
            return

    async def look(self) -> None:
        """Update the state of the runs that received the request."""
        await some_at_once(self._look(run) for run in self.busy())

    async def _look(self, run: RequestedRun) -> None:
        described = await self._described(run)
        if described is None or described.status != WorkflowExecutionStatus.RUNNING:
            run.state = "ended"
        elif described.run_id == run.run_id:
            run.busy_with = _busy_with(described)
        elif await self._is_parked(described):
            run.state = "parked"
        else:  # it has continued as new because its history was long
            run.run_id = described.run_id

    async def _described(self, run: RequestedRun) -> WorkflowExecutionDescription | None:
        try:
            return await self._temporal.get_workflow_handle(run.workflow_id).describe()
        except RPCError as err:
            if err.status != RPCStatusCode.NOT_FOUND:
                raise
            return None

    async def _is_parked(self, described: WorkflowExecutionDescription) -> bool:
        """Return whether an execution began parked, without the handler."""
        handle = self._temporal.get_workflow_handle(described.id, run_id=described.run_id)
        async for event in handle.fetch_history_events(page_size=1):
            payloads = event.workflow_execution_started_event_attributes.input.payloads
            values = await self._temporal.data_converter.decode(payloads, [RawValue] * len(payloads))
            try:
                carried = read_run_state(from_raw(values[2])) if len(values) > 2 else None
            except (ValueError, RecursionError):  # anybody can start a workflow with any arguments
                return False
            return carried is not None and carried.is_parked and carried.held_until is not None
        return False


def _busy_with(described: WorkflowExecutionDescription) -> str:
    raw = described.raw_description
    if raw.pending_workflow_task.attempt > 1:
        return "its workflow task fails: see the worker's log, and `steporal recover`"
    if raw.pending_activities:
        steps = [f"{pending.activity_id} (attempt {pending.attempt})" for pending in raw.pending_activities]
        return f"in flight: {', '.join(steps)}"
    if raw.HasField("pending_workflow_task"):
        return "its workflow task waits for a worker"
    return "waits for something that is neither a step nor a timer, such as a child workflow by Temporal's own API"


async def _check_served(client: steporal.Client, temporal: temporalio.client.Client) -> None:
    if not await has_worker(temporal, client.task_queue):
        raise Failure(
            f"no worker polls task queue {client.task_queue!r}; runs can park only while a worker with the code that "
            "they were started with serves them: run the checkpoint first, and then stop the worker"
        )


# --- output --------------------------------------------------------------------------------------------------------


def _report_released(requested: Iterable[RequestedRun], *, as_json: bool) -> int:
    count = sum(run.state == "requested" for run in requested)
    if as_json:
        print_json({"released": count})
    else:
        say(f"{_runs(count)} released")
    return 0


def _report(checkpoint: _Checkpoint, options: CheckpointOptions) -> int:
    runs = list(checkpoint.requested.values())
    busy = checkpoint.busy()
    counts = {state: sum(run.state == state for run in runs) for state in ("parked", "ended")}
    if options.as_json:
        busy_runs = [
            {"workflow": run.workflow, "workflow_id": run.workflow_id, "busy_with": run.busy_with} for run in busy
        ]
        print_json({**counts, "busy": busy_runs})
        return int(bool(busy))
    if busy:
        table = Table("workflow", "run", "not parked because")
        for run in busy[:_SHOWN]:
            table.add_row(escape(run.workflow), escape(run.workflow_id), escape(run.busy_with))
        console().print(table)
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


def _runs(count: int) -> str:
    return f"{count:,} run{'s' * (count != 1)}"
