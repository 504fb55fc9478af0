"""Checks of a handler's source for mistakes, when it is defined instead of when it runs."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Any

from .closures.code import position, unwrapped
from .closures.source import Function, parsed
from .errors import CaptureError, NestedStepError


def check_step_functions(handler: Callable[..., Any], workflow_id: str) -> None:
    """Check the functions that a handler passes to ``step.run``.

    If the source cannot be read, or does not show how a function is passed, the same mistakes are found when the step
    is called.

    Raises:
        NestedStepError: A function calls a step itself.
        CaptureError: A function assigns a variable of the handler.
    """
    plain = unwrapped(handler)
    tree = parsed(plain) if plain else None
    if not isinstance(tree, ast.AsyncFunctionDef) or len(tree.args.args) < 2:
        return
    step = tree.args.args[1].arg
    nested = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    for call in _step_runs(tree, step):
        step_id = _text(call.args[0])
        passed = call.args[1]
        function = nested.get(passed.id) if isinstance(passed, ast.Name) else passed
        if not isinstance(function, Function):
            continue
        where = f"in workflow {workflow_id!r} ({position(handler).rpartition(':')[0]}:{call.lineno})"
        if inner := next(_calls_of(function, step), None):
            raise NestedStepError(
                f"step {_text(inner.args[0]) if inner.args else '?'} is called inside step {step_id} {where}; steps do "
                "not nest: call it in the handler's body, and pass on its result"
            )
        if written := [name for node in ast.walk(function) if isinstance(node, ast.Nonlocal) for name in node.names]:
            raise CaptureError(
                f"step {step_id} assigns {', '.join(map(repr, written))} of the function around it {where}, which "
                "would be lost: steps run in another process; return the value from the step instead"
            )


def _step_runs(tree: ast.AST, step: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) > 1 and ast.unparse(node.func) == f"{step}.run":
            yield node


def _calls_of(function: Function, step: str) -> Iterator[ast.Call]:
    if any(argument.arg == step for argument in function.args.args):
        return
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(f"{step}."):
            yield node


def _text(node: ast.expr) -> str:
    return repr(node.value) if isinstance(node, ast.Constant) else ast.unparse(node)
