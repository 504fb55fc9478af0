"""Source of a function as a syntax tree, with the line numbers of its file."""

from __future__ import annotations

import ast
from types import FunctionType
from typing import TypeAlias

from .code import LAMBDA
from .syntax import lines_of_code, parse

Function: TypeAlias = ast.Lambda | ast.FunctionDef | ast.AsyncFunctionDef


def parsed(function: FunctionType) -> Function | None:
    """Return the syntax tree of a function, not of one that it wraps; None if its source is not available."""
    try:
        lines, start = lines_of_code(function.__code__)
        # A nested function is indented. Its lines stay as they are, because texts in it may start at the margin.
        head = "if True:\n" if lines[0][:1].isspace() else "\n"
        module = parse(head + "".join(lines))
    except (OSError, TypeError, SyntaxError):
        return None
    ast.increment_lineno(module, start - 2)
    nodes = ast.walk(module)
    if function.__name__ == LAMBDA:
        return next((node for node in nodes if isinstance(node, ast.Lambda) and _is_of(function, node)), None)
    return next((node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)), None)


def _is_of(function: FunctionType, tree: ast.Lambda) -> bool:
    """Return whether a lambda is the function's, among those on the same line."""
    places = {(line, column) for line, _, column, _ in function.__code__.co_positions()}
    return (tree.body.lineno, tree.body.col_offset) in places
