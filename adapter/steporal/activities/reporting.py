"""Reports of an activity to Temporal: heartbeats, and failures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from temporalio import activity
from temporalio.exceptions import ApplicationError

from ..errors import RetryAfterError
from ..metrics import STEP_ATTEMPT_DURATION, STEP_ATTEMPTS
from ..sdk.heartbeats import beating
from ..types import JSON
from ..wire.failures import NOT_BEGUN, application_error, is_final

attempts_before: ContextVar[int] = ContextVar("steporal_attempts_before", default=0)
"""Number of attempts that the current step has had in earlier activities."""


def attempt_number() -> int:
    """Return the number of the current attempt of a step, from 1."""
    return attempts_before.get() + activity.info().attempt


@asynccontextmanager
async def failing(call: JSON = None) -> AsyncIterator[None]:
    """Turn what a step raises into what Temporal records.

    Args:
        call: The description of the step's call.
    """
    try:
        yield
    except ApplicationError as err:
        failure = application_error(err, attempt=attempt_number(), non_retryable=err.non_retryable, call=call)
        raise failure from failure.__cause__
    except RetryAfterError as err:
        delay = err.delay(datetime.now(UTC))
        failure = application_error(
            err, attempt=attempt_number(), non_retryable=False, next_retry_delay=delay, call=call
        )
        raise failure from failure.__cause__
    except BaseException as err:  # even SystemExit: a step function cannot end the worker
        if _is_cancellation(err):
            raise
        # The run begins a step again that no worker could begin: only so is it known how many attempts have begun.
        is_last = is_final(err) or type(err).__name__ in NOT_BEGUN
        failure = application_error(err, attempt=attempt_number(), non_retryable=is_last, call=call)
        raise failure from failure.__cause__


def _is_cancellation(error: BaseException) -> bool:
    """Return whether an error ends a cancelled attempt.

    A function can also raise a CancelledError without being cancelled, for example by awaiting a task that it has
    cancelled. Temporal's SDK records such an error as "Application error", without the lines of the function.
    """
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


@asynccontextmanager
async def counted() -> AsyncIterator[None]:
    """Count an attempt of a step."""
    began, outcome = time.monotonic(), "failed"
    try:
        yield
        outcome = "finished"
    except asyncio.CancelledError as err:
        if _is_cancellation(err):
            outcome = "cancelled"
        raise
    finally:
        meter, workflow_type = activity.metric_meter(), activity.info().workflow_type or ""
        STEP_ATTEMPTS.add(meter, workflow_type=workflow_type, outcome=outcome)
        STEP_ATTEMPT_DURATION.record(meter, time.monotonic() - began, workflow_type=workflow_type)


@asynccontextmanager
async def alive() -> AsyncIterator[None]:
    """Send heartbeats during an activity, through which it also receives a cancellation."""
    with beating():
        yield
