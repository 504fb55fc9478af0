"""Runs that a run has invoked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ...events import derived_ulid
from ...runtime.steps.invoke import LOOK_AFTER, next_poll_interval
from ...types import JSON
from ...wire.memo import Outcome
from ...wire.run_state import RunState, memo_json, read_outcome
from ...wire.waits import InvokeWait, Waiting
from .clock import Clock
from .steps import Steps


@dataclass(frozen=True, slots=True)
class Poll:
    """Schedule on which a step polls the run that it invoked.

    Attributes:
        interval: The seconds between the last poll and the next one.
        next_at: The time of the next poll, in seconds since the epoch; None if the run is a child of this execution.
    """

    interval: float = LOOK_AFTER.total_seconds()
    next_at: float | None = None


class InvokedRuns:
    """Runs that a run has invoked, by their workflow ids.

    Args:
        run_id: The run's id.
        carried: The state that the execution begins with.
        steps: The run's steps.
        clock: The run's clock.

    Attributes:
        ended: The outcomes of runs that have ended, and whose step is unknown or has not received them.
    """

    def __init__(self, run_id: str, carried: RunState, steps: Steps, clock: Clock) -> None:
        self._run_id = run_id
        self._run_started = carried.started
        self._steps = steps
        self._clock = clock
        self._step_of = dict(carried.invoked)
        self._started: set[str] = set()  # children of this execution
        self._polls: dict[str, Poll] = {}
        self.ended: dict[str, Any] = dict(carried.ended)

    def state(self) -> dict[str, Any]:
        """Return the fields of the state for another execution."""
        return {"ended": self.ended, "invoked": self._step_of}

    # --- begin and end ---------------------------------------------------------------------------------------------

    def begin(self, child: str, step: str | None) -> None:
        """Record an invoked run.

        Args:
            child: The run's workflow id.
            step: The step that invoked it, if the history has its name.
        """
        if step is not None and not child.endswith(f"/{derived_ulid(self._run_started, self._run_id, step, 0)}"):
            step = None  # the name was cut off
        if step is not None:
            self._steps.waits_for_end(step, child)
        self._step_of[child] = step
        self._started.add(child)

    def not_started(self, child: str) -> None:
        """Note that a run was not invoked, because the same step had already invoked it."""
        self._started.discard(child)

    def end(self, child: str, outcome: Outcome) -> None:
        """End a child of this execution."""
        step = self._step_of.get(child)
        if step is None:
            self.ended[child] = memo_json(outcome)
        else:
            del self._step_of[child]
            self.ended.pop(child, None)
            self._steps.remember(step, outcome)

    def report(self, child: str, outcome: JSON) -> None:
        """Receive the report of an invoked run's end, which a later execution than the invoking one gets."""
        waits = self._steps.waits
        invoked = {waiting.child: key for key, waiting in waits.items() if isinstance(waiting, InvokeWait)}
        step = invoked.get(child) or self._step_of.get(child)
        # The step of a child of this execution waits for Temporal's own events.
        if step is None or not self._steps.past.is_seen or child in self._started:
            self.ended[child] = outcome
        else:
            self.forget(child)
            self._steps.remember(step, read_outcome(outcome))

    def forget(self, child: str) -> None:
        """Forget a run that no step waits for any more."""
        self._step_of.pop(child, None)

    # --- the steps that wait ---------------------------------------------------------------------------------------

    def open(self) -> Iterator[str]:
        """Return the workflow ids of the invoked runs that have not ended."""
        waiting = [waiting.child for waiting in self._steps.waits.values() if isinstance(waiting, InvokeWait)]
        return (child for child in dict.fromkeys([*self._step_of, *waiting]) if child not in self.ended)

    def waiting_steps(self) -> Iterator[str]:
        """Return the keys of the unfinished steps whose invoked runs have not ended."""
        return (step for step in self._step_of.values() if step is not None and step not in self._steps.memo)

    def of_step(self, key: str) -> str | None:
        """Return the run that a step has invoked, unless it has ended."""
        return next((child for child, step in self._step_of.items() if step == key), None)

    def awaited_by(self, key: str) -> str | None:
        """Return the run that a step has invoked, in this execution or an earlier one."""
        waiting = self._steps.waits.get(key)
        return waiting.child if isinstance(waiting, InvokeWait) else self.of_step(key)

    def is_of_this_execution(self, child: str) -> bool:
        """Return whether this execution has started an invoked run."""
        return child in self._started

    # --- polls -----------------------------------------------------------------------------------------------------

    def polled(self, key: str, outcome: JSON) -> None:
        """Record that a step has polled the run that it invoked; ``outcome`` is None if the run has not ended."""
        if outcome is None:
            interval = next_poll_interval(self._poll(key).interval)
            self._polls[key] = Poll(interval, self._clock.now + interval)
        else:
            self.forget(self.awaited_by(key) or "")
            self._steps.finished(key, read_outcome(outcome))

    def is_poll_due(self, key: str) -> bool:
        """Return whether a step polls its run now."""
        next_at = self._poll(key).next_at
        return next_at is not None and next_at <= self._clock.now

    def with_polls(self, waits: dict[str, Waiting]) -> None:
        """Put the times of the next polls into waits."""
        for key, poll in self._polls.items():
            if isinstance(waiting := waits.get(key), InvokeWait):
                waits[key] = replace(waiting, poll_interval=poll.interval, next_poll_at=poll.next_at)

    def _poll(self, key: str) -> Poll:
        waiting = self._steps.waits.get(key)
        carried = Poll(waiting.poll_interval, waiting.next_poll_at) if isinstance(waiting, InvokeWait) else Poll()
        return self._polls.get(key, carried)
