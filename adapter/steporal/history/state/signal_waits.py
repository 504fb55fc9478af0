"""Waits of a run for signals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...runtime.signal_inbox import conflict, summary_of_close, summary_of_open
from ...types import JSON
from ...wire.mailbox_wait import Wait
from ...wire.memo import Outcome
from ...wire.run_state import RunState
from ...wire.waits import SignalWait
from .clock import Clock
from .steps import Steps
from .timers import Timers


class SignalWaits:
    """Waits for signals, by their keys, in the form that :class:`~.signal_inbox.SignalInbox` hands over.

    Args:
        run_id: The run's id.
        workflow_id: Temporal's workflow id of the run.
        carried: The state that the execution begins with.
        steps: The run's steps.
        timers: The timers of the execution.
        clock: The run's clock.
    """

    def __init__(
        self, run_id: str, workflow_id: str, carried: RunState, steps: Steps, timers: Timers, clock: Clock
    ) -> None:
        self._run_id = run_id
        self._workflow_id = workflow_id
        self._steps = steps
        self._timers = timers
        self._clock = clock
        self._open: dict[str, tuple[Wait, str]] = {}  # waits whose mailbox may be open, with its Temporal run id
        self._step_of: dict[str, str] = {}
        self._timed_out: set[str] = set()
        known: dict[str, tuple[str, str]] = {}
        for key, (_, waiting) in carried.waits.items():
            if isinstance(waiting, SignalWait):
                known[waiting.wait.key] = key, waiting.mailbox
        for data in carried.signals.get("waits", ()):
            wait = Wait.model_validate(data)
            step, mailbox = known.get(wait.key, (wait.key, ""))
            self._open[wait.key] = wait, mailbox
            self._step_of[wait.key] = step
        self._over: dict[str, None] = dict.fromkeys(carried.signals.get("over", ()))
        self._received: dict[str, JSON] = dict(carried.signals.get("received", {}))

    def state(self) -> dict[str, Any]:
        """Return the fields of the state for another execution; another run may take a cancelled wait's mailbox."""
        return {
            "signals": {
                "waits": [wait.model_dump(mode="json") for wait, _ in self._open.values()],
                "cancelled": sorted(key for key in self._open if key in self._timers.cancelled),
                "over": sorted(self._over),
                "received": self._received,
            }
        }

    def open(self) -> Iterator[tuple[str, SignalWait]]:
        """Yield the steps that wait, and their waits."""
        for key, (wait, mailbox) in self._open.items():
            step = self._step_of[key]
            if mailbox and key not in self._timers.cancelled and step not in self._steps.memo:
                yield step, SignalWait(wait.until, wait, mailbox)

    def has(self, key: str) -> bool:
        """Return whether a wait has begun."""
        return key in self._step_of

    def has_received(self, key: str) -> bool:
        """Return whether the signal of a wait has arrived."""
        return key in self._received

    def receive(self, key: str, data: JSON) -> None:
        """Receive the data of a signal."""
        if key not in self._over:
            self._received.setdefault(key, data)
            if self._steps.past.is_seen:
                self.take(key)

    def take(self, key: str) -> None:
        """Give the body the data of the signal that a wait has received, if any."""
        if key not in self._open or key not in self._received:
            return
        outcome = Outcome({"signal": self._open[key][0].signal, "data": self._received[key]})
        self._end(key)
        if key in self._timers.cancelled:
            self._steps.remember_abandoned(self._step_of[key], outcome)
        else:
            self._steps.remember(self._step_of[key], outcome)

    def time_out(self, key: str) -> None:
        """Note that the timeout of a wait is over; its end comes from its mailbox."""
        self._timed_out.add(key)

    def opened(self, text: str, step: str | None, other: Wait, mailbox: str) -> None:
        """Record that a mailbox was opened, or belongs to another wait; ``text`` names the wait of the step."""
        is_ours = other.run_id == self._run_id and summary_of_open(other) == text
        key = other.key if is_ours else text.removeprefix(summary_of_open(other.model_copy(update={"key": ""})))
        if key not in self._step_of:
            self._step_of[key] = step = step or self._step_of_wait(key)
            self._steps.begun(step, key)
        if is_ours:
            self._open[key] = other, mailbox
            self._steps.waits_for_signal(self._step_of[key], other.signal)
            if self._clock.is_local_after(other.until):  # then the body has started no timer
                self._timed_out.add(key)
            self.take(key)
        elif other.run_id != self._run_id or (other.key in self._open and other.key not in self._timers.cancelled):
            wait = other.model_copy(update={"workflow_id": self._workflow_id, "run_id": self._run_id, "key": key})
            self._end(key)
            self._steps.finished(self._step_of[key], Outcome(failure=conflict(wait, other)))

    def closed_in_vain(self, text: str) -> None:
        """Record that a mailbox was closed without a signal: the wait timed out or was cancelled."""
        for key, (wait, _) in list(self._open.items()):
            if summary_of_close(wait) == text:
                self._end(key)
                if key in self._timed_out:
                    self._steps.finished(self._step_of[key], Outcome())
                else:
                    self._steps.past.record("ended", self._step_of[key])

    def _step_of_wait(self, key: str) -> str:
        """Return the step of a wait, whose key ends with a number if the step has waited before."""
        step, mark, number = key.rpartition("#")
        return step if mark and number.isdecimal() and self._steps.times_begun(step) == int(number) - 1 else key

    def _end(self, key: str) -> None:
        self._open.pop(key, None)
        self._received.pop(key, None)
        self._over[key] = None
