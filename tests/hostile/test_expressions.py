"""Hostile data costs an expression no more than its budget."""

from __future__ import annotations

import pytest

from .attacks import Attack, run_attack
from .expressions import budgeted_expressions, dear_expressions, expressions_of_patterns


@pytest.mark.parametrize(
    ("attack", "enough"), [(dear_expressions, 3), (budgeted_expressions, 20), (expressions_of_patterns, 1)]
)
async def test_no_data_makes_an_expression_dear_or_wrong(attack: Attack, enough: int) -> None:
    figures = await run_attack(attack)
    assert not figures.broken
    assert figures.tried >= enough
