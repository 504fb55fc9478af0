"""Details of a run: its executions' histories, the outcome of each step, and its current waits."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pydantic
from temporalio.api.enums.v1 import PendingActivityState, WorkflowTaskFailedCause
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode

from ..errors import SteporalError
from ..runtime.awaited import Awaited
from ..types import JSON
from ..values.encrypted import memo_of
from ..values.readable import plain
from ..wire.journal_entries import Entry
from ..wire.memo import Outcome
from ..wire.names import RECOVER, RERUN_OF_KEY
from ..wire.run_state import read_outcome, read_run_state
from ..wire.sent_events import unpack
from ..wire.start import Origin
from ..wire.waits import BACKOFF
from .errors import HistoryError
from .recovery import Rebuilt, rebuild
from .timeline import StepEntry, Timeline, json_of

MAX_EXECUTIONS = 50
"""Maximum number of executions that are read; the first of them contains the results of earlier steps."""

_STUCK_FROM_ATTEMPT = 2
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Wait:
    """Current wait of a run.

    Attributes:
        awaited: Description of the wait.
        since: The start of the wait; None if that part of the history no longer exists.
    """

    awaited: Awaited
    since: datetime | None

    @property
    def until(self) -> datetime | None:
        """Latest end of the wait; None if it has no timeout."""
        until = self.awaited.until
        return None if until is None else datetime.fromtimestamp(until, UTC)


@dataclass(slots=True)
class Story:
    """Details of a run.

    Attributes:
        described: Its last execution.
        timeline: Its steps, from its histories.
        rebuilt: Its state, in the form in which another execution would resume from it.
        origin: Event, schedule or call that started it.
        data: Its input.
        first_task: The first start of its body; None if that part of the history no longer exists, or the body has not
            started.
        executions: The number of executions that were read.
        is_parked: Whether the last execution has begun without the handler.
        waits: Its current waits.
        problem: The reason why it is stuck; None if it is not.
        rerun_of: The run of which it is a rerun.
    """

    described: WorkflowExecutionDescription
    timeline: Timeline
    rebuilt: Rebuilt
    origin: Origin
    data: JSON
    first_task: datetime | None
    executions: int
    is_parked: bool
    waits: list[Wait] = field(default_factory=list)
    problem: str | None = None
    rerun_of: Mapping[str, JSON] | None = None

    @property
    def is_open(self) -> bool:
        """True if the run has not ended."""
        return self.described.status == WorkflowExecutionStatus.RUNNING

    @property
    def finished(self) -> dict[str, tuple[JSON, int]]:
        """Finished steps in the order of their ends: the outcome of each, and its time.

        Invoked runs whose step the history does not name are not in the memo, but in ``carried.ended``.
        """
        carried = self.rebuilt.carried
        outcomes = {
            entry.key: (carried.memo[entry.key], entry.at)
            for entry in map(Entry.read, carried.past)
            if entry.key in carried.memo and entry.kind in ("step", "ended")
        }
        for step in self.timeline.steps:
            if step.kind == "invoke" and step.end is not None and step.names[0] in carried.ended:
                outcomes[step.id] = carried.ended[step.names[0]], self.since_start(step.end)
        return dict(sorted(outcomes.items(), key=lambda item: item[1][1]))

    def since_start(self, moment: datetime) -> int:
        """Return the time from :attr:`base` to a moment, in microseconds, rounded up."""
        return math.ceil((moment - self.base) / timedelta(microseconds=1))

    @property
    def base(self) -> datetime:
        """Moment from which the times of finished steps count."""
        carried = self.rebuilt.carried
        return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=carried.base or carried.started)

    @property
    def started(self) -> datetime:
        """Start of its first execution, or of the first whose history still exists."""
        return datetime.fromtimestamp(self.rebuilt.carried.started / 1000, UTC)


class Reader:
    """Reader of one run, which can read it repeatedly; closed executions are read once.

    Args:
        temporal: The connection to the run's namespace.
    """

    def __init__(self, temporal: Client) -> None:
        self._temporal = temporal
        self._ended: dict[str, list[HistoryEvent]] = {}

    async def read(self, described: WorkflowExecutionDescription) -> Story:
        """Return the details of a run.

        Args:
            described: Its last execution.

        Raises:
            HistoryError: It is a native workflow, or its history contains something that no worker of Steporal writes.
        """
        try:
            return await self._read(described)
        except (RPCError, SteporalError):
            raise
        except pydantic.ValidationError:  # its arguments are not Steporal's
            raise HistoryError(f"{described.id!r} is a native workflow, and not a run of Steporal's") from None
        except Exception as err:  # anybody who may write to the namespace can start a run or answer as a worker
            raise HistoryError(
                f"the history of run {described.id!r} contains something that no worker of Steporal writes "
                f"({type(err).__name__}: {str(err)[:200]}); look at it with "
                f"`temporal workflow show --workflow-id {shlex.quote(described.id)}`"
            ) from None

    async def _read(self, described: WorkflowExecutionDescription) -> Story:
        converter = self._temporal.data_converter
        histories = await self._histories(described)
        timeline = Timeline(described.id, converter=converter)
        for history in histories:
            for event in history:
                await timeline.add(event)
        rebuilt = await rebuild(histories[-1], converter)
        values = await arguments_of(histories[0][0], converter)
        origin = Origin.of_run(values[1] if len(values) > 1 else None, described.id)
        data = values[0] if values else None
        last = await arguments_of(histories[-1][0], converter)
        carried = read_run_state(last[2]) if len(last) > 2 else None
        is_parked = carried is not None and carried.is_parked and not _is_awake(histories[-1])
        story = Story(described, timeline, rebuilt, origin, data, _first_task(histories[0]), len(histories), is_parked)
        story.rerun_of = (await memo_of(described)).get(RERUN_OF_KEY)
        await _settle(story)
        await _add_what_is_pending(story, converter)
        return story

    async def _histories(self, described: WorkflowExecutionDescription) -> list[list[HistoryEvent]]:
        """Return the histories of its executions that still exist, the first one first."""
        histories: list[list[HistoryEvent]] = []
        run_id: str | None = described.run_id
        while run_id and len(histories) < MAX_EXECUTIONS:
            history = await self._history(described.id, run_id, is_last=not histories)
            if not history:
                break
            histories.insert(0, history)
            run_id = _before(history)
        return histories

    async def _history(self, workflow_id: str, run_id: str, *, is_last: bool) -> list[HistoryEvent]:
        if run_id in self._ended:
            return self._ended[run_id]
        handle = self._temporal.get_workflow_handle(workflow_id, run_id=run_id)
        try:
            events = [event async for event in handle.fetch_history_events()]
        except RPCError as err:
            if err.status != RPCStatusCode.NOT_FOUND or is_last:
                raise
            return []  # its retention has ended
        if not is_last:
            self._ended[run_id] = events
        return events


def _first_task(history: list[HistoryEvent]) -> datetime | None:
    for event in history:
        if event.HasField("workflow_task_completed_event_attributes"):
            begun = event.workflow_task_completed_event_attributes.started_event_id
            return next(each.event_time.ToDatetime(tzinfo=UTC) for each in history if each.event_id == begun)
    return None


def _is_awake(history: list[HistoryEvent]) -> bool:
    """Return whether an execution that began parked has started its handler since."""
    ours = ("activity_task_scheduled", "marker_recorded", "start_child_workflow_execution_initiated")
    return any(str(event.WhichOneof("attributes")).startswith(ours) for event in history)


def _before(history: list[HistoryEvent]) -> str | None:
    """Return the run id of the execution that this one continues; after a recovery, of the one that was reset."""
    started = history[0].workflow_execution_started_event_attributes
    is_recovered = any(
        event.workflow_execution_signaled_event_attributes.signal_name == RECOVER
        for event in history
        if event.HasField("workflow_execution_signaled_event_attributes")
    )
    if is_recovered:
        for event in history:
            failed = event.workflow_task_failed_event_attributes
            if failed.cause == WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW:
                return failed.base_run_id
    return started.continued_execution_run_id or None


async def arguments_of(event: HistoryEvent, converter: DataConverter) -> list[JSON]:
    """Return the arguments of an execution, from its first event."""
    payloads = event.workflow_execution_started_event_attributes.input.payloads
    return [await json_of(payload, converter) for payload in payloads]


# --- outcomes of the steps -----------------------------------------------------------------------------------------


async def _settle(story: Story) -> None:
    """Make the timeline agree with the memo: a step in the memo has finished, and a step that is not in it has not."""
    timeline, finished = story.timeline, story.finished
    for key, (encoded, at) in finished.items():
        entry = timeline.step(key)
        if entry is None or entry.id != key:
            entry = timeline.put(StepEntry(key, "step", None))
        _finish(entry, read_outcome(encoded), story.base + timedelta(microseconds=at))
    for entry in timeline.steps:
        if entry.id in timeline.cut and entry.id not in finished:
            entry.state, entry.result = "cancelled", None
        elif entry.state == "running" and not story.is_open:
            entry.state, entry.end = "cancelled", timeline.end
    timeline.steps.sort(key=lambda entry: entry.start or _LONG_AGO)


def _finish(entry: StepEntry, outcome: Outcome, at: datetime) -> None:
    if entry.end is None or entry.state == "running":
        entry.end = at
    entry.next_attempt = None
    if outcome.failure is not None:
        entry.state, entry.error = "failed", f"{outcome.failure.name}: {outcome.failure.message}"
        entry.stack, entry.attempts = outcome.failure.stack, max(entry.attempts, outcome.failure.attempts)
        return
    entry.state, entry.error = "completed", None
    if entry.kind == "event" or (outcome.call is not None and outcome.call.kind == "send_event"):
        entry.kind, entry.result = "event", unpack(outcome.value).model_dump()
        return
    entry.result = None if entry.kind == "listen" else plain(outcome.value)
    if entry.kind in ("wait", "next", "signal") and isinstance(entry.result, dict):
        entry.result = entry.result.get("data")


# --- current activity ----------------------------------------------------------------------------------------------


async def _add_what_is_pending(story: Story, converter: DataConverter) -> None:
    if not story.is_open:
        return
    raw = story.described.raw_description
    for pending in raw.pending_activities:
        entry = story.timeline.step(pending.activity_id)
        if entry is None:
            continue
        entry.attempts = pending.attempt
        if pending.HasField("last_failure"):
            await story.timeline.retries(entry, pending.last_failure)
        if pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED and pending.attempt > 1:
            entry.next_attempt = pending.scheduled_time.ToDatetime(tzinfo=UTC)
    story.waits = _waits(story)
    story.problem = _problem(story)


def _waits(story: Story) -> list[Wait]:
    timeline, carried = story.timeline, story.rebuilt.carried
    topics = {key: box["topics"] for key, box in carried.boxes.items()}
    waits = []
    for key, (_, waiting) in carried.waits.items():
        awaited = Awaited.of(key, waiting, topics)
        waits.append(Wait(awaited, _since(timeline, key)))
    known = {wait.awaited.step: wait.awaited.kind for wait in waits}
    for entry in timeline.steps:
        if entry.kind == "invoke" and entry.state == "running" and known.get(entry.id) != "invoke":
            until = next((wait.awaited.until for wait in waits if wait.awaited.step == entry.id), None)
            waits = [wait for wait in waits if wait.awaited.step != entry.id]  # the timer of its timeout
            waits.append(Wait(Awaited(entry.id, "invoke", entry.names, until), entry.start))
    return waits


def _since(timeline: Timeline, key: str) -> datetime | None:
    if key == BACKOFF:
        pauses = [entry.start for entry in timeline.steps if entry.kind == "pause"]
        return pauses[-1] if pauses else None
    entry = timeline.step(key)
    return entry.start if entry else None


def _problem(story: Story) -> str | None:
    task: Any = story.described.raw_description.pending_workflow_task
    if task.attempt >= _STUCK_FROM_ATTEMPT:
        why = story.timeline.task_failure
        if why is None or "[TMPRL1100]" not in why:
            return f"its workflow task fails, and Temporal retries it{f': {why}' if why else ''}"
        return (
            f"the code of workflow {story.described.workflow_type!r} does not fit the run's history; `steporal "
            f"recover MODULE:CLIENT` continues the run with the new code (Temporal: {why})"
        )
    return None
