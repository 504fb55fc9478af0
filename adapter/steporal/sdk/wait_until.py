"""Wait for a condition with a timeout, with the same behavior in each version of Python.

``workflow.wait_condition`` uses ``asyncio.wait_for``. In Python 3.11, ``wait_for`` ends a few turns of the event loop
later than in newer versions. So what a run does at that moment, such as being cancelled, would happen in another order,
and its history would not replay with the other version.
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
        condition: Checked whenever something has happened in the run.
        timeout: The time to wait; for ever if None.
        summary: The timer's name in Temporal's UI.

    Raises:
        TimeoutError: The condition did not hold in time.
    """
    async with asyncio.timeout(None) as limit:
        if timeout is not None:
            with timers_called(summary):
                limit.reschedule(asyncio.get_running_loop().time() + timeout.total_seconds())
        await workflow.wait_condition(condition)


@contextmanager
def timers_called(summary: str) -> Iterator[None]:
    """Give the timers that are started in this context a summary.

    The SDK has a public API for this only for ``workflow.sleep`` and ``wait_condition``.
    """
    from temporalio.worker._workflow_instance import _TimerOptions, _TimerOptionsCtxVar  # loaded, in a worker

    metadata = UserMetadata(summary=workflow.payload_converter().to_payload(summary)) if summary else None
    token = _TimerOptionsCtxVar.set(_TimerOptions(user_metadata=metadata))
    try:
        yield
    finally:
        _TimerOptionsCtxVar.reset(token)
