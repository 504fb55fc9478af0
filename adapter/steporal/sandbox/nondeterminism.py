"""Errors about bodies that are not deterministic, in the user's terms: in the worker's log and in Temporal's UI."""

from __future__ import annotations

import asyncio.events
import sysconfig
from types import TracebackType

from temporalio import workflow

from ..wire.failures import is_users, users_part
from .remedies import REFERENCES, STEP, remedy
from .task_log import log_once
from .watch import ForbiddenCallError, GlobalChangedError

_LIBRARIES = (
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
    "<frozen ",
)


class NondeterminismError(workflow.NondeterminismError):
    """Determinism error whose message names the call, its place and the remedy; it has been logged."""


def nondeterminism_in(error: BaseException) -> workflow.NondeterminismError | None:
    """Return the determinism error that an error is, is caused by, or contains as a group."""
    if isinstance(error, workflow.NondeterminismError):
        return error
    if isinstance(error, NotImplementedError) and (name := _missing_in_the_loop(error.__traceback__)):
        return ForbiddenCallError(f"loop.{name}").with_traceback(error.__traceback__)
    inner: list[BaseException | None] = list(error.exceptions) if isinstance(error, BaseExceptionGroup) else []
    inner.append(error.__cause__ if error.__suppress_context__ else error.__cause__ or error.__context__)
    return next(filter(None, (nondeterminism_in(each) for each in inner if each is not None)), None)


def explained(error: workflow.NondeterminismError, info: workflow.Info) -> workflow.NondeterminismError:
    """Return an error of the watch in the user's terms, logged once; any other error unchanged.

    The error fails the workflow task, which Temporal retries until a worker has corrected code.
    """
    if isinstance(error, ForbiddenCallError):
        does, instead = _call(error.qualified_name, error.__traceback__)
    elif isinstance(error, GlobalChangedError):
        does = f"assigns the global variable {error.variable!r} ({error.where}), which all runs of the worker share"
        instead = "keep it in a local variable, and pass it on"
    else:
        return error
    message = (
        f"the body of workflow {info.workflow_type!r} {does}; {instead}. "
        "The run waits: it continues when a worker has the corrected code."
    )
    log_once(info.run_id, info.workflow_id, message)
    return NondeterminismError(message).with_traceback(users_part(error))


def _call(name: str, traceback: TracebackType | None) -> tuple[str, str]:
    verb = "reads" if name in REFERENCES else "calls"
    fact = f"{verb} {name}{_where(traceback)}, which gives another result when Temporal replays the run"
    return fact, remedy(name) or STEP


def _where(traceback: TracebackType | None) -> str:
    """Return the line of the user's code that made the call, and the line of the body that led to it."""
    lines = []
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if is_users(file) and not file.startswith(_LIBRARIES):
            lines.append(f"{file}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    if not lines:
        return ""
    if lines[0] == lines[-1]:  # Python 3.11.2 has the same frame twice where a profiler raises
        return f" ({lines[-1]})"
    return f" ({lines[-1]}, called from {lines[0]})"


def _missing_in_the_loop(traceback: TracebackType | None) -> str | None:
    """Return the method of the event loop that runs do not support, such as one for threads, sockets or processes."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None or traceback.tb_frame.f_code.co_filename != asyncio.events.__file__:
        return None
    return traceback.tb_frame.f_code.co_name
