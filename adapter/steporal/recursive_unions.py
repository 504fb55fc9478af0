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
from typing import Any

import pydantic
from pydantic_core import PydanticCustomError

BASE_UNITS = 200_000
UNITS_PER_BYTE = 4
"""What a validation may take, by the size of the JSON; a unit is a value looked at, or 64 characters of one."""

MEMBERS = "\0members"
"""The tag that the counted union has in the location of an issue, which messages leave out."""

_CHARACTERS_PER_UNIT = 64

_left: ContextVar[list[int] | None] = ContextVar("steporal_units_left", default=None)


class TooManyAttemptsError(Exception):
    """The unions of a type look at more than they may; no ``ValueError``, which would only fail one member."""


@contextmanager
def bounded(kind: Any, size: int) -> Iterator[None]:
    """Bound what the unions of validations inside look at.

    Args:
        kind: The type, for the message.
        size: Bytes of the JSON.

    Raises:
        pydantic.ValidationError: It is more.
    """
    token = _left.set([BASE_UNITS + UNITS_PER_BYTE * size])
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


def is_recursive(schema: Any) -> bool:
    """Return whether a part of a schema refers to a definition, which may contain the part."""
    rest = [schema]
    while rest:
        part = rest.pop()
        if isinstance(part, Mapping):
            if part.get("type") == "definition-ref":
                return True
            rest += part.values()
        elif isinstance(part, list | tuple):
            rest += part
    return False


def _count(value: Any) -> str:
    left = _left.get()
    if left is not None:
        left[0] -= _units(value, left[0])
        if left[0] < 0:
            raise TooManyAttemptsError
    return MEMBERS


def _units(value: Any, most: int) -> int:
    """Return what a value is counted for, or more than ``most``."""
    units, rest = 0, [value]
    while rest and units <= most:
        part = rest.pop()
        units += 1
        if isinstance(part, dict):
            rest += part.values()
            units += sum(map(len, filter(_is_text, part))) // _CHARACTERS_PER_UNIT
        elif isinstance(part, list | tuple):
            rest += part
        elif isinstance(part, str):
            units += len(part) // _CHARACTERS_PER_UNIT
    return units


def _is_text(key: object) -> bool:
    return isinstance(key, str)
