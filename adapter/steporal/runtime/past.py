"""What a run has done so far, told piece by piece.

What comes between two workflow tasks counts when the second is done: then the body has seen it. What it has not seen
stays where a body finds it that begins anew: in a box, in the mailboxes' deliveries, among the runs that have ended.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..routing.mailbox import SIGNALLED, Wait
from ..types import JSON
from .carried import Carried, outcome_json
from .children import ENDED, REPORT
from .inbox import DELIVER, Inbox
from .memo import Outcome
from .signal_inbox import conflict, summary_of_close, summary_of_open
from .waits import BACKOFF, BACKOFF_AFTER, Kind, Waiting, is_of_no_step


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

    def state(self) -> dict[str, JSON]:
        """What is handed to another execution."""
        return {
            "waits": [wait.model_dump(mode="json") for wait, _ in self.open.values()],
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
        self._finished: list[tuple[str, Outcome]] = []
        self._timers: dict[int, tuple[str, float]] = {}
        self._fired: list[str] = []
        self._cancelled: set[str] = set()  # timers
        self._begin(carried)

    def _begin(self, carried: Carried) -> None:
        self._carried = carried
        self._memo = dict(carried.memo)
        self._waits = {
            key: Waiting(waiting["kind"], waiting["until"], waiting["more"])
            for key, (_, waiting) in carried.waits.items()
        }
        self._inbox = Inbox()
        self._inbox.restore(carried.boxes)
        self._once = {key for key in carried.boxes if self._kind(key) == "event"}
        self._cancelling = dict(carried.cancelling)
        self._signals = Signals.of(carried)
        self._scheduled = dict(carried.scheduled)
        self._failures = carried.failures
        self._ended = dict(carried.ended)
        self._invoked = dict.fromkeys(carried.invoked)
        self._reports_to = list(carried.reports_to)
        self._attempt_began: int | None = carried.attempt_began or None

    # --- what comes of it ------------------------------------------------------------------------------------------

    def carried(self) -> Carried:
        """What another execution can go on with."""
        for key, outcome in self._finished:
            self.remember(key, outcome)
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
                "cancelling": self._cancelling,
                "signals": self._signals.state(),
                "ended": self._ended,
                "invoked": list(self._invoked),
                "reports_to": self._reports_to,
            }
        )

    def _all_waits(self) -> dict[str, Waiting]:
        waits = {key: waiting for key, waiting in self._waits.items() if key not in self._memo}
        for key, until in self._timers.values():
            if key not in waits and key not in self._memo and key not in self._signals.steps and not is_of_no_step(key):
                waits[key] = Waiting("event" if key in self._once else "timer", until)
        for key, (wait, mailbox) in self._signals.open.items():
            step = self._signals.steps[key]
            if mailbox and step not in self._memo:
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

    def signal(self, name: str, message: JSON) -> None:
        """Temporal's signal to the run has come."""
        if not isinstance(message, dict):
            return
        if name == REPORT:
            if message not in self._reports_to:
                self._reports_to.append(message)
        elif message.get("run_id") != self._run_id:
            return
        elif name == DELIVER:
            self._inbox.deliver(message["key"], message["event"])
        elif name == ENDED:
            self._ended[message["child"]] = message["outcome"]
        elif name == SIGNALLED and message["key"] not in self._signals.over:
            self._signals.received.setdefault(message["key"], message.get("data"))

    # --- steps -----------------------------------------------------------------------------------------------------

    def begun(self, key: str) -> None:
        """An activity of a step was scheduled."""
        self._scheduled[key] = self._scheduled.get(key, 0) + 1

    def finished(self, key: str, outcome: Outcome) -> None:
        """A step has ended; the body sees it in the next workflow task."""
        self._finished.append((key, outcome))

    def invoked(self, child: str) -> None:
        """A run was invoked."""
        self._invoked[child] = None

    def not_invoked(self, child: str) -> None:
        """A run was not invoked after all."""
        self._invoked.pop(child, None)

    def child_ended(self, child: str, outcome: Outcome) -> None:
        """An invoked run has ended."""
        self._ended[child] = outcome_json(outcome)

    # --- waits for events and signals ------------------------------------------------------------------------------

    def subscribed(self, key: str, kind: str, topics: list[str], until: float) -> None:
        """The run hears of events from now on."""
        if kind == "cancel":
            self._cancelling[key] = topics
            return
        if kind == "once":
            self._once.add(key)
            self._cancelled.discard(key)
        self._inbox.open(key, tuple(topics), until)

    def opened(self, text: str, other: Wait, mailbox: str) -> None:
        """A mailbox was opened, or was found to be another wait's; ``text`` says for which wait."""
        is_ours = other.run_id == self._run_id and summary_of_open(other) == text
        key = other.key if is_ours else text.removeprefix(summary_of_open(other.model_copy(update={"key": ""})))
        signals = self._signals
        if key not in signals.steps:
            signals.steps[key] = self._step_of_wait(key)
            self.begun(signals.steps[key])
        if is_ours:
            signals.open[key] = other, mailbox
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
        for text in self._fired:
            self._timer_is_over(text)
        self._fired.clear()
        self._take_events()
        self._take_signals()
        for key, outcome in self._finished:
            self.remember(key, outcome)
        self._finished.clear()

    def _timer_is_over(self, text: str) -> None:
        if text.startswith(BACKOFF_AFTER):
            self._waits.pop(BACKOFF, None)
            self._attempt_began = self._since_start()
        elif text in self._signals.steps:
            self._signals.timed_out.add(text)
        elif text in self._once:
            box = self._inbox.boxes.get(text)
            self._end_wait(text, Outcome(box.events[0] if box and box.events else None))
        elif not is_of_no_step(text) and self._kind(text) != "invoke":
            self.finished(text, Outcome())

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

    def remember(self, key: str, outcome: Outcome) -> None:
        """The body has what a step has returned."""
        if key not in self._memo:
            self._memo[key] = outcome_json(outcome), self._since_start()
        self._waits.pop(key, None)
        self._failures = 0

    def _kind(self, key: str) -> Kind | None:
        waiting = self._waits.get(key)
        return None if waiting is None else waiting.kind

    def _since_start(self) -> int:
        return max(math.floor(self.now * 1_000_000) - self._carried.started * 1000, 0)
