"""A short rolling restart, in each run of the tests; ``make rolling`` is the long one."""

from __future__ import annotations

from pathlib import Path

import prefork
import pytest

from .rolling import FEW, Options, run


@pytest.mark.takes_long
@pytest.mark.integration
@pytest.mark.timeout(180)
async def test_restarts_of_all_in_turn_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    options = Options(
        seed=1,
        processes=FEW,
        seconds=0,
        every=1.0,
        at_once=4,
        pause=0.3,
        server_every=1,
        away=[0.5],
        patience=60,
        starts=prefork.start_steporal,
    )
    report = await run(options, tmp_path)
    assert report.is_good, report.table()
    assert report.restarts.total() == len(FEW) + 1
    assert report.orders >= 3
