"""Classes of data by name, and back.

A plain class is named ``module:qualified.name``; a generic one, such as ``Page[list[Item] | None]``, by an object with
its parts. Found again are only classes of modules that the process has loaded, or that belong to the app.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import importlib
import operator
import types
import typing
from collections.abc import Collection
from types import ModuleType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union

import pydantic

from .errors import UnserializableError
from .main_module import imported_name, loaded_module
from .types import JSON

_ANY = "typing:Any"
_UNION = "|"
_TYPING = "typing:"
_ELLIPSIS = "..."
_MOST_SHOWN = 80


class TypeNotFoundError(UnserializableError):
    """A value names a class that this process does not have."""


def type_label(kind: type) -> str:
    """A class's name as messages show it: ``sqlite3.Connection``, ``int``."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def shown(value: object) -> str:
    """A value as messages show it: its ``repr``, cut; its class where that raises."""
    try:
        text = repr(value)
    except Exception:  # an int of thousands of digits, or a user's __repr__
        text = f"<{type_label(type(value))}>"
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 1] + "…"


def name_of(kind: Any) -> JSON:
    """A type's name.

    Raises:
        UnserializableError: It is defined inside a function, so that nobody can find it by name.
    """
    if kind is Any:
        return _ANY
    if kind is ...:
        return _ELLIPSIS
    if kind is None:  # Page[None], which to pydantic is not Page[NoneType]
        return None
    origin, arguments = _parts(kind)
    if origin is Literal:
        return {"literal": [_literal_name(argument) for argument in arguments]}
    if origin is Annotated:
        raise UnserializableError(
            f"{kind!r} cannot be a parameter of a generic class that is sent; derive a class from it, and use that"
        )
    if _is_alias_of_typing(kind) and not hasattr(kind, "__args__"):
        return f"{_TYPING}{kind._name}"
    if origin is not None:
        return {"generic": _generic_name(kind, origin), "of": [name_of(argument) for argument in arguments]}
    if not isinstance(kind, type):
        raise UnserializableError(f"{kind!r} cannot be sent; use a class")
    if kind is NoneType:
        return "types:NoneType"
    if "<locals>" in kind.__qualname__:
        raise UnserializableError(
            f"{type_label(kind)} cannot be sent, as it is defined inside a function and so cannot be found by name; "
            "move the class to module level"
        )
    return f"{imported_name(kind.__module__)}:{kind.__qualname__}"


def _generic_name(kind: Any, origin: Any) -> JSON:
    """Name what has the parameters. To pydantic, ``Page[List[int]]`` and ``Page[list[int]]`` are two classes."""
    if origin is UnionType:
        return _UNION
    if origin is Union:
        return f"{_TYPING}Union"
    return f"{_TYPING}{kind._name}" if _is_alias_of_typing(kind) else name_of(origin)


def _is_alias_of_typing(kind: Any) -> bool:
    """Return whether a type is an old spelling of another, such as ``typing.List`` or ``typing.List[int]``."""
    return getattr(kind, "__module__", None) == "typing" and bool(getattr(kind, "_name", None))


def _literal_name(argument: Any) -> JSON:
    if isinstance(argument, enum.Enum):
        return {"enum": name_of(type(argument)), "name": argument.name}
    if isinstance(argument, bytes):
        raise UnserializableError(f"Literal[{argument!r}] cannot be sent; use a string")
    return argument


def _parts(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    generic = getattr(kind, "__pydantic_generic_metadata__", None)
    if generic and generic["origin"]:
        return generic["origin"], generic["args"]
    return typing.get_origin(kind), typing.get_args(kind)


def find_data_class(name: JSON, packages: Collection[str]) -> Any:
    """The model, dataclass, enum or named tuple of a name.

    Raises:
        TypeNotFoundError: There is none.
    """
    found = find_type(name, packages)
    plain = typing.get_origin(found) or found
    is_data = isinstance(plain, type) and (
        issubclass(plain, pydantic.BaseModel | enum.Enum)
        or dataclasses.is_dataclass(plain)
        or (issubclass(plain, tuple) and hasattr(plain, "_fields"))
    )
    if not is_data:
        raise TypeNotFoundError(f"{name!r} is not a model, dataclass, enum or named tuple")
    return found


def find_type(name: JSON, packages: Collection[str]) -> Any:
    """The type of a name.

    Raises:
        TypeNotFoundError: This process has none.
    """
    if name is None:
        return None
    if isinstance(name, str):
        if name in (_ANY, _ELLIPSIS):
            return {_ANY: Any, _ELLIPSIS: ...}[name]
        return _find_alias(name) if name.startswith(_TYPING) else _find_class(name, packages)
    if "literal" in name:
        return Literal[tuple(_literal(argument, packages) for argument in name["literal"])]
    arguments = tuple(find_type(argument, packages) for argument in name["of"])
    if name["generic"] == _UNION:
        return functools.reduce(operator.or_, arguments)
    return find_type(name["generic"], packages)[arguments]


def _find_alias(name: str) -> Any:
    found = getattr(typing, name.removeprefix(_TYPING), None)
    if found is not Union and not _is_alias_of_typing(found):
        raise TypeNotFoundError(f"{name!r} is not a type that takes parameters")
    return found


def _literal(argument: JSON, packages: Collection[str]) -> Any:
    if not isinstance(argument, dict):
        return argument
    members = getattr(find_data_class(argument["enum"], packages), "__members__", {})
    if argument["name"] not in members:
        raise TypeNotFoundError(f"{argument['enum']!r} has no member {argument['name']!r}; was it renamed or removed?")
    return members[argument["name"]]


def _find_class(name: str, packages: Collection[str]) -> type:
    module, _, qualname = name.partition(":")
    found: Any = types if module == "types" else load_module(module, packages)
    for part in qualname.split("."):
        if isinstance(found, ModuleType) and imported_name(found.__name__) != imported_name(module):
            break
        found = getattr(found, part, None)
    if not isinstance(found, type):
        raise TypeNotFoundError(f"module {module!r} has no class {qualname!r}; was it renamed or moved?")
    return found


def load_module(name: str, packages: Collection[str]) -> ModuleType:
    """A module that is loaded already, or that belongs to one of ``packages``.

    Raises:
        TypeNotFoundError: It is neither, or cannot be imported.
    """
    if (module := loaded_module(name)) is not None:
        return module
    if name.partition(".")[0] not in packages:
        raise TypeNotFoundError(f"module {name!r} is not loaded in this process, and not part of the app")
    try:
        return importlib.import_module(name)
    except ImportError as err:
        raise TypeNotFoundError(f"module {name!r} cannot be imported: {err}") from err
