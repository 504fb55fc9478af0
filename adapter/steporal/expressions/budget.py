"""Budget of one evaluation of an expression.

Anybody may choose the data, and the cost of an expression may have many factors, such as a list in a list and a text
for each item. So everything that an evaluation reads or creates is taken from one budget, before it is done. The amount
depends only on the expression and the data, so that a topic decides the same when it is replayed.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

MAX_UNITS = 100_000
"""Budget of one evaluation. A unit is a microsecond or two."""

CHARACTERS = 64
"""Characters, bytes, or bits of an integer, that one unit reads or writes."""

COPIED_ITEMS = 16
"""Items of a list that one unit copies."""

_LONG = 16
"""Length from which a list is searched by a set when it is searched again."""

Key: TypeAlias = tuple[str, Any]
"""Key of a scalar value: equal for values that are equal in CEL, and for no others."""


class OverBudgetError(Exception):
    """Raised if an evaluation exceeds its budget."""


class Budget:
    """Remaining budget of one evaluation.

    Attributes:
        left: The remaining units.
    """

    __slots__ = ("_patterns", "_searched", "left")

    def __init__(self, units: int = MAX_UNITS) -> None:
        self.left: int = units
        self._searched: dict[int, _Searched] = {}
        self._patterns: set[str] = set()

    def take(self, units: int = 1) -> None:
        """Take units, before the work that they are for.

        Raises:
            OverBudgetError: Too few units are left.
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
        """Return the keys of a long list's items, from its second search on; None if an item has no key."""
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
    """List that was searched; it is kept, so that no other list gets its ``id``."""

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
    """Return the units for reading a value once, except the items of a map."""
    if isinstance(value, str | bytes):
        return len(value) // CHARACTERS
    if isinstance(value, int):
        return value.bit_length() // CHARACTERS
    return len(value) // COPIED_ITEMS if isinstance(value, list) else 0


def key_of(value: Any) -> Key | None:
    """Return the key of a value; None for a list, a map, NaN, and values that JSON does not have.

    The key of a number is text: Python's hashes of numbers are predictable, so that a sender could choose 10,000
    numbers with the same hash, and a set of them would take 50 million comparisons.
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
