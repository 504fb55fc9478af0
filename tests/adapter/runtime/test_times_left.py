"""The time that is left of a wait."""

from __future__ import annotations

from datetime import timedelta

import pytest

from steporal.wire.waits import left_until

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("seconds", "milliseconds"),
    [
        pytest.param(0.25, 250, id="whole milliseconds"),
        pytest.param(0.2501, 251, id="a millisecond that has begun"),
        pytest.param(0.0004, 1, id="less than a millisecond"),
        pytest.param(0.0, 0, id="nothing"),
    ],
)
def test_a_wait_never_ends_early(seconds: float, milliseconds: int) -> None:
    assert left_until(NOW + seconds, NOW) == timedelta(milliseconds=milliseconds)


def test_a_wait_that_is_over_has_no_time_left() -> None:
    assert left_until(NOW - 3, NOW) == timedelta(seconds=-3)
