"""Values as JSON that remembers their types.

Step functions are given values that their handler had, and handlers are given what step functions returned.
Between the two stands Temporal's history, which holds JSON. Plain JSON values are written as they are; everything
else is written as ``{"$": tag, ...}``, so that a pydantic model, dataclass, enum, datetime, UUID, Decimal, tuple, …
arrives as itself. A class is named by module and qualified name, and only classes of data are made again
(models, dataclasses, enums, named tuples), only from modules that the process has loaded or that belong to the app:
who can write to a task queue cannot have any other code imported.

What is produced here is handed to Temporal as a finished ``json/plain`` payload. Payload codecs (encryption,
compression) and external storage apply to it; a custom payload converter does not.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import PurePath
from typing import Any, TypeVar, cast
from uuid import UUID

import pydantic
import pydantic_core
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue

from .errors import UnserializableError
from .sealed import check_readable
from .type_names import TypeNotFoundError, find_data_class, name_of, type_label
from .types import JSON

T = TypeVar("T")

TAG = "$"

Encoder = Callable[[Any], JSON | None]
"""Encodes a value that this module cannot, or returns None."""

Decoder = Callable[[dict[str, JSON]], Any]
"""Decodes an object whose tag this module does not know."""


# --- bytes ---------------------------------------------------------------------------------------------------------


def dumps(data: JSON) -> bytes:
    """JSON text of ``data`` in UTF-8, compact."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def to_raw(data: JSON) -> RawValue:
    """A JSON value as a finished ``json/plain`` payload."""
    return raw_text(dumps(data))


def raw_text(text: bytes) -> RawValue:
    """JSON text, as :func:`dumps` writes it, as a finished ``json/plain`` payload."""
    return RawValue(Payload(metadata={"encoding": b"json/plain"}, data=text))


def from_raw(raw: RawValue) -> JSON:
    """The JSON value in a payload that :func:`to_raw` made.

    Raises:
        UnknownKeyError: It is encrypted, and there was no codec.
    """
    if not raw.payload.data:
        return None
    try:
        return json.loads(raw.payload.data)
    except ValueError:
        check_readable(raw.payload)
        raise


def size_of(raw: RawValue) -> int:
    """Bytes of a payload's data."""
    return len(raw.payload.data)


# --- values that know their own type -------------------------------------------------------------------------------

