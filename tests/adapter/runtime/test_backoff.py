"""The time between two attempts is what Temporal waits, and no policy makes its computation fail."""

from __future__ import annotations

from datetime import timedelta

import pytest
from temporalio.common import RetryPolicy

from steporal.runtime.backoff import backoff

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("failures", "expected"), [(1, 1), (2, 2), (3, 4), (7, 64), (8, 100), (9, 100), (1_025, 100), (1_000_000, 100)]
)
def test_it_doubles_up_to_a_hundred_times_the_first(failures: int, expected: int) -> None:
    assert backoff(RetryPolicy(initial_interval=SECOND), failures) == expected * SECOND


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (RetryPolicy(initial_interval=timedelta(0)), timedelta(0)),
        (RetryPolicy(initial_interval=timedelta(days=2), backoff_coefficient=1e300), timedelta(days=200)),
        (RetryPolicy(initial_interval=SECOND, maximum_interval=3 * SECOND), 3 * SECOND),
        (RetryPolicy(initial_interval=3 * SECOND, maximum_interval=SECOND), SECOND),
        (RetryPolicy(initial_interval=SECOND, backoff_coefficient=1.0), SECOND),
    ],
)
def test_no_policy_makes_it_fail(policy: RetryPolicy, expected: timedelta) -> None:
    assert backoff(policy, 2_000) == expected
