"""Waits of a run as data, so that another execution can continue them without the handler."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from ..types import JSON
from .names import ASYNCIO_TIMER, BACKOFF_AFTER, COMES_BACK, GOES_ON, PARKS, UNTIL_CODE, UNTIL_NEXT_ATTEMPT, UNTIL_TS

Kind = Literal["sleep", "event", "next", "signal", "invoke", "backoff", "timer", "asyncio", "start"]
"""Kinds of waits. ``timer``: a sleep or a listener's ``next``, which a history does not distinguish. ``asyncio``: a
timer that the body started by ``asyncio.sleep``, ``timeout`` or ``wait_for``. ``start``: the time of the event that
starts the run."""

BACKOFF = ""
"""Key of the wait between two attempts of the body; no step has it."""

# The summaries of timers: a step's timer has the step's key. ``history/recovery.py`` reads them.


def is_of_no_step(text: str) -> bool:
    """Return whether a timer's summary belongs to no step."""
    return text in (PARKS, GOES_ON, COMES_BACK) or text.startswith(
        (BACKOFF_AFTER, UNTIL_TS, UNTIL_CODE, UNTIL_NEXT_ATTEMPT, ASYNCIO_TIMER)
    )


@dataclass(slots=True)
class Waiting:
    """One wait.

    Attributes:
        kind: The kind of the wait.
        until: The latest end, in seconds since the epoch.
        more: Data of the kind, as JSON.
        timers: The number of Temporal timers of the wait.
    """

    kind: Kind
    until: float | None = None
    more: dict[str, Any] = field(default_factory=dict)
    timers: int = 1

    def json(self) -> JSON:
        """Return the wait as another execution reads it."""
        return {"kind": self.kind, "until": self.until, "more": self.more}


SHORTEST = timedelta(milliseconds=1)
"""Duration of a timer whose only purpose is to be in the history."""


def left_until(until: float, now: float) -> timedelta:
    """Return the time left, rounded up to a millisecond; float timestamps are not exact to one."""
    return timedelta(milliseconds=math.ceil((until - now) * 1000 - 0.01))


class Waits:
    """Waits of a run.

    Attributes:
        now: The waits that the body is in, by key.
        carried: The waits of the previous execution that no step has resumed yet.
        changes: The number of changes, here or in the rest of the run's state.
    """

    def __init__(self) -> None:
        self.now: dict[str, Waiting] = {}
        self.carried: dict[str, Waiting] = {}
        self.changes: int = 0
        self._inside: set[str] = set()
        self._were_inside: set[str] = set()

    def state(self) -> dict[str, tuple[bool, JSON]]:
        """Return the hand-over state: each wait, and whether the body is in it."""
        carried = {key: (key in self._inside, waiting.json()) for key, waiting in self.carried.items()}
        return carried | {key: (True, waiting.json()) for key, waiting in self.now.items()}

    def restore(self, state: Mapping[str, tuple[bool, Any]]) -> None:
        """Restore the state of the previous execution."""
        for key, (is_inside, waiting) in state.items():
            self.carried[key] = Waiting(waiting["kind"], waiting["until"], waiting["more"])
            if is_inside:
                self._inside.add(key)
                self._were_inside.add(key)

    def inside(self) -> dict[str, Waiting]:
        """Return the waits that the body was in when the previous execution ended."""
        return {key: waiting for key, waiting in self.carried.items() if key in self._inside}

    def awake(self) -> None:
        """Note that the handler starts, and reports its own waits from now on."""
        self._inside.clear()
        for key in [key for key, waiting in self.carried.items() if waiting.kind == "asyncio"]:
            del self.carried[key]  # the body starts its own timers again when it resumes

    def is_known_to_be_over(self, key: str) -> bool:
        """Return whether the end of an overdue wait needs no further entry in the history.

        It needs none if the previous execution handed the wait over. Otherwise the history would not show in which
        order the body received the end, and a recovery could deliver it in another order.
        """
        return key in self._were_inside

    def begin(self, key: str, waiting: Waiting) -> None:
        """Note that the body is in a wait."""
        self.now[key] = waiting
        self.changes += 1

    def end(self, key: str) -> None:
        """Note that the body is no longer in a wait."""
        self.now.pop(key, None)
        self.changes += 1

    @contextmanager
    def during(self, key: str, waiting: Waiting) -> Iterator[None]:
        """Mark the awaits in this context as a wait that another execution can also await."""
        self.begin(key, waiting)
        try:
            yield
        finally:
            self.end(key)

    def resume(self, key: str, kind: Kind) -> Waiting | None:
        """Return the wait that a step was in when the previous execution ended.

        Return None if the wait had not begun, or if the code was edited and the step is now of another kind. The old
        wait then stays where it is, and ends with the run.
        """
        waiting = self.carried.get(key)
        if waiting is not None and waiting.kind == "timer" and kind in ("sleep", "next"):
            waiting.kind = kind
        if waiting is None or waiting.kind != kind:
            return None
        return self.carried.pop(key)

    def earliest(self) -> float | None:
        """Return the end of the earliest wait that the body is in, in seconds since the epoch."""
        return min((waiting.until for waiting in self.now.values() if waiting.until is not None), default=None)
