"""Shapes of data classes: how an instance is taken apart, and a digest that tells when its class has changed.

The digest covers the names and annotations of the fields. A value is rebuilt without validation only where the digest
of the class that reads it is that of the class that wrote it.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from types import BuiltinFunctionType, UnionType
from typing import Annotated, Any, ForwardRef, Literal, TypeVar, Union, cast
from weakref import WeakKeyDictionary

import pydantic
import pydantic.dataclasses

from ..errors import UnserializableError
from ..types import JSON
from .known_types import is_data, static_attribute
from .main_module import imported_name
from .type_names import TypeNotFoundError, find_type, name_of, type_label

Tag = Literal["model", "root", "dataclass", "namedtuple", "enum"]

_SLOTS_OF_PYTHON = frozenset({"__dict__", "__weakref__"})


@dataclass(frozen=True, slots=True)
class Shape:
    """What encoding has to know of a class.

    Attributes:
        tag: The kind of class.
        name: The class's name, as ``type_names`` writes it.
        digest: A digest of its fields.
        slots: Attributes that are kept in slots.
        computed: Cached properties, whose values are computed again where they are needed.
        has_extra: Whether a model takes fields that it does not declare.
    """

    tag: Tag
    name: JSON
    digest: str
    slots: tuple[str, ...] = ()
    computed: frozenset[str] = frozenset()
    has_extra: bool = False


_shapes: WeakKeyDictionary[type, Shape] = WeakKeyDictionary()


def shape_of(kind: type) -> Shape:
    """Return the shape of a data class.

    Raises:
        UnserializableError: Nobody can find the class by its name, or its instances have content that is in no field.
    """
    known = _shapes.get(kind)
    if known is None:
        is_complete = _complete(kind)
        known = _shapes[kind] = _examined(kind)
        try:
            _check_name(kind, known)
        except UnserializableError:
            del _shapes[kind]
            raise
        if not is_complete:
            del _shapes[kind]  # its digest is another one when the classes exist that its annotations name
    return known


def _complete(kind: type) -> bool:
    """Let pydantic build a class, and return whether it could.

    Pydantic puts off a model whose annotations name a class that is defined further down, until the first validation.
    Until then its fields have ``ForwardRef('Later')`` for an annotation, and the digest would be another one than in a
    process that has validated an instance already. A model with ``defer_build`` has its fields before it is complete.
    """
    if static_attribute(kind, "__pydantic_complete__", True):
        return True
    if pydantic.BaseModel in kind.__mro__:
        if getattr(kind, "__pydantic_fields_complete__", False):
            return True
        return bool(cast(type[pydantic.BaseModel], kind).model_rebuild(raise_errors=False, _types_namespace={}))
    return bool(pydantic.dataclasses.rebuild_dataclass(cast(Any, kind), raise_errors=False, _types_namespace={}))


def _examined(kind: type) -> Shape:
    name = name_of(kind)
    if enum.Enum in kind.__mro__:
        return Shape("enum", name, "")
    if tuple in kind.__mro__:
        fields: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
        annotations: dict[str, Any] = getattr(kind, "__annotations__", {})
        return Shape("namedtuple", name, _digest((field, _text(annotations.get(field, Any))) for field in fields))
    if pydantic.BaseModel in kind.__mro__:
        return _of_model(cast(type[pydantic.BaseModel], kind), name)
    _check_layout(kind)
    parts = [(field.name, _text(field.type)) for field in dataclasses.fields(cast(Any, kind))]
    return Shape("dataclass", name, _digest(sorted(parts)), _slots(kind), _computed(kind))


def _of_model(kind: type[pydantic.BaseModel], name: JSON) -> Shape:
    _check_layout(kind)
    parts = [(field, _text(info.annotation)) for field, info in kind.model_fields.items()]
    parts += [(private, "") for private in kind.__private_attributes__]
    return Shape(
        "root" if pydantic.RootModel in kind.__mro__ else "model",
        name,
        _digest(sorted(parts)),
        _slots(kind),
        _computed(kind),
        kind.model_config.get("extra") == "allow",
    )


def _check_layout(kind: type) -> None:
    """Check that a class derives from no class of C, whose instances have content that no attribute shows."""
    base = next((base for base in kind.__mro__ if isinstance(vars(base).get("__new__"), BuiltinFunctionType)), object)
    if base is not object:
        what = "model" if pydantic.BaseModel in kind.__mro__ else "dataclass"
        raise UnserializableError(
            f"{type_label(kind)} cannot be sent, as it is a {what} and a {base.__name__} at once; "
            f"keep the {base.__name__} in a field"
        )


def _check_name(kind: type, shape: Shape) -> None:
    """Check that the class's name means this class, or its twin in a module that the sandbox has loaded again."""
    try:
        found = find_type(shape.name, None)
    except TypeNotFoundError as err:
        raise UnserializableError(f"{type_label(kind)} cannot be sent, as it cannot be found by name: {err}") from None
    found = typing.get_origin(found) or found
    if found is kind:
        return
    if is_data(found):
        _complete(found)
        if _examined(found) == shape:
            return
    raise UnserializableError(
        f"{type_label(kind)} cannot be sent, as its name now means another class; give each class its own name"
    )


def _slots(kind: type) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for cls in kind.__mro__:
        if cls.__module__ in ("pydantic.main", "pydantic.root_model", "typing", "builtins"):
            continue
        declared = vars(cls).get("__slots__", ())
        for slot in (declared,) if isinstance(declared, str) else declared:
            if slot not in _SLOTS_OF_PYTHON:
                mangled = slot.startswith("__") and not slot.endswith("__")
                names[f"_{cls.__name__.lstrip('_')}{slot}" if mangled else slot] = None
    return tuple(names)


def _computed(kind: type) -> frozenset[str]:
    return frozenset(
        name
        for cls in kind.__mro__
        for name, attribute in list(vars(cls).items())  # pydantic replaces its own where they are looked at first
        if isinstance(getattr(attribute, "wrapped", attribute), functools.cached_property)
    )


# --- digests -------------------------------------------------------------------------------------------------------


def _digest(parts: Iterable[tuple[str, str]]) -> str:
    return hashlib.sha256(repr(list(parts)).encode()).hexdigest()[:8]


def _text(kind: Any) -> str:
    """An annotation as text that is the same in every process: without addresses, and without metadata."""
    if isinstance(kind, str):
        return kind
    if isinstance(kind, ForwardRef):
        return kind.__forward_arg__
    if isinstance(kind, TypeVar):
        return f"~{kind.__name__}"
    if isinstance(kind, list | tuple):
        return f"[{', '.join(map(_text, kind))}]"
    generic = getattr(kind, "__pydantic_generic_metadata__", None)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if generic and generic["origin"]:
        origin, arguments = generic["origin"], generic["args"]
    if origin is Literal:
        return f"Literal[{', '.join(map(_literal, arguments))}]"
    if origin is Annotated:
        return _text(arguments[0])
    if origin is not None:
        name = "|" if origin in (Union, UnionType) else _text(origin)
        return f"{name}[{', '.join(map(_text, arguments))}]"
    if isinstance(kind, type):
        return f"{imported_name(kind.__module__)}:{kind.__qualname__}"
    return str(getattr(kind, "__name__", type(kind).__qualname__))


def _literal(value: Any) -> str:
    if not isinstance(value, enum.Enum):
        return repr(value)
    kind = type(value)
    return f"{imported_name(kind.__module__)}.{kind.__qualname__}.{value.name}"
