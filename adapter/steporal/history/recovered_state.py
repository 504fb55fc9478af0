"""What a run has done so far, from what its history shows piece by piece.

A body is given what has come between two workflow tasks when the second is executed: the signals first, then the rest,
one at a time, each in the order of the history. So it counts when that task is completed, in that order. What the body
has not been given stays where a body finds it that begins anew: in the memo without an entry in the journal, in a box,
among the signals that were received, among the runs that have ended.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ..closures.calls import OR, UNKNOWN, Call
from ..events import derived_ulid
from ..runtime.children import read_end, read_parent
from ..runtime.continuing import read_hold
from ..runtime.inbox import Inbox, read_delivery
from ..runtime.signal_inbox import conflict, read_signal, summary_of_close, summary_of_open
from ..runtime.steps.invoke import LOOK_AFTER, next_poll_interval, too_late
from ..types import JSON
from ..wire.journal_entries import Entry
from ..wire.journal_entries import Kind as EntryKind
from ..wire.mailbox_wait import Wait
from ..wire.memo import Outcome
from ..wire.names import ASYNCIO_TIMER, BACKOFF_AFTER, BEGINS_ANEW, CHECKPOINT, DELIVER, ENDED, REPORT, SIGNALLED
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


@dataclass(frozen=True, slots=True)
class Poll:
    """Looks at an invoked run.

    Attributes:
        interval: Seconds between the last look and the next one.
        next_at: Time of the next one, in seconds since the epoch; None if the run is a child of this execution.
    """

    interval: float = LOOK_AFTER.total_seconds()
    next_at: float | None = None


@dataclass(slots=True)
class Signals:
    """The waits for signals, as :class:`~.signal_inbox.SignalInbox` hands them on.

    Attributes:
        open: Those whose mailbox may be open, by their key, with Temporal's run id of the mailbox.
        steps: The steps' keys, by theirs.
        over: Those that have ended.
        received: What has come for those that have not.
        timed_out: Those whose time is over.
    """

    open: dict[str, tuple[Wait, str]] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)
    over: dict[str, None] = field(default_factory=dict)
    received: dict[str, JSON] = field(default_factory=dict)
    timed_out: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, carried: RunState) -> Signals:
        """Those that an execution before has handed over."""
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
        """What is handed to another execution; of ``cancelled`` waits, the mailbox may be taken by another."""
        return {
            "waits": [wait.model_dump(mode="json") for wait, _ in self.open.values()],
            "cancelled": sorted(key for key in self.open if key in cancelled),
            "over": sorted(self.over),
            "received": self.received,
        }

    def end(self, key: str) -> None:
        """A wait is over."""
        self.open.pop(key, None)
        self.received.pop(key, None)
        self.over[key] = None


class Past:
    """What a run has done.

    Args:
        run_id: The run's id: that of its first execution.
        workflow_id: Temporal's workflow id of the run.
        carried: What the execution before has handed over, or what a new run begins with.
        is_first: Whether the run begins with this execution, and with nothing that another run has done.

    Attributes:
        now: When the present workflow task began, in seconds since the epoch.
        moment: The same, in nanoseconds.
    """

    def __init__(self, run_id: str, workflow_id: str, carried: RunState, *, is_first: bool) -> None:
        self.now: float = 0.0
        self.moment = 0
        self._run_id = run_id
        self._workflow_id = workflow_id
        self._signal_jobs: list[Callable[[], object]] = []  # what has come since the last workflow task
        self._jobs: list[Callable[[], object]] = []
        self._is_seen = True
        self._local_end: int | None = None
        self._local_completed = 0.0
        self._timers: dict[int, tuple[str, float]] = {}
        self._cancelled: set[str] = set()  # timers
        self._started: set[str] = set()  # children of this execution
        self._polls: dict[str, Poll] = {}
        self._unclaimed: dict[str, list[dict[str, Any]]] = {}  # events before the history shows the subscription
        self._has_event = False
        self._has_begun = not is_first
        self._calls: dict[str, Call] = {}  # of steps that end otherwise than by an activity
        self._begin(carried)

    def _begin(self, carried: RunState) -> None:
        self._carried = carried
        self._base = carried.base or carried.started
        self._memo = dict(carried.memo)
        self._entries = [Entry.read(entry) for entry in carried.past]
        self._sent: set[str] = set()  # the steps that may send more
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

    # --- what comes of it ------------------------------------------------------------------------------------------

    def carried(self) -> RunState:
        """What another execution can go on with."""
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
        """The steps whose work so far another execution goes on with."""
        waits = (key for key, waiting in self._all_waits().items() if waiting.kind == "invoke")
        invoking = (step for step in self._invoked.values() if step is not None and step not in self._memo)
        yield from dict.fromkeys([*waits, *invoking, *self._mailboxes])

    @property
    def ends_seen(self) -> int:
        """How many ends of invoked runs there are whose step is not known."""
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
        """The invoked runs that have not ended, by Temporal's workflow id."""
        waiting = [waiting.child for waiting in self._waits.values() if isinstance(waiting, InvokeWait)]
        return (child for child in dict.fromkeys([*self._invoked, *waiting]) if child not in self._ended)

    # --- what comes between two workflow tasks -----------------------------------------------------------------------

    def recover(self, carried: RunState) -> None:
        """An earlier recovery has shown what the run had done."""
        self._signal_jobs.clear()
        self._has_begun = True
        self._begin(carried)

    def cancelled(self) -> None:
        """The run was cancelled."""
        self._jobs.append(self._cancel)

    def _cancel(self) -> None:
        self._is_cancelled = True
        if self._is_seen and not any(entry.kind == "cancel" for entry in self._entries):
            self._record("cancel", "")

    def signal(self, name: str, message: JSON) -> None:
        """Temporal's signal to the run has come."""
        if name == REPORT:
            parent = read_parent(message)
            if parent is not None and parent not in self._reports_to:
                self._reports_to.append(parent)
        elif name == DELIVER:
            if delivery := read_delivery(message, self._run_id):
                self._signal_jobs.append(partial(self._deliver, *delivery))
        elif name == ENDED:
            if end := read_end(message, self._run_id):
                self._signal_jobs.append(partial(self._report, *end))
        elif name == SIGNALLED:
            signal = read_signal(message, self._run_id)
            if signal is not None:
                self._signal_jobs.append(partial(self._receive, *signal))
        elif name == CHECKPOINT:
            self._signal_jobs.append(partial(self._hold, read_hold(message)))

    def _hold(self, seconds: float) -> None:
        """A checkpoint holds the run, or no longer."""
        self._held_until = self.now + seconds if seconds else None

    def finished(self, key: str, outcome: Outcome) -> None:
        """A step has ended; the body has seen it, if it was local, and else sees it in the next workflow task."""
        if self._local_end is not None:
            self.remember(key, outcome, self._local_end)
        else:
            self._jobs.append(partial(self.remember, key, outcome))

    def sent(self, key: str) -> None:
        """A step has sent all events that it had begun to send; only what follows shows whether it is over."""
        self._jobs.append(partial(self._mark_sent, key))

    def _mark_sent(self, key: str) -> None:
        if self._is_seen:
            self._record("step", key)
            self._sent.add(key)

    def sends_more(self, key: str) -> None:
        """The step was not over."""
        if key in self._sent:
            self._sent.discard(key)
            position = next(n for n, entry in enumerate(self._entries) if entry.mark == ("step", key))
            del self._entries[position]
            self._repeated -= position < self._repeated

    def timer_fired(self, number: int) -> None:
        """A timer has fired; the body sees it in the next workflow task."""
        if timer := self._timers.pop(number, None):
            self._jobs.append(partial(self._timer_is_over, *timer))

    def child_ended(self, child: str, outcome: Outcome) -> None:
        """An invoked run has ended."""
        self._jobs.append(partial(self._end_child, child, outcome))

    def task_done(self) -> None:
        """The body has seen what had come before the task."""
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
            self._hear_what_came()
        for job in jobs:
            job()

    # --- an execution that has gone on with a run --------------------------------------------------------------------

    def _do_jobs_asleep(self, jobs: list[Callable[[], object]]) -> None:
        """Take what has come while the body is not there, and see whether it is there now."""
        is_seen, self._is_seen, was_cancelled = self._is_seen, False, self._is_cancelled
        for job in jobs:
            job()
        self._is_seen, is_cancelled = is_seen, self._is_cancelled and not was_cancelled
        if is_seen and (is_cancelled or not self._carried.is_parked or self._is_due()):
            self._wake()
            if is_cancelled:
                self._cancel()

    def _is_due(self) -> bool:
        """As ``Continuing`` has it."""
        if self._held_until is not None:
            return self.now >= self._held_until
        moments = [moment for waiting in self._inside().values() for moment in moments_of(waiting)]
        return min(moments, default=self.now + 1) <= self.now or any(map(self._has_come, self._inside()))

    def _inside(self) -> dict[str, Waiting]:
        return {key: self._waits[key] for key in self._waits if key in self._asleep}

    def _has_come(self, key: str) -> bool:
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
        """The body has come back, and was given what its waits have brought: first those whose time was over."""
        inside, self._asleep = self._inside(), set()
        overdue = [key for key, waiting in inside.items() if waiting.until is not None and waiting.until <= self.now]
        for key in sorted(overdue, key=lambda key: inside[key].until or 0):
            if not self._has_come(key):
                self._end_of_time(key, inside[key])
        for key, waiting in inside.items():
            self._take_what_came(key, waiting)
        self._hear_what_came()

    def _hear_what_came(self) -> None:
        """What listeners had received before this execution reaches a body that is there, however soon it asks."""
        for key, box in self._inbox.boxes.items():
            while key not in self._once and (event := box.take()) is not None:
                self._has_event = True
                self._record("event", key, event=event)

    def _end_of_time(self, key: str, waiting: Waiting) -> None:
        match waiting:
            case TimedWait(kind="asyncio"):
                self._record("timer", key)
            case EventWait():
                self._end_wait(key, Outcome())
            case SignalWait(wait=wait):  # its mailbox says how it ends
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

    def _take_what_came(self, key: str, waiting: Waiting) -> None:
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
        """When the first workflow task began; to be called in the first execution of a run."""
        if self._began is None:
            self._began = began

    def begun(self, key: str, activity_id: str) -> None:
        """An activity of a step was scheduled, or a wait for a signal begun."""
        number = activity_id.removeprefix(f"{key}#")
        self._scheduled[key] = int(number) if number != activity_id and number.isdecimal() else 1
        if "#" in activity_id:
            self._taken[activity_id] = None

    def sends_to(self, key: str, mailbox: str, call: Call | None) -> None:
        """The mailbox was chosen that a step sends a signal to."""
        self._mailboxes[key] = mailbox
        if call is not None:
            self._calls[key] = call

    def _is_local_after(self, until: float) -> bool:
        """Whether a local activity that has begun a wait has ended when the time of that was over."""
        return self._local_end is not None and until <= self._local_completed

    @contextmanager
    def local(self, completed: int) -> Iterator[None]:
        """What is done in this context has come of a local activity, whose end the body has seen at once.

        Args:
            completed: When it was completed, in nanoseconds since the epoch.
        """
        self._local_end = self._since_start_at(completed)
        self._local_completed = completed / 1e9
        try:
            yield
        finally:
            self._local_end = None

    def remember(self, key: str, outcome: Outcome, at: int | None = None) -> None:
        """The body has what a step has returned, since now or another time."""
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
        """A sleep or a wait of a listener is over; the history of the execution that began it has the same of both."""
        kind = self._kind(key)
        if kind != "timer":
            self._calls.setdefault(key, Call(kind or f"sleep{OR}next", UNKNOWN, branch=UNKNOWN))

    def _record(self, kind: EntryKind, key: str, at: int | None = None, event: JSON = None) -> None:
        if at is None:
            at = self._since_start() if self._local_end is None else self._local_end
        self._entries.append(Entry(kind, key, at, event))

    # --- invoked runs ------------------------------------------------------------------------------------------------

    def invoked(self, child: str, step: str | None) -> None:
        """A run was invoked.

        Args:
            child: Temporal's workflow id of it.
            step: The step that did, if the history has its name.
        """
        if step is not None and not child.endswith(f"/{self._derived(step)}"):
            step = None  # its name was cut off
        if step is not None:
            self._waits_for_end(step, child)
        self._invoked[child] = step
        self._started.add(child)

    def not_invoked(self, child: str) -> None:
        """A run was not invoked after all: it was before, by the same step."""
        self._started.discard(child)

    def _derived(self, key: str) -> str:
        return derived_ulid(self._carried.started, self._run_id, key, 0)

    def _child_of(self, key: str) -> str | None:
        """The run that a step has invoked, and that has not ended."""
        return next((child for child, step in self._invoked.items() if step == key), None)

    def _awaited_child(self, key: str) -> str | None:
        """The run that a step has invoked, in this execution or one before."""
        waiting = self._waits.get(key)
        return waiting.child if isinstance(waiting, InvokeWait) else self._child_of(key)

    def _poll(self, key: str) -> Poll:
        """Return when the run that a step has invoked is looked at next."""
        waiting = self._waits.get(key)
        carried = Poll(waiting.poll_interval, waiting.next_poll_at) if isinstance(waiting, InvokeWait) else Poll()
        return self._polls.get(key, carried)

    def _is_poll_due(self, key: str) -> bool:
        next_at = self._poll(key).next_at
        return next_at is not None and next_at <= self.now

    def looked_at_child(self, key: str, outcome: JSON) -> None:
        """A step has looked at the run that it has invoked; ``outcome`` is None if that has not ended."""
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
        """An invoked run has reported its end; in an execution that it was not invoked in."""
        invoked = {waiting.child: key for key, waiting in self._waits.items() if isinstance(waiting, InvokeWait)}
        step = invoked.get(child) or self._invoked.get(child)
        # Of a child of this execution, the step waits for what Temporal says.
        if step is None or not self._is_seen or child in self._started:
            self._ended[child] = outcome
        else:
            self._invoked.pop(child, None)
            self.remember(step, read_outcome(outcome))

    # --- waits for events and signals ------------------------------------------------------------------------------

    def subscribed(self, key: str, kind: str, topics: list[str], until: float, parts: dict[str, str]) -> None:
        """The run receives events from now on. Some may have come before, as the body subscribed."""
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
        """A mailbox was opened, or was found to be another wait's; ``text`` says for which wait of the step."""
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
        """The step of a wait, whose key has a number where the step has waited before."""
        step, mark, number = key.rpartition("#")
        return step if mark and number.isdecimal() and self._scheduled.get(step, 0) == int(number) - 1 else key

    def closed_in_vain(self, text: str) -> None:
        """A mailbox was closed that has received nothing: the wait's time is over, or it was cancelled."""
        for key, (wait, _) in list(self._signals.open.items()):
            if summary_of_close(wait) == text:
                self._signals.end(key)
                if key in self._signals.timed_out:
                    self.finished(self._signals.steps[key], Outcome())
                else:
                    self._record("ended", self._signals.steps[key])

    # --- timers ----------------------------------------------------------------------------------------------------

    def timer_started(self, number: int, text: str, until: float) -> None:
        """A timer runs; ``text`` is its summary."""
        self._timers[number] = text, until
        self._cancelled.discard(text)
        if text.startswith(BACKOFF_AFTER):
            self._failures = int(text.removeprefix(BACKOFF_AFTER).split()[0])
            self._begins_anew = text.endswith(BEGINS_ANEW)
            self._waits[BACKOFF] = TimedWait("backoff", until)

    def timer_cancelled(self, number: int) -> None:
        """A timer runs no more."""
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
        """A sleep is over, or a listener's wait, for which an event may have come in the same moment."""
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
        """In microseconds, as the run counts them."""
        return max(moment // 1000 - self._base * 1000, 0)
