"""State of a run, built up from the events of its history.

A body receives what happened between two workflow tasks when the second one is executed: first the signals, then the
rest, one at a time, each in the order of the history. So an event counts when that task is completed, in that order.
What the body has not received stays where a body that begins anew finds it: in the memo without an entry in the
journal, in a box, among the received signals, or among the runs that have ended.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ..closures.calls import OR, UNKNOWN, Call
from ..events import derived_ulid
from ..runtime.children import read_parent
from ..runtime.inbox import Inbox
from ..runtime.signal_inbox import conflict, summary_of_close, summary_of_open
from ..runtime.steps.invoke import LOOK_AFTER, next_poll_interval, too_late
from ..types import JSON
from ..wire.journal_entries import Entry
from ..wire.journal_entries import Kind as EntryKind
from ..wire.mailbox_wait import Wait
from ..wire.memo import Outcome
from ..wire.names import ASYNCIO_TIMER, BACKOFF_AFTER, BEGINS_ANEW
from ..wire.run_state import RunState, memo_json, read_outcome
from ..wire.waits import (
    BACKOFF,
    EventWait,
    InvokeWait,
    Kind,
    NextWait,
    SignalWait,
    TimedWait,
    Waiting,
    box_of,
    is_of_no_step,
    moments_of,
)
from . import facts


@dataclass(frozen=True, slots=True)
class Poll:
    """Schedule on which a step polls the run that it invoked.

    Attributes:
        interval: The seconds between the last poll and the next one.
        next_at: The time of the next poll, in seconds since the epoch; None if the run is a child of this execution.
    """

    interval: float = LOOK_AFTER.total_seconds()
    next_at: float | None = None


@dataclass(slots=True)
class Signals:
    """Waits for signals, in the form that :class:`~.signal_inbox.SignalInbox` hands over.

    Attributes:
        open: The waits whose mailbox may be open, by key, with the Temporal run id of the mailbox.
        steps: The keys of the steps, by the keys of their waits.
        over: The waits that have ended.
        received: The data received for open waits.
        timed_out: The waits that have timed out.
    """

    open: dict[str, tuple[Wait, str]] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)
    over: dict[str, None] = field(default_factory=dict)
    received: dict[str, JSON] = field(default_factory=dict)
    timed_out: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, carried: RunState) -> Signals:
        """Return the waits that the previous execution handed over."""
        known: dict[str, tuple[str, str]] = {}
        for key, (_, waiting) in carried.waits.items():
            if isinstance(waiting, SignalWait):
                known[waiting.wait.key] = key, waiting.mailbox
        signals = cls()
        for data in carried.signals.get("waits", ()):
            wait = Wait.model_validate(data)
            step, mailbox = known.get(wait.key, (wait.key, ""))
            signals.open[wait.key] = wait, mailbox
            signals.steps[wait.key] = step
        signals.over = dict.fromkeys(carried.signals.get("over", ()))
        signals.received = dict(carried.signals.get("received", {}))
        return signals

    def state(self, cancelled: Container[str]) -> dict[str, JSON]:
        """Return the hand-over state; another run may take the mailbox of ``cancelled`` waits."""
        return {
            "waits": [wait.model_dump(mode="json") for wait, _ in self.open.values()],
            "cancelled": sorted(key for key in self.open if key in cancelled),
            "over": sorted(self.over),
            "received": self.received,
        }

    def end(self, key: str) -> None:
        """End a wait."""
        self.open.pop(key, None)
        self.received.pop(key, None)
        self.over[key] = None


class RecoveredState:
    """State of a run at some point of its history.

    Args:
        run_id: The run's id: that of its first execution.
        workflow_id: Temporal's workflow id of the run.
        carried: The state that the previous execution handed over, or that a new run begins with.
        is_first: Whether the run begins with this execution, and with no work of another run.

    Attributes:
        now: The start of the current workflow task, in seconds since the epoch.
        moment: The same in nanoseconds.
    """

    def __init__(self, run_id: str, workflow_id: str, carried: RunState, *, is_first: bool) -> None:
        self.now: float = 0.0
        self.moment = 0
        self._run_id = run_id
        self._workflow_id = workflow_id
        self._signal_jobs: list[Callable[[], object]] = []  # since the last workflow task
        self._jobs: list[Callable[[], object]] = []
        self._is_seen = True
        self._local_end: int | None = None
        self._local_completed = 0.0
        self._timers: dict[int, tuple[str, float]] = {}
        self._cancelled: set[str] = set()  # texts of cancelled timers
        self._started: set[str] = set()  # children that this execution started
        self._polls: dict[str, Poll] = {}
        self._unclaimed: dict[str, list[dict[str, Any]]] = {}  # events before the history shows the subscription
        self._has_event = False
        self._has_begun = not is_first
        self._calls: dict[str, Call] = {}  # of steps that do not end by an activity
        self._begin(carried)

    def _begin(self, carried: RunState) -> None:
        self._carried = carried
        self._base = carried.base or carried.started
        self._memo = dict(carried.memo)
        self._entries = [Entry.read(entry) for entry in carried.past]
        self._sent: set[str] = set()  # steps that may send more
        self._waits = {key: waiting for key, (_, waiting) in carried.waits.items()}
        self._asleep = {key for key, (is_inside, _) in carried.waits.items() if is_inside}
        self._held_until = carried.held_until if carried.is_parked else None
        self._inbox = Inbox()
        self._inbox.restore(carried.boxes, carried.came)
        self._once = {key for key in carried.boxes if self._kind(key) == "event"}
        self._cancelling = dict(carried.cancelling)
        self._signals = Signals.of(carried)
        self._scheduled = dict(carried.scheduled)
        self._failures = carried.failures
        self._attempt = carried.attempt
        self._repeated = carried.repeated
        self._begins_anew = carried.begins_anew
        self._ended = dict(carried.ended)
        self._invoked = dict(carried.invoked)
        self._reports_to = [parent for data in carried.reports_to if (parent := read_parent(dict(data))) is not None]
        self._attempt_began = carried.attempt_began
        self._mailboxes = dict(carried.mailboxes)
        self._taken = dict.fromkeys(carried.taken)
        self._is_cancelled = carried.is_cancelled
        self._began = carried.began
        for key, waiting in self._waits.items():
            match waiting:
                case EventWait() if key in self._inbox.boxes:
                    self._waits_for_event(key, self._inbox.boxes[key].topics)
                case SignalWait(wait=wait):
                    self._waits_for_signal(key, wait)
                case InvokeWait(child=child):
                    self._waits_for_end(key, child)
        for key, data in carried.calls.items():
            if (call := Call.read(data)) is not None:
                self._calls[key] = call

    # --- the result ------------------------------------------------------------------------------------------------

    def carried(self) -> RunState:
        """Return the state from which another execution can continue."""
        self._is_seen = False
        self._do_jobs()
        self._is_seen = True
        return self._carried.model_copy(
            update={
                "is_parked": False,
                "held_until": None,
                "attempt_began": self._attempt_began,
                "memo": self._memo,
                "past": [entry.json() for entry in self._entries],
                "failures": self._failures,
                "attempt": self._attempt,
                "repeated": self._repeated,
                "begins_anew": self._begins_anew,
                "calls": {key: self._calls[key].json() for key in self._goes_on_with() if key in self._calls},
                "scheduled": self._scheduled,
                "waits": {key: (False, waiting) for key, waiting in self._all_waits().items()},
                "boxes": self._inbox.state(),
                "came": self._inbox.came(),
                "mailboxes": self._mailboxes,
                "taken": list(self._taken),
                "is_cancelled": self._is_cancelled,
                "began": self._began,
                "cancelling": self._cancelling,
                "signals": self._signals.state(self._cancelled),
                "ended": self._ended,
                "invoked": self._invoked,
                "reports_to": self._reports_to,
            }
        )

    def _goes_on_with(self) -> Iterator[str]:
        """Yield the keys of the steps whose work another execution continues."""
        waits = (key for key, waiting in self._all_waits().items() if waiting.kind == "invoke")
        invoking = (step for step in self._invoked.values() if step is not None and step not in self._memo)
        yield from dict.fromkeys([*waits, *invoking, *self._mailboxes])

    @property
    def ends_seen(self) -> int:
        """Number of invoked runs that have ended and whose step is unknown."""
        return len(self._ended)

    def _all_waits(self) -> dict[str, Waiting]:
        waits = {
            key: waiting for key, waiting in self._waits.items() if key not in self._memo and waiting.kind != "asyncio"
        }
        for key, poll in self._polls.items():
            if isinstance(waiting := waits.get(key), InvokeWait):
                waits[key] = replace(waiting, poll_interval=poll.interval, next_poll_at=poll.next_at)
        for key, until in self._timers.values():
            if key in waits or key in self._memo or key in self._signals.steps or is_of_no_step(key):
                continue
            if child := self._child_of(key):
                if child in self._started:
                    waits[key] = InvokeWait(until, child, LOOK_AFTER.total_seconds())
            else:
                waits[key] = EventWait(until) if key in self._once else TimedWait("timer", until)
        for key, (wait, mailbox) in self._signals.open.items():
            step = self._signals.steps[key]
            if mailbox and key not in self._cancelled and step not in self._memo:
                waits[step] = SignalWait(wait.until, wait, mailbox)
        return waits

    def children(self) -> Iterator[str]:
        """Return the workflow ids of the invoked runs that have not ended."""
        waiting = [waiting.child for waiting in self._waits.values() if isinstance(waiting, InvokeWait)]
        return (child for child in dict.fromkeys([*self._invoked, *waiting]) if child not in self._ended)

    # --- events between two workflow tasks ---------------------------------------------------------------------------

    def recover(self, carried: RunState) -> None:
        """Start from the state that an earlier recovery handed over."""
        self._signal_jobs.clear()
        self._has_begun = True
        self._begin(carried)

    def cancelled(self) -> None:
        """Cancel the run."""
        self._jobs.append(self._cancel)

    def _cancel(self) -> None:
        self._is_cancelled = True
        if self._is_seen and not any(entry.kind == "cancel" for entry in self._entries):
            self._record("cancel", "")

    def receive(self, message: facts.Message | None) -> None:
        """Receive the message of one of Temporal's signals to the run; None if the run drops it."""
        match message:
            case facts.ReportRequested(parent):
                if parent not in self._reports_to:
                    self._reports_to.append(parent)
            case facts.EventDelivered(key, event):
                self._signal_jobs.append(partial(self._deliver, key, event))
            case facts.ChildReported(child, outcome):
                self._signal_jobs.append(partial(self._report, child, outcome))
            case facts.SignalDelivered(key, data):
                self._signal_jobs.append(partial(self._receive, key, data))
            case facts.HoldRequested(seconds):
                self._signal_jobs.append(partial(self._hold, seconds))

    def _hold(self, seconds: float) -> None:
        """Hold the run for a checkpoint, or release it."""
        self._held_until = self.now + seconds if seconds else None

    def finished(self, key: str, outcome: Outcome) -> None:
        """End a step; the body sees the end of a local one at once, and of others in the next workflow task."""
        if self._local_end is not None:
            self.remember(key, outcome, self._local_end)
        else:
            self._jobs.append(partial(self.remember, key, outcome))

    def sent(self, key: str) -> None:
        """Note that a step has sent all events that it began to send; only what follows shows whether it has ended."""
        self._jobs.append(partial(self._mark_sent, key))

    def _mark_sent(self, key: str) -> None:
        if self._is_seen:
            self._record("step", key)
            self._sent.add(key)

    def sends_more(self, key: str) -> None:
        """Note that the step had not ended."""
        if key in self._sent:
            self._sent.discard(key)
            position = next(n for n, entry in enumerate(self._entries) if entry.mark == ("step", key))
            del self._entries[position]
            self._repeated -= position < self._repeated

    def timer_fired(self, number: int) -> None:
        """Fire a timer; the body sees it in the next workflow task."""
        if timer := self._timers.pop(number, None):
            self._jobs.append(partial(self._timer_is_over, *timer))

    def child_ended(self, child: str, outcome: Outcome) -> None:
        """End an invoked run."""
        self._jobs.append(partial(self._end_child, child, outcome))

    def task_done(self) -> None:
        """Complete a workflow task: the body has seen what happened before it."""
        if not self._has_begun:
            self._has_begun = True
            self._attempt_began = self._since_start()
        self._do_jobs()

    def _do_jobs(self) -> None:
        jobs, self._signal_jobs, self._jobs = [*self._signal_jobs, *self._jobs], [], []
        self._has_event = False
        if self._asleep:
            self._do_jobs_asleep(jobs)
            return
        if self._is_seen:
            self._deliver_to_listeners()
        for job in jobs:
            job()

    # --- an execution that has resumed a run -------------------------------------------------------------------------

    def _do_jobs_asleep(self, jobs: list[Callable[[], object]]) -> None:
        """Apply what happened while the body was parked, and wake the body if it has resumed by now."""
        is_seen, self._is_seen, was_cancelled = self._is_seen, False, self._is_cancelled
        for job in jobs:
            job()
        self._is_seen, is_cancelled = is_seen, self._is_cancelled and not was_cancelled
        if is_seen and (is_cancelled or not self._carried.is_parked or self._is_due()):
            self._wake()
            if is_cancelled:
                self._cancel()

    def _is_due(self) -> bool:
        """Return whether the run resumes, by the rules of ``Continuing``."""
        if self._held_until is not None:
            return self.now >= self._held_until
        moments = [moment for waiting in self._inside().values() for moment in moments_of(waiting)]
        return min(moments, default=self.now + 1) <= self.now or any(map(self._has_arrived, self._inside()))

    def _inside(self) -> dict[str, Waiting]:
        return {key: self._waits[key] for key in self._waits if key in self._asleep}

    def _has_arrived(self, key: str) -> bool:
        match waiting := self._waits[key]:
            case EventWait() | NextWait():
                box = self._inbox.boxes.get(box_of(key, waiting))
                return box is None or bool(box.events)
            case SignalWait(wait=wait):
                return wait.key in self._signals.received
            case InvokeWait(child=child):
                return child in self._ended
            case TimedWait():
                return False

    def _wake(self) -> None:
        """Resume the body, and deliver what its waits have received: first the waits that have timed out."""
        inside, self._asleep = self._inside(), set()
        overdue = [key for key, waiting in inside.items() if waiting.until is not None and waiting.until <= self.now]
        for key in sorted(overdue, key=lambda key: inside[key].until or 0):
            if not self._has_arrived(key):
                self._time_out(key, inside[key])
        for key, waiting in inside.items():
            self._take_arrived(key, waiting)
        self._deliver_to_listeners()

    def _deliver_to_listeners(self) -> None:
        """Deliver what listeners received before this execution; an active body gets it, however soon it asks."""
        for key, box in self._inbox.boxes.items():
            while key not in self._once and (event := box.take()) is not None:
                self._has_event = True
                self._record("event", key, event=event)

    def _time_out(self, key: str, waiting: Waiting) -> None:
        match waiting:
            case TimedWait(kind="asyncio"):
                self._record("timer", key)
            case EventWait():
                self._end_wait(key, Outcome())
            case SignalWait(wait=wait):  # the end comes from its mailbox
                self._signals.timed_out.add(wait.key)
            case InvokeWait(child=child) if not self._is_poll_due(key):
                self.remember(key, too_late(child))
            case TimedWait(kind="sleep" | "timer") | NextWait():
                self.remember(key, Outcome())
            case TimedWait(kind="start"):
                self._waits.pop(key, None)
            case TimedWait(kind="backoff"):
                self._waits.pop(key, None)
                self._next_attempt()

    def _take_arrived(self, key: str, waiting: Waiting) -> None:
        match waiting:
            case EventWait():
                box = self._inbox.boxes.get(key)
                if box is not None and box.events:
                    self._end_wait(key, Outcome(box.events[0]))
            case NextWait():
                box = self._inbox.boxes.get(waiting.box)
                if box is not None and (event := box.take()) is not None:
                    self.remember(key, Outcome(event))
            case InvokeWait(child=child) if child in self._ended:
                self.remember(key, read_outcome(self._ended.pop(child)))
            case SignalWait(wait=wait):
                self._take_signal(wait.key)

    # --- steps -----------------------------------------------------------------------------------------------------

    def first_task(self, began: str) -> None:
        """Record the start of the first workflow task; call it only in the first execution of a run."""
        if self._began is None:
            self._began = began

    def begun(self, key: str, activity_id: str) -> None:
        """Note that an activity of a step was scheduled, or that a wait for a signal began."""
        number = activity_id.removeprefix(f"{key}#")
        self._scheduled[key] = int(number) if number != activity_id and number.isdecimal() else 1
        if "#" in activity_id:
            self._taken[activity_id] = None

    def sends_to(self, key: str, mailbox: str, call: Call | None) -> None:
        """Record the mailbox that a step sends a signal to."""
        self._mailboxes[key] = mailbox
        if call is not None:
            self._calls[key] = call

    def _is_local_after(self, until: float) -> bool:
        """Return whether the local activity that began a wait ended after the wait's timeout."""
        return self._local_end is not None and until <= self._local_completed

    @contextmanager
    def local(self, completed: int) -> Iterator[None]:
        """Apply the result of a local activity in this context; the body sees its end at once.

        Args:
            completed: The time of its completion, in nanoseconds since the epoch.
        """
        self._local_end = self._since_start_at(completed)
        self._local_completed = completed / 1e9
        try:
            yield
        finally:
            self._local_end = None

    def remember(self, key: str, outcome: Outcome, at: int | None = None) -> None:
        """Record the result of a step, which the body has received now or at the given time."""
        if key not in self._memo:
            self._memo[key] = self._remembered(key, outcome)
            if key not in self._sent and (self._is_seen or self._local_end is not None):
                self._record("step", key, at)
            self._sent.discard(key)
        self._waits.pop(key, None)
        self._mailboxes.pop(key, None)
        self._failures = 0

    def _remembered(self, key: str, outcome: Outcome) -> JSON:
        return memo_json(replace(outcome, call=outcome.call or self._calls.get(key)))

    def _waits_for_event(self, key: str, topics: Sequence[str], kind: str = "wait_for_event") -> None:
        self._calls[key] = Call(kind, " or ".join(topics), branch=UNKNOWN)

    def _waits_for_signal(self, key: str, wait: Wait) -> None:
        self._calls[key] = Call("wait_for_signal", wait.signal, branch=UNKNOWN)

    def _waits_for_end(self, key: str, child: str) -> None:
        self._calls[key] = Call("invoke_workflow", child.rpartition("/")[0], UNKNOWN, branch=UNKNOWN)

    def _sleeps(self, key: str) -> None:
        """Describe a sleep or a listener's wait that is over; the history shows the two in the same way."""
        kind = self._kind(key)
        if kind != "timer":
            self._calls.setdefault(key, Call(kind or f"sleep{OR}next", UNKNOWN, branch=UNKNOWN))

    def _record(self, kind: EntryKind, key: str, at: int | None = None, event: JSON = None) -> None:
        if at is None:
            at = self._since_start() if self._local_end is None else self._local_end
        self._entries.append(Entry(kind, key, at, event))

    # --- invoked runs ------------------------------------------------------------------------------------------------

    def invoked(self, child: str, step: str | None) -> None:
        """Record an invoked run.

        Args:
            child: The run's workflow id.
            step: The step that invoked it, if the history has its name.
        """
        if step is not None and not child.endswith(f"/{self._derived(step)}"):
            step = None  # the name was cut off
        if step is not None:
            self._waits_for_end(step, child)
        self._invoked[child] = step
        self._started.add(child)

    def not_invoked(self, child: str) -> None:
        """Note that a run was not invoked, because the same step had already invoked it."""
        self._started.discard(child)

    def _derived(self, key: str) -> str:
        return derived_ulid(self._carried.started, self._run_id, key, 0)

    def _child_of(self, key: str) -> str | None:
        """Return the run that a step has invoked, unless it has ended."""
        return next((child for child, step in self._invoked.items() if step == key), None)

    def _awaited_child(self, key: str) -> str | None:
        """Return the run that a step has invoked, in this execution or an earlier one."""
        waiting = self._waits.get(key)
        return waiting.child if isinstance(waiting, InvokeWait) else self._child_of(key)

    def _poll(self, key: str) -> Poll:
        """Return when a step next polls the run that it has invoked."""
        waiting = self._waits.get(key)
        carried = Poll(waiting.poll_interval, waiting.next_poll_at) if isinstance(waiting, InvokeWait) else Poll()
        return self._polls.get(key, carried)

    def _is_poll_due(self, key: str) -> bool:
        next_at = self._poll(key).next_at
        return next_at is not None and next_at <= self.now

    def looked_at_child(self, key: str, outcome: JSON) -> None:
        """Record that a step has polled the run that it invoked; ``outcome`` is None if the run has not ended."""
        if outcome is None:
            interval = next_poll_interval(self._poll(key).interval)
            self._polls[key] = Poll(interval, self.now + interval)
        else:
            self._invoked.pop(self._awaited_child(key) or "", None)
            self.finished(key, read_outcome(outcome))

    def _end_child(self, child: str, outcome: Outcome) -> None:
        step = self._invoked.get(child)
        if step is None:
            self._ended[child] = memo_json(outcome)
        else:
            del self._invoked[child]
            self._ended.pop(child, None)
            self.remember(step, outcome)

    def _report(self, child: str, outcome: JSON) -> None:
        """Receive the report of an invoked run's end, which a later execution than the invoking one gets."""
        invoked = {waiting.child: key for key, waiting in self._waits.items() if isinstance(waiting, InvokeWait)}
        step = invoked.get(child) or self._invoked.get(child)
        # The step of a child of this execution waits for Temporal's own events.
        if step is None or not self._is_seen or child in self._started:
            self._ended[child] = outcome
        else:
            self._invoked.pop(child, None)
            self.remember(step, read_outcome(outcome))

    # --- waits for events and signals ------------------------------------------------------------------------------

    def subscribed(self, key: str, kind: str, topics: list[str], until: float, parts: dict[str, str]) -> None:
        """Subscribe the run to events. Some may have arrived before, while the body subscribed."""
        if kind == "cancel":
            self._cancelling[key] = [parts.get(topic, topic) for topic in topics]
            return
        if kind == "once":
            self._waits_for_event(key, topics)
            self._once.add(key)
            self._cancelled.discard(key)
        else:
            self._waits_for_event(key, topics, "listen")
            self.finished(key, Outcome({"until": until}))
        self._inbox.open(key, tuple(topics), until).parts = parts
        for event in self._unclaimed.pop(key, ()):
            self._deliver(key, event)

    def _deliver(self, key: str, event: dict[str, Any]) -> None:
        box = self._inbox.boxes.get(key)
        if box is None:
            self._unclaimed.setdefault(key, []).append(event)
            return
        before = len(box.events)
        self._inbox.deliver(key, event)
        if not self._is_seen or len(box.events) == before:
            return
        if key not in self._once:
            self._has_event = True
            self._record("event", key, event=box.take())
        elif key not in self._cancelled:
            self._end_wait(key, Outcome(event))
        else:
            self._inbox.close(key)
            self._once.discard(key)

    def _end_wait(self, key: str, outcome: Outcome) -> None:
        self.remember(key, outcome)
        self._inbox.close(key)
        self._once.discard(key)

    def _receive(self, key: str, data: JSON) -> None:
        if key not in self._signals.over:
            self._signals.received.setdefault(key, data)
            if self._is_seen:
                self._take_signal(key)

    def _take_signal(self, key: str) -> None:
        signals = self._signals
        if key in signals.open and key in signals.received:
            wait, data, step = signals.open[key][0], signals.received[key], signals.steps[key]
            outcome = Outcome({"signal": wait.signal, "data": data})
            signals.end(key)
            if key in self._cancelled:
                self._memo[step] = self._remembered(step, outcome)
                self._record("ended", step)
            else:
                self.remember(step, outcome)

    def opened(self, text: str, step: str | None, other: Wait, mailbox: str) -> None:
        """Record that a mailbox was opened, or belongs to another wait; ``text`` names the wait of the step."""
        is_ours = other.run_id == self._run_id and summary_of_open(other) == text
        key = other.key if is_ours else text.removeprefix(summary_of_open(other.model_copy(update={"key": ""})))
        signals = self._signals
        if key not in signals.steps:
            signals.steps[key] = step = step or self._step_of_wait(key)
            self.begun(step, key)
        if is_ours:
            signals.open[key] = other, mailbox
            self._waits_for_signal(signals.steps[key], other)
            if self._is_local_after(other.until):  # then the body has started no timer
                signals.timed_out.add(key)
            self._take_signal(key)
        elif other.run_id != self._run_id or (other.key in signals.open and other.key not in self._cancelled):
            wait = other.model_copy(update={"workflow_id": self._workflow_id, "run_id": self._run_id, "key": key})
            signals.end(key)
            self.finished(signals.steps[key], Outcome(failure=conflict(wait, other)))

    def _step_of_wait(self, key: str) -> str:
        """Return the step of a wait, whose key ends with a number if the step has waited before."""
        step, mark, number = key.rpartition("#")
        return step if mark and number.isdecimal() and self._scheduled.get(step, 0) == int(number) - 1 else key

    def closed_in_vain(self, text: str) -> None:
        """Record that a mailbox was closed without a signal: the wait timed out or was cancelled."""
        for key, (wait, _) in list(self._signals.open.items()):
            if summary_of_close(wait) == text:
                self._signals.end(key)
                if key in self._signals.timed_out:
                    self.finished(self._signals.steps[key], Outcome())
                else:
                    self._record("ended", self._signals.steps[key])

    # --- timers ----------------------------------------------------------------------------------------------------

    def timer_started(self, number: int, text: str, until: float) -> None:
        """Start a timer; ``text`` is its summary."""
        self._timers[number] = text, until
        self._cancelled.discard(text)
        if text.startswith(BACKOFF_AFTER):
            self._failures = int(text.removeprefix(BACKOFF_AFTER).split()[0])
            self._begins_anew = text.endswith(BEGINS_ANEW)
            self._waits[BACKOFF] = TimedWait("backoff", until)

    def timer_cancelled(self, number: int) -> None:
        """Cancel a timer."""
        if timer := self._timers.pop(number, None):
            self._cancelled.add(timer[0])

    def _timer_is_over(self, text: str, until: float) -> None:
        if text.startswith(BACKOFF_AFTER):
            self._waits.pop(BACKOFF, None)
            self._next_attempt()
        elif text.startswith(ASYNCIO_TIMER):
            if self._is_seen:
                self._record("timer", text)
        elif text in self._signals.steps:
            self._signals.timed_out.add(text)
        elif is_of_no_step(text):
            return
        elif text in self._once:
            box = self._inbox.boxes.get(text)
            self._end_wait(text, Outcome(box.events[0] if box and box.events else None))
        elif child := self._awaited_child(text):
            if not self._is_poll_due(text) and (child in self._started or child not in self._ended):
                self._invoked.pop(child, None)
                self.remember(text, too_late(child))
        else:
            self._sleep_is_over(text)

    def _next_attempt(self) -> None:
        self._attempt = self._failures
        self._repeated = len(self._entries)
        if self._begins_anew and self._entries:
            self._entries[-1] = replace(self._entries[-1], at=self._since_start())
        elif self._begins_anew:
            self._attempt_began = self._since_start()

    def _sleep_is_over(self, key: str) -> None:
        """End a sleep, or a listener's wait, for which an event may have arrived at the same moment."""
        if self._has_event and self._kind(key) != "sleep":
            self._waits[key] = TimedWait("timer", self.now)
        else:
            self._sleeps(key)
            self.remember(key, Outcome())

    def _kind(self, key: str) -> Kind | None:
        waiting = self._waits.get(key)
        return None if waiting is None else waiting.kind

    def _since_start(self) -> int:
        return self._since_start_at(self.moment)

    def _since_start_at(self, moment: int) -> int:
        """Return the time since the run's start in microseconds, as the run counts them."""
        return max(moment // 1000 - self._base * 1000, 0)
