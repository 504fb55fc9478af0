"""Metrics from the code of a run: not recorded on replay, during eviction, or in a workflow task that fails.

A task that is lost with its worker, or that Temporal does not accept, is executed again, and counts again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal

from temporalio import workflow
from temporalio.common import MetricMeter

from ..errors import InvokeTimeoutError
from ..metrics import (
    BODY_ATTEMPTS,
    CHECKPOINTS,
    MEMO_SIZE,
    RUN_DURATION,
    RUNS_ENDED,
    RUNS_STARTED,
    STEP_DURATION,
    STEPS_ENDED,
    WAITS_ENDED,
    WAITS_OPENED,
)
from ..wire.memo import Outcome
from .after_task import after_task

StepKind = Literal[
    "run",
    "sleep",
    "invoke_workflow",
    "send_event",
    "send_signal",
    "fetch",
    "wait_for_event",
    "listen",
    "next",
    "wait_for_signal",
]
"""Method of ``step``, ``step.ext`` or a listener."""

_WAITS: tuple[StepKind, ...] = ("invoke_workflow", "wait_for_event", "next", "wait_for_signal")


COUNT = "steporal.count"
"""Name, among a run's extern functions, of the function that returns the run's meter; absent if metrics are off."""

Count = Callable[[MetricMeter], None]
"""Function that records something on a meter."""


def count(what: Count) -> None:
    """Count something from the code of a run."""
    meter = workflow.extern_functions().get(COUNT)
    if meter is not None:
        after_task(partial(what, meter()))


def count_start(trigger: str) -> None:
    """Count the start of a run."""
    count(lambda meter: RUNS_STARTED.add(meter, trigger=trigger))


def count_end(outcome: Literal["finished", "failed", "cancelled"], *, started: int, memo_size: int) -> None:
    """Count the end of a run.

    Args:
        outcome: The outcome.
        started: The start of the run's first execution, in milliseconds since the epoch.
        memo_size: The size of its memo in bytes.
    """
    seconds = workflow.time() - started / 1000
    count(lambda meter: RUNS_ENDED.add(meter, outcome=outcome))
    count(lambda meter: RUN_DURATION.record(meter, seconds))
    count(lambda meter: MEMO_SIZE.record(meter, memo_size))


def count_checkpoint(reason: Literal["history", "park", "checkpoint"], memo_size: int) -> None:
    """Count a run that is about to continue as new."""
    count(lambda meter: CHECKPOINTS.add(meter, reason=reason))
    count(lambda meter: MEMO_SIZE.record(meter, memo_size))


def count_body(outcome: Literal["returned", "raised"]) -> None:
    """Count the end of an attempt of a body."""
    count(lambda meter: BODY_ATTEMPTS.add(meter, outcome=outcome))


async def counted(kind: StepKind, perform: Callable[[], Awaitable[Outcome]], *, is_resumed: bool) -> Outcome:
    """Perform a step, and count it.

    Args:
        kind: The step's kind.
        perform: Performs the step.
        is_resumed: Whether the step is a wait that began in an earlier execution.
    """
    began = workflow.time()
    if kind in _WAITS and not is_resumed:
        count(lambda meter: WAITS_OPENED.add(meter, kind=kind))
    try:
        outcome = await perform()
    except asyncio.CancelledError:
        _count_step(kind, None)
        raise
    _count_step(kind, outcome)
    if not is_resumed:
        seconds = workflow.time() - began
        count(lambda meter: STEP_DURATION.record(meter, seconds, kind=kind))
    return outcome


def _count_step(kind: StepKind, outcome: Outcome | None) -> None:
    ended = "cancelled" if outcome is None else "failed" if outcome.failure else "finished"
    count(lambda meter: STEPS_ENDED.add(meter, kind=kind, outcome=ended))
    if kind in _WAITS:
        count(lambda meter: WAITS_ENDED.add(meter, kind=kind, outcome=_of_wait(kind, outcome)))


def _of_wait(kind: StepKind, outcome: Outcome | None) -> str:
    if outcome is None:
        return "cancelled"
    if outcome.failure:
        return "timed_out" if outcome.failure.name == InvokeTimeoutError.__name__ else "failed"
    return "timed_out" if outcome.value is None and kind != "invoke_workflow" else "woken"