_SCALARS: dict[type, tuple[str, Callable[[Any], JSON], Callable[[JSON], Any]]] = {
    datetime: ("datetime", datetime.isoformat, datetime.fromisoformat),
    date: ("date", date.isoformat, date.fromisoformat),
    time: ("time", time.isoformat, time.fromisoformat),
    timedelta: ("timedelta", lambda v: [v.days, v.seconds, v.microseconds], lambda v: timedelta(v[0], v[1], v[2])),
    UUID: ("uuid", str, UUID),
    Decimal: ("decimal", str, Decimal),
    bytes: ("bytes", bytes.hex, bytes.fromhex),
    complex: ("complex", lambda v: [v.real, v.imag], lambda v: complex(v[0], v[1])),
}
_SCALAR_TAGS = {tag: load for tag, _, load in _SCALARS.values()}
_SEQUENCES: dict[type, str] = {tuple: "tuple", set: "set", frozenset: "frozenset"}
_SEQUENCE_TAGS: dict[str, Callable[[list[Any]], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}


def encode(value: Any, other: Encoder | None = None) -> JSON:
    """``value`` as JSON that :func:`decode` turns back.

    Raises:
        UnserializableError: A part of it is of no type that can be sent; names the part and its type.
    """
    try:
        return _encode(value, "", other)
    except RecursionError:
        raise UnserializableError(f"{type_label(type(value))} contains itself, or is nested too deep") from None


def _encode(value: Any, path: str, other: Encoder | None) -> JSON:
    kind = type(value)
    if value is None or kind is str or kind is bool or kind is int:
        return value
    if kind is float:
        return value if math.isfinite(value) else {TAG: "float", "value": str(value)}
    if kind is list:
        return [_encode(item, f"{path}[{i}]", other) for i, item in enumerate(value)]
    if kind is dict:
        return _encode_dict(value, path, other)
    if kind in _SCALARS:
        tag, dump, _ = _SCALARS[kind]
        return {TAG: tag, "value": dump(value)}
    if kind in _SEQUENCES:
        items = list(value) if kind is tuple else sorted(value, key=repr)
        return {TAG: _SEQUENCES[kind], "value": [_encode(v, f"{path}[{i}]", other) for i, v in enumerate(items)]}
    if isinstance(value, enum.Enum):
        return {TAG: "enum", "type": name_of(kind), "value": _encode(value.value, path, other)}
    if isinstance(value, pydantic.BaseModel):
        return {TAG: "model", "type": name_of(kind), "value": _dump(value, kind, path)}
    if dataclasses.is_dataclass(kind) and not isinstance(value, BaseException):
        return {TAG: "dataclass", "type": name_of(kind), "value": _dump(value, kind, path)}
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        fields = [_encode(v, f"{path}.{n}", other) for n, v in zip(kind._fields, value, strict=True)]
        return {TAG: "namedtuple", "type": name_of(kind), "value": fields}
    if isinstance(value, PurePath):
        return {TAG: "path", "value": str(value)}
    if other is not None and (encoded := other(value)) is not None:
        return encoded
    for base in (str, int, float, list, dict):
        if isinstance(value, base):
            raise _unserializable(value, path, f"convert it to a plain {base.__name__}")
    raise _unserializable(value, path, "convert it to JSON, a pydantic model or a dataclass")


def _encode_dict(value: dict[Any, Any], path: str, other: Encoder | None) -> JSON:
    if all(type(key) is str for key in value) and TAG not in value:
        return {key: _encode(item, f"{path}.{key}", other) for key, item in value.items()}
    items = [[_encode(k, f"{path} key", other), _encode(v, f"{path}[{k!r}]", other)] for k, v in value.items()]
    return {TAG: "dict", "value": items}


def _unserializable(value: Any, path: str, advice: str) -> UnserializableError:
    where = f" at {path.lstrip('.')}" if path else ""
    return UnserializableError(f"{type_label(type(value))}{where} cannot be sent; {advice}")


def _dump(value: Any, kind: type, path: str) -> JSON:
    try:
        if isinstance(value, pydantic.BaseModel):
            return value.model_dump(mode="json", by_alias=True, round_trip=True)
        return adapter(kind).dump_python(value, mode="json", by_alias=True, round_trip=True)
    except pydantic_core.PydanticSerializationError as err:
        raise _unserializable(value, path, str(err)) from None


def decode(data: JSON, other: Decoder | None = None, packages: Collection[str] = ()) -> Any:
    """The value that :func:`encode` was given.

    Args:
        data: What ``encode`` returned.
        other: Decodes the tags of the ``other`` that ``encode`` was given.
        packages: Top-level packages from which a class may be imported if its module is not loaded yet.

    Raises:
        TypeNotFoundError: It names a class that this process does not have.
    """
    if isinstance(data, list):
        return [decode(item, other, packages) for item in data]
    if not isinstance(data, dict):
        return data
    if TAG not in data:
        return {key: decode(item, other, packages) for key, item in data.items()}
    tag, value = data[TAG], data.get("value")
    if tag in _SCALAR_TAGS:
        return _SCALAR_TAGS[tag](value)
    if tag in _SEQUENCE_TAGS:
        return _SEQUENCE_TAGS[tag]([decode(item, other, packages) for item in cast(list[JSON], value)])
    if tag == "float":
        return float(cast(str, value))
    if tag == "dict":
        return {decode(k, other, packages): decode(v, other, packages) for k, v in cast(list[list[JSON]], value)}
    if tag == "path":
        from pathlib import Path

        return Path(cast(str, value))
    if tag in ("model", "dataclass"):
        return validate(value, find_data_class(data["type"], packages))
    if tag == "enum":
        return find_data_class(data["type"], packages)(decode(value, other, packages))
    if tag == "namedtuple":
        return find_data_class(data["type"], packages)(
            *[decode(item, other, packages) for item in cast(list[JSON], value)]
        )
    if other is not None:
        return other(data)
    raise TypeNotFoundError(f"a value is tagged {tag!r}, which this version of steporal does not know")


def plain(data: JSON) -> JSON:
    """Encoded data without its tags: the JSON that a schema validates."""
    if isinstance(data, list):
        return [plain(item) for item in data]
    if not isinstance(data, dict):
        return data
    if TAG not in data:
        return {key: plain(item) for key, item in data.items()}
    if data[TAG] == "dict":
        return {str(plain(key)): plain(value) for key, value in data["value"]}
    if data[TAG] == "timedelta":
        return decode(data).total_seconds()
    return plain(data.get("value"))


# --- values of a known type ----------------------------------------------------------------------------------------


def adapter(kind: Any) -> pydantic.TypeAdapter[Any]:
    """The ``TypeAdapter`` of a type."""
    try:
        return _cached_adapter(kind)
    except TypeError:  # unhashable, such as Annotated with a list
        return pydantic.TypeAdapter(kind)


@lru_cache(maxsize=1024)
def _cached_adapter(kind: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(kind)


def validate(data: JSON, kind: Any) -> Any:
    """``data`` as a value of ``kind``, by pydantic's rules for JSON, which let strict models read dates and tuples.

    Raises:
        pydantic.ValidationError: It does not fit.
    """
    if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
        return kind.model_validate_json(dumps(data))
    return adapter(kind).validate_json(dumps(data))


def to_json(value: Any, kind: Any = None) -> JSON:
    """``value`` as plain JSON, by pydantic: through ``kind`` where given, else by its own type.

    Raises:
        UnserializableError: It is no JSON, and of no type that pydantic serialises.
    """
    if isinstance(value, str | int | bool | None):
        return value
    try:
        if kind is not None and not isinstance(value, pydantic.BaseModel):
            return adapter(kind).dump_python(value, mode="json", by_alias=True, warnings=False)
        return pydantic_core.to_jsonable_python(value, by_alias=True, inf_nan_mode="strings")
    except (ValueError, RecursionError, pydantic.PydanticSchemaGenerationError) as err:
        raise UnserializableError(f"{type_label(type(value))} is no JSON: {err}") from None


def issues(error: pydantic.ValidationError) -> str:
    """Pydantic's issues on one line: ``amount: Input should be a valid number; …``."""
    return "; ".join(
        f"{'.'.join(str(part) for part in issue['loc']) or 'value'}: {issue['msg']}"
        for issue in error.errors(include_url=False, include_context=False)
    )


def return_type(function: Callable[..., Any]) -> Any:
    """The type that a function's annotations say it returns, or None where they say nothing usable."""
    annotations: Mapping[str, Any] = getattr(function, "__annotations__", {})
    annotation = annotations.get("return")
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, getattr(function, "__globals__", {}))
        except Exception:
            return None  # such as a name that is imported for type checkers alone
    return None if annotation is Any else annotation
