"""Turns for the other tasks of an event loop, while one matches many events."""

from __future__ import annotations

import asyncio
import time

LONGEST_TURN = 0.02
"""Seconds that a task keeps the event loop, but for one expression, which may take some 0.1 s more."""


class Pace:
    """Lets the other tasks of an event loop, such as probes, have their turn while one does much at once."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    async def keep(self) -> None:
        """Give the others a turn, if it is time."""
        if time.monotonic() - self._since > LONGEST_TURN:
            await asyncio.sleep(0)
            self._since = time.monotonic()
