"""Details of a run: its executions' histories, the outcome of each step, and its current waits."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pydantic
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.service import RPCError

from ..errors import SteporalError
from ..runtime.awaited import Awaited
from ..types import JSON
from ..values.encrypted import memo_of
from ..values.readable import plain
from ..wire.journal_entries import Entry
from ..wire.memo import Outcome
from ..wire.names import RERUN_OF_KEY
from ..wire.run_state import read_outcome
from ..wire.sent_events import unpack
from ..wire.start import Origin
from ..wire.waits import BACKOFF
from .errors import HistoryError
from .executions import ExecutionReader
from .recovery import Rebuilt, Recovery
from .timeline import StepEntry, Timeline
from .values import Values

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
    """Reader of one run, which can read it repeatedly.

    Args:
        temporal: The connection to the run's namespace.
    """

    def __init__(self, temporal: Client) -> None:
        self._executions = ExecutionReader(temporal)
        self._values = Values(temporal.data_converter)

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
        executions = await self._executions.read(described.id, described.run_id)
        timeline, recovery = Timeline(described.id, self._values), Recovery(self._values)
        first, last = executions[0], executions[-1]
        for execution in executions:
            for fact in execution.facts:
                await timeline.add(fact)
                if execution is last:
                    await recovery.add(fact)
        story = Story(
            described,
            timeline,
            recovery.rebuilt(last.last_event),
            origin=first.started.origin,
            data=first.started.input,
            first_task=first.first_task,
            executions=len(executions),
            is_parked=last.is_parked,
        )
        story.rerun_of = (await memo_of(described)).get(RERUN_OF_KEY)
        await _settle(story)
        await _add_what_is_pending(story)
        return story


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


async def _add_what_is_pending(story: Story) -> None:
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
