"""Interface by which a run reports its steps and its end to tracing."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, Protocol

from ..wire.memo import Outcome
from ..wire.start import Origin

Perform = Callable[[], Coroutine[Any, Any, Outcome]]


class Trace(Protocol):
    """Trace of a run."""

    async def step(self, key: str, perform: Perform) -> Outcome:
        """Perform a step."""

    def ended(self, app: str | None, origin: Origin, started: int, failure: str | None, *, is_cancelled: bool) -> None:
        """End the trace with the run.

        Args:
            app: The app's id.
            origin: The origin of the run.
            started: The start of the run, in milliseconds since the epoch.
            failure: The name of the error that failed the run.
            is_cancelled: Whether the run was cancelled.
        """


TRACE: ContextVar[Trace | None] = ContextVar("steporal_trace", default=None)
"""Trace of the current run; None if traces are off."""
