"""What an attack is, and what it reports."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

SECONDS = float(os.environ.get("HOSTILE_SECONDS", "3"))
"""How long each attack lasts in the tests."""

SEED = int(os.environ.get("HOSTILE_SEED", "1"))
"""What the inputs of the tests are drawn from: the same in each run, as new faults are for ``make hostile`` to find."""


@dataclass
class Figures:
    """What came of an attack.

    Attributes:
        tried: How many inputs were sent.
        broken: What broke a promise, by the promise: a few examples of each.
        seen: How many inputs ended how, such as ``"refused"`` or ``"400"``.
        most: The highest of what is bounded, by what it is, such as ``"bytes decoded"``.
    """

    tried: int = 0
    broken: dict[str, list[str]] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    most: dict[str, float] = field(default_factory=dict)

    def breaks(self, promise: str, example: object) -> None:
        """Note an input that broke a promise."""
        examples = self.broken.setdefault(promise, [])
        if len(examples) < 5:
            examples.append(str(example)[:1000])

    def measure(self, what: str, value: float) -> None:
        """Note a measurement of which the highest counts."""
        self.most[what] = max(value, self.most.get(what, value))


@dataclass(frozen=True)
class Turns:
    """How long an attack goes on, and its source of chance."""

    seconds: float
    random: random.Random

    def __iter__(self) -> Iterator[int]:
        """Count from 0 until the time is over; once at least."""
        until, number = time.monotonic() + self.seconds, 0
        while not number or time.monotonic() < until:
            yield number
            number += 1


Attack = Callable[[Turns], Awaitable[Figures]]
"""An attack on one part of the system."""

ATTACKS: dict[str, Attack] = {}
"""All attacks, by name."""


def attack(function: Attack) -> Attack:
    """Declare an attack; its name is the function's."""
    ATTACKS[function.__name__.replace("_", " ")] = function
    return function


async def run_attack(function: Attack, seconds: float = SECONDS, seed: int = SEED) -> Figures:
    """Run one attack."""
    return await function(Turns(seconds, random.Random(f"{seed} {function.__name__}")))
