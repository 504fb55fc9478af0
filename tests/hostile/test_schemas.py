"""Hostile data costs a schema little, and is read as pydantic reads it."""

from __future__ import annotations

import pytest

from .attacks import Attack, run_attack
from .schemas import data_that_fits_no_schema, schemas_mean_the_same


@pytest.mark.parametrize(("attack", "enough"), [(data_that_fits_no_schema, 2), (schemas_mean_the_same, 20)])
async def test_no_data_makes_a_schema_dear_or_wrong(attack: Attack, enough: int) -> None:
    figures = await run_attack(attack)
    assert not figures.broken
    assert figures.tried >= enough
