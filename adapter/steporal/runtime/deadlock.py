"""A body that waits for something that cannot happen in a run.

A run wakes when Temporal delivers something: the end of a step, a timer, an event, a signal. A body that awaits
anything else (an answer on a connection, a thread, a lock that another run holds, a future that nobody completes) would
wait forever, and nobody would notice. Such a body can be recognized: it has not ended, and nothing is in flight that
could wake it. Then the run fails with an error that names the line.
"""

from __future__ import annotations

import asyncio
from types import FrameType, TracebackType
from typing import Any

from ..errors import DeadlockError
from ..step_calls import place_of
from ..wire.failures import is_users

_REMEDY = (
    "do the work in a step.run(...), or wait with step.sleep, step.ext.wait_for_event or step.wait_for_signal; create "
    "futures, locks and queues in the body, not at module level"
)
_OF_ANOTHER_LOOP = (
    "attached to a different loop",
    "is bound to a different event loop",
    "await wasn't used with future",  # the second time that a run awaits it
)


def deadlock(body: asyncio.Task[Any], workflow_id: str) -> DeadlockError:
    """Return the error for a body that nothing can wake."""
    frames = _frames(body.get_coro())
    place = place_of(frames[-1].f_code.co_filename, frames[-1].f_lineno) if frames else ""
    error = DeadlockError(
        f"the body of workflow {workflow_id!r} waits{f' at {place}' if place else ''} for something that cannot happen "
        "in a run: no step, sleep or event is left to wake it. A run cannot wait for threads, connections or clients, "
        f"nor for what another run holds; {_REMEDY}"
    )
    return error.with_traceback(_traceback(frames))


def of_another_loop(error: Exception, workflow_id: str) -> DeadlockError | None:
    """Return the error for a body that awaits a future, lock or queue of another event loop; None for other errors."""
    if not isinstance(error, RuntimeError) or not any(text in str(error) for text in _OF_ANOTHER_LOOP):
        return None
    return DeadlockError(
        f"the body of workflow {workflow_id!r} waits for something of another event loop, which cannot wake a run "
        f"({error}); {_REMEDY}"
    ).with_traceback(error.__traceback__)


def _frames(coroutine: Any) -> list[FrameType]:
    """Return the frames of the user's code in a chain of coroutines that await each other, the outermost first."""
    frames = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None)
        file = "" if frame is None else frame.f_code.co_filename
        if frame is not None and is_users(file) and not file.startswith(asyncio.__path__[0]):
            frames.append(frame)
        coroutine = getattr(coroutine, "cr_await", None)
    return frames


def _traceback(frames: list[FrameType]) -> TracebackType | None:
    """Return the traceback that an error raised in the last of these frames would have."""
    traceback: TracebackType | None = None
    for frame in reversed(frames):
        traceback = TracebackType(traceback, frame, frame.f_lasti, frame.f_lineno)
    return traceback
