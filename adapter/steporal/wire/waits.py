"""Waits of a run as data, so that another execution can continue them without the handler."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..types import JSON
from ..values.adapters import adapter
from .limits import FAR_FUTURE
from .mailbox_wait import Wait
from .names import ASYNCIO_TIMER, BACKOFF_AFTER, COMES_BACK, GOES_ON, PARKS, UNTIL_CODE, UNTIL_NEXT_ATTEMPT, UNTIL_TS

Kind = Literal["sleep", "event", "next", "signal", "invoke", "backoff", "timer", "asyncio", "start"]
"""Kinds of waits. ``timer``: a sleep or a listener's ``next``, which a history does not distinguish. ``asyncio``: a
timer that the body started by ``asyncio.sleep``, ``timeout`` or ``wait_for``. ``start``: the time of the event that
starts the run."""

Moment = Annotated[float, Field(allow_inf_nan=False, ge=0, le=FAR_FUTURE)]
"""Time in seconds since the epoch."""

Interval = Annotated[float, Field(allow_inf_nan=False, gt=0, le=FAR_FUTURE)]
"""Duration in seconds."""

BACKOFF = ""
"""Key of the wait between two attempts of the body; no step has it."""

# The summaries of timers: a step's timer has the step's key. ``history/reading.py`` reads them.


def is_of_no_step(text: str) -> bool:
    """Return whether a timer's summary belongs to no step."""
    return text in (PARKS, GOES_ON, COMES_BACK) or text.startswith(
        (BACKOFF_AFTER, UNTIL_TS, UNTIL_CODE, UNTIL_NEXT_ATTEMPT, ASYNCIO_TIMER)
    )


@dataclass(slots=True)
class TimedWait:
    """Wait for a point in time.

    Attributes:
        kind: The kind of the wait.
        until: The time, in seconds since the epoch.
    """

    kind: Literal["sleep", "backoff", "timer", "asyncio", "start"]
    until: Moment


@dataclass(slots=True)
class EventWait:
    """Wait for one event, by ``step.ext.wait_for_event``.

    Attributes:
        until: The end of the wait, in seconds since the epoch.
    """

    until: Moment
    kind: ClassVar[Literal["event"]] = "event"


@dataclass(slots=True)
class NextWait:
    """Wait for the next event of a listener.

    Attributes:
        until: The end of the wait, in seconds since the epoch.
        box: The key of the listener.
    """

    until: Moment
    box: str
    kind: ClassVar[Literal["next"]] = "next"


@dataclass(slots=True)
class SignalWait:
    """Wait for a signal.

    Attributes:
        until: The end of the wait, in seconds since the epoch.
        wait: The wait in the form for its mailbox.
        mailbox: The Temporal run id of the mailbox.
    """

    until: Moment
    wait: Wait
    mailbox: str
    kind: ClassVar[Literal["signal"]] = "signal"


@dataclass(slots=True)
class InvokeWait:
    """Wait for the end of an invoked run.

    Attributes:
        until: The end of the wait, in seconds since the epoch; None without a timeout.
        child: The invoked run's workflow id.
        poll_interval: The seconds after which the run is polled, in case it does not report its end.
        next_poll_at: The time of the next poll, in seconds since the epoch; None while the run is a child of this
            execution, and Temporal reports its end.
        report_requested: Whether the run was asked to report its end.
    """

    until: Moment | None
    child: str
    poll_interval: Interval
    next_poll_at: Moment | None = None
    report_requested: bool = False
    kind: ClassVar[Literal["invoke"]] = "invoke"

    def next_poll(self, now: float) -> float:
        """Return the time of the next poll, in seconds since the epoch; set it if there is none yet."""
        if self.next_poll_at is None:
            self.next_poll_at = now + self.poll_interval
        return self.next_poll_at


Waiting = TimedWait | EventWait | NextWait | SignalWait | InvokeWait

_CLASSES: dict[str, type[Waiting]] = {
    **dict.fromkeys(("sleep", "backoff", "timer", "asyncio", "start"), TimedWait),
    **{cls.kind: cls for cls in (EventWait, NextWait, SignalWait, InvokeWait)},
}


def waiting_json(waiting: Waiting) -> JSON:
    """Return a wait as another execution reads it."""
    values = {field.name: getattr(waiting, field.name) for field in fields(waiting)}
    if isinstance(waiting, SignalWait):
        values["wait"] = waiting.wait.model_dump(mode="json")
    return {"kind": waiting.kind, **{name: value for name, value in values.items() if value is not None}}


def read_waiting(data: Any) -> Waiting:
    """Read the output of :func:`waiting_json`; a wait is returned unchanged.

    Raises:
        ValueError: The data is not a wait.
    """
    if isinstance(data, Waiting):
        return data
    kind = data.get("kind") if isinstance(data, dict) else None
    cls = _CLASSES.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise ValueError("a wait has no kind")
    waiting: Waiting = adapter(cls).validate_python({"until": None, **data})
    return waiting


def box_of(key: str, waiting: EventWait | NextWait) -> str:
    """Return the key of the box that receives the events of a wait."""
    return waiting.box if isinstance(waiting, NextWait) else key


def moments_of(waiting: Waiting) -> Iterator[float]:
    """Yield the times at which a wait needs attention."""
    if waiting.until is not None:
        yield waiting.until
    if isinstance(waiting, InvokeWait) and waiting.next_poll_at is not None:
        yield waiting.next_poll_at


def timers_of(waiting: Waiting) -> int:
    """Return the number of Temporal timers that run for a wait."""
    return int(waiting.until is not None or (isinstance(waiting, InvokeWait) and waiting.next_poll_at is not None))


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

    def state(self) -> dict[str, tuple[bool, Waiting]]:
        """Return the hand-over state: each wait, and whether the body is in it."""
        carried = {key: (key in self._inside, waiting) for key, waiting in self.carried.items()}
        return carried | {key: (True, waiting) for key, waiting in self.now.items()}

    def restore(self, state: Mapping[str, tuple[bool, Waiting]]) -> None:
        """Restore the state of the previous execution."""
        for key, (is_inside, waiting) in state.items():
            self.carried[key] = waiting
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

    def resume(self, key: str, *kinds: Kind) -> Waiting | None:
        """Return the wait that a step was in when the previous execution ended.

        Return None if the wait had not begun, or if the code was edited and the step is now of another kind. The old
        wait then stays where it is, and ends with the run.

        Args:
            key: The step's key.
            kinds: The kinds of waits that the step may have been in.
        """
        waiting = self.carried.get(key)
        return self.carried.pop(key) if waiting is not None and waiting.kind in kinds else None

    def earliest(self) -> float | None:
        """Return the end of the earliest wait that the body is in, in seconds since the epoch."""
        return min((waiting.until for waiting in self.now.values() if waiting.until is not None), default=None)
