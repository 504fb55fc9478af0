"""What one evaluation of an expression may take.

The data is anybody's, and what an expression makes of it may have many factors: a list in a list, a text for each of
them. So everything that an evaluation looks at or makes is taken from one budget, before it is done. What is taken
depends on the expression and the data alone, so that a topic that is replayed decides as before.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

MAX_UNITS = 100_000
"""The budget of one evaluation. A unit is a microsecond or two."""

CHARACTERS = 64
"""Characters, bytes, or bits of an integer, that one unit reads or writes."""

COPIED_ITEMS = 16
"""Items of a list that one unit copies."""

_LONG = 16
"""From this many items on, a list is searched by a set when it is searched again."""

Key: TypeAlias = tuple[str, Any]
"""The same for scalar values that are equal in CEL, and for no others."""


class OverBudgetError(Exception):
    """An evaluation takes more than it may."""


class Budget:
    """What one evaluation may still take.

    Attributes:
        left: In units.
    """

    __slots__ = ("_patterns", "_searched", "left")

    def __init__(self, units: int = MAX_UNITS) -> None:
        self.left: int = units
        self._searched: dict[int, _Searched] = {}
        self._patterns: set[str] = set()

    def take(self, units: int = 1) -> None:
        """Take units, before what they are for is done.

        Raises:
            OverBudgetError: There are not so many.
        """
        self.left -= units
        if self.left < 0:
            raise OverBudgetError

    def take_once(self, pattern: str, units: int) -> None:
        """Take units for a pattern that this evaluation has not used yet."""
        if pattern not in self._patterns:
            self._patterns.add(pattern)
            self.take(units)

    def keys_in(self, items: list[Any]) -> frozenset[Key] | None:
        """Return the keys of a list's items: from the second search of it on, if it is long and each item has a key."""
        if len(items) < _LONG:
            return None
        searched = self._searched.get(id(items))
        if searched is None:
            self._searched[id(items)] = _Searched(items)
            return None
        if not searched.is_keyed:
            self.take(len(items) + sum(map(weight, items)))
            searched.set_keys()
        return searched.keys


class _Searched:
    """A list that was searched; it is kept, so that no other list has its ``id``."""

    __slots__ = ("is_keyed", "items", "keys")

    def __init__(self, items: list[Any]) -> None:
        self.items = items
        self.is_keyed = False
        self.keys: frozenset[Key] | None = None

    def set_keys(self) -> None:
        self.is_keyed = True
        keys = [key_of(item) for item in self.items]
        self.keys = None if None in keys else frozenset(key for key in keys if key is not None)


def weight(value: Any) -> int:
    """Return the units that reading a value once takes, but for the items of a map."""
    if isinstance(value, str | bytes):
        return len(value) // CHARACTERS
    if isinstance(value, int):
        return value.bit_length() // CHARACTERS
    return len(value) // COPIED_ITEMS if isinstance(value, list) else 0


def key_of(value: Any) -> Key | None:
    """Return the key of a value; None of a list, a map, NaN, and what no JSON has.

    The key of a number is text: Python's hashes of numbers are known, so that a sender could choose 10,000 numbers that
    have the same one, and a set of them would take 50 million comparisons.
    """
    if value is None:
        return ("null", None)
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, str):
        return ("string", value)
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return ("number", hex(int(value)) if value.is_integer() else value.hex())
    return ("number", hex(value)) if isinstance(value, int) else None
