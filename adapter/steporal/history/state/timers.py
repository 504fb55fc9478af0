"""Timers of an execution."""

from __future__ import annotations

from collections.abc import Iterable


class Timers:
    """Timers of an execution, by the numbers of the events that started them; their names are their summaries.

    Attributes:
        cancelled: The names of cancelled timers: the body no longer waits for what they limited.
    """

    def __init__(self) -> None:
        self._open: dict[int, tuple[str, float]] = {}
        self.cancelled: set[str] = set()

    def start(self, number: int, name: str, until: float) -> None:
        """Start a timer."""
        self._open[number] = name, until
        self.cancelled.discard(name)

    def end(self, number: int) -> tuple[str, float] | None:
        """End a timer, and return its name and time; None if it is unknown."""
        return self._open.pop(number, None)

    def cancel(self, number: int) -> None:
        """Cancel a timer."""
        if timer := self._open.pop(number, None):
            self.cancelled.add(timer[0])

    def open(self) -> Iterable[tuple[str, float]]:
        """Return the names and times of the timers that have not ended."""
        return self._open.values()
