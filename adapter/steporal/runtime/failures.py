"""Errors on their way into Temporal, and back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType

import temporalio
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    FailureError,
    TerminatedError,
    TimeoutError,
    TimeoutType,
)

from ..errors import (
    DefinitionError,
    InvalidEventError,
    NonRetryableError,
    StepCodeNotFoundError,
    StepError,
    UnknownKeyError,
    UnknownWorkflowError,
)
from ..sealed import check_told
from .limits import MAX_MESSAGE_LENGTH, shortened
from .memo import Failure

UNKNOWN_KEY = UnknownKeyError.__name__

NOT_BEGUN = (StepCodeNotFoundError.__name__, UNKNOWN_KEY)
"""What the steps that a worker cannot begin fail with."""

_FRAME = re.compile(r"^(?=  File )", re.MULTILINE)
_MACHINERY = (
    "/site-packages/steporal/",
    "/adapter/steporal/",
    "/temporalio/",
    "/asyncio/",
    "/concurrent/futures/",
    "/contextlib.py",
)
_OURS = (str(Path(__file__).parents[1]), str(Path(temporalio.__file__ or "").parent))


def is_final(error: BaseException, non_retryable: Sequence[str] | None = ()) -> bool:
    """Whether an error ends a run or a step at once, whatever attempts are left.

    Args:
        error: The error. A group is final if all errors in it are.
        non_retryable: The retry policy's ``non_retryable_error_types``: names of classes, as Temporal compares them.
    """
    name = error.type if isinstance(error, ApplicationError) else type(error).__name__
    if name in (non_retryable or ()):
        return True
    if isinstance(error, BaseExceptionGroup):
        return all(is_final(inner, non_retryable) for inner in error.exceptions)
    if isinstance(error, ApplicationError):
        return error.non_retryable
    return isinstance(error, NonRetryableError | StepError | InvalidEventError | DefinitionError | UnknownWorkflowError)


def application_error(
    error: BaseException, *, attempt: int, non_retryable: bool, next_retry_delay: timedelta | None = None
) -> ApplicationError:
    """An error as Temporal records it: its class's name, its message, the user's part of its stack."""
    if isinstance(error, ApplicationError):
        return error
    converted = ApplicationError(
        shortened(message_of(error)),
        {"attempts": attempt},
        type=type(error).__name__,
        non_retryable=non_retryable,
        next_retry_delay=next_retry_delay,
    )
    converted.__traceback__ = users_part(error.__traceback__)
    cause = error.__cause__
    converted.__cause__ = cause if cause is None or len(str(cause)) <= MAX_MESSAGE_LENGTH else None
    converted.__suppress_context__ = True
    return converted


def message_of(error: BaseException) -> str:
    """An error's message; of a group, with those of the errors in it."""
    if isinstance(error, BaseExceptionGroup):
        inner = "; ".join(f"{type(e).__name__}: {message_of(e)}" for e in error.exceptions)
        return f"{error.message}: {inner}"
    return str(error) or repr(error)


def is_users(file: str) -> bool:
    """Whether a file is neither ours nor the SDK's."""
    return not file.startswith(_OURS)


def users_part(traceback: TracebackType | None) -> TracebackType | None:
    """A traceback from its first frame that is neither ours nor the SDK's; the whole one if there is none."""
    frame = traceback
    while frame is not None:
        if is_users(frame.tb_frame.f_code.co_filename):
            return frame
        frame = frame.tb_next
    return traceback


def stack_of(error: BaseException) -> str:
    """The user's frames of the stack trace that Temporal delivered with an error."""
    text = error.failure.stack_trace if isinstance(error, FailureError) and error.failure else ""
    frames = filter(None, _FRAME.split(text))
    users = (frame for frame in frames if not any(part in frame.partition("\n")[0] for part in _MACHINERY))
    return "".join(users).rstrip()


def is_cancellation(error: BaseException) -> bool:
    """Whether an awaited activity or child was cancelled."""
    if isinstance(error, asyncio.CancelledError | CancelledError):
        return True
    return isinstance(error, ActivityError | ChildWorkflowError) and isinstance(error.cause, CancelledError)


def failure_of(error: FailureError, max_attempts: int = 0) -> Failure:
    """How a step failed, from what Temporal raised for it."""
    wrapped = isinstance(error, ActivityError | ChildWorkflowError)
    cause: BaseException = error.cause or error if wrapped else error
    check_told(cause)
    stack = stack_of(cause)
    if isinstance(cause, ApplicationError):
        unread = cause.cause
        if isinstance(unread, ApplicationError) and unread.type == UNKNOWN_KEY:  # the SDK could not read the arguments
            return Failure(UNKNOWN_KEY, unread.message, stack, 0, cause)
        detail = cause.details[0] if cause.details else None
        attempts = detail.get("attempts", 0) if isinstance(detail, dict) else 0
        return Failure(cause.type or "ApplicationError", cause.message, stack, attempts, cause)
    if isinstance(cause, TimeoutError):
        return Failure("TimeoutError", _timeout_message(cause), stack, max_attempts, cause)
    if isinstance(cause, TerminatedError):
        return Failure("TerminatedError", "the run was terminated", stack, 0, cause)
    return Failure(type(cause).__name__, str(cause), stack, 0, cause)


def _timeout_message(error: TimeoutError) -> str:
    if error.type == TimeoutType.START_TO_CLOSE:
        return "an attempt took longer than the step's timeout"
    if error.type == TimeoutType.HEARTBEAT:
        return "the worker was lost: it stopped reporting that the step is alive"
    return error.message
