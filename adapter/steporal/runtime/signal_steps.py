"""Steps that wait for signals and send them, in a run."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..durations import Duration
from ..signals import OnConflict, ReceivedSignal, SendSignalResult

if TYPE_CHECKING:
    from .attempt import Attempt


def wait_for_signal(
    attempt: Attempt, key: str, signal: str, timeout: Duration | datetime, schema: Any, on_conflict: OnConflict
) -> Coroutine[Any, Any, ReceivedSignal[Any] | None]:
    """Perform ``step.wait_for_signal``."""
    raise NotImplementedError


def send_signal(attempt: Attempt, key: str, signal: str, data: Any) -> Coroutine[Any, Any, SendSignalResult]:
    """Perform ``step.send_signal``."""
    raise NotImplementedError
