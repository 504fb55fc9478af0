"""A function's source as a syntax tree, with the line numbers of its file."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

from .runtime.code import LAMBDA, unwrapped

Function: TypeAlias = ast.Lambda | ast.FunctionDef | ast.AsyncFunctionDef


def parsed(function: Callable[..., Any]) -> Function | None:
    """The syntax tree of a function, or of the function below its decorators; None where its source is not at hand."""
    inner = unwrapped(function)
    if inner is None:
        return None
    try:
        lines, start = inspect.getsourcelines(inner)
        # Written inside something, it is indented; its own lines are left alone, as texts in it may be at the margin.
        module = ast.parse("if True:\n" + "".join(lines) if lines[0][:1].isspace() else "\n" + "".join(lines))
    except (OSError, TypeError, SyntaxError, SystemError):  # the last: Python 3.11, where two threads parse at once
        return None
    ast.increment_lineno(module, start - 2)
    wanted = ast.Lambda if inner.__name__ == LAMBDA else ast.FunctionDef | ast.AsyncFunctionDef
    found = (node for node in ast.walk(module) if isinstance(node, wanted))
    return next(found, None)
