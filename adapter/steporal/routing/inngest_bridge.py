"""Events that come from Inngest while both systems run side by side, and must not be sent back to it.

What brings them here puts ``inngest:`` before their id. An id is the one field of an event that every system between
keeps, and that producers without headers of their own can set. Here the mark is taken off: what is left is the id that
the event has in Inngest. So an event that was sent here, forwarded to Inngest and brought back has the id that it was
sent with, and starts nothing again.
"""

from __future__ import annotations

from ..events import ReceivedEvent

MARK = "inngest:"


def is_bridged(event: ReceivedEvent) -> bool:
    """Whether an event has come from Inngest."""
    return event.id.startswith(MARK)


def unmarked(event: ReceivedEvent) -> ReceivedEvent:
    """The event with the id that it has in Inngest."""
    return event.model_copy(update={"id": unmarked_id(event.id)}) if is_bridged(event) else event


def unmarked_id(id: str) -> str:
    """An event's id without the mark."""
    return id.removeprefix(MARK) or id
