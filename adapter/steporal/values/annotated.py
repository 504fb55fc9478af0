"""Values that only an annotation describes, of types with their own pydantic schema, such as a phone number.

Such a value is written as pydantic writes it for its annotation, and only if the annotation then reads the same value
back. A payload names no class: the annotation is that of the reader's own field or function.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Annotated, Any

import pydantic

from ..types import JSON
from .adapters import adapter
from .converter import dumps, validate


def annotation_of(kind: type, name: str) -> Any:
    """Return the annotation of a field of a model or dataclass, or None if it has no such field."""
    if issubclass(kind, pydantic.BaseModel):
        info = kind.model_fields.get(name)
        if info is None:
            return None
        return Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
    try:
        return typing.get_type_hints(kind, include_extras=True).get(name)
    except Exception:  # a name that is only imported for type checkers
        return None


def dump_annotated(value: Any, annotation: Any) -> tuple[JSON] | None:
    """Return the JSON that pydantic writes for a value, if it reads the same value back from it."""
    if annotation is None or annotation is Any:
        return None
    try:
        data = adapter(annotation).dump_python(value, mode="json", warnings="error")
        dumps(data)
        return (data,) if same(validate(data, annotation), value) else None
    except Exception:  # for example from a serializer, a validator or an __eq__
        return None


def same(value: Any, expected: Any) -> bool:
    """Return whether two values are of the same classes and equal, at any depth."""
    kind = type(expected)
    if type(value) is not kind:
        return False
    if isinstance(expected, list | tuple):
        return len(value) == len(expected) and all(map(same, value, expected))
    if isinstance(expected, dict):
        return len(value) == len(expected) and all(
            same(key, other) and same(value[key], expected[other]) for key, other in zip(value, expected, strict=True)
        )
    if isinstance(expected, set | frozenset):
        kinds = {item: type(item) for item in expected}
        return bool(value == expected) and all(kinds.get(item) is type(item) for item in value)
    if isinstance(expected, pydantic.BaseModel):
        return bool(value == expected) and same(vars(value), vars(expected))
    if dataclasses.is_dataclass(expected) and hasattr(expected, "__dict__"):
        return same(vars(value), vars(expected))
    return bool(value == expected)
