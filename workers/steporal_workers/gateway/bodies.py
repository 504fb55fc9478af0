"""Bodies of requests: JSON, whatever the content type is, and nothing that only some parsers accept."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, NoReturn, TypeVar

from starlette.requests import ClientDisconnect, Request

from steporal.types import JSON

from .answers import Problem
from .memory import body_of

T = TypeVar("T")

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Limit per request: 5,000 events of 3 KB."""

MAX_VALUES = 500_000
"""Limit of values in a body, where an object counts as two: 5,000 events of 100 values."""

BYTES_OF_VALUE = 192
"""Memory of a value with the copies that are made of it; twice that for an object. Measured: at most 187."""

AT_ONCE_BYTES = 32 * 1024
"""Size up to which a body is parsed in the event loop, which takes milliseconds."""

_reader = ThreadPoolExecutor(1, "steporal-bodies")
"""Thread that parses larger bodies one by one, while the event loop serves small ones and probes."""

# Possessive quantifiers, and a string may end with the text: so each character of any body is visited once.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
_STRINGS = re.compile(_STRING, re.DOTALL)
_PIECES = re.compile(rb'(?:[^"]*+' + _STRING + rb"){1,10000}+|[^\"]++", re.DOTALL)
"""Pieces of a body that end outside of its strings. Matching holds the GIL, so each piece is matched on its own."""

_FOUR_BYTES = re.compile(rb"[\xf0-\xff]|\\u[dD][89abAB]")
"""Characters, literal or escaped, of which a single one makes Python store the whole text with four bytes each."""

_DROPPED_BYTES = 4 * MAX_BODY_BYTES

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


MAX_NESTING = 500
"""Limit of nesting in JSON. Python 3.13 reads 10,000 levels, but other processes may run 3.12, which reads 1,000."""

_TOO_DEEP = "the body cannot be read as JSON: it is nested too deep"


class _Refused(ValueError):
    """Text that only some parsers accept as JSON."""


async def read_json(request: Request, convert: Callable[[JSON], T], max_bytes: int = MAX_BODY_BYTES) -> T:
    """Parse the body as JSON, and return its value after conversion.

    As in Inngest, the content type does not matter: ``curl --data`` and browsers' beacons send other types.

    Args:
        request: The request.
        convert: Checks the value, and returns the result. For a large body it runs in another thread.
        max_bytes: The size limit of the body.

    Raises:
        Problem: 413: it is too large, or has too many values. 415: it is compressed. 400: it is not valid JSON; the
            message has the position. 503: no memory is available for it now.
    """
    body = await _read(request, max_bytes)
    is_large = len(body) > AT_ONCE_BYTES
    weight = await _in_thread(lambda: _weighed(body)) if is_large else _weighed(body)
    memory = body_of(request)
    memory.take(weight.text + weight.values)
    content_type = request.headers.get("content-type", "")

    def read() -> T:
        return convert(_parsed(body, content_type))

    result = await _in_thread(read) if is_large else read()
    memory.give_back(len(body) + weight.text)
    return result


async def _in_thread(do: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(_reader, do)


def object_of(body: JSON) -> dict[str, JSON]:
    """Return the body as a JSON object.

    Raises:
        Problem: 400: it is something else.
    """
    if not isinstance(body, dict):
        raise Problem(400, f"the body is a JSON {type_name(body)}; it must be an object")
    return body


def type_name(value: JSON) -> str:
    """Return JSON's name of a value's type."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


async def _read(request: Request, max_bytes: int) -> bytearray:
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise Problem(415, f"the body has the content-encoding {coding!r}; send it uncompressed")
    body, size, memory = bytearray(), 0, body_of(request)
    refused: Problem | None = None
    try:
        async for chunk in request.stream():
            size += len(chunk)
            # Few clients read a response before they have sent everything: so some excess is received, and dropped.
            if size > max_bytes + _DROPPED_BYTES:
                break
            if size > max_bytes:
                message = f"the body is too large; the maximum is {max_bytes:,} bytes in one request"
                refused = Problem(413, message, headers={"Connection": "close"})
            if refused is None:
                try:
                    memory.take(len(chunk))
                except Problem as problem:
                    refused = problem
            if refused is None:
                body += chunk
            elif body:
                memory.give_back(len(body))
                body.clear()
    except ClientDisconnect:
        raise Problem(400, "the body is incomplete") from None
    if refused is not None:
        raise refused
    return body


class _Weight(NamedTuple):
    """Memory of a body beside its bytes.

    Attributes:
        text: The memory of the decoded text, while it is parsed.
        values: The memory of the values with the copies that are made of them, until the response.
    """

    text: int
    values: int


def _weighed(body: bytearray) -> _Weight:
    """Return the memory of a body.

    Raises:
        Problem: 413: it has too many values.
    """
    values = _number_of_values(body)
    if values > MAX_VALUES:
        raise Problem(413, f"the body has more than {MAX_VALUES:,} values; send them in several requests")
    is_ascii = body.isascii()
    is_plain = is_ascii and b"\\u" not in body
    width = 1 if is_plain else 4 if _FOUR_BYTES.search(body) else 2
    return _Weight(len(body) * (1 if is_ascii else width), len(body) * width + values * BYTES_OF_VALUE)


def weight_of_answer(data: bytes) -> int:
    """Return the memory of JSON while it is parsed and becomes part of a response, which is in ASCII."""
    width = 1 if data.isascii() and b"\\u" not in data else 4
    answered = len(data) * (1 if data.isascii() else 3)
    return len(data) * (1 + width) + 2 * answered + _number_of_values(data) * BYTES_OF_VALUE


def _number_of_values(body: bytes | bytearray) -> int:
    """Return the number of values in a body, where an object counts as two; for large numbers, an upper bound."""
    values = _separators(body)
    if values > MAX_VALUES:  # the separators may be in strings
        values = 0
        for piece in _PIECES.finditer(body):
            values += _separators(_STRINGS.sub(b"", piece[0]))
            if values > MAX_VALUES:
                break
    return values


def _separators(body: bytes | bytearray) -> int:
    """Return an upper bound of the number of values in a body; an object counts as two."""
    return body.count(b",") + body.count(b"[") + 2 * body.count(b"{")


def _parsed(body: bytearray, content_type: str) -> JSON:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as err:
        raise Problem(400, f"the body is not UTF-8: {err.reason} at byte {err.start}") from None
    if not text.strip():
        raise Problem(400, "the body is empty; send JSON")
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_reject)
    except RecursionError:
        raise Problem(400, _TOO_DEEP) from None
    except json.JSONDecodeError as err:
        kind = content_type.partition(";")[0].strip().lower()
        hint = f"; it is a form ({kind}): send JSON" if kind in _FORMS else ""
        raise Problem(
            400, f"the body is not valid JSON: {err.msg} at line {err.lineno}, column {err.colno}{hint}"
        ) from None
    except _Refused as err:
        raise Problem(400, f"the body is not valid JSON: {err}") from None
    except ValueError:  # the only cause left is an integer of more than 4,300 digits, Python's limit
        raise Problem(400, "the body contains an integer of thousands of digits; send it as a string") from None
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


def _unique(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Refused(f"an object has the key {key[:80]!r} twice")
            seen.add(key)
    return result


def _reject(name: str) -> NoReturn:
    raise _Refused(f"{name} is not a number in JSON")
