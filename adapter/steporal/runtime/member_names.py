"""Names of functions that do not know their own: methods of a class, and functions that a module's name now stands for.

A function's ``__qualname__`` says where it was written, not under which name it is found. A method behind a decorator
without ``functools.wraps`` has the decorator's name, one whose name begins with two underscores is found under a longer
one, an inherited one belongs to more than one class, and a function that a test has put in the place of another is
found under the other's name.
"""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator
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
    """Return the name of a module's own functions that now stands for ``function``, or None."""
    for name, value in vars(module).items():
        if value is function and defines(module, name):
            return name
    return None


def defines(module: ModuleType, qualname: str) -> bool:
    """Return whether a module's source has a function of this name, whatever the name stands for now.

    A test may have replaced it. A name that the module has imported is not one of its own.
    """
    return qualname in _defined(getattr(module, "__file__", None) or "")


@lru_cache(maxsize=256)
def _defined(file: str) -> frozenset[str]:
    try:
        source = linecache.getlines(file)
        return frozenset(_functions(ast.parse("".join(source)).body, ""))
    except (OSError, SyntaxError, ValueError):
        return frozenset()


def _functions(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield f"{prefix}{name}"
            case ast.ClassDef(name=name, body=inner):
                yield from _functions(inner, f"{prefix}{name}.")
            case ast.If() | ast.Try() | ast.With():
                blocks: list[Any] = [getattr(statement, part, []) for part in ("body", "orelse", "finalbody")]
                blocks += [handler.body for handler in getattr(statement, "handlers", [])]
                for block in blocks:
                    yield from _functions(block, prefix)
