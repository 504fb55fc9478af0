"""Steps of a run, from the facts of its histories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from temporalio.api.common.v1 import Payloads
from temporalio.api.failure.v1 import Failure

from ..errors import StepError
from ..routing.catalog.reading import Snapshot
from ..types import JSON
from ..values.encrypted import UNREADABLE
from ..values.readable import plain
from ..wire.failures import stack_of, step_of
from ..wire.run_state import read_outcome
from ..wire.sent_events import unpack
from ..wire.step_activities import attempts_before
from ..wire.waits import NextWait
from ..wire.workflow_ids import workflow_id_of
from . import facts
from .facts import ActivityKind, EndKind, Fact
from .values import Values, line_of, message_of

Kind = Literal[
    "step",
    "local",
    "event",
    "sleep",
    "wait",
    "listen",
    "next",
    "signal",
    "invoke",
    "send signal",
    "fetch",
    "post",
    "pause",
    "tell",
]
"""Kinds of entries. ``next`` is an event of a listener. The last three are not steps: a sink's delivery, a pause, and
an event about the run's end."""

State = Literal["running"] | EndKind

_KINDS: Mapping[ActivityKind, Kind] = {
    "run": "step",
    "join": "step",
    "native": "step",
    "send event": "event",
    "send signal": "send signal",
    "find mailbox": "send signal",
    "fetch": "fetch",
    "post": "post",
    "report": "tell",
    "other": "tell",
}
"""Kinds of entries, by the kinds of activities; a poll of an invoked run has none."""

_ENDS_OF_CHILDREN: Mapping[EndKind, str] = {
    "cancelled": "the run was cancelled",
    "terminated": "the run was terminated",
    "timed out": "the run exceeded a timeout",
}


@dataclass(slots=True)
class StepEntry:
    """Step of a run.

    Attributes:
        id: The step's id.
        kind: The kind of step.
        start: The time at which it was scheduled; None if that part of the history no longer exists.
        end: The time of its end.
        attempts: The number of attempts.
        retried_after: The error of the attempt before the last.
        stack: The user's frames of the stack trace of the last error.
        next_attempt: The time of the next attempt.
        names: The events or the signal that it waits for; the workflow and the run that it invokes.
        box: The listener from which it waits for an event.
        sent: The events that it sends.
        result: Its result; for events that it sent, a ``SendEventResult`` as a dict.
        error: The error with which it failed.
    """

    id: str
    kind: Kind
    start: datetime | None
    end: datetime | None = None
    state: State = "running"
    attempts: int = 1
    retried_after: str | None = None
    stack: str = ""
    next_attempt: datetime | None = None
    names: tuple[str, ...] = ()
    box: str | None = None
    sent: list[dict[str, JSON]] = field(default_factory=list)
    result: JSON = None
    error: str | None = None

    @property
    def duration(self) -> timedelta:
        """Time that it took, including the time between attempts."""
        return self.end - self.start if self.start and self.end else timedelta(0)

    @property
    def is_step(self) -> bool:
        """True if the body called it as a step."""
        return self.kind not in ("pause", "tell", "post")

    def started_runs(self, snapshot: Snapshot) -> list[str]:
        """Return the workflow ids of the runs that its events started."""
        if self.state != "completed":
            return []
        matches = [(match, event["id"]) for event in self.sent for match in snapshot.matches(event)]
        return [workflow_id_of(match.app, match.workflow, id) for match, id in matches]


@dataclass(frozen=True, slots=True)
class Delivered:
    """Event that was delivered to a listener."""

    listener: str
    event: dict[str, JSON]
    at: datetime


