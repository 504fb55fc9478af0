"""Ids of a rerun, read as those of the run that it repeats, in whatever its kept steps were given.

A body writes the id of its run into keys, paths and messages: whole, without dashes, in other letters, or only the
first or last characters of it. A number or a hash that it computes of an id cannot be read back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial

Names = Mapping[str, str]
"""The ids of a run, each with the id that the run had of which this one is a rerun."""

Rename = Callable[[str], str]
"""Returns a text with the ids of the run before in it."""

SHORTEST_PART = 4
"""The fewest characters that are taken for a part of an id."""

MOST_LOOKED_FOR, MOST_REPLACED = 100_000_000, 20_000_000
"""How many characters are compared to find parts of ids in a text, and to replace them: some 0.3 s each. An id may be a
sender's, such as a thousand letters that the text repeats; of such a text, only whole ids are read."""


def renames(names: Names) -> Iterator[Rename]:
    """Yield the ways to read the ids of one run as those of another: whole ones first, and then parts of them too."""
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
    if len(parts) * len(text) > MOST_LOOKED_FOR or len(there := _in(text, parts)) * len(text) > MOST_REPLACED:
        return _replaced(text, reading)
    return _replaced(text, {name: parts[name] for name in there})


def _in(text: str, names: Names) -> list[str]:
    """Return the names that are in a text, the longest first."""
    return sorted((name for name in names if name and name in text), key=len, reverse=True)


def _replaced(text: str, names: Names) -> str:
    """Return a text with the longest name at each place replaced, and nothing of what it was replaced by."""
    there = _in(text, names)
    if not there:
        return text
    return re.sub("|".join(map(re.escape, there)), lambda found: names[found[0]], text)


def _readings(names: Names) -> Iterator[Names]:
    """Yield what each spelling of an id stands for.

    There are several where two spellings of an id are one text, as of one in capitals without dashes, and those of the
    id that it stands for are not. Each begins with another spelling: the digits at the end of an id are in all of them.
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
