"""Times of a run, as its body sees them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...wire.run_state import RunState


class Clock:
    """Clock of a run.

    Args:
        carried: The state that the execution begins with.

    Attributes:
        now: The start of the current workflow task, in seconds since the epoch.
        moment: The same in nanoseconds.
        local_end: The end of the local activity that is being applied, as the run counts it; None if there is none.
    """

    def __init__(self, carried: RunState) -> None:
        self.now: float = 0.0
        self.moment = 0
        self.local_end: int | None = None
        self._local_completed = 0.0
        self._base = carried.base or carried.started

    def restart(self, carried: RunState) -> None:
        """Count from the start of another run."""
        self._base = carried.base or carried.started

    def since_start(self) -> int:
        """Return the time since the run's start in microseconds, as the run counts them."""
        return self._since_start_at(self.moment) if self.local_end is None else self.local_end

    def task_since_start(self) -> int:
        """Return the start of the current workflow task, as the run counts it."""
        return self._since_start_at(self.moment)

    def _since_start_at(self, moment: int) -> int:
        return max(moment // 1000 - self._base * 1000, 0)

    @contextmanager
    def local(self, completed: int) -> Iterator[None]:
        """Apply the result of a local activity in this context; the body sees its end at once.

        Args:
            completed: The time of its completion, in nanoseconds since the epoch.
        """
        self.local_end = self._since_start_at(completed)
        self._local_completed = completed / 1e9
        try:
            yield
        finally:
            self.local_end = None

    def is_local_after(self, until: float) -> bool:
        """Return whether the local activity that is being applied ended after a time, in seconds since the epoch."""
        return self.local_end is not None and until <= self._local_completed
