"""``steporal checkpoint``: ask the runs of an app to park, so that its code can be edited under them."""

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

State = Literal["asked", "parked", "ended"]

_LOOK_EVERY = 0.5
_SHOWN = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointOptions:
    """The flags of ``steporal checkpoint``.

    Attributes:
        workflow: The id of the only workflow whose runs are asked.
        where: A further condition, in the query language of Temporal's visibility.
        hold: How long runs stay parked at most.
        timeout: How long the command waits until they are.
        release: Let them go on instead.
        as_json: Print JSON.
    """

    workflow: str | None = None
    where: str | None = None
    hold: timedelta = timedelta(minutes=10)
    timeout: timedelta = timedelta(minutes=1)
    release: bool = False
    as_json: bool = False


@dataclass(slots=True)
class Asked:
    """A run that was asked.

    Attributes:
        workflow: The id of its workflow.
        workflow_id: Temporal's workflow id of the run.
        run_id: Temporal's run id of the execution that was asked.
        state: What has become of it.
        busy_with: Why it is not parked yet, in words.
    """

    workflow: str
    workflow_id: str
    run_id: str
    state: State = "asked"
    busy_with: str = ""


async def run_checkpoint(
    client: steporal.Client, temporal: temporalio.client.Client, options: CheckpointOptions
) -> int:
    """Ask, wait, and say what has become of the runs; the exit status: 1 if some are not parked."""
    if not options.release and options.hold <= options.timeout:
        hold, timeout = format_duration(options.hold), format_duration(options.timeout)
        raise Mistake(f"--hold {hold} is not longer than --timeout {timeout}: runs would go on before all are parked")
    checkpoint = _Checkpoint(client, temporal, options)
    if options.release:
        await checkpoint.ask(0)
        return _told_released(checkpoint.asked.values(), as_json=options.as_json)
    await _check_served(client, temporal)
    until = time.monotonic() + options.timeout.total_seconds()
    await checkpoint.ask(options.hold.total_seconds())
    while checkpoint.busy() and time.monotonic() < until:
        await checkpoint.look()
        await asyncio.sleep(_LOOK_EVERY)
        await checkpoint.ask(options.hold.total_seconds())  # runs that have started meanwhile
    return _told(checkpoint, options)


class _Checkpoint:
    def __init__(self, client: steporal.Client, temporal: temporalio.client.Client, options: CheckpointOptions) -> None:
        self._client = client
        self._temporal = temporal
        self._options = options
        self.asked: dict[str, Asked] = {}

    def busy(self) -> list[Asked]:
        return [run for run in self.asked.values() if run.state == "asked"]

    async def ask(self, hold: float) -> None:
        """Ask all runs that have not been asked."""
        given = self._options
        listed = runs_of(self._temporal, self._client, workflow=given.workflow, where=given.where)
        new = [run async for run in listed if run.id not in self.asked]
        await some_at_once(self._ask(Asked(run.workflow_type, run.id, run.run_id), hold) for run in new)

    async def _ask(self, run: Asked, hold: float) -> None:
        """Ask the execution that goes on, and remember which it was."""
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
            self.asked[run.workflow_id] = run
            return

    async def look(self) -> None:
        """Find out what has become of those that were asked."""
        await some_at_once(self._look(run) for run in self.busy())

    async def _look(self, run: Asked) -> None:
        described = await self._described(run)
        if described is None or described.status != WorkflowExecutionStatus.RUNNING:
            run.state = "ended"
        elif described.run_id == run.run_id:
            run.busy_with = _busy_with(described)
        elif await self._is_parked(described):
            run.state = "parked"
        else:  # it has continued as new for another reason: its history was long
            run.run_id = described.run_id

    async def _described(self, run: Asked) -> WorkflowExecutionDescription | None:
        try:
            return await self._temporal.get_workflow_handle(run.workflow_id).describe()
        except RPCError as err:
            if err.status != RPCStatusCode.NOT_FOUND:
                raise
            return None

    async def _is_parked(self, described: WorkflowExecutionDescription) -> bool:
        """Whether an execution was begun to wait without the handler."""
        handle = self._temporal.get_workflow_handle(described.id, run_id=described.run_id)
        async for event in handle.fetch_history_events(page_size=1):
            payloads = event.workflow_execution_started_event_attributes.input.payloads
            values = await self._temporal.data_converter.decode(payloads, [RawValue] * len(payloads))
            try:
                carried = read_run_state(from_raw(values[2])) if len(values) > 2 else None
            except (ValueError, RecursionError):  # somebody has started it with anything
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
            f"no worker polls task queue {client.task_queue!r}; runs park while a worker with the code that they were "
            "started with serves them: checkpoint first, and stop the worker then"
        )


# --- what is printed -----------------------------------------------------------------------------------------------


def _told_released(asked: Iterable[Asked], *, as_json: bool) -> int:
    count = sum(run.state == "asked" for run in asked)
    if as_json:
        print_json({"released": count})
    else:
        say(f"{_runs(count)} may go on")
    return 0


def _told(checkpoint: _Checkpoint, options: CheckpointOptions) -> int:
    runs = list(checkpoint.asked.values())
    busy = checkpoint.busy()
    counts = {state: sum(run.state == state for run in runs) for state in ("parked", "ended")}
    if options.as_json:
        busy_runs = [
            {"workflow": run.workflow, "workflow_id": run.workflow_id, "busy_with": run.busy_with} for run in busy
        ]
        print_json({**counts, "busy": busy_runs})
        return int(bool(busy))
    if busy:
        table = Table("workflow", "run", "not parked yet, as")
        for run in busy[:_SHOWN]:
            table.add_row(escape(run.workflow), escape(run.workflow_id), escape(run.busy_with))
        console().print(table)
        if len(busy) > _SHOWN:
            say(f"and {_runs(len(busy) - _SHOWN)} more")
    hold = format_duration(options.hold)
    say(
        f"{_runs(len(runs))} asked: [green]{counts['parked']} parked[/], {counts['ended']} ended meanwhile, "
        f"{f'[red]{len(busy)} not parked[/]' if busy else '0 not parked'}"
    )
    if counts["parked"] or busy:
        say(f"they begin no step until `steporal checkpoint --release`, or for {hold}: replace the workers now")
    return int(bool(busy))


def _runs(count: int) -> str:
    return f"{count:,} run{'s' * (count != 1)}"
