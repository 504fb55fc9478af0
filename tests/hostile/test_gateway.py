"""The attacks on the gateway, for a few seconds each."""

from __future__ import annotations

import pytest

from .attacks import Attack, run_attack
from .gateway import bodies, connections, memory, names, printed_texts, requests


@pytest.mark.parametrize(
    ("attack", "at_least"),
    [(bodies, 20), (requests, 24), (connections, 100), (memory, 8), (names, 5), (printed_texts, 1_000)],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_the_gateway_bears(attack: Attack, at_least: int) -> None:
    figures = await run_attack(attack)
    assert not figures.broken
    assert figures.tried >= at_least
