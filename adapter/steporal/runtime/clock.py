"""Time in the body of a run, and the ends of its waits."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from ..wire.limits import FAR_FUTURE
from ..wire.waits import SHORTEST, Waits
from .journal import Journal
from .takeover import Takeover


class BodyClock:
    """Clock of a body: it stands still within a workflow task, and shows recorded times while the body comes back.

    Args:
        waits: The waits of the run.
        takeover: The state that the run goes on from.
        started: Time when the run's first execution started, in milliseconds since the epoch.
        base: Time that the journal counts from, in milliseconds since the epoch.

    Attributes:
        started: See above.
        base: See above.
        journal: The journal of the run, which is made with :meth:`elapsed`.
    """

    journal: Journal

    def __init__(self, waits: Waits, takeover: Takeover, *, started: int, base: int) -> None:
        self.started = started
        self.base = base
        self._waits = waits
        self._takeover = takeover
        self._loop: Any = asyncio.get_running_loop()
        self._passed: dict[str, int] = {}

    def elapsed(self) -> int:
        """Return the time of the present workflow task, in microseconds since :attr:`base`."""
        now: int = type(self._loop).workflow_time_ns(self._loop)
        return now // 1000 - self.base * 1000

    def now(self) -> float:
        """Return the time of the present workflow task, in seconds since the epoch."""
        time: float = type(self._loop).time(self._loop)
        return time

    def microseconds(self, moment: float) -> int:
        """Convert seconds since the epoch to microseconds since :attr:`base`, the journal's unit."""
        return round(moment * 1_000_000) - self.base * 1000

    def nanoseconds(self) -> int:
        """Return the time in the body, in nanoseconds since the epoch."""
        return (self.base * 1000 + self.journal.now()) * 1000

    def moved(self, until: float, asked: int | None) -> float:
        """Return the end of a wait, in a run that goes on from what another run has done.

        The wait has as much time left as it had when the other run was there.

        Args:
            until: Its end in the other run, in seconds since the epoch.
            asked: Time on the body's clock at which the body began it; None if the body waits for a moment, and not
                for a while.
        """
        takeover = self._takeover
        if asked is None or asked > takeover.until or takeover.until < 0:
            return until
        if takeover.moved_by is None:
            takeover.moved_by = self.elapsed() - takeover.until
        return min(until + takeover.moved_by / 1_000_000, FAR_FUTURE - 1)

    def due(self, key: str) -> int | None:
        """Return the end of a wait that the body was in, in the journal's unit; None for other steps."""
        waiting = self._waits.carried.get(key)
        return None if waiting is None or waiting.until is None else self.microseconds(waiting.until)

    def shortest(self, key: str) -> timedelta:
        """Return the minimum length of the timer of a wait.

        Waits that are over when the body has come back get timers that fire in the order in which they were over, and
        not in the order in which the body begins them.
        """
        return SHORTEST * (1 + self.journal.ranks.get(key, 0))

    def note_passed(self, key: str, until: float) -> None:
        """Note the end of a wait that was over when an earlier execution handed it over.

        Args:
            key: The key of the wait.
            until: Its end, in seconds since the epoch.
        """
        self._passed[key] = self.microseconds(until)

    def passed_at(self, key: str) -> int | None:
        """Return, once, the noted end of a wait, in the journal's unit; None for other steps."""
        return self._passed.pop(key, None)
