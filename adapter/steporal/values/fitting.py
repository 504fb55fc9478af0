"""Check whether a value already is of a type, so that it needs no validation."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence, Set
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union

import typing_extensions

_SILENT = ("builtins", "typing_extensions")
"""Modules of metadata that validates nothing, such as a string or a ``Doc``."""
_ITERABLES = (list, set, frozenset, Sequence, Set)


def fits(value: Any, kind: Any, *, trusts_metadata: bool = True) -> bool:
    """Return whether ``value``, including its contents, is of the type ``kind`` without conversion.

    The fields of class instances are not checked.

    Args:
        value: The value.
        kind: A type, as in annotations.
        trusts_metadata: Whether an ``int`` fits ``Annotated[int, …]``, whatever the metadata requires.
    """
    if kind is Any or kind is object:
        return True
    if kind is None:
        return value is None
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        is_trusted = trusts_metadata or all(type(each).__module__ in _SILENT for each in arguments[1:])
        return is_trusted and fits(value, arguments[0], trusts_metadata=trusts_metadata)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in arguments)
    if origin in (Union, UnionType):
        return any(fits(value, each, trusts_metadata=trusts_metadata) for each in arguments)
    if isinstance(kind, TypeVar):
        return fits(value, kind.__bound__, trusts_metadata=trusts_metadata) if kind.__bound__ is not None else True
    if (alias := getattr(kind, "__value__", None)) is not None:  # type Name = …
        return fits(value, alias, trusts_metadata=trusts_metadata)
    if (base := getattr(kind, "__supertype__", None)) is not None:  # NewType
        return fits(value, base, trusts_metadata=trusts_metadata)
    if typing_extensions.is_typeddict(kind):
        return _fits_typed_dict(value, kind, trusts_metadata)
    if origin is None:
        return _is_instance(value, kind)
    return _is_instance(value, origin) and _items_fit(value, origin, arguments, trusts_metadata)


def _is_instance(value: Any, kind: Any) -> bool:
    if kind in (int, float) and type(value) is bool:
        return False
    if kind is float and type(value) is int:  # type checkers accept an int as a float
        return True
    try:
        return isinstance(value, kind)
    except TypeError:  # for example a Protocol
        return False


def _fits_typed_dict(value: Any, kind: Any, trusts_metadata: bool) -> bool:
    if type(value) is not dict or not kind.__required_keys__ <= value.keys():
        return False
    try:
        annotations = typing_extensions.get_type_hints(kind)
    except Exception:  # a name that is only imported for type checkers
        return False
    return all(
        name in annotations and fits(item, annotations[name], trusts_metadata=trusts_metadata)
        for name, item in value.items()
    )


def _items_fit(value: Any, origin: Any, arguments: tuple[Any, ...], trusts_metadata: bool) -> bool:
    def fit(item: Any, kind: Any) -> bool:
        return fits(item, kind, trusts_metadata=trusts_metadata)

    if isinstance(value, tuple) and origin is tuple:
        if len(arguments) == 2 and arguments[1] is ...:
            return all(fit(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(fit, value, arguments))
    if isinstance(value, Mapping) and len(arguments) == 2:
        return all(fit(key, arguments[0]) and fit(item, arguments[1]) for key, item in value.items())
    if isinstance(value, _ITERABLES) and len(arguments) == 1:
        return all(fit(item, arguments[0]) for item in value)
    return True
