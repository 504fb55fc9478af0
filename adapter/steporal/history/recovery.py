"""Recovery of a run's state from its history, without its code.

A run whose code was edited in a way that does not fit its history is stuck: no worker can replay it. Its history still
contains everything that it has done, and a new execution can receive that as if the old one had continued as new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from temporalio.api.common.v1 import Payloads, RetryPolicy
from temporalio.api.failure.v1 import Failure as FailureMessage
from temporalio.api.history.v1 import HistoryEvent
from temporalio.converter import DataConverter

from ..closures.calls import Call
from ..runtime.steps.activity import Attempts, heartbeat_timeout_of
from ..types import JSON
from ..values.converter import from_raw
from ..wire.failures import NOT_BEGUN
from ..wire.memo import Failure, Outcome
from ..wire.run_state import RunState
from ..wire.step_activities import attempts_before
from . import facts
from .facts import ActivityKind, Fact, Message
from .reading import FactReader
from .state.recovered_state import RecoveredState
from .values import CANCELLED, Values

_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """State of a run, as its history shows it.

    Attributes:
        run_id: The run's id: that of its first execution.
        carried: The state from which another execution can continue.
        signals: The number of signals in the history that the state includes.
        first_task: The event that completed the first workflow task; None if no task was completed, so nothing is lost.
        last_event: The last event of the history.
        in_flight: The steps that have begun and whose end is not in the history.
        invoked: The number of invoked runs that have ended and whose step is unknown.
        children: The workflow ids of the invoked runs whose end is not in the history.
    """

    run_id: str
    carried: RunState
    signals: int
    first_task: int | None
    last_event: int
    in_flight: tuple[str, ...]
    invoked: int
    children: tuple[str, ...]

    @property
    def finished(self) -> int:
        """Number of finished steps; a history does not show how many events the body has taken from listeners."""
        return len(self.carried.memo) + self.invoked

    def message(self, *, is_stored: bool) -> dict[str, JSON]:
        """Return the message of the signal that hands the state to another execution.

        Args:
            is_stored: Whether the message goes into external storage if it exceeds Temporal's limit.
        """
        return {"carried": from_raw(self.carried.raw(lambda: is_stored)), "signals": self.signals}


async def rebuild(events: Sequence[HistoryEvent], converter: DataConverter) -> Rebuilt:
    """Read the history of an execution, and return the run's state.

    Args:
        events: All events, in order.
        converter: The data converter of the run's workers.
    """
    reader = FactReader(converter)
    recovery = Recovery(reader.values)
    for event in events:
        if (fact := await reader.read(event)) is not None:
            await recovery.add(fact)
    return recovery.rebuilt(events[-1].event_id)


@dataclass(slots=True)
class _Activity:
    """Activity of a step.

    Attributes:
        key: The step's key.
        call: The description of the step's call, if the activity's argument contains it.
        kind: The activity's kind.
        max_attempts: The maximum number of attempts.
        result: The result.
    """

    key: str
    kind: ActivityKind
    max_attempts: int
    call: Call | None = None
    result: Any = None


class _Sends:
    """Steps that send events, each by one or more activities.

    Such a step is finished when the workflow task after a batch has not started another batch.
    """

    def __init__(self) -> None:
        self._batches: dict[str, list[_Activity]] = {}
        self._seen: dict[str, int] = {}

    @property
    def under_way(self) -> list[str]:
        return list(self._batches)

    def begin(self, batch: _Activity) -> None:
        self._batches.setdefault(batch.key, []).append(batch)

    def has_sent_all(self, key: str) -> bool:
        return all(batch.result is not None for batch in self._batches.get(key, []))

    def give_up(self, key: str) -> None:
        self._batches.pop(key, None)

    def task_done(self) -> None:
        """Note that the body has seen which batches are sent."""
        for key, batches in self._batches.items():
            if self.has_sent_all(key):
                self._seen[key] = len(batches)

    def take_finished(self) -> list[tuple[str, Outcome]]:
        """Return the steps that have started no further batch since."""
        finished = []
        for key, count in self._seen.items():
            batches = self._batches.get(key, [])
            if len(batches) == count:
                finished.append((key, Outcome([batch.result for batch in batches], call=batches[0].call)))
                del self._batches[key]
        self._seen.clear()
        return finished


class Recovery:
    """Recovery of a run's state from the facts of its last execution, in their order.

    Args:
        values: Reader of the values in the facts.
    """

    def __init__(self, values: Values) -> None:
        self._values = values
        self._run_id = ""
        self._state: RecoveredState
        self._signals_read = 0
        self._early: list[Message | None] = []  # messages before the run begins, which a recovery takes back
        self._is_first = True  # whether this is the run's first execution
        self._task_began = _EPOCH
        self._first_task: int | None = None
        self._activities: dict[int, _Activity] = {}
        self._sends = _Sends()
        self._attempts: dict[str, Attempts] = {}  # of steps whose outcome a worker may still have
        self._calls: dict[str, Any] = {}  # of steps that a later attempt may join
        self._lost: dict[str, None] = {}  # steps among them whose last attempt was interrupted

    def rebuilt(self, last_event: int) -> Rebuilt:
        """Return the state after all facts.

        Args:
            last_event: The number of the last event of the history.
        """
        self._end_sends()
        in_flight = [*(each.key for each in self._activities.values()), *self._sends.under_way, *self._lost]
        return Rebuilt(
            self._run_id,
            self._state.carried(),
            self._signals_read,
            self._first_task,
            last_event,
            tuple(dict.fromkeys(in_flight)),
            self._state.ends_seen,
            tuple(self._state.children()),
        )

    async def add(self, fact: Fact) -> None:
        """Apply the next fact."""
        match fact:
            case facts.ExecutionStarted():
                self._start(fact)
            case facts.CancelRequested():
                self._state.cancelled()
            case facts.TaskScheduled():
                self._end_sends()
            case facts.TaskStarted():
                self._task_began = fact.at
                self._state.task_started(fact.moment)
            case facts.TaskCompleted():
                self._task_done(fact)
            case facts.Signalled():
                self._signalled(fact)
            case facts.ActivityScheduled(step=str()):
                await self._scheduled(fact)
            case facts.ActivityCompleted():
                await self._completed(fact)
            case facts.ActivityFailed():
                await self._activity_failed(fact.scheduled, fact.failure)
            case facts.ActivityCancelled():  # the body no longer waits for the activity, so its end does not matter
                await self._activity_failed(fact.scheduled, None)
            case facts.LocalActivity():
                await self._local(fact)
            case facts.TimerStarted() if fact.kind != "native":  # a timer of Temporal's own API has no summary
                self._state.timer_started(fact.number, fact.name, fact.until)
            case facts.TimerFired():
                self._state.timer_fired(fact.started)
            case facts.TimerCancelled():
                self._state.timer_cancelled(fact.started)
            case facts.ChildInitiated():
                self._state.invoked.begin(fact.child, fact.step)
            case facts.ChildNotStarted():
                self._state.invoked.not_started(fact.child)
            case facts.ChildEnded():
                self._state.child_ended(fact.child, await self._outcome_of_child(fact))

    # --- the execution and its tasks -------------------------------------------------------------------------------

    def _start(self, started: facts.ExecutionStarted) -> None:
        self._run_id = started.run_id
        carried = started.carried
        self._is_first = carried is None or not carried.started
        if carried is None or not carried.started:
            carried = carried or RunState(is_parked=False, started=0, seed="")
            carried = carried.model_copy(update={"started": int(started.at.timestamp() * 1000)})
        is_new = self._is_first and not carried.base
        self._state = RecoveredState(self._run_id, started.workflow_id, carried, is_first=is_new)

    def _task_done(self, completed: facts.TaskCompleted) -> None:
        if self._first_task is None:
            self._first_task = completed.number
            if self._is_first:
                self._state.first_task(self._task_began.isoformat())
        self._state.task_done()
        self._sends.task_done()

    def _end_sends(self) -> None:
        for key, outcome in self._sends.take_finished():
            self._state.steps.remember(key, outcome)

    # --- signals ---------------------------------------------------------------------------------------------------

    def _signalled(self, signalled: facts.Signalled) -> None:
        if signalled.is_recovery:
            if self._first_task is None and isinstance(signalled.message, facts.RecoveryRequested):
                self._recover(signalled.message)
            return
        self._signals_read += 1
        if self._first_task is None:
            self._early.append(signalled.message)
        self._state.receive(signalled.message)

    def _recover(self, recovery: facts.RecoveryRequested) -> None:
        """Apply a recovery as the run does: first the handed-over state, then the signals that it does not include."""
        self._state.recover(recovery.carried)
        for message in self._early[recovery.known :]:
            self._state.receive(message)

    # --- activities ------------------------------------------------------------------------------------------------

    async def _scheduled(self, scheduled: facts.ActivityScheduled) -> None:
        key, kind = scheduled.name, scheduled.kind
        self._state.steps.begun(key, scheduled.activity_id)
        argument = None if scheduled.argument is None else await self._values.json(scheduled.argument)
        call = self._calls.get(key) if kind == "join" else _call(argument)
        activity = _Activity(key, kind, scheduled.retry.maximum_attempts, call)
        self._activities[scheduled.number] = activity
        self._lost.pop(key, None)
        if kind in ("run", "fetch"):
            self._calls[key] = call
            self._attempts[key] = _attempts(scheduled.retry, argument)
        if kind == "send event":
            self._state.sends_more(key)
            self._sends.begin(activity)

    async def _completed(self, completed: facts.ActivityCompleted) -> None:
        activity = self._activities.pop(completed.scheduled, None)
        if activity is None:
            return
        activity.result = await self._values.first(completed.result)
        if activity.kind != "send event":
            self._state.steps.finished(activity.key, Outcome(activity.result, call=activity.call))
        elif self._sends.has_sent_all(activity.key):
            self._state.sent(activity.key)

    async def _activity_failed(self, scheduled: int, failure: FailureMessage | None) -> None:
        activity = self._activities.pop(scheduled, None)
        if activity is None:
            return
        self._sends.give_up(activity.key)
        if failure is not None:
            outcome = await self._values.failed(failure, activity.max_attempts)
            outcome = self._followed(activity, outcome)
            self._fail(activity.key, replace(outcome, call=outcome.call or activity.call))

    def _followed(self, activity: _Activity, outcome: Outcome) -> Outcome:
        """Return the outcome that the run sees: an interrupted step continues if it has another attempt."""
        attempts = self._attempts.get(activity.key)
        if attempts is None or outcome.failure is None:
            return outcome
        is_join = activity.kind == "join"
        if (timeout := heartbeat_timeout_of(outcome)) is not None:
            if is_join or not attempts.is_unbegun(timeout):
                attempts.count_heartbeat_timeout(timeout, is_join=is_join)
            goes_on = True
        elif is_join:
            failure, goes_on = attempts.count_failed_join(outcome.failure)
            outcome = Outcome(failure=failure)
        else:
            return outcome
        if goes_on:
            self._lost[activity.key] = None
            return CANCELLED  # which is not remembered
        return outcome

    def _fail(self, key: str, outcome: Outcome) -> None:
        """Record the failure of a step, unless it was cancelled or begins again."""
        if outcome.failure != CANCELLED.failure and outcome.failure and outcome.failure.name not in NOT_BEGUN:
            self._state.steps.finished(key, outcome)

    # --- local activities ------------------------------------------------------------------------------------------

    async def _local(self, ended: facts.LocalActivity) -> None:
        outcome = await self._local_outcome(ended) if isinstance(ended, facts.LocalStep) and ended.step else Outcome()
        with self._state.clock.local(ended.completed):
            match ended:
                case facts.LocalStep(step=str()):
                    self._local_step(ended, outcome)
                case facts.Subscribed():
                    self._state.subscriptions.begin(ended.key, ended.purpose, ended.topics, ended.until, ended.parts)
                case facts.MailboxOpened():
                    self._state.signals.opened(ended.summary, ended.step, ended.wait, ended.mailbox)
                case facts.MailboxClosed():
                    self._state.signals.closed_in_vain(ended.summary)
                case facts.ChildPolled():
                    self._state.invoked.polled(ended.step, ended.outcome)

    async def _local_outcome(self, ended: facts.LocalStep) -> Outcome:
        if ended.failure is None:
            return await self._values.outcome(ended.result)
        return await self._values.failed(ended.failure, ended.attempts)

    def _local_step(self, ended: facts.LocalStep, outcome: Outcome) -> None:
        if ended.kind == "find mailbox" and outcome.failure is None and outcome.value is not None:
            self._state.steps.sends_to(ended.name, outcome.value, outcome.call)
            return
        if not ended.is_part:
            self._state.steps.begun(ended.name, ended.activity_id)
        if ended.failure is None:
            self._state.steps.finished(ended.name, outcome)
        else:
            self._fail(ended.name, outcome)

    # --- invoked runs ----------------------------------------------------------------------------------------------

    async def _outcome_of_child(self, ended: facts.ChildEnded) -> Outcome:
        match ended.end:
            case "completed":
                return Outcome(await self._values.returned(ended.result or Payloads()))
            case "failed":
                return await self._values.failed(ended.failure or FailureMessage(), 0)
            case "cancelled":
                return CANCELLED
            case "terminated":
                return Outcome(failure=Failure("TerminatedError", "the run was terminated"))
            case "timed out":
                return Outcome(failure=Failure("TimeoutError", "the run exceeded a timeout of Temporal's"))


def _call(argument: JSON) -> Call | None:
    """Return the call in the argument of a step's activity."""
    return Call.read(argument.get("call")) if isinstance(argument, dict) else None


def _attempts(policy: RetryPolicy, argument: JSON) -> Attempts:
    """Return the attempts of a step, including those of earlier activities that were cancelled."""
    begun = attempts_before(argument)
    return Attempts(policy.maximum_attempts + begun, tuple(policy.non_retryable_error_types), begun)
