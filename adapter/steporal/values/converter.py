"""JSON as finished Temporal payloads, and as values of a known type.

The results are finished ``json/plain`` payloads. Payload codecs (encryption, compression) and external storage apply to
them; a custom payload converter does not. ``encoding.py`` makes the JSON of values of any type.
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
"""Size of JSON, in bytes, up to which all issues are reported."""

_MAX_LISTED = 1_000
"""Limit of issues whose texts are created; pydantic creates the texts of all issues or of none."""

MAX_SHOWN = 20
"""Number of issues in a message."""

_MAX_TEXT = 200

# --- bytes ---------------------------------------------------------------------------------------------------------


_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def dumps(data: JSON) -> bytes:
    """Return ``data`` as compact JSON text in UTF-8."""
    return _compact.encode(data).encode()


def to_raw(data: JSON, metadata: Mapping[str, bytes] | None = None) -> RawValue:
    """Return a JSON value as a finished ``json/plain`` payload, with additional metadata."""
    return raw_text(dumps(data), metadata)


def raw_text(text: bytes, metadata: Mapping[str, bytes] | None = None) -> RawValue:
    """Return JSON text from :func:`dumps` as a finished ``json/plain`` payload, with additional metadata."""
    return RawValue(Payload(metadata={"encoding": b"json/plain", **(metadata or {})}, data=text))


def from_raw(raw: RawValue) -> JSON:
    """Return the JSON value in a payload from :func:`to_raw`.

    Raises:
        UnknownKeyError: The payload is encrypted, and no codec has decrypted it.
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
    """Check that parsed JSON can be written again: it has no NaN or infinity, and its text is valid Unicode.

    Args:
        data: The JSON.
        text: The text that the JSON was parsed from.

    Raises:
        ValueError: The JSON cannot be written.
        RecursionError: The JSON is nested too deep to be written.
    """
    if _MAY_BE_ODD.search(text):
        dumps(data)


def is_nested_deeper(levels: int, data: JSON, text: bytes) -> bool:
    """Return whether JSON is nested more than some levels deep, without recursion.

    Args:
        levels: The number of levels.
        data: The JSON.
        text: The text that the JSON was parsed from.
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
    """Return a deep copy of JSON, for code that may change it; tuples become lists, as in JSON text."""
    if isinstance(data, dict):
        return {key: copied(value) for key, value in data.items()}
    return [copied(item) for item in data] if isinstance(data, list | tuple) else data


def size_of(raw: RawValue) -> int:
    """Return the size of a payload's data in bytes."""
    return len(raw.payload.data)


# --- values of a known type ----------------------------------------------------------------------------------------


def validate(data: JSON, kind: Any) -> Any:
    """Return ``data`` as a value of ``kind``, by pydantic's rules for JSON: strict models read dates and tuples.

    For large data, only the first wrong item of each list, dict or set is reported.

    Raises:
        pydantic.ValidationError: The data does not fit.
    """
    text = dumps(data)
    if (len(text) > _WHOLLY_CHECKED or _is_costly(kind)) and (validator := _fail_fast(kind)) is not None:
        with bounded(kind, len(text), is_json=True):
            return validator.validate_json(text)
    if _is_model(kind):
        return kind.model_validate_json(text)
    return adapter(kind).validate_json(text)


def bounded_validator(kind: Any) -> pydantic.TypeAdapter[Any] | pydantic_core.SchemaValidator:
    """Return a validator that reports only the first wrong item of each list, dict or set."""
    return _fail_fast(kind) or adapter(kind)


def _fail_fast(kind: Any) -> pydantic_core.SchemaValidator | None:
    if _is_model(kind) and any(
        "model_validate_json" in vars(cls) for cls in kind.__mro__ if cls is not pydantic.BaseModel
    ):
        return None  # the model has its own way to validate
    try:
        return fail_fast_validator(kind)
    except TypeError:  # the type is not hashable
        return None


def _is_costly(kind: Any) -> bool:
    """Return whether validating little data may be expensive."""
    try:
        return may_be_costly(kind)
    except TypeError:  # the type is not hashable
        return False


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def to_json(value: Any, kind: Any = None) -> JSON:
    """Return ``value`` as plain JSON from pydantic: through ``kind`` if given, otherwise by its own type.

    Raises:
        UnserializableError: The value is not JSON, and pydantic cannot serialize its type.
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
    """Return pydantic's issues on one line, the first 20 of them: ``amount: Input should be a valid number; …``."""
    count = error.error_count()
    if count > _MAX_LISTED:
        return f"{count:,} issues, which are too many to list"
    listed = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_SHOWN]
    shown = [f"{_path(issue['loc'])}: {issue['msg'][:_MAX_TEXT]}" for issue in listed]
    return "; ".join([*shown, *([f"and {count - MAX_SHOWN:,} more"] if count > MAX_SHOWN else [])])


def _path(location: Sequence[str | int]) -> str:
    return ".".join(str(part)[:_MAX_TEXT] for part in location[:MAX_SHOWN] if part != MEMBERS) or "value"


def return_type(function: Callable[..., Any]) -> Any:
    """Return the type that a function's annotations declare as its result, or None if they are not usable."""
    annotations: Mapping[str, Any] = getattr(function, "__annotations__", {})
    annotation = annotations.get("return")
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, getattr(function, "__globals__", {}))
        except Exception:
            return None  # for example, a name that is only imported for type checkers
    return None if annotation is Any else annotation
