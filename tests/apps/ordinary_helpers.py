"""A module of the app that defines no workflow."""

from __future__ import annotations

import time

from apps.ordinary_errors import OutOfStock

imported: list[str] = []
"""What the modules of the app have done when they were imported."""


def total(prices: list[int]) -> int:
    return sum(prices)


def stamped() -> float:
    return time.time()


def reserve(count: int) -> int:
    if count > 3:
        raise OutOfStock("only three left")
    return count


def import_and_draw() -> float:
    import random

    return random.random()
