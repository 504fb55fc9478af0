"""Expressions of triggers and waits: CEL, with Inngest's meaning.

The variables are ``event`` and, in waits, ``async``. Where CEL raises, Inngest goes on, and so do we: a missing field
is null, ``&&``, ``||`` and ``?:`` take any value by its truthiness, ``+`` joins strings and numbers, and what cannot be
evaluated is false. For a missing field ``m`` and any ``x``: ``m == x`` is false, ``m == null`` true, ``m != x`` true,
``m < x`` true, ``m > x`` false, ``size(m)`` 0, any other call on it false.
(https://www.inngest.com/docs/guides/writing-expressions)

No CEL library for Python has these rules, nor a tree that they could be added to; their operators raise for null.
"""

from __future__ import annotations

import base64
import difflib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, assert_never

from ..durations import parse_duration
from ..errors import DefinitionError
from ..types import JSON
from .cel import (
    Binary,
    Call,
    CELSyntaxError,
    Conditional,
    Has,
    Index,
    ListOf,
    Literal,
    Logical,
    Macro,
    MapOf,
    Member,
    Name,
    Node,
    Unary,
    parse,
)

Value = Any
"""JSON, or a bytes, datetime or timedelta that a function made."""

_MAX_MATCHED = 10_000
_MAX_PATTERN = 500


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression.

    Attributes:
        source: Its text.
        tree: Its tree.
    """

    source: str
    tree: Node

    def matches(self, *, event: Mapping[str, JSON], async_event: Mapping[str, JSON] | None = None) -> bool:
        """Whether the expression is true of ``event`` and ``async``; never raises."""
        return _truthy(self.evaluate(event=event, async_event=async_event))

    def evaluate(self, *, event: Mapping[str, JSON], async_event: Mapping[str, JSON] | None = None) -> Value:
        """The expression's value; False where it has none. Never raises."""
        try:
            return _evaluate(self.tree, {"event": event, "async": async_event})
        except (_NoValue, ArithmeticError, ValueError, TypeError, RecursionError, MemoryError):
            return False


@lru_cache(maxsize=4096)
def compile_expression(source: str, allow_async: bool = True) -> Expression:
    """Compile an expression.

    Args:
        source: The text.
        allow_async: Whether the variable ``async`` may be used, as in waits.

    Raises:
        DefinitionError: It is no expression, or uses a variable or function that there is not.
    """
    if not isinstance(source, str) or not source.strip():
        raise DefinitionError(f"the expression is {source!r}; it takes CEL, such as 'event.data.amount > 100'")
    try:
        tree = parse(source)
    except CELSyntaxError as err:
        raise DefinitionError(f"the expression {source!r} is no CEL: {err}") from None
    variables = frozenset({"event", "async"} if allow_async else {"event"})
    for problem in _problems(tree, variables):
        raise DefinitionError(f"the expression {source!r} {problem}")
    return Expression(source, tree)


# --- checks --------------------------------------------------------------------------------------------------------


