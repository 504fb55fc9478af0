"""Values as JSON for people and other programs: without tags, or as pydantic writes them."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pydantic

from ..errors import UnencryptedSecretError, UnserializableError
from ..types import JSON
from .adapters import adapter
from .converter import dumps, to_json
from .encoding import TAG, encode, is_unchanged

_MASK = "**********"
_SECRETS = (pydantic.SecretStr, pydantic.SecretBytes, pydantic.Secret)


def plain(data: JSON, *, reveal: bool = False) -> JSON:
    """Return encoded data without its tags: JSON for people to read, or for a schema to validate.

    Args:
        data: The result of :func:`encode`.
        reveal: Whether to show secrets, which are otherwise asterisks.
    """
    if isinstance(data, list):
        return [plain(item, reveal=reveal) for item in data]
    if not isinstance(data, dict):
        return data
    if TAG not in data:
        return {key: plain(item, reveal=reveal) for key, item in data.items()}
    tag, value = data[TAG], data.get("value")
    if tag in _PLAIN_PAIRS:
        return {_plain_key(key, reveal): plain(item, reveal=reveal) for key, item in cast(list[list[JSON]], value)}
    if tag == "list":
        return [plain({**data["of"], "value": fields}, reveal=reveal) for fields in value or ()]
    if tag == "model":
        extra = {name: plain(item, reveal=reveal) for name, item in data.get("extra") or ()}
        return {**plain(value, reveal=reveal), **extra}
    if tag == "root":
        return plain(data["value"].get("root"), reveal=reveal)
    if tag == "namedtuple":
        return [plain(item, reveal=reveal) for item in data["value"].values()]
    if tag == "enum" and "value" not in data:
        return data["name"]
    if tag == "secret" and not reveal:
        return _MASK
    if tag in _PLAIN_LEAVES:
        return _PLAIN_LEAVES[tag](data)
    return plain(value, reveal=reveal)


def _plain_key(key: JSON, reveal: bool) -> str:
    shown = plain(key, reveal=reveal)
    return shown if isinstance(shown, str) else dumps(shown).decode() if isinstance(shown, list | dict) else str(shown)


def _plain_bytes(data: dict[str, JSON]) -> JSON:
    try:
        return base64.b64decode(data["value"]).decode()
    except UnicodeDecodeError:
        return data["value"]


_PLAIN_PAIRS = frozenset({"dict", "ordereddict", "counter", "defaultdict"})
_PLAIN_LEAVES: dict[str, Callable[[dict[str, JSON]], JSON]] = {
    "timedelta": lambda data: timedelta(*data["value"]).total_seconds(),
    "bytes": _plain_bytes,
    "bytearray": _plain_bytes,
    "int": lambda data: data["value"],
    "returned": lambda data: data["value"],
}


def is_plain(data: JSON) -> bool:
    """Return whether data can be written as JSON; NaN cannot, for example."""
    try:
        dumps(data)
    except (ValueError, TypeError, RecursionError):
        return False
    return True


def readable(value: Any, encoded: JSON, kind: Any = None) -> JSON:
    """Return a value as JSON for other programs to read beside the exact value, as pydantic writes it.

    Args:
        value: The value.
        encoded: The value as :func:`encode` writes it, as a fallback.
        kind: The type through which pydantic writes the value, instead of the value's own.
    """
    try:
        data = _with_finite_numbers(to_json(value, kind))
        return data if is_plain(data) else plain(encoded)
    except Exception:  # a user's serializer may raise anything
        return plain(encoded)


def _with_finite_numbers(data: JSON) -> JSON:
    """Return JSON with ``"NaN"`` for NaN, which pydantic does not convert."""
    if isinstance(data, float):
        return data if math.isfinite(data) else json.dumps(data)
    if isinstance(data, dict):
        return {key: _with_finite_numbers(item) for key, item in data.items()}
    return [_with_finite_numbers(item) for item in data] if isinstance(data, list) else data


def outward(value: Any) -> JSON:
    """Return a value as JSON for other programs, as pydantic writes it: with aliases and serializers.

    Raises:
        UnserializableError: The value cannot be written, or contains a secret or a value that is not JSON, such as NaN.
    """
    encoded: JSON = None
    refusal: UnserializableError | None = None
    try:
        encoded = encode(value)
        if is_unchanged(encoded, value):
            return encoded
    except UnencryptedSecretError:
        raise _masked() from None
    except UnserializableError as err:
        if not isinstance(value, pydantic.BaseModel) and not dataclasses.is_dataclass(value):
            raise
        refusal = err
    try:
        data = to_json(value)
        dumped = _dumped(value, encoded)
    except UnserializableError as err:
        raise refusal or err from None  # the refusal has the path
    if _has(dumped, lambda item: isinstance(item, _SECRETS)):  # encode stopped at another part before the secret
        raise _masked()
    if is_plain(data) and not _has(dumped, _is_not_finite):  # pydantic may have written null for such numbers
        return data
    raise refusal or UnserializableError("it contains a value that is not JSON, such as NaN; convert it to a string")


def _dumped(value: Any, encoded: JSON) -> Any:
    """Return a value as pydantic dumps it, including what JSON cannot express, such as secrets and NaN.

    Raises:
        UnserializableError: Pydantic cannot dump the value, and it was not encoded either.
    """
    try:
        return adapter(Any).dump_python(value, warnings=False)
    except Exception as err:  # for example a set of models, which pydantic would convert to a set of dicts
        if encoded is None:
            raise UnserializableError(f"it cannot be written as JSON: {err}") from None
        return encoded


def _masked() -> UnencryptedSecretError:
    return UnencryptedSecretError(
        "it contains a secret, which JSON for other programs shows as asterisks; send a name by which to look up the "
        "secret"
    )


def _is_not_finite(item: Any) -> bool:
    return isinstance(item, float) and not math.isfinite(item)


def _has(dumped: Any, is_it: Callable[[Any], bool]) -> bool:
    """Return whether ``is_it`` holds for a part of a value, as pydantic dumps it or as it is encoded."""
    if isinstance(dumped, dict):
        if dumped.get(TAG) == "float":
            return is_it(float(dumped["value"]))
        return any(_has(item, is_it) for item in dumped.values())
    if isinstance(dumped, list | tuple | set | frozenset):
        return any(_has(item, is_it) for item in dumped)
    return is_it(dumped)
