"""Ids of a rerun, read as those of the run that it repeats, in whatever its kept steps were given.

A body writes the id of its run into keys, paths and messages: whole, without dashes, in other letters, or only the
first or last characters of it. A number or a hash that it computes of an id cannot be read back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

Names = Mapping[str, str]
"""The ids of a run, each with the id that the run had of which this one is a rerun."""

Rename = Callable[[str], str]
"""Returns a text with the ids of the run before in it."""

SHORTEST_PART = 4
"""The fewest characters that are taken for a part of an id."""


def renames(names: Names) -> Iterator[Rename]:
    """Yield the ways to read the ids of one run as those of another: whole ones first, and then parts of them too."""
    spellings = dict(_spellings(names))
    simple = [name for name in spellings if not any(other in name for other in spellings.keys() - {name})]

    def whole(text: str) -> str:
        for name, before in spellings.items():
            text = text.replace(name, before)
        return text

    def parts(text: str) -> str:
        text = whole(text)
        for name in simple:  # and not of a workflow id, which ends with the event's
            before = spellings[name]
            if name[:SHORTEST_PART] in text:
                for size in range(len(name), SHORTEST_PART - 1, -1):
                    text = text.replace(name[:size], before[:size])
            if name[-SHORTEST_PART:] in text:
                for size in range(len(name), SHORTEST_PART - 1, -1):
                    text = text.replace(name[-size:], before[-size:])
        return text

    yield whole
    yield parts


def _spellings(names: Names) -> Iterator[tuple[str, str]]:
    for dash in ("-", ""):
        for change in (str, str.lower, str.upper):
            for name, before in names.items():
                yield change(name.replace("-", dash)), change(before.replace("-", dash))