def _problems(node: Node, variables: frozenset[str]) -> Iterator[str]:
    match node:
        case Literal():
            return
        case Name(name):
            if name not in variables:
                known = " and ".join(repr(v) for v in sorted(variables, reverse=True))
                yield f"uses the variable {name!r}; there is {known}, as in event.data.{name}"
        case Call(function, arguments):
            if function not in _FUNCTIONS:
                close = difflib.get_close_matches(function, _FUNCTIONS, n=1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                yield f"calls {function!r}, which there is not{hint}"
            elif len(arguments) not in _FUNCTIONS[function][0]:
                yield f"calls {function!r} with {len(arguments)} arguments, its receiver counted"
            for argument in arguments:
                yield from _problems(argument, variables)
        case Macro(_, of, variable, body, condition):
            yield from _problems(of, variables)
            for part in (body,) if condition is None else (body, condition):
                yield from _problems(part, variables | {variable})
        case _:
            for child in _children(node):
                yield from _problems(child, variables)


def _children(node: Node) -> tuple[Node, ...]:
    match node:
        case Member(of) | Has(of):
            return (of,)
        case Index(of, key):
            return (of, key)
        case Unary(_, operand):
            return (operand,)
        case Binary(_, left, right):
            return (left, right)
        case Logical(_, operands):
            return operands
        case Conditional(test, then, otherwise):
            return (test, then, otherwise)
        case ListOf(items):
            return items
        case MapOf(pairs):
            return tuple(part for pair in pairs for part in pair)
        case _:
            return ()


# --- evaluation ----------------------------------------------------------------------------------------------------


class _NoValue(Exception):
    """Something has no value; the nearest ``&&`` or ``||``, or the whole, takes it as false."""


def _evaluate(node: Node, variables: Mapping[str, Value]) -> Value:
    match node:
        case Literal(value):
            return value
        case Name(name):
            return variables[name]
        case Member(of, field):
            return _get(_evaluate(of, variables), field)
        case Index(of, key):
            return _get(_evaluate(of, variables), _evaluate(key, variables))
        case Has(of, field):
            container = _evaluate(of, variables)
            return isinstance(container, Mapping) and field in container
        case Logical(operator, operands):
            stop = operator == "||"
            return stop if any(_test(operand, variables) is stop for operand in operands) else not stop
        case Conditional(test, then, otherwise):
            return _evaluate(then if _test(test, variables) else otherwise, variables)
        case Unary("!", operand):
            return not _test(operand, variables)
        case Unary(_, operand):
            return -_number(_evaluate(operand, variables))
        case Binary(operator, left, right):
            return _OPERATORS[operator](_evaluate(left, variables), _evaluate(right, variables))
        case Call(function, arguments):
            values = [_evaluate(argument, variables) for argument in arguments]
            if values and values[0] is None and function not in _ON_NULL:
                return False
            return _FUNCTIONS[function][1](*values)
        case Macro():
            return _macro(node, variables)
        case ListOf(items):
            return [_evaluate(item, variables) for item in items]
        case MapOf(pairs):
            return {_evaluate(key, variables): _evaluate(value, variables) for key, value in pairs}
        case _:
            assert_never(node)


def _macro(node: Macro, variables: Mapping[str, Value]) -> Value:
    of = _evaluate(node.of, variables)
    if of is None:
        of = []
    if not isinstance(of, list | Mapping):
        raise _NoValue
    scopes = [{**variables, node.variable: item} for item in of]
    if node.kind == "map":
        kept = scopes if node.condition is None else [s for s in scopes if _test(node.condition, s)]
        return [_evaluate(node.body, scope) for scope in kept]
    results = (_test(node.body, scope) for scope in scopes)
    if node.kind == "all":
        return all(results)
    if node.kind == "exists":
        return any(results)
    if node.kind == "exists_one":
        return sum(results) == 1
    return [item for item, kept in zip(of, results, strict=True) if kept]


def _test(node: Node, variables: Mapping[str, Value]) -> bool:
    try:
        return _truthy(_evaluate(node, variables))
    except (_NoValue, ArithmeticError, ValueError, TypeError):
        return False


def _truthy(value: Value) -> bool:
    """As in JavaScript: null, false, 0, NaN and "" are false; every list and map is true."""
    if isinstance(value, float) and math.isnan(value):
        return False
    return True if isinstance(value, list | Mapping) else bool(value)


def _get(container: Value, key: Value) -> Value:
    if isinstance(container, Mapping):
        return container.get(key) if isinstance(key, str | int | float | bool) else None
    if isinstance(container, list) and isinstance(key, int) and not isinstance(key, bool):
        return container[key] if 0 <= key < len(container) else None
    return None


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Value) -> Any:
    if value is None:
        return 0
    if not _is_number(value) and not isinstance(value, timedelta):
        raise _NoValue
    return value


def _equal(left: Value, right: Value) -> bool:
    if _is_number(left) and _is_number(right):
        return bool(left == right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_equal(value, right[key]) for key, value in left.items())
    return type(left) is type(right) and bool(left == right)


def _less(left: Value, right: Value) -> bool:
    """Null is less than everything else."""
    if left is None or right is None:
        return left is None and right is not None
    if _is_number(left) and _is_number(right):
        return bool(left < right)
    for kind in (str, bytes, bool, datetime, timedelta):
        if isinstance(left, kind) and isinstance(right, kind):
            return bool(left < right)  # type: ignore[operator]
    raise _NoValue


def _add(left: Value, right: Value) -> Value:
    if isinstance(left, str) or isinstance(right, str):
        return _string(left) + _string(right)
    if isinstance(left, list) and isinstance(right, list):
        return left + right
    if isinstance(left, datetime) or isinstance(right, datetime):
        return left + right
    return _number(left) + _number(right)


def _subtract(left: Value, right: Value) -> Value:
    return left - right if isinstance(left, datetime) else _number(left) - _number(right)


def _multiply(left: Value, right: Value) -> Value:
    product = _number(left) * _number(right)
    if isinstance(product, int) and product.bit_length() > 256:
        raise _NoValue
    return product


def _divide(left: Value, right: Value) -> Value:
    left, right = _number(left), _number(right)
    if isinstance(left, int) and isinstance(right, int):
        quotient = abs(left) // abs(right)
        return quotient if (left < 0) == (right < 0) else -quotient
    return left / right


def _remainder(left: Value, right: Value) -> Value:
    left, right = _number(left), _number(right)
    return left - right * _divide(left, right) if isinstance(left, int) and isinstance(right, int) else _no_value()


def _no_value() -> Value:
    raise _NoValue


