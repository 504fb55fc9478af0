"""Classes of data by name, and back.

A plain class is named ``module:qualified.name``; a generic one, such as ``Page[list[Item] | None]``, by an object with
its parts. Found again are only classes of modules that the process has loaded, or that belong to the app.
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
_MOST_SHOWN = 80

MAX_PARTS = 100
"""How many parts the name of a generic type may have."""


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


def find_data_class(name: JSON, packages: Collection[str] | None) -> Any:
    """The model, dataclass, enum or named tuple of a name.

    Args:
        name: What :func:`name_of` returned.
        packages: The app's packages. None finds every class of a loaded module, for names that this process has made.

    Raises:
        TypeNotFoundError: There is none that a value may be of.
    """
    found = _find_class(name, packages, with_foreign=True) if isinstance(name, str) else find_type(name, packages)
    if not is_data(found if is_class(found) else typing.get_origin(found)):
        raise TypeNotFoundError(f"{shown(name)} is not a model, dataclass, enum or named tuple")
    return found


def find_type(name: JSON, packages: Collection[str] | None) -> Any:
    """The type of a name: of the app, or one of those that :mod:`known_types` lists.

    Args:
        name: What :func:`name_of` returned.
        packages: The app's packages. None finds every class of a loaded module, for names that this process has made.

    Raises:
        TypeNotFoundError: This process has none, or a payload may not name it.
    """
    return _Finding(packages).type(name)


class _Finding:
    """The search for one type, of which a name has a limited number of parts."""

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
    found = vars(typing).get(name.removeprefix(_TYPING))
    if found is not Union and not (_is_alias_of_typing(found) and typing.get_origin(found) is not None):
        raise TypeNotFoundError(f"{shown(name)} is not a type that takes parameters")
    return found


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
    found = static_member(module, qualname) if module is not None else None
    if not is_class(found):
        raise TypeNotFoundError(f"module {shown(module_name)} has no class {shown(qualname)}; was it renamed or moved?")
    kind: type = found
    if packages is None or is_listed or is_own(kind, packages) or full_name(kind) in STANDARD_DATA | STANDARD_TYPES:
        return kind
    if not with_foreign or package_of(kind.__module__) != package:  # a name that the module imports
        raise TypeNotFoundError(_not_known(full_name(kind), package_of(kind.__module__), packages, with_foreign))
    if (why := why_not_data_alone(kind)) is not None:
        raise TypeNotFoundError(f"{type_label(kind)} is of package {package!r} and {why}; {_allow(package)}")
    return kind


def _not_known(name: str, package: str, packages: Collection[str], with_foreign: bool) -> str:
    """Say why a payload may not name a class, and what to do."""
    if package in NEVER_FOREIGN:
        return f"{shown(name)} is not one of the classes of package {package!r} that are sent; convert it to JSON"
    if not with_foreign and imports(packages, package):
        return f"{shown(name)} is not of the app; derive a class of the app from it, or from what has it as a parameter"
    return (
        f"{shown(name)} is not of the app, whose packages are {', '.join(sorted(map(repr, packages)))}; import "
        f"{shown(package)} at the top of one of its modules, or {_allow(package)}"
    )


def _allow(package: str) -> str:
    return f"convert it to a class of the app, or allow its package: Client(..., step_packages=[{shown(package)}])"


def allow(kind: type) -> str:
    """Say what to do about a class that is not the app's."""
    return _allow(package_of(kind.__module__))


def load_module(name: str, packages: Collection[str]) -> ModuleType:
    """A module that is loaded already, or that belongs to one of ``packages``.

    A ``__main__`` of a package is not loaded: it is a program, which would run.

    Raises:
        TypeNotFoundError: It is neither, or cannot be imported.
    """
    if (module := loaded_module(name)) is not None:
        return module
    if name.partition(".")[0] not in packages or any(not part or part.startswith("__") for part in name.split(".")):
        raise TypeNotFoundError(f"module {shown(name)} is not loaded in this process, and not part of the app")
    try:
        return importlib.import_module(name)
    except ImportError as err:
        raise TypeNotFoundError(f"module {shown(name)} cannot be imported: {err}") from err
