"""Names of functions that do not know their own: methods of a class, and functions that a module's name now stands for.

A function's ``__qualname__`` says where it was written, not under which name it is found. A method behind a decorator
without ``functools.wraps`` has the decorator's name, one whose name begins with two underscores is found under a longer
one, an inherited one belongs to more than one class, and a function that a test has put in the place of another is
found under the other's name.
"""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import MethodType, ModuleType
from typing import Any


def method_name(method: MethodType) -> tuple[str, type | None] | None:
    """Return the name under which the owner of a bound method has it.

    Returns:
        The name, and the class whose own member it is if the owner itself has another under that name, as for
        ``super().total``. None if no class of the owner has the method.
    """
    owner = method.__self__
    kind = owner if isinstance(owner, type) else type(owner)
    for each in kind.__mro__:
        for name, member in vars(each).items():
            if _function_of(member) is method.__func__:
                return (name, None) if is_method(getattr(owner, name, None), method) else (name, each)
    return None


def member(owner: Any, name: str, kind: type | None) -> MethodType | None:
    """Return the bound method that :func:`method_name` named, or None if there is none."""
    if kind is None:
        found = getattr(owner, name, None)
    else:
        owners = owner if isinstance(owner, type) else type(owner)
        found = vars(kind).get(name) if issubclass(owners, kind) else None
        found = found.__get__(owner, owners) if found is not None and hasattr(found, "__get__") else None
    return found if isinstance(found, MethodType) and found.__self__ is owner else None


def is_method(found: Any, method: MethodType) -> bool:
    """Return whether two bound methods are the same function of the same owner."""
    return isinstance(found, MethodType) and found.__func__ is method.__func__ and found.__self__ is method.__self__


def _function_of(member: Any) -> Any:
    return member.__func__ if isinstance(member, classmethod | staticmethod) else member


def global_name(function: Any, module: ModuleType) -> str | None:
    """Return the name by which a module has a function, written there, in a class of it or imported; or None."""
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
    """Return whether a module's source has a function of this name, whatever the name stands for now.

    A test may have replaced it. A name that the module has imported is not one of its own.
    """
    return _bound(module).get(qualname, "") is None


def imported_from(module: ModuleType, name: str) -> str | None:
    """Return what a module's source imports under a name, as ``module:name``; None if it imports nothing."""
    return _bound(module).get(name)


def _bound(module: ModuleType) -> Mapping[str, str | None]:
    """The names that a module's source binds at its top: to None for a function, to ``module:name`` for an import."""
    package = getattr(module, "__package__", None) or ""
    return _bindings(getattr(module, "__file__", None) or "", package)


@lru_cache(maxsize=256)
def _bindings(file: str, package: str) -> Mapping[str, str | None]:
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
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
    """The module that ``from … import`` names, a relative one in full."""
    if not statement.level:
        return statement.module or ""
    parts = package.split(".")
    parents = parts[: len(parts) - statement.level + 1]
    return ".".join([*parents, *([statement.module] if statement.module else [])])
