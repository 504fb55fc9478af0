"""Classes that the runs of a worker share, because they are only data.

A pydantic model or an enum without code of its own has nothing that a run could change, or that could differ on replay.
Making such a class takes most of the time that loading a module takes (0.4 ms each), so the sandbox takes the real one.
A class is shared only if everything that it is made of is: its bases, the types of its fields, its validators.
"""

from __future__ import annotations

import enum
import inspect
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, TypeGuard

import pydantic

_FACTORIES = frozenset({list, dict, set, tuple, frozenset, str, int, float, bool})
_OF_EVERY_MODEL = frozenset({"model_config", "_abc_impl"})
_OF_ANNOTATIONS = frozenset({"__annotate__", "__annotate_func__"})  # Python 3.14 evaluates them late


def shared_classes(modules: Mapping[str, ModuleType], codes: Mapping[str, CodeType]) -> dict[str, dict[str, type]]:
    """The classes at the top level of modules that need not be made again, by module and name.

    Args:
        modules: The modules that are loaded again, by name.
        codes: The code of each.
    """
    found = {cls for name, code in codes.items() for cls in _data_classes(modules[name], code)}
    needs = {cls: set(_classes_in(dict(vars(cls)), modules)) | _bases(cls, modules) for cls in found}
    while left_out := {cls for cls in found if not needs[cls] <= found}:
        found -= left_out
    return {name: {cls.__name__: cls for cls in found if cls.__module__ == name} for name in modules}


def _data_classes(module: ModuleType, code: CodeType) -> Iterator[type]:
    """Models and enums that a module defines once, at its top level, without any code in them."""
    nested = [const for const in code.co_consts if isinstance(const, CodeType)]
    times = Counter(body.co_name for body in nested)
    for body in nested:
        cls = vars(module).get(body.co_name)
        if times[body.co_name] == 1 and _is_data(body) and _is_known_kind(cls) and cls.__module__ == module.__name__:
            yield cls


def _is_data(body: CodeType) -> bool:
    is_function = body.co_flags & inspect.CO_OPTIMIZED
    inner = {const.co_name for const in body.co_consts if isinstance(const, CodeType)}
    return not is_function and inner <= _OF_ANNOTATIONS


def _is_known_kind(cls: Any) -> TypeGuard[type]:
    if not isinstance(cls, type):
        return False
    if issubclass(cls, pydantic.BaseModel):
        own = {name for name in vars(cls) if not name.startswith("__")}
        return bool(cls.__pydantic_complete__) and own <= _OF_EVERY_MODEL
    return issubclass(cls, enum.Enum)


def _bases(cls: type, modules: Mapping[str, ModuleType]) -> set[type]:
    return {base for base in cls.__mro__[1:] if base.__module__ in modules}


class _Code:
    """Stands for code that the sandbox has to watch; no class is shared that has it."""


def _classes_in(part: Any, modules: Mapping[str, ModuleType]) -> Iterator[type]:
    """The classes of modules that are loaded again in what a class is made of: its attributes and its core schema."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "default_factory" and value not in _FACTORIES:
                yield _Code
            yield from _classes_in(value, modules)
    elif isinstance(part, list | tuple | set | frozenset):
        for item in part:
            yield from _classes_in(item, modules)
    elif isinstance(part, partial):
        yield from _classes_in([part.func, part.args, part.keywords], modules)
    elif isinstance(part, MethodType):
        yield from _classes_in([part.__func__, part.__self__], modules)
    elif isinstance(part, FunctionType):
        if part.__module__ in modules:
            yield _Code
    else:
        cls = part if isinstance(part, type) else type(part)
        if cls.__module__ in modules:
            yield cls
