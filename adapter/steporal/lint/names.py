"""Meaning of names in a function's source: from its assignments, its closure, and its module's globals."""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import FunctionType, ModuleType
from typing import Any, TypeAlias

from ..closures.own_code import layers
from ..closures.source import Function
from ..sandbox.remedies import NAMES

_UNKNOWN: Any = object()


@dataclass(frozen=True)
class Thing:
    """Object whose full name is known.

    Attributes:
        names: The full names, the best first; several for what a class inherits.
        value: The object itself, if the process has it.
        is_instance: Whether the meaning is an instance of ``value``, instead of ``value``.
    """

    names: tuple[str, ...]
    value: Any = _UNKNOWN
    is_instance: bool = False

    @property
    def is_known(self) -> bool:
        """True if ``value`` is available."""
        return self.value is not _UNKNOWN


@dataclass(frozen=True)
class Nested:
    """Function that is written inside the analyzed one."""

    function: Function
    scope: Scope


Meaning: TypeAlias = Thing | Nested | None


@dataclass(frozen=True)
class Annotated:
    """Value of a parameter with an annotation."""

    annotation: ast.expr


Binding: TypeAlias = ast.expr | Function | Thing | Annotated | None
"""Value of a variable: an expression, a nested function, or an import; None for any other value."""


class Scope:
    """Names of one function.

    Args:
        function: The function's syntax tree.
        outer: The enclosing scope; None for a function that is analyzed alone.
        real: The function itself, if it is analyzed alone.
    """

    def __init__(self, function: Function, *, outer: Scope | None = None, real: FunctionType | None = None) -> None:
        self.function = function
        self._outer = outer
        self._real = real
        self._locals = _bindings(function)
        self._resolving: set[str] = set()

    def resolve(self, expression: ast.expr) -> Meaning:
        """Return the meaning of an expression, as far as the source shows it."""
        match expression:
            case ast.Name(id=name):
                return self._name(name)
            case ast.Attribute(value=value, attr=attr):
                base = self.resolve(value)
                return _attribute(base, attr) if isinstance(base, Thing) else None
            case ast.Call(func=func):
                return _instance_of(self.resolve(func))
            case ast.BinOp(left=left, right=right):
                return self._combined(left, expression.op, right)
            case ast.Set() | ast.SetComp():
                return _SET
            case ast.Lambda():
                return Nested(expression, self)
            case ast.NamedExpr(value=value):
                return self.resolve(value)
        return None

    def is_set(self, expression: ast.expr) -> bool:
        """Return whether an expression is a set, whose order differs between processes."""
        meaning = self.resolve(expression)
        return isinstance(meaning, Thing) and meaning.is_instance and meaning.value in (set, frozenset)

    def _name(self, name: str) -> Meaning:
        if name in self._locals:
            if name in self._resolving:
                return None
            self._resolving.add(name)
            try:
                meanings = [self._bound(binding) for binding in self._locals[name]]
            finally:
                self._resolving.discard(name)
            return meanings[0] if all(meaning == meanings[0] for meaning in meanings) else None
        if self._outer is not None:
            return self._outer._name(name)
        return self._global(name)

    def _bound(self, binding: Binding) -> Meaning:
        if isinstance(binding, ast.FunctionDef | ast.AsyncFunctionDef):
            return Nested(binding, self)
        if isinstance(binding, Annotated):
            annotation = binding.annotation
            return _instance_of(self.resolve(annotation.value if isinstance(annotation, ast.Subscript) else annotation))
        return self.resolve(binding) if isinstance(binding, ast.expr) else binding

    def global_value(self, name: str) -> Any:
        """Return the value of a global variable of the module, or ``_UNKNOWN``, which equals no other value."""
        if name in self._locals:
            return _UNKNOWN
        if self._outer is not None:
            return self._outer.global_value(name)
        if self._real is None or name in self._real.__code__.co_freevars:
            return _UNKNOWN
        return self._real.__globals__.get(name, _UNKNOWN)

    def shared_value(self, expression: ast.expr) -> Any:
        """Return the value that an expression has in every run, or ``_UNKNOWN``, which equals no other value.

        The value is a variable of the module or of a function around the handler, or an attribute reached from one. No
        code of the app runs: a property has no value here.
        """
        match expression:
            case ast.Name(id=name):
                return self.variable_around(name)
            case ast.Attribute(value=value, attr=attr):
                base = self.shared_value(value)
                return _UNKNOWN if base is _UNKNOWN else inspect.getattr_static(base, attr, _UNKNOWN)
        return _UNKNOWN

    def variable_around(self, name: str) -> Any:
        if name in self._locals:
            return _UNKNOWN
        if self._outer is not None:
            return self._outer.variable_around(name)
        if self._real is None:
            return _UNKNOWN
        code = self._real.__code__
        if name not in code.co_freevars:
            return self._real.__globals__.get(name, _UNKNOWN)
        try:
            return (self._real.__closure__ or ())[code.co_freevars.index(name)].cell_contents
        except ValueError:  # not assigned yet
            return _UNKNOWN

    def is_captured(self, name: str) -> bool:
        """Return whether a variable belongs to an enclosing function."""
        return name not in self._locals and bool(self.bindings(name))

    def bindings(self, name: str) -> list[Binding]:
        """Return the values assigned to a variable of this function or of an enclosing one; empty for a global one."""
        if name in self._locals:
            return self._locals[name]
        return self._outer.bindings(name) if self._outer is not None else []

    def _global(self, name: str) -> Meaning:
        if self._real is None:
            return None
        code = self._real.__code__
        if name in code.co_freevars:
            cell = (self._real.__closure__ or ())[code.co_freevars.index(name)]
            try:
                return named(cell.cell_contents)
            except ValueError:  # not assigned yet
                return None
        if name in self._real.__globals__:
            return named(self._real.__globals__[name])
        return named(getattr(builtins, name)) if hasattr(builtins, name) else None

    def _combined(self, left: ast.expr, operator: ast.operator, right: ast.expr) -> Meaning:
        if isinstance(operator, ast.Div):
            return _instance(self.resolve(left))  # a path and a part below it
        if isinstance(operator, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor):
            sides = [self.resolve(left), self.resolve(right)]
            if _SET in sides or any(map(_is_view, (left, right))):
                return _SET
        return None


