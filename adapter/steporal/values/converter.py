"""JSON as finished payloads of Temporal, and as values of a known type.

What is produced here is handed to Temporal as a finished ``json/plain`` payload. Payload codecs (encryption,
compression) and external storage apply to it; a custom payload converter does not. JSON of values of any type is made
by ``encoding.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pydantic
import pydantic_core
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue

from ..errors import UnserializableError
from ..types import JSON
from .adapters import adapter
from .encrypted import check_readable
from .fail_fast import fail_fast_validator, may_be_costly
from .recursive_unions import MEMBERS, bounded
from .type_names import type_label

_WHOLLY_CHECKED = 2_000
"""Bytes of JSON of which all issues are looked for."""

_MAX_LISTED = 1_000
"""Pydantic makes the texts of all issues or of none."""

MAX_SHOWN = 20
"""Issues in a message."""

_MAX_TEXT = 200

# --- bytes ---------------------------------------------------------------------------------------------------------


_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def dumps(data: JSON) -> bytes:
    """JSON text of ``data`` in UTF-8, compact."""
    return _compact.encode(data).encode()


def to_raw(data: JSON, metadata: Mapping[str, bytes] | None = None) -> RawValue:
    """A JSON value as a finished ``json/plain`` payload, with further metadata."""
    return raw_text(dumps(data), metadata)


def raw_text(text: bytes, metadata: Mapping[str, bytes] | None = None) -> RawValue:
    """JSON text, as :func:`dumps` writes it, as a finished ``json/plain`` payload, with further metadata."""
    return RawValue(Payload(metadata={"encoding": b"json/plain", **(metadata or {})}, data=text))


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


_MAY_BE_ODD = re.compile(rb"NaN|Infinity|[0-9][eE]|\\u[dD][89a-fA-F]")


def check_can_be_written(data: JSON, text: bytes) -> None:
    """Check that JSON which was read can be written again: it has no NaN or infinity, and its text is Unicode.

    Args:
        data: The JSON.
        text: What it was read from.

    Raises:
        ValueError: It cannot.
        RecursionError: It is nested too deep for that.
    """
    if _MAY_BE_ODD.search(text):
        dumps(data)


def is_nested_deeper(levels: int, data: JSON, text: bytes) -> bool:
    """Return whether JSON is nested more than some levels deep, without recursion.

    Args:
        levels: How many.
        data: The JSON.
        text: What it was read from.
    """
    if text.count(b"[") + text.count(b"{") <= levels:
        return False
    level = [data]
    for _ in range(levels):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True


def copied(data: JSON) -> JSON:
    """Return a copy of JSON, to any depth, for code that may change it; tuples become lists, as in JSON text."""
    if isinstance(data, dict):
        return {key: copied(value) for key, value in data.items()}
    return [copied(item) for item in data] if isinstance(data, list | tuple) else data


def size_of(raw: RawValue) -> int:
    """Bytes of a payload's data."""
    return len(raw.payload.data)


# --- values of a known type ----------------------------------------------------------------------------------------


def validate(data: JSON, kind: Any) -> Any:
    """``data`` as a value of ``kind``, by pydantic's rules for JSON, which let strict models read dates and tuples.

    Of data that is large, only the first wrong item of each list, dict or set is an issue.

    Raises:
        pydantic.ValidationError: It does not fit.
    """
    text = dumps(data)
    if (len(text) > _WHOLLY_CHECKED or _is_costly(kind)) and (validator := _fail_fast(kind)) is not None:
        with bounded(kind, len(text), is_json=True):
            return validator.validate_json(text)
    if _is_model(kind):
        return kind.model_validate_json(text)
    return adapter(kind).validate_json(text)


def bounded_validator(kind: Any) -> pydantic.TypeAdapter[Any] | pydantic_core.SchemaValidator:
    """A validator of which the first wrong item of each list, dict or set is an issue."""
    return _fail_fast(kind) or adapter(kind)


def _fail_fast(kind: Any) -> pydantic_core.SchemaValidator | None:
    if _is_model(kind) and any(
        "model_validate_json" in vars(cls) for cls in kind.__mro__ if cls is not pydantic.BaseModel
    ):
        return None  # it validates in its own way
    try:
        return fail_fast_validator(kind)
    except TypeError:  # unhashable
        return None


def _is_costly(kind: Any) -> bool:
    """Return whether little data may cost much."""
    try:
        return may_be_costly(kind)
    except TypeError:  # unhashable
        return False


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def to_json(value: Any, kind: Any = None) -> JSON:
    """``value`` as plain JSON, by pydantic: through ``kind`` where given, else by its own type.

    Raises:
        UnserializableError: It is not JSON, nor of a type that pydantic serialises.
    """
    if value is None or type(value) in (str, int, bool):
        return value
    try:
        if kind is not None and not isinstance(value, pydantic.BaseModel):
            return adapter(kind).dump_python(value, mode="json", by_alias=True, warnings=False)
        return pydantic_core.to_jsonable_python(value, by_alias=True)
    except (ValueError, TypeError, RecursionError, pydantic.PydanticSchemaGenerationError) as err:
        raise UnserializableError(f"{type_label(type(value))} cannot be written as JSON: {err}") from None


def issues(error: pydantic.ValidationError) -> str:
    """Pydantic's issues on one line, the first 20 of them: ``amount: Input should be a valid number; …``."""
    count = error.error_count()
    if count > _MAX_LISTED:
        return f"{count:,} issues, which are too many to list"
    listed = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_SHOWN]
    shown = [f"{_path(issue['loc'])}: {issue['msg'][:_MAX_TEXT]}" for issue in listed]
    return "; ".join([*shown, *([f"and {count - MAX_SHOWN:,} more"] if count > MAX_SHOWN else [])])


def _path(location: Sequence[str | int]) -> str:
    return ".".join(str(part)[:_MAX_TEXT] for part in location[:MAX_SHOWN] if part != MEMBERS) or "value"


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
