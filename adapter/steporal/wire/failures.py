"""Conversion of errors to what Temporal records, and back."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import re
import traceback
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import pydantic
import temporalio
from temporalio import activity, workflow
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

from ..closures.calls import Call
from ..errors import (
    DefinitionError,
    InvalidEventError,
    NonRetryableError,
    StepCodeNotFoundError,
    StepError,
    SteporalError,
    UnknownKeyError,
    UnknownWorkflowError,
)
from ..types import JSON
from ..values.converter import MAX_SHOWN, issues
from ..values.encrypted import check_failure_decrypted
from .limits import MAX_MESSAGE_LENGTH, shortened
from .memo import Failure
from .names import STEP_NOT_BEGUN

UNKNOWN_KEY = UnknownKeyError.__name__

CODE_NOT_FOUND = StepCodeNotFoundError.__name__

NOT_BEGUN = (CODE_NOT_FOUND, UNKNOWN_KEY, STEP_NOT_BEGUN)
"""Errors of steps that a worker cannot begin."""

FAILED_CODE = "_steporal_failed_code"
"""Attribute of log records whose error the user's own code raised: the frames of that code are the relevant ones."""
TIMED_OUT = "an attempt took longer than the step's timeout"
LOST = "the worker was lost: it sent no heartbeat and does not respond"
NEVER_BEGAN = "each worker that received the step was lost before it began the step"

_MAX_CAUSES = 10
_FRAME = re.compile(r"^(?=  File )", re.MULTILINE)
_MACHINERY = re.compile(
    r"/(?:site-packages|dist-packages|adapter)/(?:steporal|temporalio)/"
    r"|/[Ll]ib/(?:python3[^/]*/)?(?:asyncio/|concurrent/futures/|contextlib\.py)"
)
"""Part of a path that marks a frame as machinery, on any machine."""

_OURS = (str(Path(__file__).parents[1]), str(Path(temporalio.__file__ or "").parent))
_WAITING = tuple(str(Path(module.__file__ or "").parent) for module in (asyncio, concurrent.futures))
_CONTEXTS = contextlib.__file__


def is_final(error: BaseException, non_retryable: Sequence[str] | None = ()) -> bool:
    """Return whether an error ends a run or a step at once, whatever attempts remain.

    Args:
        error: The error. A group is final if all of its errors are.
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
    error: BaseException,
    *,
    attempt: int,
    non_retryable: bool,
    next_retry_delay: timedelta | None = None,
    call: JSON = None,
) -> ApplicationError:
    """Return an error as Temporal records it: its class's name, its message, and the user's part of its stack.

    Temporal only accepts text that UTF-8 can encode. Any other failure would fail the workflow task, for ever.

    Args:
        error: The error.
        attempt: The attempt that raised it, from 1.
        non_retryable: Whether it ends the activity.
        next_retry_delay: The time until the next attempt; None for that of the retry policy.
        call: The call of the step that raised it, stored beside the error (:func:`~.calls.call_metadata`).
    """
    if isinstance(error, ApplicationError):
        return _recordable(error)
    converted = ApplicationError(
        shortened(message_of(error)),
        _details(error, attempt, call),
        type=type(error).__name__,
        non_retryable=non_retryable,
        next_retry_delay=next_retry_delay,
    )
    converted.__traceback__ = users_part(error)
    converted.__cause__ = _cause_of(error)
    converted.__suppress_context__ = True
    return converted


def _details(error: BaseException, attempt: int, call: JSON) -> dict[str, Any]:
    """Return the details that Temporal records: the attempts, the call, or the failed step that ended a body."""
    if not isinstance(error, StepError):
        return {"attempts": attempt} if call is None else {"attempts": attempt, "call": call}
    step = {
        "id": error.step_id,
        "name": error.name,
        "message": shortened(error.message),
        "stack": error.stack,
        "attempts": error.attempts,
    }
    return {"attempts": attempt, "step": step}


def attempts_of(error: ApplicationError) -> int:
    """Return the number of attempts made when an error was recorded; 0 if unknown."""
    attempts = _recorded(error).get("attempts", 0)
    return attempts if isinstance(attempts, int) else 0


def call_of(error: FailureError) -> Call | None:
    """Return the call of a failed step, if the error contains it."""
    cause = error.cause if isinstance(error, ActivityError) else error
    return Call.read(_recorded(cause).get("call")) if isinstance(cause, ApplicationError) else None


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


def _recordable(error: ApplicationError) -> ApplicationError:
    """Return an error that the app made for Temporal, with a text and details that Temporal accepts."""
    details = error.details if _are_serializable(error.details) else ()
    if len(details) == len(error.details) and encodable(error.message) == error.message:
        return error
    converted = ApplicationError(
        encodable(error.message),
        *details,
        type=error.type,
        non_retryable=error.non_retryable,
        next_retry_delay=error.next_retry_delay,
        category=error.category,
    ).with_traceback(error.__traceback__)
    converted.__cause__ = _cause_of(error)
    return converted


def _are_serializable(details: Sequence[Any]) -> bool:
    if not details:
        return True
    converter = workflow.payload_converter() if workflow.in_workflow() else activity.payload_converter()
    try:
        converter.to_payloads(details)
    except Exception:
        return False
    return True


def _cause_of(error: BaseException, depth: int = 0) -> BaseException | None:
    """Return the cause of an error as Temporal records it; None if the cause is too long or nested too deep."""
    cause = error.__cause__
    if cause is None or isinstance(cause, FailureError):
        return cause
    message = message_of(cause)
    if len(message) > MAX_MESSAGE_LENGTH or depth == _MAX_CAUSES:
        return None
    converted = ApplicationError(message, type=type(cause).__name__).with_traceback(cause.__traceback__)
    converted.__cause__ = _cause_of(cause, depth + 1)
    return converted


def message_of(error: BaseException) -> str:
    """Return an error's message; for a group, with the messages of its errors."""
    if isinstance(error, BaseExceptionGroup):
        inner = "; ".join(f"{type(e).__name__}: {message_of(e)}" for e in error.exceptions)
        return encodable(f"{error.message}: {inner}")
    try:
        if isinstance(error, pydantic.ValidationError) and error.error_count() > MAX_SHOWN:  # str() would list them all
            return encodable(f"{error.error_count():,} validation errors for {error.title}: {issues(error)}")
        return encodable(str(error) or repr(error))
    except Exception as err:
        return f"(the text of this {type(error).__name__} is unknown: its __str__ raised {type(err).__name__})"


