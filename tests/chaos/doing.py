"""The step functions of all workflows: each writes down that it happened."""

from __future__ import annotations

import asyncio
import time
from typing import TypeVar

from steporal import NonRetryableError

from .effects import happening

T = TypeVar("T")


def act(value: T, seconds: float = 0.0, detail: str = "") -> T:
    """Take a while, in a thread, and return the value."""
    with happening(detail):
        time.sleep(seconds)
        return value


async def act_async(value: T, seconds: float = 0.0) -> T:
    """Take a while, on the loop, and return the value."""
    with happening():
        await asyncio.sleep(seconds)
        return value


def succeed_at(attempt: int, value: T) -> T:
    """Raise in each attempt before this one."""
    with happening() as info:
        if info.attempt < attempt:
            raise ConnectionError(f"attempt {info.attempt} does not succeed")
        return value


def refuse() -> None:
    """Raise, so that it is not tried again."""
    with happening():
        raise NonRetryableError("never")
