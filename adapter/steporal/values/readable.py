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
    """Return encoded data without its tags: JSON for people to read, and for a schema to validate.

    Args:
        data: What :func:`encode` returned.
        reveal: Show secrets, which are asterisks otherwise.
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
    """Return whether data can be written as JSON. NaN cannot, for one."""
    try:
        dumps(data)
    except (ValueError, TypeError, RecursionError):
        return False
    return True


def readable(value: Any, encoded: JSON, kind: Any = None) -> JSON:
    """Return a value as JSON for other programs to read beside the exact value, as pydantic writes it.

    Args:
        value: The value.
        encoded: It as :func:`encode` writes it, for what pydantic cannot write.
        kind: The type through which pydantic writes it, instead of the value's own.
    """
    try:
        data = _with_finite_numbers(to_json(value, kind))
        return data if is_plain(data) else plain(encoded)
    except Exception:  # a serializer of the user's own may raise anything
        return plain(encoded)


def _with_finite_numbers(data: JSON) -> JSON:
    """JSON with ``"NaN"`` for NaN, which pydantic leaves as it is."""
    if isinstance(data, float):
        return data if math.isfinite(data) else json.dumps(data)
    if isinstance(data, dict):
        return {key: _with_finite_numbers(item) for key, item in data.items()}
    return [_with_finite_numbers(item) for item in data] if isinstance(data, list) else data


def outward(value: Any) -> JSON:
    """Return a value as JSON for other programs, as pydantic writes it: with aliases and serializers.

    Raises:
        UnserializableError: It cannot be written, or has a secret, or a value that JSON does not have, such as NaN.
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
    if _has(dumped, lambda item: isinstance(item, _SECRETS)):  # behind a part that encode has refused first
        raise _masked()
    if is_plain(data) and not _has(dumped, _is_no_number):  # for which pydantic may have written null
        return data
    raise refusal or UnserializableError("it has a value that JSON does not have, such as NaN; convert it to a string")


def _dumped(value: Any, encoded: JSON) -> Any:
    """Return a value as pydantic dumps it: with what JSON does not have, such as secrets and NaN.

    Raises:
        UnserializableError: Pydantic cannot dump it, and neither was it encoded.
    """
    try:
        return adapter(Any).dump_python(value, warnings=False)
    except Exception as err:  # such as of a set of models, which pydantic would make a set of dicts
        if encoded is None:
            raise UnserializableError(f"it cannot be written as JSON: {err}") from None
        return encoded


def _masked() -> UnencryptedSecretError:
    return UnencryptedSecretError(
        "it has a secret, of which JSON for other programs shows asterisks; send a name by which the secret is "
        "looked up"
    )


def _is_no_number(item: Any) -> bool:
    return isinstance(item, float) and not math.isfinite(item)


def _has(dumped: Any, is_it: Callable[[Any], bool]) -> bool:
    """Return whether a part of a value, as pydantic dumps it or as it is encoded, is of a kind."""
    if isinstance(dumped, dict):
        if dumped.get(TAG) == "float":
            return is_it(float(dumped["value"]))
        return any(_has(item, is_it) for item in dumped.values())
    if isinstance(dumped, list | tuple | set | frozenset):
        return any(_has(item, is_it) for item in dumped)
    return is_it(dumped)
