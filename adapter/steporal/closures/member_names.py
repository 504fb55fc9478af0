"""Names of functions that do not know their own: methods of a class, and functions that replace others in a module.

A function's ``__qualname__`` is the name with which it was written, not the one by which it is found. A method behind a
decorator without ``functools.wraps`` has the decorator's name; a method whose name begins with two underscores is found
by a longer name; an inherited method belongs to more than one class; and a function that a test has put in place of
another is found by the other's name.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from types import FunctionType, MethodType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from ..values.known_types import is_class, is_own, package_of
from .code import unwrapped
from .syntax import lines_of, parse

_FUNCTIONS = (FunctionType, type(lru_cache(lambda: None)))


def method_name(method: MethodType) -> tuple[str, type | None] | None:
    """Return the name by which the owner of a bound method has it.

    Returns:
        The name, and the class that defines the method if the owner has another method under that name, as for
        ``super().total``. None if no class of the owner has the method.
    """
    owner = method.__self__
    kind = owner if is_class(owner) else type(owner)
    for each in kind.__mro__:
        for name, attribute in vars(each).items():
            if getattr(attribute, "__func__", attribute) is method.__func__:
                own = member(owner, name, None)
                return (name, None if own is not None and own.__func__ is method.__func__ else each)
    return None


def member(owner: Any, name: str, kind: type | None, packages: Collection[str] | None = None) -> MethodType | None:
    """Return the bound method that :func:`method_name` named, or None if it does not exist.

    No code of the owner's class runs: the method is looked up in the dictionaries of the classes, and only functions
    and class methods are bound.

    Args:
        owner: The value, or the class.
        name: The name of the method.
        kind: The class that defines the method, if the owner has another method under that name.
        packages: The app's packages. If given, only methods count that a class of the app has and that are written in
            the app, below their decorators; special methods (``__name__``), which Python calls, do not.
    """
    owners = owner if is_class(owner) else type(owner)
    classes = owners.__mro__ if kind is None else (kind,) if kind in owners.__mro__ else ()
    holder = next((each for each in classes if name in vars(each)), None)
    if holder is None:
        return None
    attribute = vars(holder)[name]
    if type(attribute) is classmethod:
        method = _bound_to(attribute.__func__, owners)
    else:
        method = None if is_class(owner) else _bound_to(attribute, owner)
    if method is None or packages is None:
        return method
    is_app = is_own(holder, packages) and not is_dunder(name) and is_written_in(method.__func__, packages)
    return method if is_app else None


def is_dunder(name: str) -> bool:
    """Return whether a method of this name is special, so that Python itself calls it."""
    return name.startswith("__") and name.endswith("__")


def is_written_in(function: Any, packages: Collection[str]) -> bool:
    """Return whether a function, below its decorators, is written in one of the app's packages.

    ``functools.wraps`` can make a function of another package claim to be of the app; its global variables do not lie.
    """
    plain = unwrapped(function)
    return plain is not None and package_of(str(plain.__globals__.get("__name__"))) in packages


def _bound_to(function: Any, owner: Any) -> MethodType | None:
    """Bind a function as Python does; return None for properties and other descriptors, whose code would run."""
    return MethodType(function, owner) if type(function) in _FUNCTIONS else None


def global_name(function: Any, module: ModuleType) -> str | None:
    """Return the name by which a module has a function that it defines, has in a class or imports; or None."""
    bound, usual = _bound(module), getattr(function, "__name__", "")
    if usual in bound and vars(module).get(usual) is function:
        return usual
    for name, value in vars(module).items():
        if value is function and name in bound:
            return name
        if isinstance(value, type) and value.__module__ == module.__name__:
            for member, attribute in vars(value).items():
                if getattr(attribute, "__func__", attribute) is function and f"{name}.{member}" in bound:
                    return f"{name}.{member}"
    return None


def defines(module: ModuleType, qualname: str) -> bool:
    """Return whether a module's source defines a function of this name, whatever the name stands for now.

    A test may have replaced the function. Imported names do not count.
    """
    return _bound(module).get(qualname, "") is None


def imported_from(module: ModuleType, name: str) -> str | None:
    """Return the import of a name in a module's source, as ``module:name``; None if the name is not imported."""
    return _bound(module).get(name)


def remember_source(handler: Any) -> None:
    """Read the source of a handler's module, and of modules from which it imports functions without their own name.

    To be called while the module is imported. Its file may change before a step's function is looked up, as by a
    deployment that copies files under workers that still run.
    """
    plain = unwrapped(handler)
    module = sys.modules.get(plain.__module__ or "") if plain is not None else None
    if module is None:
        return
    package = package_of(module.__name__)
    for name, source in _bound(module).items():
        value = vars(module).get(name)
        if source is None or not callable(value) or isinstance(value, type):
            continue
        imported = sys.modules.get(source.partition(":")[0])
        has_own_name = type(value) is FunctionType and f"{value.__module__}:{value.__qualname__}" == source
        if imported is not None and package_of(imported.__name__) == package and not has_own_name:
            _bound(imported)


_read: WeakKeyDictionary[ModuleType, Mapping[str, str | None]] = WeakKeyDictionary()


def _bound(module: ModuleType) -> Mapping[str, str | None]:
    """Return the names that a module's source binds at its top: None for a function, ``module:name`` for an import."""
    bound = _read.get(module)
    if bound is None:
        package = getattr(module, "__package__", None) or ""
        bound = _read[module] = _bindings(getattr(module, "__file__", None) or "", package)
    return bound


def _bindings(file: str, package: str) -> Mapping[str, str | None]:
    try:
        tree = parse("".join(lines_of(file)))
    except (OSError, SyntaxError, ValueError):
        return {}
    return dict(_names(tree.body, "", package))


def _names(body: list[ast.stmt], prefix: str, package: str) -> Iterator[tuple[str, str | None]]:
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield f"{prefix}{name}", None
            case ast.ClassDef(name=name, body=inner):
                yield from _names(inner, f"{prefix}{name}.", package)
            case ast.ImportFrom(names=aliases) if not prefix:
                source = _source(statement, package)
                yield from ((alias.asname or alias.name, f"{source}:{alias.name}") for alias in aliases)
            case ast.If() | ast.Try() | ast.With():
                blocks: list[Any] = [getattr(statement, part, []) for part in ("body", "orelse", "finalbody")]
                blocks += [handler.body for handler in getattr(statement, "handlers", [])]
                for block in blocks:
                    yield from _names(block, prefix, package)


def _source(statement: ast.ImportFrom, package: str) -> str:
    """Return the module that ``from … import`` names; a relative one as its full name."""
    if not statement.level:
        return statement.module or ""
    parts = package.split(".")
    parents = parts[: len(parts) - statement.level + 1]
    return ".".join([*parents, *([statement.module] if statement.module else [])])
