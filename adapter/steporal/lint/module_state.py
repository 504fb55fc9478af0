"""Finds where a body changes the state of a module, which all runs of a worker share.

Another worker, or a replay in a new one, has that state as it was when the module was imported.
"""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterator, MutableMapping, MutableSequence, MutableSet

from ..source import Function
from .names import Scope, own_nodes

INSTEAD = "keep it in a local variable, and pass it on"

MUTABLE = (MutableMapping, MutableSequence, MutableSet, deque)
"""Classes of containers."""

CHANGING = frozenset(
    {
        *("add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "insert", "pop", "popitem"),
        *("popleft", "remove", "reverse", "rotate", "setdefault", "sort", "update"),
    }
)
"""Methods that change a container."""


def changes(function: Function, scope: Scope) -> Iterator[tuple[ast.expr, str]]:
    """Yield what a function changes of its module, each with a description.

    Args:
        function: The function's syntax tree.
        scope: Its names.
    """
    shared = {name for node in own_nodes(function) if isinstance(node, ast.Global) for name in node.names}
    for node in own_nodes(function):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) if name in shared and not _is_unset(scope, name):
                yield node, f"assigns the global variable {name!r}"
            case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()) if _is_mutable(scope, name):
                yield node, f"changes the global variable {name!r}"
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)) if (
                method in CHANGING and _is_mutable(scope, name)
            ):
                yield node, f"changes the global variable {name!r}"


def _is_unset(scope: Scope, name: str) -> bool:
    """Return whether a variable has no value yet: the first use fills it, in every worker."""
    return scope.global_value(name) is None


def _is_mutable(scope: Scope, name: str) -> bool:
    return isinstance(scope.global_value(name), MUTABLE)
