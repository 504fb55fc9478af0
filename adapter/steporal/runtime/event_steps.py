"""Steps that wait for events, in a run."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from ..events import ReceivedEvent
from ..step import Listener, Wanted

if TYPE_CHECKING:
    from .attempt import Attempt


def wait_for_event(attempt: Attempt, key: str, wanted: Wanted) -> Coroutine[Any, Any, ReceivedEvent | None]:
    """Perform ``step.ext.wait_for_event``."""
    raise NotImplementedError


def listen(attempt: Attempt, key: str, wanted: Wanted) -> Coroutine[Any, Any, Listener]:
    """Perform ``step.ext.listen``."""
    raise NotImplementedError
