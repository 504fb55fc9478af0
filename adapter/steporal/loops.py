"""Event loops: values that belong to one loop, and a background loop for callers that have no loop.

A connected client of Temporal's SDK works from any event loop. asyncio's locks and futures do not: a lock belongs to
the first loop that waited for it, and waking a waiter of another loop is not thread-safe. So each loop gets its own
locks, and no caller ever waits for work in the loop of another caller, which may close at any moment. Work that several
loops need once, such as connecting, runs in the background loop, which never closes.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, ParamSpec, TypeVar

from temporalio import workflow

from .errors import EventLoopError

T = TypeVar("T")
P = ParamSpec("P")


class PerLoop(Generic[T]):
    """Value for each event loop; values of closed loops are dropped.

    Args:
        make: Makes the value for a loop that has none yet.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[asyncio.AbstractEventLoop, T] = {}  # only a loop's own thread reads or writes its key

    def get(self) -> T:
        """Return the value of the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._values:
            for closed in [other for other in tuple(self._values) if other.is_closed()]:
                self._values.pop(closed, None)
            self._values[loop] = self._make()
        return self._values[loop]


# --- the background loop -------------------------------------------------------------------------------------------


class _Background:
    """Event loop in a daemon thread, started on first use."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                threading.Thread(target=loop.run_forever, name="steporal-background", daemon=True).start()
                self._loop = loop
            return self._loop


_background = _Background()


def _forget_background() -> None:
    """Start anew in a forked child, which has no background thread, and no owner for a lock that was held."""
    global _background
    _background = _Background()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_background)


async def in_background(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the background loop, and wait for it; cancelling the caller does not cancel the coroutine."""
    return await asyncio.shield(asyncio.wrap_future(start_in_background(coroutine)))


def start_in_background(coroutine: Coroutine[Any, Any, T]) -> Any:
    """Start a coroutine in the background loop; return its ``concurrent.futures.Future``."""
    return asyncio.run_coroutine_threadsafe(coroutine, _background.loop)


def blocking(name: str, method: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call an async method in the background loop, and block until it is done.

    Args:
        name: The method's name in messages: ``client.send_event``.
        method: The async method.
        *args: Its arguments.
        **kwargs: Its keyword arguments.

    Raises:
        EventLoopError: An event loop is running in this thread, or this is the body of a workflow.
    """
    _refuse_in_loop(name)
    future = start_in_background(method(*args, **kwargs))
    try:
        result: T = future.result()
    except BaseException:
        future.cancel()  # the caller was interrupted; this has no effect if the call itself has failed
        raise
    return result


def _refuse_in_loop(name: str) -> None:
    if workflow.in_workflow():
        raise EventLoopError(
            f"{name}_sync(...) was called in the body of a workflow, which it would block; call it in a step"
        )
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise EventLoopError(
        f"{name}_sync(...) was called while an event loop is running in this thread, which it would block; "
        f"write `await {name}(...)`"
    )