def _contained(item: Value, container: Value) -> bool:
    if isinstance(container, list):
        return any(_equal(item, other) for other in container)
    return isinstance(container, Mapping) and isinstance(item, str | int | float) and item in container


_OPERATORS: dict[str, Callable[[Value, Value], Value]] = {
    "==": _equal,
    "!=": lambda left, right: not _equal(left, right),
    "<": _less,
    ">": lambda left, right: _less(right, left),
    "<=": lambda left, right: _equal(left, right) or _less(left, right),
    ">=": lambda left, right: _equal(left, right) or _less(right, left),
    "in": _contained,
    "+": _add,
    "-": _subtract,
    "*": _multiply,
    "/": _divide,
    "%": _remainder,
}


# --- functions -----------------------------------------------------------------------------------------------------


def _string(value: Value) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(int(value)) if isinstance(value, float) and value.is_integer() else repr(value)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    raise _NoValue


def _int(value: Value) -> int:
    return int(value.timestamp()) if isinstance(value, datetime) else int(value)


def _bool(value: Value) -> bool:
    if isinstance(value, str):
        return {"true": True, "false": False}[value.lower()] if value.lower() in ("true", "false") else _no_value()
    return bool(value)


def _size(value: Value) -> int:
    if value is None:
        return 0
    return len(value) if isinstance(value, str | bytes | list | Mapping) else _no_value()


def _timestamp(value: Value) -> datetime:
    """RFC 3339; a number is milliseconds since the epoch, as in an event's ``ts``."""
    if isinstance(value, datetime):
        return value
    if _is_number(value):
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=value)
    parsed = datetime.fromisoformat(value)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _duration(value: Value) -> timedelta:
    return value if isinstance(value, timedelta) else parse_duration(value)


def _matches(text: Value, pattern: Value) -> bool:
    """Searches for a regular expression of Python's ``re``; long texts and patterns have no value."""
    if not isinstance(text, str) or len(text) > _MAX_MATCHED or len(pattern) > _MAX_PATTERN:
        raise _NoValue
    try:
        return re.search(pattern, text) is not None
    except re.error:
        raise _NoValue from None


def _type(value: Value) -> str:
    names = {str: "string", bool: "bool", int: "int", float: "double", bytes: "bytes", list: "list"}
    names |= {datetime: "google.protobuf.Timestamp", timedelta: "google.protobuf.Duration", type(None): "null_type"}
    return names.get(type(value), "map")


def _text(function: Callable[[str, str], bool]) -> Callable[[Value, Value], bool]:
    return lambda text, part: function(text, part) if isinstance(text, str) and isinstance(part, str) else _no_value()


def _part(of: Callable[[datetime], int]) -> Callable[[Value], int]:
    return lambda value: of(_timestamp(value))


_FUNCTIONS: dict[str, tuple[tuple[int, ...], Callable[..., Value]]] = {
    "size": ((1,), _size),
    "contains": ((2,), _text(lambda text, part: part in text)),
    "startsWith": ((2,), _text(str.startswith)),
    "endsWith": ((2,), _text(str.endswith)),
    "matches": ((2,), _matches),
    "string": ((1,), _string),
    "int": ((1,), _int),
    "uint": ((1,), lambda value: abs(_int(value))),
    "double": ((1,), float),
    "bool": ((1,), _bool),
    "bytes": ((1,), lambda value: value if isinstance(value, bytes) else value.encode()),
    "type": ((1,), _type),
    "dyn": ((1,), lambda value: value),
    "timestamp": ((1,), _timestamp),
    "duration": ((1,), _duration),
    "getFullYear": ((1,), _part(lambda t: t.year)),
    "getMonth": ((1,), _part(lambda t: t.month - 1)),
    "getDate": ((1,), _part(lambda t: t.day)),
    "getDayOfMonth": ((1,), _part(lambda t: t.day - 1)),
    "getDayOfWeek": ((1,), _part(lambda t: t.isoweekday() % 7)),
    "getHours": ((1,), _part(lambda t: t.hour)),
    "getMinutes": ((1,), _part(lambda t: t.minute)),
    "getSeconds": ((1,), _part(lambda t: t.second)),
    # Inngest's own
    "lowercase": ((1,), lambda value: _string(value).lower()),
    "uppercase": ((1,), lambda value: _string(value).upper()),
    "b64decode": ((1,), lambda value: base64.b64decode(value).decode()),
    "json_parse": ((1,), json.loads),
    "date": ((1,), _timestamp),
    "now": ((0,), lambda: datetime.now(UTC)),
    "now_plus": ((1,), lambda value: datetime.now(UTC) + _duration(value)),
    "now_minus": ((1,), lambda value: datetime.now(UTC) - _duration(value)),
}
_ON_NULL = ("size", "type", "dyn", "string")
