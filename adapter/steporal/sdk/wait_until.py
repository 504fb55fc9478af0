"""Waiting for a condition with a timeout, so that each version of Python does the same.

``workflow.wait_condition`` waits by ``asyncio.wait_for``, which ends some turns of the event loop later in Python 3.11
than in those after it. What a run does at that moment, when it is cancelled for example, has another order then, and
its history does not replay with the other Python.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from temporalio import workflow
from temporalio.api.sdk.v1 import UserMetadata


async def wait_until(condition: Callable[[], bool], *, timeout: timedelta | None, summary: str = "") -> None:
    """Wait until a condition holds.

    Args:
        condition: Asked whenever something has happened in the run.
        timeout: How long to wait; for ever without one.
        summary: What Temporal's UI calls the timer.

    Raises:
        TimeoutError: It did not hold in time.
    """
    async with asyncio.timeout(None) as limit:
        if timeout is not None:
            with timers_called(summary):
                limit.reschedule(asyncio.get_running_loop().time() + timeout.total_seconds())
        await workflow.wait_condition(condition)


@contextmanager
def timers_called(summary: str) -> Iterator[None]:
    """Give the timers that are started in this context a summary.

    The SDK has a public way to do this for ``workflow.sleep`` and ``wait_condition`` alone.
    """
    from temporalio.worker._workflow_instance import _TimerOptions, _TimerOptionsCtxVar  # loaded, in a worker

    metadata = UserMetadata(summary=workflow.payload_converter().to_payload(summary)) if summary else None
    token = _TimerOptionsCtxVar.set(_TimerOptions(user_metadata=metadata))
    try:
        yield
    finally:
        _TimerOptionsCtxVar.reset(token)
