"""Steps of a run: their results, their open waits, and the descriptions of their calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ...closures.calls import OR, UNKNOWN, Call
from ...types import JSON
from ...wire.memo import Outcome
from ...wire.run_state import RunState, memo_json
from ...wire.waits import Kind, Waiting
from .arrivals import Arrivals
from .clock import Clock
from .past import Past


class Steps:
    """Steps of a run, by their keys.

    Args:
        carried: The state that the execution begins with.
        past: What has reached the body.
        clock: The run's clock.
        arrivals: What the body receives in the next workflow task.

    Attributes:
        memo: The outcomes of finished steps.
        waits: The waits that the execution began with, or that have a reason other than an activity.
        past: What has reached the body.
    """

    def __init__(self, carried: RunState, past: Past, clock: Clock, arrivals: Arrivals) -> None:
        self._clock = clock
        self._arrivals = arrivals
        self.past: Past = past
        self.memo: dict[str, Any] = dict(carried.memo)
        self.waits: dict[str, Waiting] = {key: waiting for key, (_, waiting) in carried.waits.items()}
        self._scheduled = dict(carried.scheduled)
        self._taken = dict.fromkeys(carried.taken)
        self._mailboxes = dict(carried.mailboxes)
        self._calls: dict[str, Call] = {}  # of steps that do not end by an activity

    def state(self, continued: Iterable[str]) -> dict[str, Any]:
        """Return the fields of the state for another execution.

        Args:
            continued: The keys of the steps whose work the other execution continues.
        """
        keys = dict.fromkeys([*continued, *self._mailboxes])
        return {
            "memo": self.memo,
            "scheduled": self._scheduled,
            "taken": list(self._taken),
            "mailboxes": self._mailboxes,
            "calls": {key: self._calls[key].json() for key in keys if key in self._calls},
        }

    # --- ends ------------------------------------------------------------------------------------------------------

    def finished(self, key: str, outcome: Outcome) -> None:
        """End a step; the body sees the end of a local one at once, and of others in the next workflow task."""
        if self._clock.local_end is not None:
            self.remember(key, outcome, self._clock.local_end)
        else:
            self._arrivals.add(partial(self.remember, key, outcome))

    def remember(self, key: str, outcome: Outcome, at: int | None = None) -> None:
        """Record the result of a step, which the body has received now or at the given time."""
        if key not in self.memo:
            self.memo[key] = self._as_recorded(key, outcome)
            self.past.record_end(key, at)
        self.waits.pop(key, None)
        self._mailboxes.pop(key, None)
        self.past.progress()

    def remember_abandoned(self, key: str, outcome: Outcome) -> None:
        """Record the result of a step that the body has cancelled."""
        self.memo[key] = self._as_recorded(key, outcome)
        self.past.record("ended", key)

    def _as_recorded(self, key: str, outcome: Outcome) -> JSON:
        return memo_json(replace(outcome, call=outcome.call or self._calls.get(key)))

    # --- activities ------------------------------------------------------------------------------------------------

    def begun(self, key: str, activity_id: str) -> None:
        """Note that an activity of a step was scheduled, or that a wait for a signal began."""
        number = activity_id.removeprefix(f"{key}#")
        self._scheduled[key] = int(number) if number != activity_id and number.isdecimal() else 1
        if "#" in activity_id:
            self._taken[activity_id] = None

    def times_begun(self, key: str) -> int:
        """Return how often a step has begun."""
        return self._scheduled.get(key, 0)

    def sends_to(self, key: str, mailbox: str, call: Call | None) -> None:
        """Record the mailbox that a step sends a signal to."""
        self._mailboxes[key] = mailbox
        if call is not None:
            self._calls[key] = call

    # --- waits -----------------------------------------------------------------------------------------------------

    def kind(self, key: str) -> Kind | None:
        """Return the kind of a step's wait; None if the step has no wait of a known kind."""
        waiting = self.waits.get(key)
        return None if waiting is None else waiting.kind

    def describe(self, calls: dict[str, JSON]) -> None:
        """Take over the descriptions of calls that another execution has handed over."""
        for key, data in calls.items():
            if (call := Call.read(data)) is not None:
                self._calls[key] = call

    def waits_for_event(self, key: str, topics: Sequence[str], kind: str = "wait_for_event") -> None:
        """Describe a step that waits for an event, or listens to events."""
        self._calls[key] = Call(kind, " or ".join(topics), branch=UNKNOWN)

    def waits_for_signal(self, key: str, signal: str) -> None:
        """Describe a step that waits for a signal."""
        self._calls[key] = Call("wait_for_signal", signal, branch=UNKNOWN)

    def waits_for_end(self, key: str, child: str) -> None:
        """Describe a step that has invoked a run."""
        self._calls[key] = Call("invoke_workflow", child.rpartition("/")[0], UNKNOWN, branch=UNKNOWN)

    def sleeps(self, key: str) -> None:
        """Describe a sleep or a listener's wait that is over; the history shows the two in the same way."""
        kind = self.kind(key)
        if kind != "timer":
            self._calls.setdefault(key, Call(kind or f"sleep{OR}next", UNKNOWN, branch=UNKNOWN))
