"""Names of data classes, and look-up of classes by name.

A plain class is named ``module:qualified.name``; a generic one, such as ``Page[list[Item] | None]``, by an object with
its parts. Only classes of modules that the process has loaded, or that belong to the app, can be looked up.
"""

from __future__ import annotations

import enum
import functools
import importlib
import operator
import sys
import typing
from collections.abc import Collection
from types import ModuleType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast

from ..errors import UnserializableError
from ..types import JSON
from .known_types import (
    NEVER_FOREIGN,
    STANDARD_DATA,
    STANDARD_TYPES,
    full_name,
    imports,
    is_class,
    is_data,
    is_own,
    package_of,
    static_member,
    why_not_data_alone,
)
from .main_module import imported_name, loaded_module

_ANY = "typing:Any"
_UNION = "|"
_TYPING = "typing:"
_ELLIPSIS = "..."
_MAX_SHOWN = 80

MAX_PARTS = 100
"""Limit of parts in the name of a generic type."""


class TypeNotFoundError(UnserializableError):
    """A value names a class that this process does not have."""


def type_label(kind: type) -> str:
    """Return a class's name for messages: ``sqlite3.Connection``, ``int``."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def shown(value: object) -> str:
    """Return a value for messages: its ``repr``, cut, or its class if the ``repr`` raises."""
    try:
        text = repr(value)
    except Exception:  # an int of thousands of digits, or a user's __repr__
        text = f"<{type_label(type(value))}>"
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def name_of(kind: Any) -> JSON:
    """Return a type's name.

    Raises:
        UnserializableError: The type is defined inside a function, so that it cannot be found by name.
    """
    if kind is Any:
        return _ANY
    if kind is ...:
        return _ELLIPSIS
    if kind is None:  # Page[None] is not Page[NoneType] for pydantic
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
    """Return the name of a generic. For pydantic, ``Page[List[int]]`` and ``Page[list[int]]`` are two classes."""
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


def find_data_class(name: JSON, packages: Collection[str] | None) -> Any:
    """Return the model, dataclass, enum or named tuple of a name.

    Args:
        name: A result of :func:`name_of`.
        packages: The app's packages. None finds every class of a loaded module, for names that this process wrote.

    Raises:
        TypeNotFoundError: The name stands for no class that a value may have.
    """
    kind = _find_class(name, packages, with_foreign=True) if isinstance(name, str) else find_type(name, packages)
    if not is_data(kind if is_class(kind) else typing.get_origin(kind)):
        raise TypeNotFoundError(f"{shown(name)} is not a model, dataclass, enum or named tuple")
    return kind


def find_type(name: JSON, packages: Collection[str] | None) -> Any:
    """Return the type of a name: of the app, or one that :mod:`known_types` lists.

    Args:
        name: A result of :func:`name_of`.
        packages: The app's packages. None finds every class of a loaded module, for names that this process wrote.

    Raises:
        TypeNotFoundError: This process does not have the type, or a payload may not name it.
    """
    return _Finding(packages).type(name)


class _Finding:
    """Search for one type, with a limit on the parts of its name."""

    def __init__(self, packages: Collection[str] | None) -> None:
        self._packages = packages
        self._parts = 0

    def type(self, name: JSON) -> Any:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise TypeNotFoundError(f"the name of a type has more than {MAX_PARTS} parts")
        if name is None:
            return None
        if isinstance(name, str):
            if name in (_ANY, _ELLIPSIS):
                return {_ANY: Any, _ELLIPSIS: ...}[name]
            if name.startswith(_TYPING):
                return _find_alias(name)
            return _find_class(name, self._packages)
        if "literal" in name:
            return Literal[tuple(self._literal(argument) for argument in name["literal"])]
        arguments = tuple(self.type(argument) for argument in name["of"])
        if name["generic"] == _UNION:
            return functools.reduce(operator.or_, arguments)
        return self.type(name["generic"])[arguments]

    def _literal(self, argument: JSON) -> Any:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise TypeNotFoundError(f"the name of a type has more than {MAX_PARTS} parts")
        if not isinstance(argument, dict):
            return argument
        kind = find_data_class(argument["enum"], self._packages)
        is_enum = is_class(kind) and enum.Enum in kind.__mro__
        members = cast(type[enum.Enum], kind).__members__ if is_enum else {}
        if argument["name"] not in members:
            raise TypeNotFoundError(
                f"{shown(argument['enum'])} has no member {shown(argument['name'])}; was it renamed or removed?"
            )
        return members[argument["name"]]


def _find_alias(name: str) -> Any:
    alias = vars(typing).get(name.removeprefix(_TYPING))
    if alias is not Union and not (_is_alias_of_typing(alias) and typing.get_origin(alias) is not None):
        raise TypeNotFoundError(f"{shown(name)} is not a type that takes parameters")
    return alias


def _find_class(name: str, packages: Collection[str] | None, *, with_foreign: bool = False) -> type:
    module_name, _, qualname = name.partition(":")
    package = package_of(module_name)
    is_listed = name in STANDARD_DATA or name in STANDARD_TYPES
    if packages is None or package in packages:
        module: ModuleType | None = load_module(module_name, packages or ())
    elif is_listed or (with_foreign and imports(packages, package)):
        module = sys.modules.get(module_name)
    else:
        raise TypeNotFoundError(_not_known(name, package, packages, with_foreign))
    value = static_member(module, qualname) if module is not None else None
    if not is_class(value):
        raise TypeNotFoundError(f"module {shown(module_name)} has no class {shown(qualname)}; was it renamed or moved?")
    kind: type = value
    if packages is None or is_listed or is_own(kind, packages) or full_name(kind) in STANDARD_DATA | STANDARD_TYPES:
        return kind
    if not with_foreign or package_of(kind.__module__) != package:  # a name that the module imports
        raise TypeNotFoundError(_not_known(full_name(kind), package_of(kind.__module__), packages, with_foreign))
    if (why := why_not_data_alone(kind)) is not None:
        raise TypeNotFoundError(f"{type_label(kind)} is from package {package!r} and {why}; {_allow(package)}")
    return kind


def _not_known(name: str, package: str, packages: Collection[str], with_foreign: bool) -> str:
    """Return why a payload may not name a class, and the remedy."""
    if package in NEVER_FOREIGN:
        return f"{shown(name)} is not one of the classes of package {package!r} that can be sent; convert it to JSON"
    if not with_foreign and imports(packages, package):
        return (
            f"{shown(name)} is not part of the app; derive a class of the app from it, or from the class that has it "
            "as a parameter"
        )
    return (
        f"{shown(name)} is not part of the app, whose packages are {', '.join(sorted(map(repr, packages)))}; import "
        f"{shown(package)} at the top of one of its modules, or {_allow(package)}"
    )


def _allow(package: str) -> str:
    return f"convert it to a class of the app, or allow its package: Client(..., step_packages=[{shown(package)}])"


def allow(kind: type) -> str:
    """Return the remedy for a class that does not belong to the app."""
    return _allow(package_of(kind.__module__))


def load_module(name: str, packages: Collection[str]) -> ModuleType:
    """Return a module that is already loaded, or that belongs to one of ``packages``.

    A ``__main__`` of a package is not loaded, because it is a program that would run.

    Raises:
        TypeNotFoundError: The module is neither, or cannot be imported.
    """
    if (module := loaded_module(name)) is not None:
        return module
    if name.partition(".")[0] not in packages or any(not part or part.startswith("__") for part in name.split(".")):
        raise TypeNotFoundError(f"module {shown(name)} is not loaded in this process, and is not part of the app")
    try:
        return importlib.import_module(name)
    except ImportError as err:
        raise TypeNotFoundError(f"module {shown(name)} cannot be imported: {err}") from err
