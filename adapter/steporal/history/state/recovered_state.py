"""State of a run at some point of its history, from which another execution can continue.

A body receives what happened between two workflow tasks when the second one is executed: first the signals, then the
rest, one at a time, each in the order of the history. So a fact counts when that task is completed, in that order.
What the body has not received stays where a body that begins anew finds it: in the memo without an entry in the
journal, in a box, among the received signals, or among the runs that have ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ...runtime.children import read_parent
from ...runtime.steps.invoke import LOOK_AFTER, too_late
from ...wire.memo import Outcome
from ...wire.names import ASYNCIO_TIMER, BACKOFF_AFTER
from ...wire.run_state import RunState
from ...wire.waits import BACKOFF, EventWait, InvokeWait, SignalWait, TimedWait, Waiting, is_of_no_step
from .. import facts
from .arrivals import Arrivals
from .clock import Clock
from .invoked import InvokedRuns
from .parked import ParkedBody
from .past import Past
from .signal_waits import SignalWaits
from .steps import Steps
from .subscriptions import Subscriptions
from .timers import Timers


class RecoveredState:
    """State of a run at some point of its history.

    Args:
        run_id: The run's id: that of its first execution.
        workflow_id: Temporal's workflow id of the run.
        carried: The state that the previous execution handed over, or that a new run begins with.
        is_first: Whether the run begins with this execution, and with no work of another run.

    Attributes:
        clock: The run's clock.
        steps: Its steps.
        subscriptions: Its subscriptions to events.
        signals: Its waits for signals.
        invoked: The runs that it has invoked.
    """

    def __init__(self, run_id: str, workflow_id: str, carried: RunState, *, is_first: bool) -> None:
        self._run_id = run_id
        self._workflow_id = workflow_id
        self._has_begun = not is_first
        self._arrivals = Arrivals()
        self._timers = Timers()
        self.clock: Clock = Clock(carried)
        self._begin(carried)

    def _begin(self, carried: RunState) -> None:
        self._carried = carried
        self._is_cancelled = carried.is_cancelled
        self._began = carried.began
        self._reports_to = [parent for data in carried.reports_to if (parent := read_parent(dict(data))) is not None]
        self._past = Past(carried, self.clock)
        self.steps: Steps = Steps(carried, self._past, self.clock, self._arrivals)
        self.subscriptions: Subscriptions = Subscriptions(carried, self.steps, self._timers)
        self.signals: SignalWaits = SignalWaits(
            self._run_id, self._workflow_id, carried, self.steps, self._timers, self.clock
        )
        self.invoked: InvokedRuns = InvokedRuns(self._run_id, carried, self.steps, self.clock)
        self._parked = ParkedBody(carried, self.steps, self.subscriptions, self.signals, self.invoked, self.clock)
        self._describe_waits(carried)

    def _describe_waits(self, carried: RunState) -> None:
        for key, waiting in self.steps.waits.items():
            match waiting:
                case EventWait() if (box := self.subscriptions.box(key)) is not None:
                    self.steps.waits_for_event(key, box.topics)
                case SignalWait(wait=wait):
                    self.steps.waits_for_signal(key, wait.signal)
                case InvokeWait(child=child):
                    self.steps.waits_for_end(key, child)
        self.steps.describe(carried.calls)

    # --- the result ------------------------------------------------------------------------------------------------

    def carried(self) -> RunState:
        """Return the state from which another execution can continue."""
        with self._past.unseen():
            self._apply_arrivals()
        waits = self._all_waits()
        invoking = (key for key, waiting in waits.items() if waiting.kind == "invoke")
        return self._carried.model_copy(
            update={
                "is_parked": False,
                "held_until": None,
                "waits": {key: (False, waiting) for key, waiting in waits.items()},
                "is_cancelled": self._is_cancelled,
                "began": self._began,
                "reports_to": self._reports_to,
                **self._past.state(),
                **self.steps.state([*invoking, *self.invoked.waiting_steps()]),
                **self.subscriptions.state(),
                **self.signals.state(),
                **self.invoked.state(),
            }
        )

    def _all_waits(self) -> dict[str, Waiting]:
        memo = self.steps.memo
        waits: dict[str, Waiting] = {
            key: waiting for key, waiting in self.steps.waits.items() if key not in memo and waiting.kind != "asyncio"
        }
        self.invoked.with_polls(waits)
        for key, until in self._timers.open():
            if key in waits or key in memo or self.signals.has(key) or is_of_no_step(key):
                continue
            if child := self.invoked.of_step(key):
                if self.invoked.is_of_this_execution(child):
                    waits[key] = InvokeWait(until, child, LOOK_AFTER.total_seconds())
            else:
                waits[key] = EventWait(until) if self.subscriptions.is_once(key) else TimedWait("timer", until)
        waits.update(self.signals.open())
        return waits

    @property
    def ends_seen(self) -> int:
        """Number of invoked runs that have ended and whose step is unknown."""
        return len(self.invoked.ended)

    def children(self) -> Iterator[str]:
        """Return the workflow ids of the invoked runs that have not ended."""
        return self.invoked.open()

    # --- facts between two workflow tasks --------------------------------------------------------------------------

    def recover(self, carried: RunState) -> None:
        """Start from the state that an earlier recovery handed over, before the first workflow task."""
        self._arrivals.forget_signals()
        self._has_begun = True
        self.clock.restart(carried)
        self._begin(carried)

    def cancelled(self) -> None:
        """Cancel the run."""
        self._arrivals.add(self._cancel)

    def _cancel(self) -> None:
        self._is_cancelled = True
        self._past.record_cancellation()

    def receive(self, message: facts.Message | None) -> None:
        """Receive the message of one of Temporal's signals to the run; None if the run drops it."""
        match message:
            case facts.ReportRequested(parent):
                if parent not in self._reports_to:
                    self._reports_to.append(parent)
            case facts.EventDelivered(key, event):
                self._arrivals.add_signal(partial(self.subscriptions.deliver, key, event))
            case facts.ChildReported(child, outcome):
                self._arrivals.add_signal(partial(self.invoked.report, child, outcome))
            case facts.SignalDelivered(key, data):
                self._arrivals.add_signal(partial(self.signals.receive, key, data))
            case facts.HoldRequested(seconds):
                self._arrivals.add_signal(partial(self._parked.hold, seconds))

    def sent(self, key: str) -> None:
        """Note that a step has sent all events that it began to send; only what follows shows whether it has ended."""
        self._arrivals.add(partial(self._past.sent, key))

    def sends_more(self, key: str) -> None:
        """Note that the step had not ended."""
        self._past.sends_more(key)

    def child_ended(self, child: str, outcome: Outcome) -> None:
        """End an invoked run."""
        self._arrivals.add(partial(self.invoked.end, child, outcome))

    # --- workflow tasks --------------------------------------------------------------------------------------------

    def task_started(self, moment: int) -> None:
        """Start a workflow task, at a time in nanoseconds since the epoch."""
        self.clock.now, self.clock.moment = moment / 1e9, moment

    def first_task(self, began: str) -> None:
        """Record the start of the first workflow task; call it only in the first execution of a run."""
        if self._began is None:
            self._began = began

    def task_done(self) -> None:
        """Complete a workflow task: the body has seen what happened before it."""
        if not self._has_begun:
            self._has_begun = True
            self._past.begin()
        self._apply_arrivals()

    def _apply_arrivals(self) -> None:
        jobs = self._arrivals.take()
        self.subscriptions.has_event = False
        if self._parked.is_asleep:
            was_cancelled = self._is_cancelled
            with self._past.unseen():
                for job in jobs:
                    job()
            self._wake_if_due(is_cancelled=self._is_cancelled and not was_cancelled)
            return
        if self._past.is_seen:
            self.subscriptions.deliver_to_listeners()
        for job in jobs:
            job()

    def _wake_if_due(self, *, is_cancelled: bool) -> None:
        """Wake the body if it has resumed by now; a cancellation resumes it, and reaches it last."""
        if self._past.is_seen and (is_cancelled or self._parked.is_due()):
            self._parked.wake()
            if is_cancelled:
                self._cancel()

    # --- timers ----------------------------------------------------------------------------------------------------

    def timer_started(self, number: int, text: str, until: float) -> None:
        """Start a timer; ``text`` is its summary."""
        self._timers.start(number, text, until)
        if text.startswith(BACKOFF_AFTER):
            self._past.back_off(text)
            self.steps.waits[BACKOFF] = TimedWait("backoff", until)

    def timer_cancelled(self, number: int) -> None:
        """Cancel a timer."""
        self._timers.cancel(number)

    def timer_fired(self, number: int) -> None:
        """Fire a timer; the body sees it in the next workflow task."""
        if timer := self._timers.end(number):
            self._arrivals.add(partial(self._timer_is_over, timer[0]))

    def _timer_is_over(self, text: str) -> None:
        if text.startswith(BACKOFF_AFTER):
            self.steps.waits.pop(BACKOFF, None)
            self._past.next_attempt()
        elif text.startswith(ASYNCIO_TIMER):
            if self._past.is_seen:
                self._past.record("timer", text)
        elif self.signals.has(text):
            self.signals.time_out(text)
        elif is_of_no_step(text):
            return
        elif self.subscriptions.is_once(text):
            self.subscriptions.end_wait_in_time(text)
        elif child := self.invoked.awaited_by(text):
            self._invoked_run_is_late(text, child)
        else:
            self._sleep_is_over(text)

    def _invoked_run_is_late(self, key: str, child: str) -> None:
        has_ended = child in self.invoked.ended and not self.invoked.is_of_this_execution(child)
        if not self.invoked.is_poll_due(key) and not has_ended:
            self.invoked.forget(child)
            self.steps.remember(key, too_late(child))

    def _sleep_is_over(self, key: str) -> None:
        """End a sleep, or a listener's wait, for which an event may have arrived at the same moment."""
        if self.subscriptions.has_event and self.steps.kind(key) != "sleep":
            self.steps.waits[key] = TimedWait("timer", self.clock.now)
        else:
            self.steps.sleeps(key)
            self.steps.remember(key, Outcome())
