"""Body that is parked in an execution that has resumed a run without it."""

from __future__ import annotations

from ...runtime.steps.invoke import too_late
from ...wire.memo import Outcome
from ...wire.run_state import RunState, read_outcome
from ...wire.waits import EventWait, InvokeWait, NextWait, SignalWait, TimedWait, Waiting, box_of, moments_of
from .clock import Clock
from .invoked import InvokedRuns
from .signal_waits import SignalWaits
from .steps import Steps
from .subscriptions import Subscriptions


class ParkedBody:
    """Waits in which a body is parked, until it resumes.

    Args:
        carried: The state that the execution begins with.
        steps: The run's steps.
        subscriptions: The run's subscriptions.
        signals: The run's waits for signals.
        invoked: The runs that it has invoked.
        clock: The run's clock.
    """

    def __init__(
        self,
        carried: RunState,
        steps: Steps,
        subscriptions: Subscriptions,
        signals: SignalWaits,
        invoked: InvokedRuns,
        clock: Clock,
    ) -> None:
        self._steps = steps
        self._subscriptions = subscriptions
        self._signals = signals
        self._invoked = invoked
        self._clock = clock
        self._asleep = {key for key, (is_inside, _) in carried.waits.items() if is_inside}
        self._begins_parked = carried.is_parked
        self._held_until = carried.held_until if carried.is_parked else None

    @property
    def is_asleep(self) -> bool:
        """True if the body has not resumed."""
        return bool(self._asleep)

    def hold(self, seconds: float) -> None:
        """Hold the body for a checkpoint, or release it."""
        self._held_until = self._clock.now + seconds if seconds else None

    def is_due(self) -> bool:
        """Return whether the run resumes, by the rules of ``Parked``."""
        if not self._begins_parked:
            return True
        if self._held_until is not None:
            return self._clock.now >= self._held_until
        inside = self._inside()
        moments = [moment for waiting in inside.values() for moment in moments_of(waiting)]
        is_late = min(moments, default=self._clock.now + 1) <= self._clock.now
        return is_late or any(self._has_arrived(key, waiting) for key, waiting in inside.items())

    def wake(self) -> None:
        """Resume the body, and deliver what its waits have received: first the waits that have timed out."""
        inside, self._asleep = self._inside(), set()
        overdue = [
            key for key, waiting in inside.items() if waiting.until is not None and waiting.until <= self._clock.now
        ]
        for key in sorted(overdue, key=lambda key: inside[key].until or 0):
            if not self._has_arrived(key, inside[key]):
                self._time_out(key, inside[key])
        for key, waiting in inside.items():
            self._take_arrived(key, waiting)
        self._subscriptions.deliver_to_listeners()

    def _inside(self) -> dict[str, Waiting]:
        waits = self._steps.waits
        return {key: waits[key] for key in waits if key in self._asleep}

    def _has_arrived(self, key: str, waiting: Waiting) -> bool:
        match waiting:
            case EventWait() | NextWait():
                box = self._subscriptions.box(box_of(key, waiting))
                return box is None or bool(box.events)
            case SignalWait(wait=wait):
                return self._signals.has_received(wait.key)
            case InvokeWait(child=child):
                return child in self._invoked.ended
            case TimedWait():
                return False

    def _time_out(self, key: str, waiting: Waiting) -> None:
        match waiting:
            case TimedWait(kind="asyncio"):
                self._steps.past.record("timer", key)
            case EventWait():
                self._subscriptions.end_wait(key, Outcome())
            case SignalWait(wait=wait):
                self._signals.time_out(wait.key)
            case InvokeWait(child=child) if not self._invoked.is_poll_due(key):
                self._steps.remember(key, too_late(child))
            case TimedWait(kind="sleep" | "timer") | NextWait():
                self._steps.remember(key, Outcome())
            case TimedWait(kind="start"):
                self._steps.waits.pop(key, None)
            case TimedWait(kind="backoff"):
                self._steps.waits.pop(key, None)
                self._steps.past.next_attempt()

    def _take_arrived(self, key: str, waiting: Waiting) -> None:
        match waiting:
            case EventWait():
                box = self._subscriptions.box(key)
                if box is not None and box.events:
                    self._subscriptions.end_wait(key, Outcome(box.events[0]))
            case NextWait():
                box = self._subscriptions.box(waiting.box)
                if box is not None and (event := box.take()) is not None:
                    self._steps.remember(key, Outcome(event))
            case InvokeWait(child=child) if child in self._invoked.ended:
                self._steps.remember(key, read_outcome(self._invoked.ended.pop(child)))
            case SignalWait(wait=wait):
                self._signals.take(wait.key)
