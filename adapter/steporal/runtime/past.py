"""What a run has done so far, told piece by piece.

What comes between two workflow tasks counts when the second is done: then the body has seen it. What it has not seen
stays where a body finds it that begins anew: in a box, in the mailboxes' deliveries, among the runs that have ended.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ..events import derived_ulid
from ..routing.mailbox import SIGNALLED, Wait
from ..types import JSON
from .carried import Carried, outcome_json
from .children import ENDED, REPORT, read_end, read_parent
from .inbox import DELIVER, Inbox, read_delivery
from .invoke_step import LOOK_AFTER, too_late
from .memo import Outcome
from .signal_inbox import conflict, read_signal, summary_of_close, summary_of_open
from .waits import BACKOFF, BACKOFF_AFTER, Kind, Waiting, is_of_no_step

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


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
    def of(cls, carried: Carried) -> Signals:
        """Those that an execution before has handed over."""
        known: dict[str, tuple[str, str]] = {}
        for key, (_, waiting) in carried.waits.items():
            if waiting["kind"] == "signal":
                known[waiting["more"]["wait"]["key"]] = key, waiting["more"]["mailbox"]
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

    Attributes:
        now: When the workflow task began that is told of, in seconds since the epoch.
    """

    def __init__(self, run_id: str, workflow_id: str, carried: Carried) -> None:
        self.now = 0.0
        self._run_id = run_id
        self._workflow_id = workflow_id
        self._finished: list[tuple[str, Outcome, int | None]] = []
        self._local_end: int | None = None
        self._local_completed = 0.0
        self._unseen: list[str] = []
        self._timers: dict[int, tuple[str, float]] = {}
        self._fired: list[str] = []
        self._cancelled: set[str] = set()  # timers
        self._started: dict[str, None] = {}  # children of this execution
        self._unclaimed: dict[str, list[dict[str, Any]]] = {}  # events that came before the subscription is told of
        self._has_heard = False
        self._begin(carried)

    def _begin(self, carried: Carried) -> None:
        self._carried = carried
        self._memo = dict(carried.memo)
        self._waits = {
            key: Waiting(waiting["kind"], waiting["until"], waiting["more"])
            for key, (_, waiting) in carried.waits.items()
        }
        self._inbox = Inbox()
        self._inbox.restore(carried.boxes, carried.came)
        self._once = {key for key in carried.boxes if self._kind(key) == "event"}
        self._cancelling = dict(carried.cancelling)
        self._signals = Signals.of(carried)
        self._scheduled = dict(carried.scheduled)
        self._failures = carried.failures
        self._ended = dict(carried.ended)
        self._invoked = dict.fromkeys(carried.invoked)
        self._reports_to = list(carried.reports_to)
        self._attempt_began: int | None = carried.attempt_began or None
        self._slept = dict(carried.slept)
        self._mailboxes = dict(carried.mailboxes)
        self._taken = dict.fromkeys(carried.taken)
        self._seen = dict(carried.seen)
        self._is_cancelled = carried.is_cancelled
        self._began = carried.began

    # --- what comes of it ------------------------------------------------------------------------------------------

    def carried(self) -> Carried:
        """What another execution can go on with."""
        for ended in self._finished:
            self.remember(*ended)
        self._finished.clear()
        return self._carried.model_copy(
            update={
                "is_parked": False,
                "held_until": None,
                "attempt_began": self._attempt_began or 0,
                "memo": self._memo,
                "failures": self._failures,
                "scheduled": self._scheduled,
                "waits": {key: (False, waiting.json()) for key, waiting in self._all_waits().items()},
                "boxes": self._inbox.state(),
                "came": self._inbox.came(),
                "slept": self._slept,
                "mailboxes": self._mailboxes,
                "taken": list(self._taken),
                "seen": self._seen_of_what_is_left(),
                "is_cancelled": self._is_cancelled,
                "began": self._began,
                "cancelling": self._cancelling,
                "signals": self._signals.state(self._cancelled),
                "ended": self._ended,
                "invoked": list(self._invoked),
                "reports_to": self._reports_to,
            }
        )

    def _seen_of_what_is_left(self) -> dict[str, int]:
        left = {event["id"] for box in self._inbox.boxes.values() for event in box.events}
        return {id: at for id, at in self._seen.items() if id in left or id in self._ended}

    @property
    def ends_seen(self) -> int:
        """How many ends of invoked runs the body has seen."""
        return sum(child in self._seen for child in self._ended)

    def _all_waits(self) -> dict[str, Waiting]:
        waits = {key: waiting for key, waiting in self._waits.items() if key not in self._memo}
        for key, until in self._timers.values():
            if key in waits or key in self._memo or key in self._signals.steps or is_of_no_step(key):
                continue
            if child := self._child_of(key):
                waits[key] = Waiting("invoke", until, {"child": child, "look_after": LOOK_AFTER.total_seconds()})
            else:
                waits[key] = Waiting("event" if key in self._once else "timer", until)
        for key, (wait, mailbox) in self._signals.open.items():
            step = self._signals.steps[key]
            if mailbox and key not in self._cancelled and step not in self._memo:
                more = {"wait": wait.model_dump(mode="json"), "mailbox": mailbox}
                waits[step] = Waiting("signal", wait.until, more)
        return waits

    def children(self) -> Iterator[str]:
        """The invoked runs that have not ended, by Temporal's workflow id."""
        waiting = [waiting.more["child"] for waiting in self._waits.values() if waiting.kind == "invoke"]
        return (child for child in dict.fromkeys([*self._invoked, *waiting]) if child not in self._ended)

    # --- signals ---------------------------------------------------------------------------------------------------

    def recover(self, carried: Carried) -> None:
        """An earlier recovery has said what the run had done."""
        self._begin(carried)

    def cancelled(self) -> None:
        """The run was cancelled."""
        self._is_cancelled = True

    def signal(self, name: str, message: JSON) -> None:
        """Temporal's signal to the run has come."""
        if name == REPORT:
            parent = read_parent(message)
            if parent is not None and parent not in self._reports_to:
                self._reports_to.append(parent)
        elif name == DELIVER:
            if delivery := read_delivery(message, self._run_id):
                self._deliver(*delivery)
        elif name == ENDED:
            if end := read_end(message, self._run_id):
                self._ended.update([end])
                self._unseen.append(end[0])
        elif name == SIGNALLED:
            signal = read_signal(message, self._run_id)
            if signal is not None and signal[0] not in self._signals.over:
                self._signals.received.setdefault(*signal)

    def _deliver(self, key: str, event: dict[str, Any]) -> None:
        if key not in self._inbox.boxes:
            self._unclaimed.setdefault(key, []).append(event)
            return
        self._has_heard = self._has_heard or key not in self._once
        self._unseen.append(event["id"])
        self._inbox.deliver(key, event)

    # --- steps -----------------------------------------------------------------------------------------------------

    def first_task(self, began: str) -> None:
        """When the first workflow task began; to be told in the first execution of a run."""
        if self._began is None:
            self._began = began

    def begun(self, key: str, activity_id: str) -> None:
        """An activity of a step was scheduled, or a wait for a signal begun."""
        number = activity_id.removeprefix(f"{key}#")
        self._scheduled[key] = int(number) if number != activity_id and number.isdecimal() else 1
        if "#" in activity_id:
            self._taken[activity_id] = None

    def sends_to(self, key: str, mailbox: str) -> None:
        """The mailbox was chosen that a step sends a signal to."""
        self._mailboxes[key] = mailbox

    def finished(self, key: str, outcome: Outcome) -> None:
        """A step has ended; the body sees it in the next workflow task, or has seen it, if it was local."""
        self._finished.append((key, outcome, self._local_end))

    def _is_local_after(self, until: float) -> bool:
        """Whether a local activity that has begun a wait has ended when the time of that was over."""
        return self._local_end is not None and until <= self._local_completed

    def invoked(self, child: str) -> None:
        """A run was invoked."""
        self._invoked[child] = self._started[child] = None

    def not_invoked(self, child: str) -> None:
        """A run was not invoked after all: it was before, by the same step."""
        self._started.pop(child, None)

    def child_ended(self, child: str, outcome: Outcome) -> None:
        """An invoked run has ended."""
        self._ended[child] = outcome_json(outcome)
        self._unseen.append(child)

    @contextmanager
    def local(self, completed: float) -> Iterator[None]:
        """What is told in this context has come of a local activity, whose end the body has seen at once."""
        self._local_end = self._since_start_at(completed)
        self._local_completed = completed
        try:
            yield
        finally:
            self._local_end = None

    # --- waits for events and signals ------------------------------------------------------------------------------

    def subscribed(self, key: str, kind: str, topics: list[str], until: float) -> None:
        """The run hears of events. Some may have come before: it listens while it subscribes, which may take long."""
        if kind == "cancel":
            self._cancelling[key] = topics
            return
        if kind == "once":
            self._once.add(key)
            self._cancelled.discard(key)
        else:
            self.finished(key, Outcome({"until": until}))
        self._inbox.open(key, tuple(topics), until)
        for event in self._unclaimed.pop(key, ()):
            self._deliver(key, event)
        if kind == "once" and self._is_local_after(until):  # then the body has started no timer
            events = self._inbox.boxes[key].events
            self._end_wait(key, Outcome(events[0] if events else None))

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
            if self._is_local_after(other.until):  # then the body has started no timer
                signals.timed_out.add(key)
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

    # --- timers ----------------------------------------------------------------------------------------------------

    def timer_started(self, number: int, text: str, until: float) -> None:
        """A timer runs; ``text`` is its summary."""
        self._timers[number] = text, until
        self._cancelled.discard(text)
        if text.startswith(BACKOFF_AFTER):
            self._failures = int(text.removeprefix(BACKOFF_AFTER).split()[0])
            self._waits[BACKOFF] = Waiting("backoff", until)

    def timer_fired(self, number: int) -> None:
        """A timer's time is over; the body sees it in the next workflow task."""
        if timer := self._timers.pop(number, None):
            self._fired.append(timer[0])

    def timer_cancelled(self, number: int) -> None:
        """A timer runs no more."""
        if timer := self._timers.pop(number, None):
            self._cancelled.add(timer[0])

    # --- what a workflow task has made of it -----------------------------------------------------------------------

    def task_done(self) -> None:
        """The body has seen what had come before the task."""
        if self._attempt_began is None:
            self._attempt_began = self._since_start()
        self._seen.update(dict.fromkeys(self._unseen, self._since_start()))
        self._unseen.clear()
        for text in self._fired:
            self._timer_is_over(text)
        self._fired.clear()
        self._take_events()
        self._take_signals()
        for ended in self._finished:
            self.remember(*ended)
        self._finished.clear()
        self._has_heard = False

    def _timer_is_over(self, text: str) -> None:
        if text.startswith(BACKOFF_AFTER):
            self._waits.pop(BACKOFF, None)
            self._attempt_began = self._since_start()
        elif text in self._signals.steps:
            self._signals.timed_out.add(text)
        elif is_of_no_step(text):
            return
        elif text in self._once:
            box = self._inbox.boxes.get(text)
            self._end_wait(text, Outcome(box.events[0] if box and box.events else None))
        elif child := self._child_of(text):
            if child not in self._ended:
                self._invoked.pop(child, None)
                self.finished(text, too_late(child))
        elif (waiting := self._waits.get(text)) is not None and waiting.kind == "invoke":
            if waiting.until is not None and waiting.until <= self.now and waiting.more["child"] not in self._ended:
                self.finished(text, too_late(waiting.more["child"]))
        else:
            self._sleep_is_over(text)

    def _sleep_is_over(self, key: str) -> None:
        """A sleep is over, or a listener's wait, for which an event may have come in the same moment."""
        if self._has_heard and self._kind(key) != "sleep":
            self._waits[key] = Waiting("timer", self.now)
            return
        self._slept[key] = self._since_start()
        self._waits.pop(key, None)
        self._failures = 0

    def _child_of(self, key: str) -> str | None:
        """The run that a step has invoked in this execution."""
        if not self._started:
            return None
        end = f"/{derived_ulid(self._carried.started, self._run_id, key, 0)}"
        return next((child for child in self._started if child.endswith(end)), None)

    def _take_events(self) -> None:
        for key in list(self._once):
            box = self._inbox.boxes.get(key)
            if key in self._cancelled:
                self._inbox.close(key)
                self._once.discard(key)
            elif box is not None and box.events:
                self._end_wait(key, Outcome(box.events[0]))

    def _end_wait(self, key: str, outcome: Outcome) -> None:
        self.finished(key, outcome)
        self._inbox.close(key)
        self._once.discard(key)

    def _take_signals(self) -> None:
        signals = self._signals
        for key, data in list(signals.received.items()):
            if key in signals.open:
                wait, _ = signals.open[key]
                signals.end(key)
                self.finished(signals.steps[key], Outcome({"signal": wait.signal, "data": data}))

    def remember(self, key: str, outcome: Outcome, at: int | None = None) -> None:
        """The body has what a step has returned, since now or another time."""
        if key not in self._memo:
            self._memo[key] = outcome_json(outcome), self._since_start() if at is None else at
        self._waits.pop(key, None)
        self._mailboxes.pop(key, None)
        self._failures = 0

    def _kind(self, key: str) -> Kind | None:
        waiting = self._waits.get(key)
        return None if waiting is None else waiting.kind

    def _since_start(self) -> int:
        return self._since_start_at(self.now)

    def _since_start_at(self, moment: float) -> int:
        """In microseconds, as the run counts them: by Temporal's ``workflow.now``."""
        seen = datetime.fromtimestamp(moment, UTC) - _EPOCH
        return max(seen // _MICROSECOND - self._carried.started * 1000, 0)
