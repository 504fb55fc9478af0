"""A bound of what unions without a discriminator may cost that contain themselves, such as ``list[A | B]`` in A and B.

Pydantic tries each member of a union, and each member tries the unions in it: twenty levels of two members are a
million attempts, and a hundred levels, 1 KB of JSON, never end. They hold Python's lock meanwhile, so nothing else in
the process goes on. So such a union counts what it looks at, before it does.

The count stands in a discriminator: it is the only function that pydantic calls with a value without validating
another one than it was given. (A function before the union would have the members validate Python's objects, by other
rules than JSON.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import pydantic
from pydantic_core import PydanticCustomError, to_json

BASE_BYTES = 2_000_000
BYTES_PER_BYTE = 16
BYTES_OF_A_LOOK = 32
"""What a validation may look at, by the size of the JSON, and what each look at a value counts for beside its bytes:
the whole of a large JSON may be looked at some ten times.
"""

MEMBERS = "\0members"
"""The tag that the counted union has in the location of an issue, which messages leave out."""

_BYTES_OF_A_VALUE = 8


@dataclass(slots=True)
class _Left:
    """How many bytes a validation may still look at, and whether they are JSON."""

    size: int
    is_json: bool


_left: ContextVar[_Left | None] = ContextVar("steporal_bytes_left", default=None)


class TooManyAttemptsError(Exception):
    """The unions of a type look at more than they may; no ``ValueError``, which would only fail one member."""


@contextmanager
def bounded(kind: Any, size: int, *, is_json: bool) -> Iterator[None]:
    """Bound what the unions of validations inside look at.

    Args:
        kind: The type, for the message.
        size: Bytes of the JSON.
        is_json: Whether JSON is validated; else they are Python's values.

    Raises:
        pydantic.ValidationError: It is more.
    """
    token = _left.set(_Left(BASE_BYTES + BYTES_PER_BYTE * size, is_json))
    try:
        yield
    except TooManyAttemptsError:
        message = (
            "the members of a union that contains itself are tried too often: give its models a field that tells them "
            "apart, and the union a discriminator"
        )
        title = getattr(kind, "__name__", None) or str(kind)
        error = PydanticCustomError("too_many_attempts", message)
        raise pydantic.ValidationError.from_exception_data(title, [{"type": error, "input": None}]) from None
    finally:
        _left.reset(token)


def counted(union: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a union that counts what it looks at."""
    inner = {key: value for key, value in union.items() if key != "ref"}
    outer = {"type": "tagged-union", "choices": {MEMBERS: inner}, "discriminator": _count}
    return {**outer, "ref": union["ref"]} if "ref" in union else outer


def has_recursive_union(schema: Any) -> bool:
    """Return whether a schema has a union without a discriminator that may contain itself."""
    return any(part.get("type") == "union" and is_recursive(part.get("choices")) for part in _parts(schema))


def is_recursive(schema: Any) -> bool:
    """Return whether a part of a schema refers to a definition, which may contain the part."""
    return any(part.get("type") == "definition-ref" for part in _parts(schema))


def _parts(schema: Any) -> Iterator[Mapping[str, Any]]:
    rest = [schema]
    while rest:
        part = rest.pop()
        if isinstance(part, Mapping):
            yield part
            rest += part.values()
        elif isinstance(part, list | tuple):
            rest += part


def _count(value: Any) -> str:
    left = _left.get()
    if left is not None:
        # Pydantic writes JSON as fast as it reads it. Of other values it would run the app's serializers.
        left.size -= BYTES_OF_A_LOOK + (len(to_json(value)) if left.is_json else _size(value, left.size))
        if left.size < 0:
            raise TooManyAttemptsError
    return MEMBERS


def _size(value: Any, most: int) -> int:
    """Return about how many bytes of JSON a value has, or more than ``most``."""
    size, rest = 0, [value]
    while rest and size <= most:
        part = rest.pop()
        size += _BYTES_OF_A_VALUE
        if isinstance(part, dict):
            rest += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple):
            rest += part
        elif isinstance(part, str):
            size += len(part)
    return size
