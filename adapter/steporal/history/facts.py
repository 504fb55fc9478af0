"""Facts: what the events of a history mean for a run.

An event of Temporal's names activities, timers and signals; a fact says which step, wait or message of a run it
concerns. :mod:`.reading` makes facts of events. Results and errors are left as Temporal has them: they may be large,
and each user of a fact decodes those that it needs, by :class:`.values.Values`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from temporalio.api.common.v1 import Payload, Payloads, RetryPolicy
from temporalio.api.failure.v1 import Failure

from ..types import JSON
from ..wire.mailbox_wait import Wait
from ..wire.run_state import RunState, read_run_state
from ..wire.start import Origin

_EPOCH = datetime.fromtimestamp(0, UTC)

ActivityKind = Literal[
    "run",
    "join",
    "send event",
    "send signal",
    "find mailbox",
    "poll",
    "fetch",
    "post",
    "report",
    "native",
    "other",
]
"""Kinds of activities. ``join``: of a step whose worker may still run the function of an earlier activity. ``find
mailbox``: the first half of sending a signal. ``poll``: of an invoked run. The last four are of no step: a sink's
delivery, an event about the end of the run, an activity of Temporal's own API, and any other."""

TimerKind = Literal["step", "backoff", "start", "asyncio", "internal", "native"]
"""Kinds of timers. ``step``: a sleep, or the timeout of a wait. ``start``: until the time of the event. ``asyncio``: a
timer that the body started by ``asyncio.sleep``. ``internal``: a timer that the body does not see. ``native``: a timer
of Temporal's own API, without a summary."""

