"""What servers answer, and where names lead, does no harm."""

from __future__ import annotations

import pytest

from .attacks import Attack, run_attack
from .http_out import addresses_of_receivers, answers_of_hostile_servers, packed_bodies


@pytest.mark.parametrize(
    ("attack", "enough"), [(answers_of_hostile_servers, 5), (packed_bodies, 50), (addresses_of_receivers, 200)]
)
async def test_no_server_and_no_name_does_harm(attack: Attack, enough: int) -> None:
    figures = await run_attack(attack)
    assert not figures.broken
    assert figures.tried >= enough
