"""What a run tells of itself to who traces it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, Protocol

from ..wire.memo import Outcome
from ..wire.start import Origin

Perform = Callable[[], Coroutine[Any, Any, Outcome]]


class Trace(Protocol):
    """The trace of a run."""

    async def step(self, key: str, perform: Perform) -> Outcome:
        """Perform a step."""

    def ended(self, app: str | None, origin: Origin, started: int, failure: str | None, *, is_cancelled: bool) -> None:
        """A run has ended.

        Args:
            app: The app's id.
            origin: What has started the run.
            started: When, in milliseconds since the epoch.
            failure: The name of the error that it has failed with.
            is_cancelled: Whether it was cancelled.
        """


TRACE: ContextVar[Trace | None] = ContextVar("steporal_trace", default=None)
"""The trace of the run in which this runs; None where traces are off."""
