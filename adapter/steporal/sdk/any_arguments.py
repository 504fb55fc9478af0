"""Handlers of messages that anybody may send with any number of arguments.

If a handler does not accept the arguments that were sent, the SDK fails the workflow task, again and again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

from temporalio.common import RawValue

from ..values.converter import to_raw

_NONE = to_raw(None)


def of_any_count(handler: Callable[[Any, RawValue], Any]) -> Callable[..., Any]:
    """Make a handler accept the first argument of a message, or null if the message has none."""

    def first(messages: tuple[RawValue | None, ...]) -> RawValue:
        return (messages[0] if messages else None) or _NONE  # the SDK passes None for Temporal's null

    if iscoroutinefunction(handler):

        @wraps(handler)  # the SDK inspects the original handler, which takes one payload
        async def take_async(self: Any, *messages: RawValue) -> Any:
            return await handler(self, first(messages))

        return take_async

    @wraps(handler)
    def take(self: Any, *messages: RawValue) -> Any:
        return handler(self, first(messages))

    return take
