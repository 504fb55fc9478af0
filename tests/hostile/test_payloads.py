"""Who can write to the namespace runs no code on a worker, and has it spend no more than a payload is worth."""

from __future__ import annotations

import pytest

from .attacks import Attack, run_attack
from .payloads import (
    costs_of_payloads,
    every_attribute_of_every_class,
    packed_payloads,
    references_and_values,
)


@pytest.mark.parametrize(
    ("attack", "tried"),
    [
        (references_and_values, 50),
        (every_attribute_of_every_class, 1),
        (costs_of_payloads, 5),
        (packed_payloads, 1),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_nothing_that_a_payload_names_is_run_or_costs_more_than_it_should(attack: Attack, tried: int) -> None:
    figures = await run_attack(attack)
    assert not figures.broken
    assert figures.tried >= tried
