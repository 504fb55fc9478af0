"""What a run waits for, as data: so that another execution of it can go on waiting, without the handler."""

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
"""``timer``: a sleep or a listener's ``next``, which a history does not tell apart. ``asyncio``: a timer that the body
has started by ``asyncio.sleep``, ``timeout`` or ``wait_for``. ``start``: the time of the event that starts the run."""

BACKOFF = ""
"""The key of the wait between two attempts of the body; no step has it."""

# The summaries of timers: a step's has its key. `rebuilding` reads them.


def is_of_no_step(text: str) -> bool:
    """Whether a timer's summary is none of a step's."""
    return text in (PARKS, GOES_ON, COMES_BACK) or text.startswith(
        (BACKOFF_AFTER, UNTIL_TS, UNTIL_CODE, UNTIL_NEXT_ATTEMPT, ASYNCIO_TIMER)
    )


@dataclass(slots=True)
class Waiting:
    """One wait.

    Attributes:
        kind: What for.
        until: When it ends at the latest, in seconds since the epoch.
        more: What belongs to the kind, as JSON.
        timers: How many of Temporal's timers it has.
    """

    kind: Kind
    until: float | None = None
    more: dict[str, Any] = field(default_factory=dict)
    timers: int = 1

    def json(self) -> JSON:
        """As another execution reads it."""
        return {"kind": self.kind, "until": self.until, "more": self.more}


SHORTEST = timedelta(milliseconds=1)
"""The time of a timer that is only there to be in the history."""


def left_until(until: float, now: float) -> timedelta:
    """How long it is, in whole milliseconds, the last one begun counted; times since the epoch are not exact to one."""
    return timedelta(milliseconds=math.ceil((until - now) * 1000 - 0.01))


class Waits:
    """The waits of a run.

    Attributes:
        now: Those that the body is in, by key.
        carried: Those of the execution before that no step has come back for yet.
        changes: How often something has changed, here or in what the run holds.
    """

    def __init__(self) -> None:
        self.now: dict[str, Waiting] = {}
        self.carried: dict[str, Waiting] = {}
        self.changes: int = 0
        self._inside: set[str] = set()
        self._were_inside: set[str] = set()

    def state(self) -> dict[str, tuple[bool, JSON]]:
        """What another execution goes on with: each wait, and whether the body is in it."""
        carried = {key: (key in self._inside, waiting.json()) for key, waiting in self.carried.items()}
        return carried | {key: (True, waiting.json()) for key, waiting in self.now.items()}

    def restore(self, state: Mapping[str, tuple[bool, Any]]) -> None:
        """Go on with what the execution before had."""
        for key, (is_inside, waiting) in state.items():
            self.carried[key] = Waiting(waiting["kind"], waiting["until"], waiting["more"])
            if is_inside:
                self._inside.add(key)
                self._were_inside.add(key)

    def inside(self) -> dict[str, Waiting]:
        """The waits that the body was in when the execution before ended."""
        return {key: waiting for key, waiting in self.carried.items() if key in self._inside}

    def awake(self) -> None:
        """The handler starts: from now on it says itself what it waits for."""
        self._inside.clear()
        for key in [key for key, waiting in self.carried.items() if waiting.kind == "asyncio"]:
            del self.carried[key]  # the body starts its timers itself when it comes back

    def is_known_to_be_over(self, key: str) -> bool:
        """Return whether it needs no further entry in the history that a wait is over whose time has passed.

        It needs none if the execution before has handed the wait over. Else nothing in the history would show in which
        order the body was given it, and a recovery could give it in another.
        """
        return key in self._were_inside

    def begin(self, key: str, waiting: Waiting) -> None:
        """The body is in a wait."""
        self.now[key] = waiting
        self.changes += 1

    def end(self, key: str) -> None:
        """The body is in a wait no more."""
        self.now.pop(key, None)
        self.changes += 1

    @contextmanager
    def during(self, key: str, waiting: Waiting) -> Iterator[None]:
        """What is awaited in this context can also be awaited by another execution."""
        self.begin(key, waiting)
        try:
            yield
        finally:
            self.end(key)

    def resume(self, key: str, kind: Kind) -> Waiting | None:
        """The wait that a step was in when the execution before ended.

        None if it had not begun, or if the code was edited and the step is of another kind now; then the old wait is
        left where it is, and ends with the run.
        """
        waiting = self.carried.get(key)
        if waiting is not None and waiting.kind == "timer" and kind in ("sleep", "next"):
            waiting.kind = kind
        if waiting is None or waiting.kind != kind:
            return None
        return self.carried.pop(key)

    def earliest(self) -> float | None:
        """When the first of the waits that the body is in ends, in seconds since the epoch."""
        return min((waiting.until for waiting in self.now.values() if waiting.until is not None), default=None)
