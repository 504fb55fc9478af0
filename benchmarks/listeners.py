"""Workflows that start on one event: 1, 10 and 100 of them."""

from __future__ import annotations

import steporal
from steporal import Context, Step, event_trigger

client = steporal.Client("listeners")


def listener(number: int, name: str) -> None:
    """One more workflow that starts on an event."""

    @client.workflow(id=f"{name}-{number}", triggers=[event_trigger(name)])
    async def on_event(ctx: Context, step: Step) -> None:
        return None


for size in (1, 10, 100):
    for number in range(size):
        listener(number, f"starts.{size}")
listener(0, "one.of.many")
