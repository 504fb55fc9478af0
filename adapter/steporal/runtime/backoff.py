"""Time between two attempts, as Temporal's server determines it."""

from __future__ import annotations

from datetime import timedelta

from temporalio.common import RetryPolicy


def backoff(policy: RetryPolicy, failures: int) -> timedelta:
    """Return how long to wait before the next attempt, after a number of failures.

    It raises nothing, whatever the policy: an error here would fail the workflow task, which is retried for ever.
    """
    initial = policy.initial_interval
    longest = policy.maximum_interval or initial * 100  # Temporal's default
    if not initial:
        return initial
    try:
        factor = policy.backoff_coefficient ** (failures - 1)
    except OverflowError:
        return longest
    return longest if factor >= longest / initial else initial * factor
