"""Threads for step functions that are not ``async``.

A thread cannot be ended from outside. If the attempt of a step function is cancelled or times out, an exception is
raised in its thread, as Temporal's SDK does for its own sync activities. Python raises it when the thread next executes
bytecode, so a function that is blocked in a system call continues until that call returns. Until then it counts as
stuck, and its attempt keeps the worker's slot: a worker never takes more steps than it has threads for.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from temporalio.exceptions import CancelledError

MAX_THREADS = 10_000
"""Limit of threads. They start on demand, limited by the worker's slots for steps, however many a tuner grants."""


class StepThreads:
    """Runs step functions in threads.

    Args:
        executor: The user's own threads; without it, there are as many threads as concurrent steps.

    Attributes:
        stuck: The number of functions that still run after their attempt was cancelled or timed out.
        on_change: Called with each new value of ``stuck``.
    """

    def __init__(self, executor: Executor | None = None) -> None:
        self._is_ours = not isinstance(executor, ThreadPoolExecutor)
        self._executor = (
            executor
            if isinstance(executor, ThreadPoolExecutor)
            else ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="steporal-step")
        )
        self.stuck: int = 0
        self.on_change: Callable[[int], None] = lambda stuck: None

    def close(self) -> None:
        """Stop starting functions."""
        if self._is_ours:
            self._executor.shutdown(wait=False, cancel_futures=True)

    async def run(self, function: Callable[[], Any]) -> Any:
        """Run a function in a thread, and return its result.

        If the calling task is cancelled, the function is interrupted, and the cancellation waits until the function
        has ended. A second cancellation ends that wait. If the function ended before it could be interrupted, it has
        done its work, and its result counts.
        """
        call = _Call(function)
        future = self._executor.submit(contextvars.copy_context().run, call)
        ended = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:
            if future.cancel():
                raise
            if call.interrupt():
                await self._until_ended(ended)
            elif not inspect.isawaitable(result := await ended):
                return result
            raise

    async def _until_ended(self, ended: asyncio.Future[Any]) -> None:
        self._count(+1)
        try:
            await asyncio.wait([ended])
        finally:
            self._count(-1)
            if ended.done() and not ended.cancelled():
                ended.exception()  # marks it as retrieved; nothing else reads it
            else:
                ended.cancel()

    def _count(self, change: int) -> None:
        self.stuck += change
        self.on_change(self.stuck)


class _Call:
    """Call of a step function that another thread can interrupt."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._is_interrupted = False
        self._has_ended = False

    def __call__(self) -> Any:
        with self._lock:
            if self._is_interrupted:
                raise CancelledError("the step was cancelled before its function began")
            self._thread = threading.get_ident()
        try:
            return self._function()
        except StopIteration as err:
            # A future rejects a StopIteration, and whoever awaits it would wait for ever. In a coroutine, Python turns
            # it into a RuntimeError, and so does this.
            raise RuntimeError("the step's function raised StopIteration, as next() does at the end") from err
        finally:
            self._leave()

    def interrupt(self) -> bool:
        """Raise Temporal's CancelledError in the function's thread, once; return False if the function has ended."""
        with self._lock:
            if self._thread is not None and not self._is_interrupted:
                _raise_in(self._thread, CancelledError)
            self._is_interrupted = True
            return not self._has_ended

    def _leave(self) -> None:
        with self._lock:
            thread, self._thread = self._thread, None
            self._has_ended = True
            if thread is not None and self._is_interrupted:
                _raise_in(thread, None)  # an exception that is not raised yet must not reach the thread's next call


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    error = ctypes.py_object(kind) if kind is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)
