"""Step ids that several branches of a body share."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator

from ..closures.source import Function
from .names import Nested, Scope, own_nodes

INSTEAD = (
    'add what distinguishes the branches to the id, as in f"charge {order.id}": the keys of shared ids contain the '
    "number of the branch, so an edit that adds or reorders branches stops runs that are in flight"
)

_MAKE_TASKS = ("create_task", "ensure_future", "gather")
_LOOPS = (ast.For, ast.AsyncFor, ast.While, ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)


def shared_ids(
    function: Function, scope: Scope, is_step: Callable[[ast.expr, Scope], bool]
) -> Iterator[tuple[ast.Call, str]]:
    """Yield the calls of steps with a constant id in functions that a body runs as more than one task.

    Args:
        function: The body, or a function that it calls.
        scope: The function's names.
        is_step: Returns whether an expression is a method of ``step``.
    """
    branches = {id(nested.function): nested for nested, _ in _branches(function, scope)}
    times = Counter[int]()
    for nested, count in _branches(function, scope):
        times[id(nested.function)] += count
    for number, nested in branches.items():
        if times[number] > 1:
            yield from _constant_ids(nested, is_step)


def _branches(function: Function, scope: Scope) -> Iterator[tuple[Nested, int]]:
    """Yield the functions that are run as tasks, and how often one call does so; 2 stands for any number."""
    for node, is_repeated in _nodes(function, False):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in _MAKE_TASKS:
            for argument in node.args:
                yield from _called(argument, scope, is_repeated)


def _called(argument: ast.expr, scope: Scope, is_repeated: bool) -> Iterator[tuple[Nested, int]]:
    if isinstance(argument, ast.Starred):
        argument = argument.value
    if isinstance(argument, ast.ListComp | ast.GeneratorExp | ast.SetComp):
        argument, is_repeated = argument.elt, True
    if isinstance(argument, ast.Call) and isinstance(nested := scope.resolve(argument.func), Nested):
        yield nested, 2 if is_repeated else 1


def _nodes(root: ast.AST, is_repeated: bool) -> Iterator[tuple[ast.AST, bool]]:
    """Yield the nodes that run when a function runs, and whether they are in a loop."""
    for child in ast.iter_child_nodes(root):
        yield child, is_repeated
        if not isinstance(child, Function):
            yield from _nodes(child, is_repeated or isinstance(child, _LOOPS))


def _constant_ids(nested: Nested, is_step: Callable[[ast.expr, Scope], bool]) -> Iterator[tuple[ast.Call, str]]:
    for node in own_nodes(nested.function):
        match node:
            case ast.Call(args=[ast.Constant(value=str(step_id)), *_]) if is_step(node.func, nested.scope):
                yield node, step_id
