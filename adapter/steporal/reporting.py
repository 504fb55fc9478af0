"""What an activity reports to Temporal: that its worker is alive, and what it failed with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from temporalio import activity
from temporalio.exceptions import ApplicationError

from .errors import RetryAfterError
from .metrics import STEP_ATTEMPT_DURATION, STEP_ATTEMPTS
from .runtime.failures import application_error, is_final

_BEATS_PER_TIMEOUT = 3


@asynccontextmanager
async def failing() -> AsyncIterator[None]:
    """Turns what a step raises into what Temporal records."""
    info = activity.info()
    try:
        yield
    except asyncio.CancelledError:
        raise
    except ApplicationError as err:
        failure = application_error(err, attempt=info.attempt, non_retryable=err.non_retryable)
        raise failure from failure.__cause__
    except RetryAfterError as err:
        delay = err.delay(datetime.now(UTC))
        failure = application_error(err, attempt=info.attempt, non_retryable=False, next_retry_delay=delay)
        raise failure from failure.__cause__
    except BaseException as err:  # also SystemExit: a step function cannot end the worker
        failure = application_error(err, attempt=info.attempt, non_retryable=is_final(err))
        raise failure from failure.__cause__


@asynccontextmanager
async def counted() -> AsyncIterator[None]:
    """Counts an attempt of a step."""
    began, outcome = time.monotonic(), "failed"
    try:
        yield
        outcome = "finished"
    except asyncio.CancelledError:
        outcome = "cancelled"
        raise
    finally:
        meter, workflow_type = activity.metric_meter(), activity.info().workflow_type or ""
        STEP_ATTEMPTS.add(meter, workflow_type=workflow_type, outcome=outcome)
        STEP_ATTEMPT_DURATION.record(meter, time.monotonic() - began, workflow_type=workflow_type)


@asynccontextmanager
async def alive() -> AsyncIterator[None]:
    """Reports to Temporal, while an activity runs, that its worker is alive; so it hears of a cancellation, too."""
    timeout = activity.info().heartbeat_timeout
    if timeout is None:
        yield
        return
    loop = asyncio.get_running_loop()
    interval = timeout.total_seconds() / _BEATS_PER_TIMEOUT
    timers: list[asyncio.TimerHandle] = []

    def beat() -> None:
        activity.heartbeat()
        timers[:] = [loop.call_later(interval, beat)]

    timers.append(loop.call_later(interval, beat))
    try:
        yield
    finally:
        timers[0].cancel()
