"""What steps do to the world outside: every beginning of a step function, which no interruption undoes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


class Declined(Exception):
    """A step function has failed, as its program says."""


class Recorder:
    """The database outside, as it were.

    Attributes:
        begun: How often each step function has begun, by label.
        order: The labels, in the order in which they have begun.
        attempt: The attempt of the activity that is being performed.
        seconds: How long that attempt takes; step functions say so.
    """

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.order: list[str] = []
        self.attempt = 1
        self.seconds = 0.0

    def begin(self, label: str, seconds: float) -> None:
        """A step function begins."""
        self.begun[label] += 1
        self.order.append(label)
        self.seconds = seconds


class _Current:
    recorder = Recorder()


def use(recorder: Recorder) -> None:
    """From now on, record there."""
    _Current.recorder = recorder


def recorder() -> Recorder:
    """Where effects are recorded now."""
    return _Current.recorder


def result_of(label: str) -> str:
    """What the step with a label returns."""
    return f"{label} is done"


def perform(label: str, seconds: Sequence[float], fails: int) -> str:
    """A step function's work.

    Args:
        label: Says which call of which step in the program this is.
        seconds: How long each attempt takes; the last one stands for all further attempts.
        fails: How many attempts fail.
    """
    now = _Current.recorder
    now.begin(label, seconds[min(now.attempt, len(seconds)) - 1])
    if now.attempt <= fails:
        raise Declined(f"{label} failed in attempt {now.attempt}")
    return result_of(label)
