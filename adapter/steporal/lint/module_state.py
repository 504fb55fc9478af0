"""Uses of the state of a module, which all runs of a worker share.

In another worker, or in a replay by a new one, that state is as it was when the module was imported. A lock, an event
or a queue of asyncio would make runs wait for each other, which no replay repeats, and which may never end.
"""

from __future__ import annotations

import ast
import asyncio
from collections import defaultdict, deque
from collections.abc import Iterator, MutableMapping, MutableSequence, MutableSet
from typing import Any

from ..closures.source import Function
from .names import Scope, own_nodes

INSTEAD = "keep it in a local variable, and pass it on"

INSTEAD_OF_WAITING = (
    "create it in the handler, for the branches of one run (to let runs wait for each other, use "
    "step.wait_for_signal or step.ext.wait_for_event)"
)

WAITED_FOR = (
    asyncio.Lock,
    asyncio.Event,
    asyncio.Condition,
    asyncio.Semaphore,
    asyncio.Barrier,
    asyncio.Queue,
    asyncio.Future,
)
"""Asyncio classes that tasks wait for."""

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
    """Yield the changes that a function makes to its module, each with a description.

    Args:
        function: The function's syntax tree.
        scope: The function's names.
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


def shared_waits(function: Function, scope: Scope) -> Iterator[tuple[ast.expr, str]]:
    """Yield uses of shared objects that tasks wait for, each with a description.

    Args:
        function: The function's syntax tree.
        scope: The function's names.
    """
    for node in own_nodes(function):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            kind = _waited_for(scope.shared_value(node))
            if kind is not None:
                yield node, f"uses {ast.unparse(node)!r} ({kind}), which all runs of the worker share"


def _waited_for(value: Any) -> str | None:
    """Return the class of a value that tasks wait for, or of such values in a container; None for other values."""
    kinds = [type(value)]
    if isinstance(value, defaultdict) and isinstance(value.default_factory, type):
        kinds = [value.default_factory]
    elif isinstance(value, dict | list | tuple):
        kinds = [type(item) for item in (value.values() if isinstance(value, dict) else value)]
    match = next((each for each in WAITED_FOR if any(issubclass(kind, each) for kind in kinds)), None)
    return f"asyncio.{match.__name__}" if match else None


def _is_unset(scope: Scope, name: str) -> bool:
    """Return whether a variable has no value yet, so that the first use fills it in every worker."""
    return scope.global_value(name) is None


def _is_mutable(scope: Scope, name: str) -> bool:
    return isinstance(scope.global_value(name), MUTABLE)