@dataclass(slots=True)
class Timeline:
    """Run: its steps in the order of their starts, and its end.

    The histories of several executions can be added one after the other; a step that spans executions is one entry.
    """

    workflow_id: str
    values: Values
    workflow: str = ""
    start: datetime | None = None
    end: datetime | None = None
    state: State = "running"
    result: JSON = None
    error: str | None = None
    stack: str = ""
    failed_step: StepError | None = None
    task_failure: str | None = None
    cut: set[str] = field(default_factory=set)
    steps: list[StepEntry] = field(default_factory=list)
    _by_event: dict[int, StepEntry] = field(default_factory=dict)
    _by_id: dict[str, StepEntry] = field(default_factory=dict)
    delivered: list[Delivered] = field(default_factory=list)
    _received: dict[str, JSON] = field(default_factory=dict)
    _unclaimed: list[dict[str, JSON]] = field(default_factory=list)
    _attempts_before: dict[int, int] = field(default_factory=dict)

    @property
    def duration(self) -> timedelta:
        """Time that the run took."""
        return self.end - self.start if self.start and self.end else timedelta(0)

    def step(self, id: str) -> StepEntry | None:
        """Return a step by its id, or by the id of its activity, which has a numeric suffix if scheduled again."""
        return self._by_id.get(id) or self._by_id.get(id.rpartition("#")[0])

    def put(self, entry: StepEntry) -> StepEntry:
        """Add a step, or continue the step of the same id."""
        known = self._by_id.get(entry.id)
        if known is None:
            self.steps.append(entry)
            self._by_id[entry.id] = entry
            return entry
        if entry.kind != "sleep":
            known.kind = entry.kind
        known.names = entry.names or known.names
        known.sent += entry.sent
        known.state, known.end = "running", None
        return known

    async def add(self, fact: Fact) -> StepEntry | None:
        """Process the next fact of the history; return the step that it ended, if any."""
        match fact:
            case facts.ExecutionStarted():
                self._start(fact)
            case facts.ExecutionEnded():
                await self._finish(fact)
            case facts.TaskFailed():
                self.task_failure = message_of(await self.values.error(fact.failure))
            case facts.TaskCompleted():
                self.task_failure = None
            case facts.ActivityScheduled():
                await self._add_activity(fact)
            case facts.TimerStarted():
                self._add_timer(fact)
            case facts.ChildInitiated():
                entry = StepEntry(fact.step or fact.workflow, "invoke", fact.at, names=(fact.child,))
                self._begin(fact, entry)
            case facts.Signalled():
                self._receive(fact)
            case facts.Subscribed() if fact.purpose != "cancel":
                kind: Kind = "wait" if fact.purpose == "once" else "listen"
                entry = self.put(StepEntry(fact.key, kind, fact.at, names=tuple(fact.topics)))
                if kind == "listen":
                    entry.end, entry.state = fact.at, "completed"
            case facts.MailboxOpened():
                known = self.step(fact.wait.key)
                key = known.id if known else fact.wait.key
                self.put(StepEntry(key, "signal", fact.at, names=(fact.wait.signal,)))
            case _:
                return await self._progress(fact)
        return None

    def _start(self, started: facts.ExecutionStarted) -> None:
        self.workflow = started.workflow
        self.start = self.start or started.at
        self.end, self.state, self.task_failure = None, "running", None
        self._by_event.clear()
        carried = started.carried
        # Only the state that the execution before has handed over shows the waits for a listener's event.
        for key, (_, waiting) in carried.waits.items() if carried else ():
            entry = self._by_id.get(key)
            if entry is not None and isinstance(waiting, NextWait):
                entry.kind, entry.box = "next", waiting.box

    async def _finish(self, ended: facts.ExecutionEnded) -> None:
        self.end, self.state, self.result, self.error = ended.at, ended.end, None, None
        match ended.end:
            case "completed":
                self.result = await self.values.shown_result(ended.result or Payloads())
            case "failed":
                error = await self.values.error(ended.failure or Failure())
                self.error, self.stack, self.failed_step = line_of(error), stack_of(error), step_of(error)
            case "cancelled":
                self.error = "the run was cancelled"
            case "terminated":
                self.error = f"the run was terminated{': ' * bool(ended.reason)}{ended.reason}"
            case "timed out":
                self.error = "the run exceeded a timeout of Temporal's"

    # --- signals ---------------------------------------------------------------------------------------------------

    def _receive(self, signalled: facts.Signalled) -> None:
        match signalled.message:
            case facts.ChildReported(child, outcome):
                self._record_end(child, outcome, signalled.at)
            case facts.EventDelivered(key, event):
                self._deliver(key, event, signalled.at)
            case facts.SignalDelivered(key, data):
                self._keep(key, data)

    def _deliver(self, key: str, event: dict[str, Any], at: datetime) -> None:
        waits = self.step(key)
        if waits is not None and waits.kind == "listen":
            self._deliver_to_listener(waits, event, at)
        else:
            self._keep(key, event["data"])

    def _keep(self, key: str, data: JSON) -> None:
        waits = self.step(key)
        self._received[waits.id if waits else key] = data

    def _record_end(self, child: str, ended: JSON, at: datetime) -> None:
        for entry in self.steps:
            if entry.kind == "invoke" and entry.names == (child,) and entry.state == "running":
                outcome = read_outcome(ended)
                entry.end, entry.result, entry.state = at, plain(outcome.value), "completed"
                if outcome.failure is not None:
                    entry.state, entry.error = "failed", f"{outcome.failure.name}: {outcome.failure.message}"

    def _deliver_to_listener(self, listener: StepEntry, event: dict[str, JSON], at: datetime) -> None:
        self.delivered.append(Delivered(listener.id, event, at))
        waits = [entry for entry in self.steps if entry.box == listener.id and entry.state == "running"]
        if waits:
            waits[0].end, waits[0].state, waits[0].result = at, "completed", event["data"]
        else:
            self._unclaimed.append(event)

    # --- steps -----------------------------------------------------------------------------------------------------

    async def _add_activity(self, scheduled: facts.ActivityScheduled) -> None:
        kind = _KINDS[scheduled.kind]
        if scheduled.kind == "join" and (known := self.step(scheduled.name)) is not None:
            kind = known.kind
        entry = StepEntry(scheduled.name, kind, scheduled.at)
        if scheduled.argument is not None:
            if scheduled.kind in ("run", "fetch") and scheduled.activity_id != scheduled.name:
                argument = await self.values.json(scheduled.argument)
                self._attempts_before[scheduled.number] = attempts_before(argument)
            if scheduled.kind in ("send event", "report"):
                argument = await self.values.shown(scheduled.argument)
                entry.sent = argument["events"]
        self._begin(scheduled, entry)

    def _add_timer(self, timer: facts.TimerStarted) -> None:
        if timer.kind == "internal":
            return
        waits = self.step(timer.name)
        if waits is not None and waits.end is None:
            self._by_event[timer.number] = waits
        else:
            kind: Kind = "pause" if timer.kind in ("backoff", "start") else "sleep"
            self._begin(timer, StepEntry(timer.name, kind, timer.at))

    def _begin(self, fact: Fact, entry: StepEntry) -> None:
        self._by_event[fact.number] = self.put(entry)

    async def _progress(self, fact: Fact) -> StepEntry | None:
        match fact:
            case facts.LocalStep() if fact.kind in _KINDS:
                kind = "local" if fact.kind == "run" else _KINDS[fact.kind]
                entry = self.put(StepEntry(fact.name, kind, fact.at))
                entry.attempts = fact.attempts
                result = await self.values.shown(fact.result.payloads[0]) if fact.result.payloads else None
                return await self._close(entry, fact.at, fact.failure, result)
            case facts.AttemptStarted():
                entry = self._by_event[fact.scheduled]
                before = self._attempts_before.get(fact.scheduled, 0)
                entry.attempts = max(entry.attempts, before + fact.attempt)
                if fact.last_failure is not None:
                    await self.retries(entry, fact.last_failure)
            case facts.ActivityCompleted():
                return await self._end(fact.scheduled, fact.at, result=fact.result)
            case facts.ActivityFailed():
                return await self._end(fact.scheduled, fact.at, failure=fact.failure)
            case facts.ActivityCancelled(is_requested=False):
                return await self._end(fact.scheduled, fact.at, state="cancelled")
            case facts.TimerFired():
                return self._timer_ended(fact.started, fact.at)
            case facts.TimerCancelled():  # of a wait that has ended, successfully or not
                return self._timer_ended(fact.started, fact.at, is_cut=True)
            case facts.ChildEnded():
                return await self._child_ended(fact)
        return None

    def _timer_ended(self, begun_by: int, at: datetime, *, is_cut: bool = False) -> StepEntry | None:
        entry = self._by_event.get(begun_by)
        if entry is None or entry.kind == "invoke":  # the timeout of an invoked run, which continues on its own
            return None
        if entry.kind == "next" and entry.state == "completed":
            return entry
        if is_cut and entry.kind == "sleep" and self._unclaimed:  # no subscription was made for it: a listener's
            entry.kind, entry.result = "next", self._unclaimed.pop(0)["data"]
        elif is_cut:
            self.cut.add(entry.id)
            entry.kind = "wait" if entry.kind == "sleep" else entry.kind
        if entry.kind != "next":
            entry.result = self._received.get(entry.id)
        entry.end, entry.state = at, "completed"
        return entry

    async def _child_ended(self, ended: facts.ChildEnded) -> StepEntry:
        failure = ended.failure
        if ended.end in _ENDS_OF_CHILDREN:
            failure = Failure(message=_ENDS_OF_CHILDREN[ended.end])
        return await self._end(ended.initiated, ended.at, result=ended.result, failure=failure)

    async def _end(
        self,
        begun_by: int,
        at: datetime,
        *,
        result: Payloads | None = None,
        failure: Failure | None = None,
        state: State | None = None,
    ) -> StepEntry:
        entry = self._by_event[begun_by]
        value = await self.values.shown_result(result) if result else None
        ended = await self._close(entry, at, failure, value)
        ended.state = state or ended.state
        return ended

    async def _close(self, entry: StepEntry, at: datetime, failure: Failure | None, result: JSON) -> StepEntry:
        entry.end, entry.result = at, _unpacked(result) if entry.kind in ("event", "tell") else result
        entry.error, entry.stack = None, ""
        if failure is not None:
            error = await self.values.error(failure)
            entry.error, entry.stack = line_of(error), stack_of(error)
        entry.state = "failed" if entry.error else "completed"
        return entry

    async def retries(self, entry: StepEntry, failure: Failure) -> None:
        """Record the error of an attempt that is retried."""
        error = await self.values.error(failure)
        entry.retried_after, entry.stack = line_of(error), stack_of(error)


def _unpacked(result: JSON) -> JSON:
    """Return the result of sent events as the dict of a ``SendEventResult``; return other values unchanged."""
    if not isinstance(result, dict) or "ids" not in result:
        return result
    try:
        return unpack([result]).model_dump()
    except Exception:  # not written by a worker of Steporal
        return UNREADABLE
