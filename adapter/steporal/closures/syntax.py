"""Source code read, parsed and shown, also where another thread does so at the same time."""

from __future__ import annotations

import ast
import inspect
import linecache
import tokenize
from collections.abc import Callable
from traceback import format_tb
from types import CodeType, TracebackType
from typing import TypeVar

_TRIES = 1_000

T = TypeVar("T")


def lines_of(file: str) -> list[str]:
    """Return the lines of a file; none if it cannot be read."""
    return _with_line_cache(lambda: linecache.getlines(file))


def lines_of_code(code: CodeType) -> tuple[list[str], int]:
    """Return the source lines of a function, and the number of the first line.

    Raises:
        OSError: The source cannot be read, or does not have the function any more.
    """
    try:
        return _with_line_cache(lambda: inspect.getsourcelines(code))
    except (SyntaxError, tokenize.TokenError) as err:  # another text stands there now
        raise OSError(f"the source of {code.co_name} was changed: {err}") from None


def format_stack(traceback: TracebackType | None) -> str:
    """Return a traceback as text."""
    return _with_line_cache(lambda: "".join(format_tb(traceback)))


def _with_line_cache(read: Callable[[], T]) -> T:
    """Read lines through Python's line cache.

    The cache checks that it has an entry, and then looks it up. If another thread drops the entry in between, as it
    does when it formats a traceback and the file has changed, Python raises a `KeyError`.
    """
    for _ in range(_TRIES - 1):
        try:
            return read()
        except KeyError:
            continue
    return read()


def parse(source: str) -> ast.Module:
    """Return the syntax tree of a module.

    Python 3.11 counts its depth in the tree for all threads together, so it raises a `SystemError` if another thread
    parses at the same time (python/cpython#106905). Each call starts to count from zero.

    Raises:
        SyntaxError: The source is not valid Python.
        ValueError: The source contains null characters.
    """
    for _ in range(_TRIES - 1):
        try:
            return ast.parse(source)
        except SystemError:
            continue
    return ast.parse(source)
