"""The body of a request: JSON, whatever its content type says, and nothing that only some parsers take."""

from __future__ import annotations

import json
import re
from typing import NoReturn

from starlette.requests import ClientDisconnect, Request

from steporal.types import JSON

from .answers import Problem

MAX_BODY_BYTES = 16 * 1024 * 1024
"""The most that one request may have: 5,000 events of 3 KB."""

MAX_VALUES = 500_000
"""The most values that a body may have: 5,000 events of 100. An empty object has two bytes there, and 64 in memory."""

BYTES_OF_VALUE = 64

TAKE = "steporal.take"
"""The key of a request's scope under which is what takes memory for it, or refuses it."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)

_DROPPED_BYTES = 4 * MAX_BODY_BYTES

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


MAX_NESTING = 500
"""How deep JSON may nest. Python 3.13 reads 10,000 levels; other processes may have 3.12, which reads 1,000."""

_TOO_DEEP = "the body cannot be read as JSON: it is nested too deep"


class _Refused(ValueError):
    """Text that some parsers take for JSON."""


async def read_json(request: Request, max_bytes: int = MAX_BODY_BYTES) -> JSON:
    """The body as JSON.

    As in Inngest, its content type does not matter: ``curl --data`` and browsers' beacons send other ones.

    Raises:
        Problem: 413: it is too large, or has too many values. 415: it is compressed. 400: it is no JSON; says where.
    """
    body = await _read(request, max_bytes)
    values = _count_values(body)
    if TAKE in request.scope:
        request.scope[TAKE](values * BYTES_OF_VALUE)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as err:
        raise Problem(400, f"the body is not UTF-8: {err.reason} at byte {err.start}") from None
    if not text.strip():
        raise Problem(400, "the body is empty; it takes JSON")
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_reject)
    except RecursionError:
        raise Problem(400, _TOO_DEEP) from None
    except json.JSONDecodeError as err:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        hint = f"; it is a form ({kind}): send JSON" if kind in _FORMS else ""
        raise Problem(
            400, f"the body is not valid JSON: {err.msg} at line {err.lineno}, column {err.colno}{hint}"
        ) from None
    except _Refused as err:
        raise Problem(400, f"the body is not valid JSON: {err}") from None
    except ValueError:  # all that is left: Python parses no integers of more than 4,300 digits
        raise Problem(400, "the body has an integer of thousands of digits; send it as a string") from None
    if text.count("[") + text.count("{") > MAX_NESTING and _is_nested_too_deep(data):
        raise Problem(400, _TOO_DEEP)
    return data


def _is_nested_too_deep(data: JSON) -> bool:
    level = [data]
    for _ in range(MAX_NESTING):
        inner: list[JSON] = []
        for value in level:
            if isinstance(value, dict):
                inner += value.values()
            elif isinstance(value, list):
                inner += value
        if not (level := inner):
            return False
    return True


async def read_object(request: Request, max_bytes: int = MAX_BODY_BYTES) -> dict[str, JSON]:
    """The body as a JSON object.

    Raises:
        Problem: As :func:`read_json`, or 400: it is something else.
    """
    body = await read_json(request, max_bytes)
    if not isinstance(body, dict):
        raise Problem(400, f"the body is a JSON {type_name(body)}; it takes an object")
    return body


def type_name(value: JSON) -> str:
    """What JSON calls a value's type."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


async def _read(request: Request, max_bytes: int) -> bytes:
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise Problem(415, f"the body has the content-encoding {coding!r}; send it uncompressed")
    body, size = bytearray(), 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size <= max_bytes:
                body += chunk
            else:
                body.clear()
            # Few producers read an answer before they have sent all: some of what is too much is let in, and dropped.
            if size > max_bytes + _DROPPED_BYTES:
                break
    except ClientDisconnect:
        raise Problem(400, "the body is incomplete") from None
    if size > max_bytes:
        message = f"the body is too large; the maximum is {max_bytes:,} bytes in one request"
        raise Problem(413, message, headers={"Connection": "close"})
    return bytes(body)


def _count_values(body: bytes) -> int:
    """How many values a body has, or more.

    Raises:
        Problem: 413: they are too many.
    """
    count = _separators(body)
    if count > MAX_VALUES:  # perhaps in texts
        count = _separators(_STRING.sub(b"", body))
    if count > MAX_VALUES:
        raise Problem(413, f"the body has more than {MAX_VALUES:,} values; send them in several requests")
    return count


def _separators(body: bytes) -> int:
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def _unique(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Refused(f"an object has the key {key[:80]!r} twice")
            seen.add(key)
    return made


def _reject(name: str) -> NoReturn:
    raise _Refused(f"{name} is not a number in JSON")
