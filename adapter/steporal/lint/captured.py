"""Changes of values that a step function captured from its handler.

The step receives a copy of the value, in another process, so the body never sees the change.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

from ..closures.source import Function
from .module_state import CHANGING, MUTABLE
from .names import Nested, Scope, Thing, own_nodes

INSTEAD = "return the value from the step, and change the variable in the body"

_DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)


def lost_changes(
    function: Function, scope: Scope, is_step: Callable[[ast.expr, Scope], bool]
) -> Iterator[tuple[ast.expr, str]]:
    """Yield the changes that are lost, each with a description.

    Args:
        function: The body, or a function that it calls.
        scope: The function's names.
        is_step: Returns whether an expression is a method of ``step``.
    """
    for node in own_nodes(function):
        match node:
            case ast.Call(func=ast.Attribute(attr="run") as method, args=[_, handler, *_]) if is_step(method, scope):
                if isinstance(nested := scope.resolve(handler), Nested):
                    yield from _changes(nested)


def _changes(step: Nested) -> Iterator[tuple[ast.expr, str]]:
    own = Scope(step.function, outer=step.scope)
    returned = set(_returned(step.function))
    for node in own_nodes(step.function):
        match node:
            case ast.Subscript(ctx=ast.Store() | ast.Del()) | ast.Attribute(ctx=ast.Store() | ast.Del()):
                name = _root(node)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=called), attr=method)) if method in CHANGING:
                name = called if _is_container(own, called) else None
            case _:
                continue
        if name is not None and own.is_captured(name) and name not in returned:
            yield node, f"changes {name!r} inside a step, and the change is lost"


def _returned(function: Function) -> Iterator[str]:
    """Yield the names in the results of a function: changes of these are not lost."""
    for node in own_nodes(function):
        if isinstance(node, ast.Return) and node.value is not None:
            yield from (each.id for each in ast.walk(node.value) if isinstance(each, ast.Name))


def _root(node: ast.expr) -> str | None:
    """Return the variable of an expression such as ``order.lines[0].price``."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _is_container(scope: Scope, name: str) -> bool:
    """Return whether every value assigned to a variable is known to be a container."""
    bindings = scope.bindings(name)
    return bool(bindings) and all(
        isinstance(binding, _DISPLAYS) or (isinstance(binding, ast.expr) and _makes_container(scope.resolve(binding)))
        for binding in bindings
    )


def _makes_container(meaning: object) -> bool:
    return (
        isinstance(meaning, Thing)
        and meaning.is_instance
        and isinstance(meaning.value, type)
        and issubclass(meaning.value, MUTABLE)
    )
