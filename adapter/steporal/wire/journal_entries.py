"""Entries of the journal of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..types import JSON

Kind = Literal["step", "timer", "ended", "cancel", "event"]
"""The kinds of entries.

``step``: the outcome of a step reached the body. ``timer``: a timer of ``asyncio`` that the body started fired.
``ended``: a wait for a signal that the body cancelled has ended. ``cancel``: the run was cancelled. ``event``: an event
arrived at a listener; only in a journal that was read from a history, which does not show which ``next`` took it.
"""

Mark = tuple[str, str]
"""Kind and key of an entry."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that reached the body.

    Attributes:
        kind: Its kind.
        key: The step, timer, wait or listener that it reached; empty for a cancellation of the run.
        at: The time in the body, in microseconds since the journal's epoch.
        event: The event, for kind ``event``.
    """

    kind: Kind
    key: str
    at: int
    event: Any = None

    def json(self) -> JSON:
        """The entry as an execution hands it to the next one."""
        entry: list[JSON] = [self.kind, self.key, self.at]
        return entry if self.event is None else [*entry, self.event]

    @classmethod
    def read(cls, data: Sequence[Any]) -> Entry:
        """The inverse of :meth:`json`."""
        return cls(*data)

    @property
    def mark(self) -> Mark:
        """Kind and key."""
        return self.kind, self.key


def is_entry(data: JSON) -> bool:
    """Return whether :meth:`Entry.read` can read a value."""
    if not isinstance(data, list) or len(data) not in (3, 4):
        return False
    kind, key, at = data[:3]
    return (
        kind in get_args(Kind)
        and isinstance(key, str)
        and isinstance(at, int)
        and (kind == "event") == (len(data) == 4)
    )
