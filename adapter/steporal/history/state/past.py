"""Past of a body: everything that has reached it, in its order, and its attempts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ...types import JSON
from ...wire.journal_entries import Entry
from ...wire.journal_entries import Kind as EntryKind
from ...wire.names import BACKOFF_AFTER, BEGINS_ANEW
from ...wire.run_state import RunState
from .clock import Clock


class Past:
    """Past of a body.

    Args:
        carried: The state that the execution begins with.
        clock: The run's clock.

    Attributes:
        is_seen: Whether the body receives what happens; a parked body receives nothing.
    """

    def __init__(self, carried: RunState, clock: Clock) -> None:
        self._clock = clock
        self.is_seen: bool = True
        self._entries = [Entry.read(entry) for entry in carried.past]
        self._sent: set[str] = set()  # steps that may send more
        self._failures = carried.failures
        self._attempt = carried.attempt
        self._attempt_began = carried.attempt_began
        self._repeated = carried.repeated
        self._begins_anew = carried.begins_anew

    def state(self) -> dict[str, Any]:
        """Return the fields of the state for another execution."""
        return {
            "past": [entry.json() for entry in self._entries],
            "failures": self._failures,
            "attempt": self._attempt,
            "attempt_began": self._attempt_began,
            "repeated": self._repeated,
            "begins_anew": self._begins_anew,
        }

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """Apply what the body does not receive in this context."""
        is_seen, self.is_seen = self.is_seen, False
        try:
            yield
        finally:
            self.is_seen = is_seen

    # --- what has reached the body ---------------------------------------------------------------------------------

    def record(self, kind: EntryKind, key: str, at: int | None = None, event: JSON = None) -> None:
        """Record what the body receives now, or at the given time since the run's start."""
        self._entries.append(Entry(kind, key, self._clock.since_start() if at is None else at, event))

    def record_end(self, key: str, at: int | None) -> None:
        """Record the end of a step, unless it is recorded already or the body does not receive it."""
        if key not in self._sent and (self.is_seen or self._clock.local_end is not None):
            self.record("step", key, at)
        self._sent.discard(key)

    def record_cancellation(self) -> None:
        """Record that the run is cancelled; a run is cancelled once."""
        if self.is_seen and not any(entry.kind == "cancel" for entry in self._entries):
            self.record("cancel", "")

    def sent(self, key: str) -> None:
        """Record that a step has sent everything so far; only what follows shows whether it has ended."""
        if self.is_seen:
            self.record("step", key)
            self._sent.add(key)

    def sends_more(self, key: str) -> None:
        """Take back the end of a step that sends more."""
        if key in self._sent:
            self._sent.discard(key)
            position = next(n for n, entry in enumerate(self._entries) if entry.mark == ("step", key))
            del self._entries[position]
            self._repeated -= position < self._repeated

    # --- attempts of the body --------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Note the first start of the body."""
        self._attempt_began = self._clock.task_since_start()

    def progress(self) -> None:
        """Note that a step has ended, after which the attempts of the body are counted from the start."""
        self._failures = 0

    def back_off(self, text: str) -> None:
        """Note the failure of an attempt; ``text`` is the summary of the timer until the next one."""
        self._failures = int(text.removeprefix(BACKOFF_AFTER).split()[0])
        self._begins_anew = text.endswith(BEGINS_ANEW)

    def next_attempt(self) -> None:
        """Begin the next attempt, which repeats everything so far."""
        self._attempt = self._failures
        self._repeated = len(self._entries)
        if self._begins_anew and self._entries:
            self._entries[-1] = replace(self._entries[-1], at=self._clock.task_since_start())
        elif self._begins_anew:
            self._attempt_began = self._clock.task_since_start()
