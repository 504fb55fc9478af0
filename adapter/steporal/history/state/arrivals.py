"""Order in which a body receives what happened between two workflow tasks."""

from __future__ import annotations

from collections.abc import Callable

Job = Callable[[], object]
"""Application of a fact to the state."""


class Arrivals:
    """Facts since the last workflow task: first the signals, then the rest, each in the order of the history."""

    def __init__(self) -> None:
        self._signals: list[Job] = []
        self._others: list[Job] = []

    def add_signal(self, job: Job) -> None:
        """Add a signal."""
        self._signals.append(job)

    def add(self, job: Job) -> None:
        """Add another fact."""
        self._others.append(job)

    def forget_signals(self) -> None:
        """Remove the signals, which another state includes."""
        self._signals.clear()

    def take(self) -> list[Job]:
        """Return all jobs in the order in which the body receives them, and forget them."""
        jobs, self._signals, self._others = [*self._signals, *self._others], [], []
        return jobs
