"""Stack traces for people: the line of the user's own code first, everything else on request."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FRAME = re.compile(r'^ *File "(?P<file>.+)", line (?P<line>\d+), in (?P<function>.+)$')
_LIBRARY = re.compile(r"/(?:site-packages|dist-packages)/|/[Ll]ib/python3[^/]*/|^<")


@dataclass(frozen=True, slots=True)
class Place:
    """Line of code in a stack trace.

    Attributes:
        file: The path on the worker's machine.
        line: The line number.
        function: The name of the function.
        source: The text of the line; empty if the worker did not have it.
    """

    file: str
    line: int
    function: str
    source: str = ""

    def __str__(self) -> str:
        return f"{_relative(self.file)}:{self.line} in {self.function}"

    @property
    def lines(self) -> list[str]:
        """The place and the source text, as two lines."""
        return [f"  {self}", *([f"    {self.source}"] if self.source else [])]


def own_place(stack: str) -> Place | None:
    """Return the innermost line of a stack trace that is not a library's.

    An app may be installed beside its libraries. Its own package is then that of the outermost line, because a stack
    trace begins in a step function or a handler.
    """
    places = list(_places(stack))
    own = [place for place in places if not _LIBRARY.search(_path(place))]
    if not own and places:
        package = _package(places[0])
        own = [place for place in places if package and _package(place) == package] or places
    return own[-1] if own else None


_INSTALLED = re.compile(r".*/(?:site|dist)-packages/[^/]+")


def _package(place: Place) -> str:
    """Return the folder of the place's installed package, or the file of its installed module; empty if neither."""
    match = _INSTALLED.match(_path(place))
    return match[0] if match else ""


def _path(place: Place) -> str:
    return place.file.replace("\\", "/")


def _places(stack: str) -> Iterator[Place]:
    lines = stack.splitlines()
    for number, line in enumerate(lines):
        if match := _FRAME.match(line):
            following = lines[number + 1] if number + 1 < len(lines) else ""
            source = "" if _FRAME.match(following) or not following.startswith("    ") else following.strip()
            yield Place(match["file"], int(match["line"]), match["function"], source)


def _relative(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(os.getcwd()) else file
