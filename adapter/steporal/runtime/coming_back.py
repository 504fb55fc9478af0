"""The way of a body, from the top, through finished steps to where it was: in parts, so that it may be long.

The SDK ends a workflow task that computes for two seconds, and may then lose the run until its worker is started again.
Through ten thousand finished steps a body comes in a quarter of a second, if it has a processor to itself.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow

from .waits import COMES_BACK

STEPS_PER_TASK = 1_000
"""After so many finished steps the body waits for the next workflow task. A live run replays with this number."""

_PATCH = "steporal.coming_back"
_MOMENT = timedelta(milliseconds=1)


class WayBack:
    """Counts the finished steps that a body comes to, and holds all of it for a moment now and then."""

    def __init__(self) -> None:
        self._passed = 0
        self._pause: asyncio.Event | None = None

    @property
    def is_paused(self) -> bool:
        """Whether the body is held."""
        return self._pause is not None

    async def passes(self) -> None:
        """The body has come to a finished step."""
        while self._pause is not None:
            await self._pause.wait()
        self._passed += 1
        if self._passed % STEPS_PER_TASK == 0 and workflow.patched(_PATCH):
            pause = self._pause = asyncio.Event()
            try:
                await workflow.sleep(_MOMENT, summary=COMES_BACK)
            finally:
                self._pause = None
                pause.set()
