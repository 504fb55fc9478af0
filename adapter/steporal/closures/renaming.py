"""Ids of a rerun, read as those of the run that it repeats, in the values that its kept steps received.

A body writes the id of its run into keys, paths and messages: whole, without dashes, in another case, or only its first
or last characters. A number or a hash that it computes from an id cannot be read back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial

Names = Mapping[str, str]
"""Ids of a run, each with the corresponding id of the run that this one is a rerun of."""

Rename = Callable[[str], str]
"""Function that returns a text with the ids of the original run in it."""

SHORTEST_PART = 4
"""Minimum number of characters that count as a part of an id."""

MOST_LOOKED_FOR, MOST_REPLACED = 100_000_000, 20_000_000
"""Limits of characters that are compared to find parts of ids in a text, and to replace them: about 0.3 s each. A
sender may choose an id, such as a thousand letters that the text repeats; in such a text, only whole ids are read."""


def renames(names: Names) -> Iterator[Rename]:
    """Yield the ways to read the ids of one run as those of another: first whole ids, then also their parts."""
    readings = list(_readings(names))
    yield from (partial(_with_whole_ids, reading) for reading in readings)
    yield from (partial(_with_parts_of_ids, reading) for reading in readings)


def _with_whole_ids(reading: Names, text: str) -> str:
    return _replaced(text, reading)


def _with_parts_of_ids(reading: Names, text: str) -> str:
    parts = dict(reading)
    for name, before in reading.items():
        if any(other in name for other in reading.keys() - {name}):
            continue
        if name[:SHORTEST_PART] in text:
            for size in range(len(name), SHORTEST_PART - 1, -1):
                parts.setdefault(name[:size], before[:size])
        if name[-SHORTEST_PART:] in text:
            for size in range(len(name), SHORTEST_PART - 1, -1):
                parts.setdefault(name[-size:], before[-size:])
    if len(parts) * len(text) > MOST_LOOKED_FOR or len(present := _in(text, parts)) * len(text) > MOST_REPLACED:
        return _replaced(text, reading)
    return _replaced(text, {name: parts[name] for name in present})


def _in(text: str, names: Names) -> list[str]:
    """Return the names that occur in a text, the longest first."""
    return sorted((name for name in names if name and name in text), key=len, reverse=True)


def _replaced(text: str, names: Names) -> str:
    """Return a text with the longest name at each place replaced; replacements are not replaced again."""
    present = _in(text, names)
    if not present:
        return text
    return re.sub("|".join(map(re.escape, present)), lambda match: names[match[0]], text)


def _readings(names: Names) -> Iterator[Names]:
    """Yield mappings from each spelling of an id to its replacement.

    There are several if two spellings of an id are the same text, as of an id in capitals without dashes, while those
    of the replacement differ. Each mapping begins with another spelling: the digits at the end of an id are in all of
    them.
    """
    spellings = [(dash, change) for dash in ("-", "") for change in (str, str.lower, str.upper)]
    readings: list[list[tuple[str, str]]] = []
    for first in range(len(spellings)):
        reading: dict[str, str] = {}
        for dash, change in (*spellings[first:], *spellings[:first]):
            for name, before in names.items():
                reading.setdefault(change(name.replace("-", dash)), change(before.replace("-", dash)))
        ordered = sorted(reading.items(), key=lambda pair: -len(pair[0]))
        if ordered not in readings:
            readings.append(ordered)
            yield dict(ordered)
