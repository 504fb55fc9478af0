"""Progress of a run for people who watch it: a log record for its start, each step and its end.

The records have level DEBUG and their own logger; ``steporal dev`` shows them. A replay or a failed workflow task logs
none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from temporalio import workflow

from ..wire.memo import Outcome
from .after_task import after_task
from .run_metrics import StepKind

if TYPE_CHECKING:
    from ..wire.start import Origin

LOGGER = "steporal.progress"

PROGRESS = "_steporal_progress"
"""Attribute of a log record that holds its :class:`Progress`."""

State = Literal["started", "waits", "completed", "failed", "cancelled"]

_WAITS: dict[StepKind, str] = {
    "sleep": "sleeps",
    "invoke_workflow": "invokes a workflow",
    "wait_for_event": "waits for an event",
    "next": "waits for an event",
    "wait_for_signal": "waits for a signal",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """Change of a run or of one of its steps.

    Attributes:
        workflow: The id of the workflow.
        workflow_id: The run's Temporal workflow id.
        state: The new state.
        step: The step; None for the run.
        detail: The trigger of the run, what the step waits for, or the error.
        seconds: The duration; None if it has not ended.
    """

    workflow: str
    workflow_id: str
    state: State
    step: str | None = None
    detail: str = ""
    seconds: float | None = None

    def __str__(self) -> str:
        what = f"run {self.workflow_id!r}" + (f", step {self.step!r}" if self.step is not None else "")
        took = "" if self.seconds is None else f" after {self.seconds:.3f} s"
        return f"{what}: {self.state}{took}{': ' * bool(self.detail)}{self.detail}"


_logger = logging.getLogger(LOGGER)


def is_watched() -> bool:
    """Return whether the progress of runs is logged."""
    return _logger.isEnabledFor(logging.DEBUG)


def _log(state: State, step: str | None = None, detail: str = "", seconds: float | None = None) -> None:
    if is_watched():
        info = workflow.info()
        progress = Progress(info.workflow_type, info.workflow_id, state, step, detail, seconds)
        after_task(partial(_logger.debug, "%s", progress, extra={PROGRESS: progress}))


def run_started(origin: Origin) -> None:
    """Log the start of a run."""
    _log("started", detail="directly" if origin.type == "invoke" else f"by {origin.name}")


def run_ended(state: Literal["completed", "failed", "cancelled"], started: int, detail: str = "") -> None:
    """Log the end of a run.

    Args:
        state: The final state.
        started: The start of the run's first execution, in milliseconds since the epoch.
        detail: The error.
    """
    _log(state, detail=detail, seconds=workflow.time() - started / 1000)


async def watched(key: str, kind: StepKind, perform: Callable[[], Awaitable[Outcome]], *, is_resumed: bool) -> Outcome:
    """Perform a step, and log its progress.

    Args:
        key: The step.
        kind: The step's kind.
        perform: Performs the step.
        is_resumed: Whether the step is a wait that began in an earlier execution.
    """
    started = workflow.time()
    if kind in _WAITS and not is_resumed:
        _log("waits", key, _WAITS[kind])
    try:
        outcome = await perform()
    except asyncio.CancelledError:
        _log("cancelled", key)
        raise
    seconds = None if is_resumed else workflow.time() - started
    if outcome.failure is None:
        _log("completed", key, seconds=seconds)
    else:
        _log("failed", key, f"{outcome.failure.name}: {outcome.failure.message}", seconds)
    return outcome
