"""Errors on their way into Temporal, and back."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import re
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

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

CODE_NOT_FOUND = StepCodeNotFoundError.__name__

NOT_BEGUN = (CODE_NOT_FOUND, UNKNOWN_KEY)
"""What the steps that a worker cannot begin fail with."""

FAILED_CODE = "_steporal_failed_code"
"""The attribute of log records whose error the user's own code raised: a frame of that code says the most about it."""
TIMED_OUT = "an attempt took longer than the step's timeout"
LOST = "the worker was lost: it has sent no heartbeat, and does not answer"

_FRAME = re.compile(r"^(?=  File )", re.MULTILINE)
_MACHINERY = re.compile(
    r"/(?:site-packages|dist-packages|adapter)/(?:steporal|temporalio)/"
    r"|/[Ll]ib/(?:python3[^/]*/)?(?:asyncio/|concurrent/futures/|contextlib\.py)"
)
"""The part of a path that marks a frame as machinery, on whatever machine the worker ran."""

_OURS = (str(Path(__file__).parents[1]), str(Path(temporalio.__file__ or "").parent))
_WAITING = tuple(str(Path(module.__file__ or "").parent) for module in (asyncio, concurrent.futures))
_CONTEXTS = contextlib.__file__


def is_final(error: BaseException) -> bool:
    """Whether an error ends a run or a step at once, whatever attempts are left."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_final(inner) for inner in error.exceptions)
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
        _details(error, attempt),
        type=type(error).__name__,
        non_retryable=non_retryable,
        next_retry_delay=next_retry_delay,
    )
    converted.__traceback__ = users_part(error.__traceback__)
    cause = error.__cause__
    converted.__cause__ = cause if cause is None or len(str(cause)) <= MAX_MESSAGE_LENGTH else None
    converted.__suppress_context__ = True
    return converted


def _details(error: BaseException, attempt: int) -> dict[str, Any]:
    """Return what Temporal records beside the message: the attempts, and the failed step that ended a body."""
    if not isinstance(error, StepError):
        return {"attempts": attempt}
    step = {
        "id": error.step_id,
        "name": error.name,
        "message": shortened(error.message),
        "stack": error.stack,
        "attempts": error.attempts,
    }
    return {"attempts": attempt, "step": step}


def attempts_of(error: ApplicationError) -> int:
    """Return how many attempts were made when an error was recorded; 0 if that is unknown."""
    attempts = _recorded(error).get("attempts", 0)
    return attempts if isinstance(attempts, int) else 0


def step_of(error: BaseException) -> StepError | None:
    """Return the step failure that ended a run, from the error that Temporal delivered for the run."""
    step = _recorded(error).get("step") if isinstance(error, ApplicationError) else None
    if not isinstance(step, dict):
        return None
    try:
        return StepError(step["id"], step["name"], step["message"], step["stack"], step["attempts"])
    except KeyError:
        return None


def _recorded(error: ApplicationError) -> dict[str, Any]:
    first = error.details[0] if error.details else None
    return first if isinstance(first, dict) else {}


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
    """Return a traceback without the frames of Steporal, the SDK and asyncio; the whole one if no frame remains."""
    frames = []
    frame = traceback
    while frame is not None:
        if not _is_machinery(frame.tb_frame.f_code.co_filename):
            frames.append(frame)
        frame = frame.tb_next
    remaining: TracebackType | None = None
    for frame in reversed(frames):
        remaining = TracebackType(remaining, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return remaining or traceback


def _is_machinery(file: str) -> bool:
    return file.startswith((*_OURS, *_WAITING)) or file == _CONTEXTS


def logged(error: BaseException) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """Return an error as ``exc_info`` for a log record, with the user's frames only."""
    return type(error), error, users_part(error.__traceback__)


def stack_of(error: BaseException) -> str:
    """The user's frames of the stack trace that Temporal delivered with an error."""
    text = error.failure.stack_trace if isinstance(error, FailureError) and error.failure else ""
    frames = filter(None, _FRAME.split(text))
    users = (frame for frame in frames if not _MACHINERY.search(frame.partition("\n")[0].replace("\\", "/")))
    return "\n".join(frame.rstrip() for frame in users)


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
        return Failure(cause.type or "ApplicationError", cause.message, stack, attempts_of(cause), cause)
    if isinstance(cause, TimeoutError):
        return Failure("TimeoutError", _timeout_message(cause), stack, max_attempts, cause)
    if isinstance(cause, TerminatedError):
        return Failure("TerminatedError", "the run was terminated", stack, 0, cause)
    return Failure(type(cause).__name__, str(cause), stack, 0, cause)


def _timeout_message(error: TimeoutError) -> str:
    if error.type == TimeoutType.START_TO_CLOSE:
        return TIMED_OUT
    if error.type == TimeoutType.HEARTBEAT:
        return LOST
    return error.message
