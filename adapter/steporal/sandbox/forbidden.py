"""Functions that a body must not call, as objects of this process.

``remedies.NAMES`` lists them by name. The watch (``watch.py``) sees calls, so it needs the object that each name stands
for: a built-in function, or the code of a Python function. Names of modules that are not loaded yet stand for nothing,
so the index is rebuilt whenever the process has loaded more modules.
"""

from __future__ import annotations

import datetime
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from .remedies import NAMES, remedy

_ANY: Any = object()
_ENVIRONMENT = ("os.environ", "os.environb")
_NOT_WATCHED = ("sys.", "steporal.", "loop.")
"""Attributes, which are read without a call; Steporal's functions, which reject the call; methods of a run's loop."""


@dataclass(frozen=True, slots=True)
class Target:
    """Python function that a body must not call.

    Attributes:
        name: Its full name.
        code: Its code.
        owner: The object that the method belongs to: ``random.randint`` is a method of a shared generator, and the same
            method of ``ctx.random`` is allowed. ``_ANY`` if every call is forbidden.
    """

    name: str
    code: CodeType
    owner: Any = _ANY

    def is_called_on(self, first: Callable[[], Any]) -> bool:
        """Return whether a call with the first argument that ``first`` returns is forbidden."""
        return self.owner is _ANY or first() is self.owner


@dataclass(slots=True)
class Forbidden:
    """Index of the functions that a body must not call.

    Attributes:
        builtins: The names of built-in functions and methods.
        codes: Python functions, by the identity of their code.
    """

    builtins: dict[Any, str] = field(default_factory=dict)
    codes: dict[int, list[Target]] = field(default_factory=dict)

    def add(self, name: str, value: Any, owner: Any = _ANY) -> None:
        """Add the object that a name stands for."""
        if isinstance(value, BuiltinFunctionType):
            self.builtins.setdefault(value, name)
        elif isinstance(value, MethodType):
            is_of_class = isinstance(value.__self__, type)
            self.add(name, value.__func__, _ANY if is_of_class else value.__self__)
        elif isinstance(value, type):
            for constructor in ("__init__", "__new__"):
                own = vars(value).get(constructor)
                self.add(name, getattr(own, "__func__", own), owner)
        elif (
            isinstance(value, FunctionType) and "<locals>" not in (value := inspect.unwrap(value)).__code__.co_qualname
        ):
            # The code of a decorator's inner function is shared by everything that it decorates.
            targets = self.codes.setdefault(id(value.__code__), [])
            if all(target.owner is not owner for target in targets):
                targets.append(Target(name, value.__code__, owner))


def forbidden() -> Forbidden:
    """Return the index for the modules that the process has loaded so far."""
    return _index(len(sys.modules))


@lru_cache(maxsize=1)
def _index(loaded: int) -> Forbidden:
    index = Forbidden()
    for name in NAMES:
        if name in _ENVIRONMENT:
            _add_environment(index, name)
        elif not name.startswith(_NOT_WATCHED):
            for full_name, value in _values(name):
                index.add(full_name, value)
    _add_clocks(index)
    return index


def _add_environment(index: Forbidden, name: str) -> None:
    environment = getattr(os, name.rpartition(".")[2], None)
    if environment is not None:
        for method in vars(type(environment)).values():
            index.add(name, method, environment)


def _add_clocks(index: Forbidden) -> None:
    """Add ``now`` of each class derived from ``date`` or ``datetime``: each of them has its own method object."""
    for cls in _with_subclasses(datetime.date):
        base = datetime.datetime if issubclass(cls, datetime.datetime) else datetime.date
        for method in ("now", "utcnow", "today"):
            inherited = getattr(cls, method, None)
            if isinstance(inherited, BuiltinFunctionType):
                index.add(f"datetime.{base.__name__}.{method}", inherited)


def _with_subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    yield cls
    for subclass in cls.__subclasses__():
        yield from _with_subclasses(subclass)


def _values(name: str) -> Iterator[tuple[str, Any]]:
    """Yield the objects that a name of the table stands for in the loaded modules, with their full names."""
    if not name.endswith(".*"):
        value = _find(name)
        if value is not None:
            yield name, value
        return
    module = sys.modules.get(name.removesuffix(".*"))
    for member, value in list(vars(module).items()) if module else ():
        is_public = inspect.isroutine(value) or (isinstance(value, type) and _is_from(value, module))
        full_name = f"{name.removesuffix('*')}{member}"
        if is_public and not member.startswith("_") and _is_from(value, module) and remedy(full_name):
            yield full_name, value


def _find(name: str) -> Any:
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        value: Any = sys.modules.get(".".join(parts[:count]))
        if value is not None:
            break
    else:
        value, count = sys.modules["builtins"], 0
    for part in parts[count:]:
        # Looking up an attribute of a module may import another module (PEP 562).
        value = vars(value).get(part) if isinstance(value, ModuleType) else getattr(value, part, None)
    return None if isinstance(value, ModuleType) else value


def _is_from(value: Any, module: ModuleType | None) -> bool:
    """Return whether a module defines a function, instead of only importing it."""
    owner = getattr(value, "__self__", None)
    if owner is not None and not isinstance(owner, ModuleType):
        return not isinstance(owner, type)
    home = str(getattr(value, "__module__", "")).removeprefix("_")
    return module is not None and f"{home}.".startswith(f"{module.__name__}.")
