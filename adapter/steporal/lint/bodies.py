"""Body of one workflow, followed into what it calls."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType
from typing import Any, TypeGuard

import pydantic

from ..closures.own_code import OwnCode
from ..closures.source import Function, parsed
from ..closures.syntax import lines_of
from ..sandbox.remedies import REFERENCES, STEP, remedy
from ..step import Step, StepExt
from ..workflow import Workflow
from . import branches, captured, module_state
from .branches import shared_ids
from .captured import lost_changes
from .finding import Finding
from .module_state import changes, shared_waits
from .names import Nested, Scope, Thing, named, own_nodes

MAX_DEPTH = 20
"""Depth of calls up to which a body is followed."""

_IGNORED = re.compile(r"#.*\bsteporal:\s*ignore\b")
_CALL_THEIR_ARGUMENT = {"sorted", "min", "max", "map", "filter", "functools.reduce", "list.sort"}
_STEP = "step"
_STEP_CLASSES = ("steporal.Step.", "steporal.StepExt.", "steporal.Listener.")
_STEP_METHODS = {name for cls in (Step, StepExt) for name in vars(cls) if not name.startswith("_")}


@dataclasses.dataclass(frozen=True)
class _Place:
    """Position that the body has led to.

    Attributes:
        scope: The names of the function.
        file: The function's file.
        called_from: The lines of the calls that led there.
    """

    scope: Scope
    file: str
    called_from: tuple[str, ...] = ()

    def line(self, node: ast.expr | ast.stmt) -> str:
        return f"{self.file}:{node.lineno}"


class Body:
    """Body of a workflow.

    Args:
        workflow: The workflow.
        own_code: The code of the app.
    """

    def __init__(self, workflow: Workflow[Any, Any], own_code: OwnCode) -> None:
        self._workflow = workflow
        self._own_code = own_code
        self._seen: set[Any] = set()

    def findings(self) -> Iterator[Finding]:
        """Yield the code that is not deterministic in the body, each line and name once."""
        all_findings = self._called(self._workflow.handler, ())
        yield from {(finding.file, finding.line, finding.does): finding for finding in all_findings}.values()

    # --- functions -------------------------------------------------------------------------------------------------

    def _called(self, callee: Any, called_from: tuple[str, ...]) -> Iterator[Finding]:
        for function in self._own_code.functions(callee):
            yield from self._function(function, called_from)

    def _function(self, function: FunctionType, called_from: tuple[str, ...]) -> Iterator[Finding]:
        if function in self._seen or len(called_from) > MAX_DEPTH:
            return
        self._seen.add(function)
        tree = parsed(function)
        if tree is not None:
            file = inspect.getsourcefile(function.__code__) or function.__code__.co_filename
            yield from self._run(tree, _Place(Scope(tree, real=function), file, called_from))

    def _nested(self, nested: Nested, place: _Place, call: ast.expr) -> Iterator[Finding]:
        if nested.function in self._seen or len(place.called_from) > MAX_DEPTH:
            return
        self._seen.add(nested.function)
        scope = Scope(nested.function, outer=nested.scope)
        yield from self._run(nested.function, _Place(scope, place.file, (*place.called_from, place.line(call))))

    def _run(self, function: Function, place: _Place) -> Iterator[Finding]:
        body = function.body if isinstance(function.body, list) else [function.body]
        yield from self._not_awaited(body, place)
        for part in body:
            yield from self._visit(part, place)
        for call, step_id in shared_ids(function, place.scope, _is_step_method):
            if not _is_ignored(place.file, call):
                does = f"calls {ast.unparse(call.func)} with the id {step_id!r} in several branches"
                yield dataclasses.replace(self._finding(call, place, does, branches.INSTEAD), is_warning=True)
        for node, does in changes(function, place.scope):
            if not _is_ignored(place.file, node):
                yield self._finding(node, place, does, module_state.INSTEAD)
        for node, does in shared_waits(function, place.scope):
            if not _is_ignored(place.file, node):
                yield self._finding(node, place, does, module_state.INSTEAD_OF_WAITING)
        for node, does in lost_changes(function, place.scope, _is_step_method):
            if not _is_ignored(place.file, node):
                yield self._finding(node, place, does, captured.INSTEAD)

    def _visit(self, node: ast.AST, place: _Place) -> Iterator[Finding]:
        match node:
            case ast.expr() if _is_ignored(place.file, node):
                return
            case ast.Call():
                yield from self._call(node, place)
            case ast.Name(ctx=ast.Load()) | ast.Attribute(ctx=ast.Load()):
                yield from self._reference(node, place)
            case ast.For() | ast.AsyncFor() | ast.ListComp() | ast.GeneratorExp() | ast.DictComp():
                yield from self._loop(node, place)
        for child in _parts_run_at_once(node):
            yield from self._visit(child, place)

    # --- findings --------------------------------------------------------------------------------------------------

    def _finding(self, node: ast.expr | ast.stmt, place: _Place, does: str, instead: str) -> Finding:
        return Finding(place.file, node.lineno, self._workflow.id, does, instead, place.called_from)

    def _reference(self, node: ast.expr, place: _Place) -> Iterator[Finding]:
        meaning = place.scope.resolve(node)
        if isinstance(meaning, Thing) and meaning.names[0] in REFERENCES:
            yield self._finding(node, place, f"reads {meaning.names[0]}", STEP)

    def _call(self, call: ast.Call, place: _Place) -> Iterator[Finding]:
        meaning = place.scope.resolve(call.func)
        if isinstance(meaning, Nested):
            yield from self._nested(meaning, place, call)
        elif isinstance(meaning, Thing):
            yield from self._call_of(meaning, call, place)
        elif isinstance(call.func, ast.Attribute) and call.func.attr == "run_in_executor":
            yield self._finding(call, place, "calls loop.run_in_executor", remedy("loop.run_in_executor") or STEP)
        yield from self._called_by(meaning, call, place)

    def _call_of(self, thing: Thing, call: ast.Call, place: _Place) -> Iterator[Finding]:
        if _is_error(thing):
            return
        arguments = len(call.args) + len(call.keywords)
        for name in thing.names:
            if instead := remedy(name, arguments=arguments):
                yield self._finding(call, place, f"calls {name}", instead)
                return
        if not thing.is_known or thing.is_instance:
            return
        called_from = (*place.called_from, place.line(call))
        if isinstance(thing.value, type):
            yield from self._instance(thing.value, call, place)
        else:
            yield from self._called(thing.value, called_from)

    def _called_by(self, callee: Any, call: ast.Call, place: _Place) -> Iterator[Finding]:
        """Yield the findings in arguments that a function such as ``sorted`` calls."""
        if not isinstance(callee, Thing) or not _CALL_THEIR_ARGUMENT & set(callee.names):
            return
        for argument in (*call.args, *(keyword.value for keyword in call.keywords)):
            meaning = place.scope.resolve(argument)
            if isinstance(meaning, Nested):
                yield from self._nested(meaning, place, call)
            elif isinstance(meaning, Thing) and not meaning.is_instance:
                yield from self._call_of(meaning, ast.copy_location(ast.Call(argument, [], []), call), place)

    def _instance(self, cls: type, call: ast.Call, place: _Place) -> Iterator[Finding]:
        """Yield the findings in what is called to make an instance of a class of the app."""
        if not self._own_code.has(cls):
            return
        called_from = (*place.called_from, place.line(call))
        for method in ("__init__", "__post_init__", "model_post_init"):
            defined = inspect.getattr_static(cls, method, None)
            yield from self._called(defined, called_from)
        passed = {keyword.arg for keyword in call.keywords}
        if None in passed or call.args:  # **values, or by position
            return
        for name, factory in _factories(cls):
            if name in passed:
                continue
            known = next(filter(None, map(_remedy_of, named(factory).names)), None)
            if known:
                does = f"calls {known[0]}, the default of {cls.__name__}.{name}"
                yield self._finding(call, place, does, f"pass {name}: {known[1]}")
            else:
                yield from self._called(factory, called_from)

    def _not_awaited(self, body: Sequence[ast.AST], place: _Place) -> Iterator[Finding]:
        """Yield steps that are called as statements, or kept in variables that nothing reads."""
        nodes = [node for part in body for node in (part, *own_nodes(part))]
        read = {node.id for part in body for node in ast.walk(part) if _is_read(node)}
        for node in nodes:
            match node:
                case ast.Expr(value=ast.Call() as call):
                    pass
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call() as call) if name not in read:
                    pass
                case _:
                    continue
            if not _is_ignored(place.file, call) and _is_step_method(call.func, place.scope):
                method = ast.unparse(call.func)
                instead = f"write `await {method}(...)`, or the run fails when the body returns"
                yield self._finding(call, place, f"calls {method} and never awaits it", instead)

    def _loop(self, loop: ast.AST, place: _Place) -> Iterator[Finding]:
        """Yield steps in the order of a set, which differs from process to process."""
        sources, repeated = _loop_parts(loop)
        for source in sources:
            if _is_ignored(place.file, source):
                continue
            if place.scope.is_set(source) and any(map(_takes_steps, repeated)):
                yield self._finding(
                    source,
                    place,
                    "takes steps in the order of a set, which differs from process to process",
                    "use sorted(...)",
                )


# --- the source ----------------------------------------------------------------------------------------------------


def _parts_run_at_once(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a node that run where it stands: of a function that it defines, only the defaults."""
    match node:
        case (
            ast.FunctionDef(decorator_list=decorators, args=args)
            | ast.AsyncFunctionDef(decorator_list=decorators, args=args)
        ):
            yield from (*decorators, *args.defaults, *filter(None, args.kw_defaults))
        case ast.Lambda(args=args):
            yield from (*args.defaults, *filter(None, args.kw_defaults))
        case ast.AnnAssign(target=target, value=value):
            yield from filter(None, (target, value))
        case _:
            yield from ast.iter_child_nodes(node)


