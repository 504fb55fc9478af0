"""Parsing of Python code, even while another thread parses."""

from __future__ import annotations

import ast

_TRIES = 1_000


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
