"""Events that come from Inngest while both systems run side by side, and must not be sent back to it.

The program that forwards them here puts ``inngest:`` before their id. The id is the one field of an event that every
system in between keeps, and that producers without custom headers can set. This module removes the mark; the rest is
the event's id in Inngest. So an event that was sent here, forwarded to Inngest and brought back has its original id,
and starts nothing again.
"""

from __future__ import annotations

from ..events import ReceivedEvent

MARK = "inngest:"


def is_bridged(event: ReceivedEvent) -> bool:
    """Return whether an event comes from Inngest."""
    return event.id.startswith(MARK)


def unmarked(event: ReceivedEvent) -> ReceivedEvent:
    """Return the event with its id in Inngest."""
    return event.model_copy(update={"id": unmarked_id(event.id)}) if is_bridged(event) else event


def unmarked_id(id: str) -> str:
    """Return an event's id without the mark."""
    return id.removeprefix(MARK) or id