EndKind = Literal["completed", "failed", "cancelled", "terminated", "timed out"]
"""Ways in which an execution ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Meaning of an event.

    Attributes:
        number: The event's number in the history of its execution.
        moment: The event's time, in nanoseconds since the epoch.
    """

    number: int
    moment: int

    @property
    def at(self) -> datetime:
        """Time of the event."""
        return _EPOCH + timedelta(microseconds=self.moment // 1000)


# --- the execution and its workflow tasks --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionStarted(Fact):
    """Start of an execution.

    Attributes:
        workflow: The id of the workflow.
        workflow_id: Temporal's workflow id of the run.
        run_id: The run's id: that of its first execution.
        continues: Temporal's run id of the execution that continued as new; None if it is the first one.
        arguments: The arguments: the input, the origin, and the state that was handed over. All are optional.
    """

    workflow: str
    workflow_id: str
    run_id: str
    continues: str | None
    arguments: tuple[JSON, ...]

    @property
    def input(self) -> JSON:
        """Input of the run."""
        return self.arguments[0] if self.arguments else None

    @property
    def origin(self) -> Origin:
        """Event, schedule or call that started the run."""
        return Origin.of_run(self.arguments[1] if len(self.arguments) > 1 else None, self.workflow_id)

    @property
    def carried(self) -> RunState | None:
        """State that was handed over; raises ``ValueError`` if somebody has made it up."""
        return read_run_state(self.arguments[2]) if len(self.arguments) > 2 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionEnded(Fact):
    """End of an execution that has not continued as new."""

    end: EndKind
    result: Payloads | None = None
    failure: Failure | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested(Fact):
    """Request to cancel the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScheduled(Fact):
    """A workflow task waits for a worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStarted(Fact):
    """A worker executes the body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCompleted(Fact):
    """A worker has executed the body until it waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFailed(Fact):
    """A worker has failed to execute the body.

    Attributes:
        failure: The error.
        reset_from: Temporal's run id of the execution that was reset, if this is the point of a reset.
    """

    failure: Failure
    reset_from: str | None


# --- signals -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EventDelivered:
    """Event for a subscription of the run."""

    key: str
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SignalDelivered:
    """Data of a signal for a wait of the run."""

    key: str
    data: JSON


@dataclass(frozen=True, slots=True)
class ChildReported:
    """End of an invoked run, reported by that run itself."""

    child: str
    outcome: JSON


@dataclass(frozen=True, slots=True)
class ReportRequested:
    """Request of a run to report the end of this one."""

    parent: dict[str, str]


@dataclass(frozen=True, slots=True)
class HoldRequested:
    """Request of a checkpoint to park for some seconds; 0 to resume."""

    seconds: float


@dataclass(frozen=True, slots=True)
class RecoveryRequested:
    """State that a recovery hands over, and the number of earlier signals that it includes."""

    carried: RunState
    known: int


Message = EventDelivered | SignalDelivered | ChildReported | ReportRequested | HoldRequested | RecoveryRequested


@dataclass(frozen=True, slots=True, kw_only=True)
class Signalled(Fact):
    """One of the signals that a run accepts.

    Attributes:
        is_recovery: Whether it is the signal of a recovery, which a run reads before all others.
        message: Its message; None if it starts the run, or is not for this run: anybody can send a signal.
    """

    is_recovery: bool
    message: Message | None


# --- activities ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityScheduled(Fact):
    """An activity waits for a worker.

    Attributes:
        name: Its summary, which is the step's key; the activity's id if it has none.
        kind: Its kind.
        step: The key of the step whose outcome it is; None if it is of no step.
        activity_id: Its id: the step's key, with a number if the step has had another activity.
        argument: Its argument.
        retry: Its retry policy.
    """

    name: str
    kind: ActivityKind
    step: str | None
    activity_id: str
    argument: Payload | None
    retry: RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted(Fact):
    """Last attempt of an activity; Temporal records it when the attempt has ended."""

    scheduled: int
    attempt: int
    last_failure: Failure | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityCompleted(Fact):
    """Success of an activity."""

    scheduled: int
    result: Payloads


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityFailed(Fact):
    """Failure of an activity, or its timeout."""

    scheduled: int
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityCancelled(Fact):
    """Cancellation of an activity. From its request on, the body no longer waits for the activity."""

    scheduled: int
    is_requested: bool


# --- local activities ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkerRecorded(Fact):
    """A marker that says nothing about the state of a run; only a body that is executed records one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalActivity(Fact):
    """End of a local activity.

    Attributes:
        completed: The time of its end, in nanoseconds since the epoch; its event is recorded later.
    """

    completed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalStep(LocalActivity):
    """End of a step, or of a part of it, in the workflow's worker.

    Attributes:
        name: Its summary, which is the step's key.
        kind: Its kind.
        step: The key of the step whose outcome it is; None if it is of no step. The search for a mailbox that succeeds
            is of a step, and its outcome only if no run waits for the signal.
        activity_id: Its id.
        attempts: The number of attempts.
        result: Its result.
        failure: Its error; None if it succeeded.
    """

    name: str
    kind: ActivityKind
    step: str | None
    activity_id: str
    attempts: int
    result: Payloads
    failure: Failure | None

    @property
    def is_part(self) -> bool:
        """True if the step does more than this activity, unless it fails."""
        return self.kind in ("find mailbox", "poll")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribed(LocalActivity):
    """Subscription of the run to events.

    Attributes:
        key: The key of the step that waits.
        purpose: ``once`` for one event, ``cancel`` for events that cancel the run, or another text for a listener.
        topics: The events.
        until: The end of the subscription, in seconds since the epoch.
        parts: The parts of topics, by the topics that the run waits in.
    """

    key: str
    purpose: str
    topics: list[str]
    until: float
    parts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MailboxOpened(LocalActivity):
    """Answer of a mailbox for signals.

    Attributes:
        summary: The summary, which names the wait of the run.
        step: The key of the step that waits, if the history has it.
        wait: The wait that the mailbox is open for, perhaps that of another run.
        mailbox: Temporal's run id of the mailbox.
    """

    summary: str
    step: str | None
    wait: Wait
    mailbox: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MailboxClosed(LocalActivity):
    """End of a wait for a signal without a signal.

    Attributes:
        summary: The summary, which names the wait.
    """

    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildPolled(LocalActivity):
    """Poll of an invoked run by the step that waits for it.

    Attributes:
        step: The step's key.
        outcome: The outcome of the invoked run; None if it has not ended.
    """

    step: str
    outcome: JSON


# --- timers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerStarted(Fact):
    """Start of a timer.

    Attributes:
        name: Its summary: the key of a step, or the text of its kind.
        kind: Its kind.
        until: The time at which it fires, in seconds since the epoch.
    """

    name: str
    kind: TimerKind
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired(Fact):
    """End of a timer."""

    started: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerCancelled(Fact):
    """Cancellation of a timer, such as that of a wait that has ended."""

    started: int


# --- invoked runs --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildInitiated(Fact):
    """Invocation of a run.

    Attributes:
        child: Temporal's workflow id of the invoked run.
        workflow: The id of its workflow.
        step: The step that invokes it, if the history has its name; a long name is cut off.
    """

    child: str
    workflow: str
    step: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildNotStarted(Fact):
    """Invocation of a run that the same step had invoked before."""

    child: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEnded(Fact):
    """End of an invoked run."""

    initiated: int
    child: str
    end: EndKind
    result: Payloads | None = None
    failure: Failure | None = None