# --- assignments in a function -------------------------------------------------------------------------------------


def own_nodes(root: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run when a function runs, without those of functions written inside it."""
    for child in ast.iter_child_nodes(root):
        yield child
        if not isinstance(child, Function):
            yield from own_nodes(child)


def _bindings(function: Function) -> dict[str, list[Binding]]:
    bindings_by_name: dict[str, list[Binding]] = {}

    def bind(name: str, binding: Binding) -> None:
        bindings_by_name.setdefault(name, []).append(binding)

    arguments = function.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        bind(argument.arg, Annotated(argument.annotation) if argument.annotation is not None else None)
    for rest in filter(None, (arguments.vararg, arguments.kwarg)):
        bind(rest.arg, None)
    assigned: dict[int, ast.expr] = {}  # targets whose value is known, by identity
    shared: set[str] = set()
    for statement in function.body if isinstance(function.body, list) else [function.body]:
        for node in (statement, *(own_nodes(statement) if not isinstance(statement, Function) else ())):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    bind(name, node)
                case ast.ClassDef(name=name):
                    bind(name, None)
                case ast.Assign(targets=[ast.Name() as target], value=value):
                    assigned[id(target)] = value
                case ast.AnnAssign(target=ast.Name() as target, value=ast.expr() as value):
                    assigned[id(target)] = value
                case ast.NamedExpr(target=target, value=value):
                    assigned[id(target)] = value
                case ast.withitem(context_expr=value, optional_vars=ast.Name() as target):
                    assigned[id(target)] = value
                case ast.Import(names=names):
                    for alias in names:
                        top = alias.name.partition(".")[0]
                        bind(alias.asname or top, _module(alias.name if alias.asname else top))
                case ast.ImportFrom(module=str(module), names=names, level=0):
                    for alias in names:
                        bind(alias.asname or alias.name, _attribute(_module(module), alias.name))
                case ast.ImportFrom(names=names):
                    for alias in names:
                        bind(alias.asname or alias.name, None)
                case ast.Global(names=names) | ast.Nonlocal(names=names):
                    shared.update(names)
                case ast.Name(id=name, ctx=ast.Store()):
                    bind(name, assigned.get(id(node)))
                case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                    bind(name, None)
    return {name: bindings for name, bindings in bindings_by_name.items() if name not in shared}


# --- full names ----------------------------------------------------------------------------------------------------


def _module(name: str) -> Thing:
    return Thing((_MODULE_NAMES.get(name, name),), sys.modules.get(name, _UNKNOWN))


def named(value: Any) -> Thing:
    """Return an object of the process with its full name."""
    if name := _known_name(value):
        return Thing((name,), value)
    if isinstance(value, ModuleType):
        return Thing((_MODULE_NAMES.get(value.__name__, value.__name__),), value)
    if isinstance(value, type):
        return Thing(tuple(map(_class_name, value.__mro__)), value)
    inner = value if inspect.isbuiltin(value) else next(layers(value), None)
    if inner is not None:
        return Thing((f"{inner.__module__}.{inner.__qualname__}".removeprefix("builtins."),), value)
    names = tuple(map(_class_name, type(value).__mro__))
    return Thing(names, type(value), is_instance=True)


def _class_name(cls: type) -> str:
    return _known_name(cls) or f"{cls.__module__}.{cls.__qualname__}".removeprefix("builtins.")


def _attribute(base: Thing, attr: str) -> Thing:
    symbolic = tuple(f"{name}.{attr}" for name in base.names)
    if not base.is_known:
        return Thing(symbolic)
    if isinstance(base.value, ModuleType):
        submodule = sys.modules.get(f"{base.value.__name__}.{attr}", _UNKNOWN)
        value = vars(base.value).get(attr, submodule)
        return Thing(symbolic[:1]) if value is _UNKNOWN else _of_module(symbolic[0], value)
    if isinstance(base.value, type):
        member = inspect.getattr_static(base.value, attr, _UNKNOWN)
        inherited = tuple(
            f"{_class_name(cls)}.{attr}"
            for cls in base.value.__mro__
            if member is not _UNKNOWN and inspect.getattr_static(cls, attr, None) is member
        )
        plain = getattr(member, "__func__", member)  # below classmethod and staticmethod
        return Thing(inherited or symbolic, plain if isinstance(plain, FunctionType) else _UNKNOWN)
    return Thing(symbolic)


def _of_module(symbolic: str, value: Any) -> Thing:
    """Return a member of a module, by its name in the module, unless the table lists it by another name."""
    thing = named(value)
    if _known_name(value) or thing.is_instance or isinstance(value, ModuleType):
        return thing
    return Thing((symbolic, *thing.names), value)


_MODULE_NAMES = {"posixpath": "os.path", "ntpath": "os.path", "posix": "os", "nt": "os"}


def _known_name(value: Any) -> str | None:
    """Return the table's name of an object, whatever the object calls itself."""
    return _by_identity(len(sys.modules)).get(id(value))


@lru_cache(maxsize=1)
def _by_identity(loaded: int) -> dict[int, str]:
    """Return the names in the table, by the identities of the objects that they stand for in the loaded modules."""
    return dict(reversed(list(_identities(NAMES))))  # the first of two names of an object wins


def _identities(names: Iterable[str]) -> Iterator[tuple[int, str]]:
    for name in names:
        module_name, value = "", None
        parts = name.split(".")
        if name.endswith(".*"):
            module = sys.modules.get(name.removesuffix(".*"))
            for member, value in vars(module).items() if module else ():
                if inspect.isroutine(value) and not member.startswith("_") and _is_from(value, name.removesuffix(".*")):
                    yield id(value), f"{name.removesuffix('*')}{member}"
            continue
        for count, part in enumerate(parts, start=1):
            parent = value
            module_name = ".".join(parts[:count])
            if module_name in sys.modules:
                value = sys.modules[module_name]
            elif count == 1:
                value = getattr(builtins, part, None)
            elif isinstance(parent, ModuleType):
                value = vars(parent).get(part)
            else:
                value = None  # a member of a class, which is created at each access
            if value is None:
                break
            if not isinstance(value, ModuleType):
                yield id(value), module_name


def _is_from(value: Any, module: str) -> bool:
    """Return whether a module or one of its submodules defines a function, instead of only importing it."""
    owner = getattr(value, "__self__", None)
    if owner is not None and not isinstance(owner, ModuleType):
        return True  # a method of an object in the module, as in `random`
    home = (getattr(value, "__module__", None) or "").removeprefix("_")
    return f"{home}.".startswith(f"{module}.")


# --- kinds of values -----------------------------------------------------------------------------------------------

_SET = Thing(("set", "object"), set, is_instance=True)


def _instance_of(called: Meaning) -> Meaning:
    """Return the result of a call of a class."""
    if isinstance(called, Thing) and isinstance(called.value, type) and not called.is_instance:
        return Thing(called.names, called.value, is_instance=True)
    return None


def _instance(meaning: Meaning) -> Meaning:
    return meaning if isinstance(meaning, Thing) and meaning.is_instance else None


def _is_view(expression: ast.expr) -> bool:
    """Return whether an expression is ``x.keys()`` or ``x.items()``, which becomes a set when combined."""
    return (
        isinstance(expression, ast.Call)
        and isinstance(expression.func, ast.Attribute)
        and expression.func.attr in ("keys", "items")
    )
