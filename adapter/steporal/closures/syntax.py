"""Parsing Python code, also where another thread does so at the same time."""

from __future__ import annotations

import ast

_TRIES = 1_000


def parse(source: str) -> ast.Module:
    """Return the syntax tree of a module.

    Python 3.11 counts how deep it is in a tree for all threads together, so it raises a `SystemError` where another one
    parses in the meantime (python/cpython#106905). It begins to count anew with each call.

    Raises:
        SyntaxError: The source is not Python.
        ValueError: The source has null characters.
    """
    for _ in range(_TRIES - 1):
        try:
            return ast.parse(source)
        except SystemError:
            continue
    return ast.parse(source)
