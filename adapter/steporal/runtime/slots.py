"""Limit of the steps of a run that are in flight at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..observability.run_metrics import StepKind

MAX_IN_FLIGHT = 1_000
"""Number of activities and invoked runs that a run has in flight at most; what is called beyond begins in call order.

The server refuses, again and again, a workflow task that leaves more than 2,000 of either pending
(``limit.numPendingActivities.error``, ``limit.numPendingChildExecutions.error``). A live run replays with this number.
"""

_COUNTED: tuple[StepKind, ...] = ("run", "send_event", "send_signal", "fetch", "invoke_workflow")


class Slots:
    """The slots of a run's steps.

    Attributes:
        queued: The steps that wait for one.
    """

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(MAX_IN_FLIGHT)
        self.queued: dict[str, None] = {}

    @asynccontextmanager
    async def of(self, key: str, kind: StepKind, *, is_resumed: bool) -> AsyncIterator[None]:
        """Keep a slot while a step is in flight.

        Args:
            key: The step's key.
            kind: The step's kind; waits and sleeps need no slot.
            is_resumed: Whether it is a wait that an execution before has begun, which needs none either.
        """
        if kind not in _COUNTED or is_resumed:
            yield
            return
        self.queued[key] = None
        try:
            await self._free.acquire()
        finally:
            del self.queued[key]
        try:
            yield
        finally:
            self._free.release()
