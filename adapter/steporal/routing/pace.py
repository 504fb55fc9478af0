"""Pauses for the other tasks of an event loop, while one task matches many events."""

from __future__ import annotations

import asyncio
import time

LONGEST_TURN = 0.02
"""Seconds that a task keeps the event loop; one expression may add about 0.1 s."""


class Pace:
    """Lets the other tasks of an event loop, such as health probes, run while one task does much work."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    async def keep(self) -> None:
        """Let the other tasks run, if it is time."""
        if time.monotonic() - self._since > LONGEST_TURN:
            await asyncio.sleep(0)
            self._since = time.monotonic()
