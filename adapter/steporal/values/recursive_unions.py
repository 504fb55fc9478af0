"""Cost limit for unions without a discriminator that contain themselves, such as ``list[A | B]`` in A and B.

Pydantic tries each member of a union, and each member tries the unions in it. With two members, twenty levels need a
million attempts, and a hundred levels, 1 KB of JSON, never end. Meanwhile pydantic holds Python's lock, so nothing else
in the process runs. So such a union first counts the values that it inspects.

The count is made in a discriminator, because only there does pydantic call a function with the original value and then
validate that value. (With a function before the union, the members would validate Python objects, by other rules than
JSON.)
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
BYTES_OF_A_LOOK = 80
"""Bytes that a validation may inspect, by the size of the JSON, and the fixed cost of each inspected value beside its
bytes. A union with itself in a large JSON of small values may so be inspected about four times, and one of large values
ten times. An inspected value can take 4 KB of memory until the validation ends.
"""

MEMBERS = "\0members"
"""Tag that the counted union adds to the location of an issue, and that messages omit."""

_BYTES_OF_A_VALUE = 8


@dataclass(slots=True)
class _Budget:
    """Bytes that a validation may still inspect, and whether they are JSON."""

    size: int
    is_json: bool


_budget: ContextVar[_Budget | None] = ContextVar("steporal_bytes_left", default=None)


class TooManyAttemptsError(Exception):
    """Raised if the unions of a type exceed their budget; not a ``ValueError``, which would only fail one member."""


@contextmanager
def bounded(kind: Any, size: int, *, is_json: bool) -> Iterator[None]:
    """Limit what the unions of validations in this context may inspect.

    Args:
        kind: The type, for the message.
        size: The size of the JSON in bytes.
        is_json: Whether JSON is validated, instead of Python values.

    Raises:
        pydantic.ValidationError: The limit was exceeded.
    """
    token = _budget.set(_Budget(BASE_BYTES + BYTES_PER_BYTE * size, is_json))
    try:
        yield
    except TooManyAttemptsError:
        message = (
            "the members of a union that contains itself are tried too often: add a field to its models that "
            "distinguishes them, and a discriminator to the union"
        )
        title = getattr(kind, "__name__", None) or str(kind)
        error = PydanticCustomError("too_many_attempts", message)
        raise pydantic.ValidationError.from_exception_data(title, [{"type": error, "input": None}]) from None
    finally:
        _budget.reset(token)


def counted(union: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a union that counts the values that it inspects."""
    inner = {key: value for key, value in union.items() if key != "ref"}
    outer = {"type": "tagged-union", "choices": {MEMBERS: inner}, "discriminator": _count}
    return {**outer, "ref": union["ref"]} if "ref" in union else outer


def has_recursive_union(schema: Any) -> bool:
    """Return whether a schema has a union without a discriminator that may contain itself."""
    return any(part.get("type") == "union" and is_recursive(part.get("choices")) for part in _parts(schema))


def is_recursive(schema: Any) -> bool:
    """Return whether a part of a schema refers to a definition, which may contain that part."""
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
    budget = _budget.get()
    if budget is not None:
        # Pydantic writes JSON as fast as it reads it. For other values it would run the app's serializers.
        budget.size -= BYTES_OF_A_LOOK + (len(to_json(value)) if budget.is_json else _size(value, budget.size))
        if budget.size < 0:
            raise TooManyAttemptsError
    return MEMBERS


def _size(value: Any, max_bytes: int) -> int:
    """Return the approximate size of a value as JSON in bytes, or more than ``max_bytes``."""
    size, rest = 0, [value]
    while rest and size <= max_bytes:
        part = rest.pop()
        size += _BYTES_OF_A_VALUE
        if isinstance(part, dict):
            rest += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple):
            rest += part
        elif isinstance(part, str):
            size += len(part)
    return size
