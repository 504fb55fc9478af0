"""What steps do to the world outside: every beginning of a step function, which no interruption undoes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class Declined(Exception):
    """A step function has failed, as its program says."""


@dataclass(frozen=True, slots=True)
class Past:
    """What a body had seen when it was interrupted: what comes back must see the same first.

    Attributes:
        why: What interrupted it.
        seen: What it had seen.
        has_other_clock: Whether it may see other times when it comes back.
    """

    why: str
    seen: list[Any]
    has_other_clock: bool = False


class Seen(list[Any]):
    """What a body has seen, and when.

    Attributes:
        times: When it saw each of it, in seconds since the epoch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []


class Recorder:
    """The database outside, as it were.

    Attributes:
        begun: How often each step function has begun, by label.
        order: The labels, in the order in which they have begun.
        attempt: The attempt of the activity that is being performed.
        seconds: How long that attempt takes; step functions say so.
        most: How often each may begin at most, if nothing is lost.
        excused: How often each of them may begin beyond that, as it was in flight when something was lost.
        pasts: What bodies had seen when they were interrupted.
        last: What the body has seen that has begun last.
        late: How long an attempt of a body went on after its fault, in seconds, because ``gather`` had raised another
            error first. It went on without what the branch with the fault had not begun.
    """

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.order: list[str] = []
        self.attempt = 1
        self.seconds = 0.0
        self.most: dict[str, int] = {}
        self.excused: Counter[str] = Counter()
        self.pasts: list[Past] = []
        self._body: Seen | None = None
        self.last: Seen | None = None
        self.late = 0.0

    def body_begins(self, seen: Seen) -> None:
        """An attempt of a body begins, which will put there what it sees."""
        self._body = self.last = seen

    def interrupted(self, why: str, *, has_other_clock: bool = False) -> None:
        """The body that has begun last is interrupted."""
        if self._body:
            self.pasts.append(Past(why, list(self._body), has_other_clock))
        self._body = None

    def outlasted(self, seconds: float) -> None:
        """An attempt of a body is there that long after its fault."""
        self.late = max(self.late, seconds)

    def forget(self) -> None:
        """What the body has seen in this workflow task is lost."""
        self._body = None

    def begin(self, label: str, seconds: float, most: int = 1) -> None:
        """A step function begins."""
        self.begun[label] += 1
        self.most[label] = most
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
    now.begin(label, seconds[min(now.attempt, len(seconds)) - 1], min(fails + 1, 4))
    if now.attempt <= fails:
        raise Declined(f"{label} failed in attempt {now.attempt}")
    return result_of(label)