def encodable(text: str) -> str:
    """Escape the characters that UTF-8 cannot encode, such as parts of file names that Python could not decode."""
    return text.encode(errors="backslashreplace").decode()


def is_users(file: str) -> bool:
    """Return whether a file is neither Steporal's nor the SDK's."""
    return not file.startswith(_OURS)


def users_part(error: BaseException) -> TracebackType | None:
    """Return the traceback of an error without the frames of Steporal, the SDK and asyncio.

    If no frame remains, return the whole traceback; for a Steporal error, whose message is sufficient, return None.
    """
    frames = []
    frame = error.__traceback__
    while frame is not None:
        if not _is_machinery(frame.tb_frame.f_code.co_filename):
            frames.append(frame)
        frame = frame.tb_next
    remaining: TracebackType | None = None
    for frame in reversed(frames):
        remaining = TracebackType(remaining, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return remaining if remaining is not None or isinstance(error, SteporalError) else error.__traceback__


def _is_machinery(file: str) -> bool:
    return file.startswith((*_OURS, *_WAITING)) or file == _CONTEXTS


def logged(error: BaseException) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """Return an error as ``exc_info`` for a log record, with only the user's frames.

    A log handler cannot write an error whose text cannot be created, or that UTF-8 cannot encode. An error with the
    same name and an escaped text replaces it.
    """
    if not _can_be_written(error):
        kind = type(error)
        shown = type(kind.__name__, (Exception,), {"__module__": kind.__module__, "__qualname__": kind.__qualname__})
        error = shown(message_of(error)).with_traceback(error.__traceback__)
    return type(error), error, users_part(error)


def _can_be_written(error: BaseException) -> bool:
    try:
        "".join(traceback.format_exception(error)).encode()
    except Exception:
        return False
    return True


def stack_of(error: BaseException) -> str:
    """Return the user's frames of the stack trace that Temporal delivered with an error."""
    text = error.failure.stack_trace if isinstance(error, FailureError) and error.failure else ""
    frames = filter(None, _FRAME.split(text))
    users = (frame for frame in frames if not _MACHINERY.search(frame.partition("\n")[0].replace("\\", "/")))
    return "\n".join(frame.rstrip() for frame in users)


def is_cancellation(error: BaseException) -> bool:
    """Return whether an awaited activity or child was cancelled."""
    if isinstance(error, asyncio.CancelledError | CancelledError):
        return True
    return isinstance(error, ActivityError | ChildWorkflowError) and isinstance(error.cause, CancelledError)


def failure_of(error: FailureError, max_attempts: int = 0) -> Failure:
    """Return the failure of a step from the error that Temporal raised for it."""
    wrapped = isinstance(error, ActivityError | ChildWorkflowError)
    cause: BaseException = error.cause or error if wrapped else error
    check_failure_decrypted(cause)
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
