"""The functions that a body must not call, as objects of this process.

``remedies.NAMES`` lists them by name. The watch (``watch.py``) sees calls, so it needs what the names stand for: the
built-in function, or the code of the Python function. The names of modules that are not loaded yet stand for nothing,
so the index is made again whenever the process has loaded further modules.
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
"""Attributes, which are read without a call; our own functions, which refuse themselves; methods of a run's loop."""


@dataclass(frozen=True, slots=True)
class Target:
    """A Python function that a body must not call.

    Attributes:
        name: Its full name.
        code: Its code.
        owner: The object whose method is meant: ``random.randint`` is a method of a shared generator, and the same
            method of ``ctx.random`` is allowed. ``_ANY`` if every call is forbidden.
    """

    name: str
    code: CodeType
    owner: Any = _ANY

    def is_called_on(self, first: Callable[[], Any]) -> bool:
        """Return whether a call is meant whose first argument ``first`` returns."""
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
        """Add what a name stands for."""
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
            # The code of a decorator's inner function belongs to everything that it decorates.
            targets = self.codes.setdefault(id(value.__code__), [])
            if all(target.owner is not owner for target in targets):
                targets.append(Target(name, value.__code__, owner))


def forbidden() -> Forbidden:
    """Return the index for the modules that the process has loaded."""
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
    """Add ``now`` of each class derived from ``date`` and ``datetime``, which is another method in each of them."""
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
    """Yield what a name of the table stands for in the loaded modules, each with its full name."""
    if not name.endswith(".*"):
        found = _find(name)
        if found is not None:
            yield name, found
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
        found: Any = sys.modules.get(".".join(parts[:count]))
        if found is not None:
            break
    else:
        found, count = sys.modules["builtins"], 0
    for part in parts[count:]:
        # Looking up an attribute of a module may import another one (PEP 562).
        found = vars(found).get(part) if isinstance(found, ModuleType) else getattr(found, part, None)
    return None if isinstance(found, ModuleType) else found


def _is_from(value: Any, module: ModuleType | None) -> bool:
    """Return whether a module defines a function itself, and does not only import it."""
    owner = getattr(value, "__self__", None)
    if owner is not None and not isinstance(owner, ModuleType):
        return not isinstance(owner, type)
    home = str(getattr(value, "__module__", "")).removeprefix("_")
    return module is not None and f"{home}.".startswith(f"{module.__name__}.")