def _is_ignored(file: str, node: ast.expr) -> bool:
    """Return whether the first or last line of a node has the comment."""
    lines = lines_of(file)
    return any(_IGNORED.search(line) for end in {node.lineno, node.end_lineno or 0} for line in lines[end - 1 : end])


def _loop_parts(loop: ast.AST) -> tuple[list[ast.expr], list[ast.AST]]:
    """Return what a loop or comprehension iterates over, and what it executes each time."""
    match loop:
        case ast.For(iter=source, body=body) | ast.AsyncFor(iter=source, body=body):
            return [source], list(body)
        case ast.DictComp(key=key, value=value, generators=generators):
            return [each.iter for each in generators], [key, value]
        case ast.ListComp(elt=elt, generators=generators) | ast.GeneratorExp(elt=elt, generators=generators):
            return [each.iter for each in generators], [elt]
    return [], []


def _takes_steps(node: ast.AST) -> bool:
    return any(
        isinstance(inner, ast.Await)
        or (isinstance(inner, ast.Call) and ast.unparse(inner.func).partition(".")[0] == _STEP)
        for inner in (node, *own_nodes(node))
    )


def _is_read(node: ast.AST) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)


def _is_step_method(function: ast.expr, scope: Scope) -> bool:
    """Return whether a function is a method such as ``step.run``, of a parameter of that name or type."""
    meaning = scope.resolve(function)
    if isinstance(meaning, Thing):
        return any(name.startswith(_STEP_CLASSES) for name in meaning.names)
    of, _, method = ast.unparse(function).rpartition(".")
    return meaning is None and of in (_STEP, f"{_STEP}.ext") and method in _STEP_METHODS


# --- things --------------------------------------------------------------------------------------------------------


def _is_error(thing: Thing) -> bool:
    return isinstance(thing.value, type) and issubclass(thing.value, BaseException)


def _remedy_of(name: str) -> tuple[str, str] | None:
    instead = remedy(name)
    return (name, instead) if instead else None


def _factories(cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the fields of a dataclass or pydantic model whose default is made by a call."""
    if issubclass(cls, pydantic.BaseModel):
        for name, field in cls.model_fields.items():
            if field.default_factory is not None:
                yield name, field.default_factory
    elif dataclasses.is_dataclass(cls):
        for each in dataclasses.fields(cls):
            if each.init and each.default_factory is not dataclasses.MISSING:
                yield each.name, each.default_factory
