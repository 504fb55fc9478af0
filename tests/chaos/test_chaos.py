"""A short chaos, in each run of the tests; ``make chaos`` is the long one."""

from __future__ import annotations

from pathlib import Path

import prefork
import pytest

from .chaos import Options, run
from .monkey import Monkey
from .plays import PLAYS

SCRIPT = [
    (0.5, Monkey.drain_worker),
    (0.5, Monkey.kill_in_step),
    (0.5, Monkey.kill_server),
    (0.0, Monkey.kill_in_subscription),
    (0.0, Monkey.kill_in_checkpoint),
]


@pytest.mark.takes_long
@pytest.mark.integration
@pytest.mark.timeout(600)
async def test_kills_of_workers_and_the_server_lose_nothing_and_double_no_more_than_they_interrupt(
    tmp_path: Path,
) -> None:
    options = Options(
        seed=4,
        seconds=None,
        at_once=8,
        scale=20,
        patience=200,
        rage=lambda monkey: monkey.follow(SCRIPT),
        starts=prefork.start_steporal,
    )
    report = await run(options, tmp_path)
    assert report.is_good, report.table()
    assert report.plays.keys() == {play.__name__ for play in PLAYS}
    assert {kind.split()[1] for kind in report.kills} == {"SIGKILL", "SIGTERM"}
