"""Watchdog for async step functions that block the event loop.

While a step function blocks the loop, no other step of the worker makes progress, and no new work begins. A thread
schedules a callback on each event loop with running step functions, and inspects the loop's stack if it does not run.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from types import CoroutineType, FrameType
from typing import Any, TypeVar

from ..closures.code import place
from ..wire.failures import is_users

BLOCKED_SECONDS = 5.0
_PAUSE_SECONDS = 0.5
_CHECKS_UNTIL_BLOCKED = int(BLOCKED_SECONDS / _PAUSE_SECONDS) + 1

logger: logging.Logger = logging.getLogger("steporal")

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Loop:
    """Event loop that runs step functions.

    Attributes:
        loop: The event loop.
        thread: Its thread.
        checks: The number of checks by the watchdog since the loop last responded.
    """

    loop: asyncio.AbstractEventLoop
    thread: int
    checks: int = 0

    def answer(self) -> None:
        self.checks = 0


@dataclass(slots=True, eq=False)
class _Running:
    """Step function that runs on an event loop."""

    step_id: str
    coroutine: Awaitable[Any]
    loop: asyncio.AbstractEventLoop


class _Watchdog:
    def __init__(self) -> None:
        self._running: dict[_Running, None] = {}
        self._loops: dict[asyncio.AbstractEventLoop, _Loop] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, running: _Running) -> None:
        with self._changed:
            self._running[running] = None
            if running.loop not in self._loops:
                self._loops[running.loop] = _Loop(running.loop, threading.get_ident())
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="steporal-watchdog", daemon=True)
                self._thread.start()
            elif len(self._running) == 1:
                self._changed.notify()

    def remove(self, running: _Running) -> None:
        with self._changed:
            self._running.pop(running, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._running:
                    self._loops.clear()
                    self._changed.wait()
                loops = [(loop, [r for r in self._running if r.loop is loop.loop]) for loop in self._loops.values()]
            for loop, running in loops:
                self._check(loop, running)
            time.sleep(_PAUSE_SECONDS)

    def _check(self, loop: _Loop, running: list[_Running]) -> None:
        # Checks are counted, not timed: if the whole process was stopped, the loop responds before the next check.
        loop.checks += 1
        if loop.checks == 1:
            try:
                loop.loop.call_soon_threadsafe(loop.answer)
            except RuntimeError:  # the loop is closed
                with self._changed:
                    self._loops.pop(loop.loop, None)
        elif loop.checks == _CHECKS_UNTIL_BLOCKED:
            _report(loop, running)


def _report(loop: _Loop, running: list[_Running]) -> None:
    frames = list(_stack(sys._current_frames().get(loop.thread)))
    at = next((frame for frame in frames if is_users(frame.f_code.co_filename)), None)
    where = f"{_line(at)}, in {at.f_code.co_name}" if at is not None else "code that is not part of the app"
    for step in running:
        frame = step.coroutine.cr_frame if isinstance(step.coroutine, CoroutineType) else None
        if frame is not None and frame in frames:
            logger.warning(
                "step %r (%s) blocks the event loop: it has been at %s for over %g s, and no other async step of this "
                "worker makes progress; write it as a plain def, which runs in a thread",
                step.step_id,
                place(frame.f_code),
                where,
                BLOCKED_SECONDS,
            )
            return
    logger.warning("the event loop has been blocked for over %g s, at %s", BLOCKED_SECONDS, where)


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _line(frame: FrameType) -> str:
    return f"{place(frame.f_code).rpartition(':')[0]}:{frame.f_lineno}"


_watchdog = _Watchdog()


async def watched(step_id: str, coroutine: Awaitable[T]) -> T:
    """Await the coroutine of a step function, and warn if it blocks the event loop."""
    running = _Running(step_id, coroutine, asyncio.get_running_loop())
    _watchdog.add(running)
    try:
        return await coroutine
    finally:
        _watchdog.remove(running)
