"""Shapes of data classes: the parts of an instance, and a digest that shows whether its class has changed.

The digest covers the names and annotations of the fields. A value is rebuilt without validation only if the reader's
class has the same digest as the writer's.
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
    """Description of a class for encoding.

    Attributes:
        tag: The kind of the class.
        name: The class's name, as ``type_names`` writes it.
        digest: The digest of its fields.
        slots: The attributes that are kept in slots.
        computed: Cached properties, whose values are computed again where they are needed.
        has_extra: Whether a model accepts fields that it does not declare.
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
        UnserializableError: The class cannot be found by its name, or its instances have content outside of fields.
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
            del _shapes[kind]  # the digest changes once the classes exist that its annotations name
    return known


def _complete(kind: type) -> bool:
    """Let pydantic finish a class, and return whether it could.

    Pydantic does not finish a model whose annotations name a class that is defined further down until the first
    validation. Until then the annotation of such a field is ``ForwardRef('Later')``, and the digest would differ from
    that of a process that has already validated an instance. A model with ``defer_build`` has its fields before it is
    complete.
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
    """Check that a class does not derive from a class written in C, whose instances have content without attributes."""
    base = next((base for base in kind.__mro__ if isinstance(vars(base).get("__new__"), BuiltinFunctionType)), object)
    if base is not object:
        what = "model" if pydantic.BaseModel in kind.__mro__ else "dataclass"
        raise UnserializableError(
            f"{type_label(kind)} cannot be sent, as it is both a {what} and a {base.__name__}; "
            f"keep the {base.__name__} in a field"
        )


def _check_name(kind: type, shape: Shape) -> None:
    """Check that the class's name stands for this class, or for its copy in a module that the sandbox has reloaded."""
    try:
        named = find_type(shape.name, None)
    except TypeNotFoundError as err:
        raise UnserializableError(f"{type_label(kind)} cannot be sent, as it cannot be found by name: {err}") from None
    named = typing.get_origin(named) or named
    if named is kind:
        return
    if is_data(named):
        _complete(named)
        if _examined(named) == shape:
            return
    raise UnserializableError(
        f"{type_label(kind)} cannot be sent, as its name now means another class; give each class a unique name"
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
        for name, attribute in list(vars(cls).items())  # a copy, as pydantic replaces its own at the first access
        if isinstance(getattr(attribute, "wrapped", attribute), functools.cached_property)
    )


# --- digests -------------------------------------------------------------------------------------------------------


def _digest(parts: Iterable[tuple[str, str]]) -> str:
    return hashlib.sha256(repr(list(parts)).encode()).hexdigest()[:8]


def _text(kind: Any) -> str:
    """Return an annotation as text that is the same in every process: without addresses and metadata."""
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
