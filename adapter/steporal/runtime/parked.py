"""Waiting of a parked run: one that has continued as new to wait without its handler.

Nothing of the user's code runs here, so the code may be edited while the run is parked.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from temporalio import workflow

from ..sdk.wait_until import wait_until
from ..sdk.worker_versioning import follow_the_current_version
from ..types import JSON
from ..wire.names import GOES_ON
from ..wire.waits import EventWait, InvokeWait, NextWait, SignalWait, TimedWait, Waiting, box_of, moments_of
from .continuing import Continuing, ContinuingRun, time_until


class Parked:
    """Waits of a parked run.

    Args:
        run: The run.
        continuing: Decides when the run continues as new again.
    """

    def __init__(self, run: ContinuingRun, continuing: Continuing) -> None:
        self._run = run
        self._continuing = continuing
        self._is_requested = False

    def checkpoint(self, message: JSON) -> None:
        """Continue as new once more if a checkpoint is requested: who requests it reads the hold from the arguments."""
        self._continuing.checkpoint(message)
        self._is_requested = self._continuing.held_until is not None

    async def until_due(self) -> None:
        """Wait until the handler has something to do."""
        waits = self._run.waits.inside()
        for waiting in waits.values():
            if isinstance(waiting, InvokeWait):
                waiting.next_poll(workflow.time())
        loop = asyncio.get_running_loop()
        follow_the_current_version(loop, True)
        try:
            while not self._is_due(waits):
                await self._until_something_arrives(waits)
                self._continuing.check_end()
                if self._is_requested or self._continuing.is_overdue:
                    await self._continuing.until_all_is_seen()
                    self._is_requested = False
                    self._continuing.go(is_parked=True)
        except asyncio.CancelledError:
            self._resume(loop)
            raise
        self._resume(loop)

    def _resume(self, loop: asyncio.AbstractEventLoop) -> None:
        self._continuing.held_until = None
        follow_the_current_version(loop, False)

    async def _until_something_arrives(self, waits: dict[str, Waiting]) -> None:
        continuing = self._continuing
        held_until = continuing.held_until
        until = _earliest(waits) if held_until is None else held_until
        with suppress(TimeoutError):
            await wait_until(
                lambda: (
                    self._is_requested
                    or continuing.is_overdue
                    or continuing.held_until != held_until
                    or self._is_due(waits)
                    or continuing.is_at_its_end()
                ),
                timeout=None if until is None else time_until(until),
                summary=GOES_ON,
            )

    def _is_due(self, waits: dict[str, Waiting]) -> bool:
        if self._continuing.held_until is not None:
            return not self._continuing.is_held
        earliest = _earliest(waits)
        if not waits or (earliest is not None and earliest <= workflow.time()):
            return True
        return any(self._has_arrived(key, waiting) for key, waiting in waits.items())

    def _has_arrived(self, key: str, waiting: Waiting) -> bool:
        run = self._run
        match waiting:
            case EventWait() | NextWait():
                box = run.inbox.boxes.get(box_of(key, waiting))
                return box is None or box.is_closed or bool(box.events)
            case SignalWait(wait=wait):
                return run.signals.has(wait.key)
            case InvokeWait(child=child):
                return child in run.children.ended
            case TimedWait():
                return False


def _earliest(waits: dict[str, Waiting]) -> float | None:
    return min((moment for waiting in waits.values() for moment in moments_of(waiting)), default=None)
