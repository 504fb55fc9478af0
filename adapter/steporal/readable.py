"""Values as JSON for people and other programs: without tags, or as pydantic writes them."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pydantic

from .converter import dumps, to_json
from .encoding import TAG, encode, is_unchanged
from .errors import UnencryptedSecretError, UnserializableError
from .types import JSON

_MASK = "**********"


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
    """Return whether JSON says all of a value: without NaN, for one."""
    try:
        return is_unchanged(encode(data), data)
    except UnserializableError:
        return False


def outward(value: Any) -> JSON:
    """Return a value as JSON for other programs, as pydantic writes it: with aliases and serializers.

    Raises:
        UnserializableError: It cannot be written, or has a secret, or a value that JSON does not have, such as NaN.
    """
    try:
        encoded = encode(value)
        if is_unchanged(encoded, value):
            return encoded
    except UnencryptedSecretError:
        raise UnencryptedSecretError(
            "it has a secret, of which JSON for other programs shows asterisks; send a name by which the secret is "
            "looked up"
        ) from None
    except UnserializableError as err:
        if not isinstance(value, pydantic.BaseModel) and not dataclasses.is_dataclass(value):
            raise
        refusal: UnserializableError | None = err
    else:
        refusal = None
    data = to_json(value)
    if is_plain(data):
        return data
    raise refusal or UnserializableError("it has a value that JSON does not have, such as NaN; convert it to a string")
