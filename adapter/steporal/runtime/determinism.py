"""A body that is not deterministic, in the user's words: in the worker's log, and in what Temporal's UI shows."""

from __future__ import annotations

import asyncio.events
import re
import sysconfig
from types import TracebackType

from temporalio import workflow
from temporalio.worker.workflow_sandbox import RestrictedWorkflowAccessError

from ..remedies import REFERENCES, STEP, remedy
from .failures import is_users, users_part
from .task_log import said_once

_DUNDER = re.compile(r"(\.__\w+__)+$")
_LIBRARIES = (
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
    "<frozen ",
)


class NondeterminismError(workflow.NondeterminismError):
    """One whose message says what the body did, where, and what to write instead; it has been logged."""


def nondeterminism_in(error: BaseException) -> workflow.NondeterminismError | None:
    """The determinism error that an error is, comes from, or, if it is a group, has in it."""
    if isinstance(error, workflow.NondeterminismError):
        return error
    if isinstance(error, NotImplementedError) and (name := _missing_in_the_loop(error.__traceback__)):
        return RestrictedWorkflowAccessError(f"loop.{name}").with_traceback(error.__traceback__)
    inner: list[BaseException | None] = list(error.exceptions) if isinstance(error, BaseExceptionGroup) else []
    inner.append(error.__cause__ if error.__suppress_context__ else error.__cause__ or error.__context__)
    return next(filter(None, (nondeterminism_in(each) for each in inner if each is not None)), None)


def explained(error: workflow.NondeterminismError, workflow_id: str) -> workflow.NondeterminismError:
    """A sandbox error in the user's words, said once in the log; any other as it is.

    It fails the workflow task, which Temporal tries again until a worker has corrected code.
    """
    if not isinstance(error, RestrictedWorkflowAccessError):
        return error
    name = _DUNDER.sub("", error.qualified_name.removeprefix("__builtins__."))
    read = next((each for each in REFERENCES if f"{name}.".startswith(f"{each}.")), None)
    message = (
        f"the body of workflow {workflow_id!r} {f'reads {read}' if read else f'calls {name}'}"
        f"{_where(error.__traceback__)}, which gives another result when Temporal replays the run; "
        f"{remedy(name) or STEP}. The run waits: it goes on when a worker has the corrected code."
    )
    info = workflow.info()
    said_once(info.run_id, info.workflow_id, message)
    return NondeterminismError(message).with_traceback(users_part(error.__traceback__))


def _where(traceback: TracebackType | None) -> str:
    """The line of the user's that did it, and the line of the body that led there."""
    lines = []
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if is_users(file) and not file.startswith(_LIBRARIES):
            lines.append(f"{file}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    if not lines:
        return ""
    return f" ({lines[-1]})" if len(lines) == 1 else f" ({lines[-1]}, called from {lines[0]})"


def _missing_in_the_loop(traceback: TracebackType | None) -> str | None:
    """The method of the event loop that a run has not: those of threads, sockets and processes."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None or traceback.tb_frame.f_code.co_filename != asyncio.events.__file__:
        return None
    return traceback.tb_frame.f_code.co_name
