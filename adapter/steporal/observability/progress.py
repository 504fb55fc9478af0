"""The progress of a run, for people who watch it: a log record for its start, each step and its end.

The records have level DEBUG and a logger of their own; ``steporal dev`` shows them. A replay makes none, nor does a
workflow task that fails.
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
from .after_task import afterwards
from .run_metrics import StepKind

if TYPE_CHECKING:
    from ..wire.start import Origin

LOGGER = "steporal.progress"

PROGRESS = "_steporal_progress"
"""The attribute of a log record that holds its :class:`Progress`."""

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
    """A change of a run, or of a step of it.

    Attributes:
        workflow: The id of the workflow.
        workflow_id: Temporal's workflow id of the run.
        state: The new state.
        step: The step; None if it is the run itself.
        detail: What started the run, what the step waits for, or the error.
        seconds: How long it took; None if it goes on.
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
    """Return whether anybody sees the progress of runs."""
    return _logger.isEnabledFor(logging.DEBUG)


def _log(state: State, step: str | None = None, detail: str = "", seconds: float | None = None) -> None:
    if is_watched():
        info = workflow.info()
        progress = Progress(info.workflow_type, info.workflow_id, state, step, detail, seconds)
        afterwards(partial(_logger.debug, "%s", progress, extra={PROGRESS: progress}))


def run_started(origin: Origin) -> None:
    """A run starts."""
    _log("started", detail="directly" if origin.type == "invoke" else f"by {origin.name}")


def run_ended(state: Literal["completed", "failed", "cancelled"], started: int, detail: str = "") -> None:
    """A run ends.

    Args:
        state: How.
        started: When its first execution started, in milliseconds since the epoch.
        detail: The error.
    """
    _log(state, detail=detail, seconds=workflow.time() - started / 1000)


async def watched(key: str, kind: StepKind, perform: Callable[[], Awaitable[Outcome]], *, is_resumed: bool) -> Outcome:
    """Perform a step, and log its progress.

    Args:
        key: The step.
        kind: Its kind.
        perform: Performs it.
        is_resumed: Whether it is a wait that began in an execution before.
    """
    began = workflow.time()
    if kind in _WAITS and not is_resumed:
        _log("waits", key, _WAITS[kind])
    try:
        outcome = await perform()
    except asyncio.CancelledError:
        _log("cancelled", key)
        raise
    seconds = None if is_resumed else workflow.time() - began
    if outcome.failure is None:
        _log("completed", key, seconds=seconds)
    else:
        _log("failed", key, f"{outcome.failure.name}: {outcome.failure.message}", seconds)
    return outcome
