"""Evaluation of expressions, by the rules in ``expression.py``."""

from __future__ import annotations

import base64
import json
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, assert_never

from temporalio import workflow

from ..types import JSON
from . import cel
from .budget import Budget, OverBudgetError, key_of, weight

Value = Any
"""JSON; or bytes, a datetime or a timedelta that a function returned; or ``MISSING``."""

MISSING: Final = object()
"""Value of a missing field, or of an expression that cannot be evaluated."""

_MAX_MATCHED = 10_000
_MAX_PATTERN = 500
_COMPILED = 3_000
"""Units for a regular expression that an evaluation uses for the first time; RE2 takes up to 6 ms to compile one."""
_STATES_PER_UNIT = 256
_COMPARED_PER_UNIT = 50_000
_PARSED_PER_UNIT = 8

_TYPES: dict[type, str] = {str: "string", bool: "bool", int: "int", float: "double", bytes: "bytes", list: "list"}
_TYPES |= {datetime: "google.protobuf.Timestamp", timedelta: "google.protobuf.Duration", type(None): "null_type"}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_PART_OF_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|[smhdw])")
_DURATION = re.compile(rf"[-+]?(?:{_PART_OF_DURATION.pattern})+")


class _NoValue(Exception):
    """Raised for an expression without a value."""


# --- the tree ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scope:
    """Variables of an expression or of a macro's body, and the budget of the whole evaluation."""

    variables: Mapping[str, Value]
    budget: Budget


def value_of(node: cel.Node, scope: Scope) -> Value:
    """Return the value of an expression; ``MISSING`` if it has none.

    Raises:
        OverBudgetError: The evaluation exceeds the budget.
    """
    return _apply(_evaluate, node, scope)


def _evaluate(node: cel.Node, scope: Scope) -> Value:
    scope.budget.take()
    match node:
        case cel.Literal(value):
            return value
        case cel.Name(name):
            return scope.variables[name]
        case cel.Member(of, key):
            return _get(_evaluate(of, scope), key, scope.budget)
        case cel.Index(of, index):
            return _get(_evaluate(of, scope), _evaluate(index, scope), scope.budget)
        case cel.Has(of, key):
            container = _evaluate(of, scope)
            return isinstance(container, Mapping) and key in container
        case cel.Logical(symbol, operands):
            return _logical(symbol, operands, scope)
        case cel.Conditional(test, then, otherwise):
            return _evaluate(then if _test(test, scope) else otherwise, scope)
        case cel.Unary(symbol, operand):
            value = _evaluate(operand, scope)
            return False if value is MISSING else _apply(_UNARY[symbol], value)
        case cel.Binary(symbol, left, right):
            return _binary(symbol, _evaluate(left, scope), _evaluate(right, scope), scope.budget)
        case cel.Call(function, arguments):
            return _call(function, [_evaluate(argument, scope) for argument in arguments], scope.budget)
        case cel.Macro():
            return _macro(node, scope)
        case cel.ListOf(items):
            return _complete([_evaluate(item, scope) for item in items])
        case cel.MapOf(pairs):
            return _map(pairs, scope)
        case _:
            assert_never(node)


def _test(node: cel.Node, scope: Scope) -> bool:
    return truthy(_evaluate(node, scope))


def _logical(symbol: str, operands: tuple[cel.Node, ...], scope: Scope) -> Value:
    """Return the first operand that decides, or the last one."""
    value: Value = MISSING
    for operand in operands:
        value = _evaluate(operand, scope)
        if truthy(value) is (symbol == "||"):
            break
    return value


def _binary(symbol: str, left: Value, right: Value, budget: Budget) -> Value:
    if left is MISSING or right is MISSING:
        return _binary_of_missing(symbol, left, right)
    match symbol:
        case "==":
            return _apply(_equal, left, right, budget)
        case "!=":
            equal = _apply(_equal, left, right, budget)
            return MISSING if equal is MISSING else not equal
        case "in":
            return _apply(_contained, left, right, budget)
    budget.take(weight(left) + weight(right))
    return _apply(_OPERATORS[symbol], left, right)


def _binary_of_missing(symbol: str, left: Value, right: Value) -> Value:
    match symbol:
        case "==":
            return left is None or right is None
        case "!=":
            return left is not None and right is not None
        case "<" | "<=":
            return left is MISSING
        case ">" | ">=":
            return left is not MISSING
        case "+" if left is not right:
            return right if left is MISSING else left
        case _:
            return False


def _call(function: str, arguments: list[Value], budget: Budget) -> Value:
    absent = any(argument is MISSING for argument in arguments)
    if absent or (arguments and arguments[0] is None and function not in _ON_NULL):
        return 0 if function == "size" else False
    if function == "matches":
        return _apply(_matches, *arguments, budget)
    budget.take(_cost(function, arguments))
    value = _apply(FUNCTIONS[function][1], *arguments)
    budget.take(weight(value))
    return value


def _cost(function: str, arguments: list[Value]) -> int:
    """Return the units that a function takes for its arguments."""
    match function, arguments:
        case "size" | "type" | "dyn", _:
            return 0
        case "json_parse", [str() | bytes() as text]:
            return len(text) // _PARSED_PER_UNIT
        case "contains", [str() as text, str() as part]:
            # Python compares each character of a short text with each of a part, up to some length.
            compared = min(len(text), 30_000) * min(len(part), 1_250)
            return weight(text) + weight(part) + compared // _COMPARED_PER_UNIT
        case _:
            return sum(map(weight, arguments))


def _apply(function: Callable[..., Value], *arguments: Any) -> Value:
    try:
        return function(*arguments)
    except OverBudgetError:
        raise
    except Exception:  # no content of an event may block the events after it
        return MISSING


def _complete(items: list[Value]) -> Value:
    return MISSING if any(item is MISSING for item in items) else items


def _map(pairs: tuple[tuple[cel.Node, cel.Node], ...], scope: Scope) -> Value:
    values: dict[Value, Value] = {}
    for key_node, value_node in pairs:
        key, value = _evaluate(key_node, scope), _evaluate(value_node, scope)
        if not isinstance(key, str | int | float) or value is MISSING:
            return MISSING
        scope.budget.take(weight(key))
        values[key] = value
    return values


def _macro(node: cel.Macro, scope: Scope) -> Value:
    of = _evaluate(node.of, scope)
    if not isinstance(of, list | Mapping):
        return MISSING
    variables = dict(scope.variables)
    inner = Scope(variables, scope.budget)

    def each() -> Iterator[Value]:
        for item in of:
            scope.budget.take()
            variables[node.variable] = item
            yield item

    match node.kind:
        case "map":
            condition = node.condition
            return _complete(
                [_evaluate(node.body, inner) for _ in each() if condition is None or _test(condition, inner)]
            )
        case "all":
            return all(_test(node.body, inner) for _ in each())
        case "exists":
            return any(_test(node.body, inner) for _ in each())
        case "exists_one":
            return sum(_test(node.body, inner) for _ in each()) == 1
        case _:
            return [item for item in each() if _test(node.body, inner)]


def truthy(value: Value) -> bool:
    """Return a value's truthiness, as in JavaScript: null, false, 0, NaN and "" are false; lists and maps are true."""
    if value is MISSING or (isinstance(value, float) and math.isnan(value)):
        return False
    return bool(value) if value is None or isinstance(value, str | int | float) else True


def _get(container: Value, key: Value, budget: Budget) -> Value:
    if isinstance(container, Mapping):
        if isinstance(key, str):
            return container.get(key, MISSING)
        return next((value for other, value in container.items() if _equal(other, key, budget)), MISSING)
    if isinstance(container, list) and _is_number(key) and key % 1 == 0:
        return container[int(key)] if 0 <= key < len(container) else MISSING
    return MISSING


def as_json(value: Value, budget: Budget) -> JSON:
    """Return a value as JSON: times as RFC 3339, durations as seconds (``"90s"``), bytes as base64; False if missing.

    Raises:
        OverBudgetError: The value exceeds the budget.
    """
    converted = _apply(_as_json, value, budget)
    return False if converted is MISSING else converted


def _as_json(value: Value, budget: Budget) -> JSON:
    budget.take(1 + weight(value))
    match value:
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case timedelta():
            return _string(value)
        case bytes():
            return base64.b64encode(value).decode()
        case list():
            return [_as_json(item, budget) for item in value]
        case Mapping():
            return {_string(key): _as_json(item, budget) for key, item in value.items()}
        case _:
            return value


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Value) -> Any:
    if not _is_number(value) and not isinstance(value, timedelta):
        raise _NoValue
    return value


def _equal(left: Value, right: Value, budget: Budget) -> bool:
    budget.take()
    if _is_number(left) and _is_number(right):
        return bool(left == right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(_equal(*pair, budget) for pair in zip(left, right, strict=True))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        if len(left) != len(right):
            return False
        budget.take(len(left))
        return left.keys() == right.keys() and all(_equal(value, right[key], budget) for key, value in left.items())
    if type(left) is not type(right):
        return False
    if isinstance(left, str | bytes) and len(left) == len(right):
        budget.take(weight(left))
    return bool(left == right)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Value, Value], bool]:
    """Return a comparison in which null counts as the zero of the other's type; other mixed types are not ordered."""

    def ordered(left: Value, right: Value) -> bool:
        if left is None:
            left = _zero_of(right)
        if right is None:
            right = _zero_of(left)
        if _is_number(left) and _is_number(right):
            return compare(left, right)
        for kind in (str, bytes, bool, datetime, timedelta):
            if isinstance(left, kind) and isinstance(right, kind):
                return compare(left, right)
        raise _NoValue

    return ordered


def _zero_of(value: Value) -> Value:
    return "" if isinstance(value, str) else 0 if _is_number(value) else _no_value()


def _not(value: Value) -> bool:
    return not value if isinstance(value, bool) else _no_value()


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


def _contained(item: Value, container: Value, budget: Budget) -> bool:
    if isinstance(container, Mapping) and isinstance(item, str):
        budget.take(weight(item))
        return item in container
    if isinstance(container, list):
        budget.take(weight(item))
        key, keys = key_of(item), budget.keys_in(container)
        if key is not None and keys is not None:
            return key in keys
    return (
        any(_equal(item, each, budget) for each in container) if isinstance(container, list | Mapping) else _no_value()
    )


_UNARY: dict[str, Callable[[Value], Value]] = {"!": _not, "-": lambda value: -_number(value)}
_OPERATORS: dict[str, Callable[[Value, Value], Value]] = {
    "<": _ordered(operator.lt),
    ">": _ordered(operator.gt),
    "<=": _ordered(operator.le),
    ">=": _ordered(operator.ge),
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
    if isinstance(value, str) and not re.fullmatch("[-+]?[0-9]+", value):
        raise _NoValue
    return int(value.timestamp()) if isinstance(value, datetime) else int(value)


def _uint(value: Value) -> int:
    number = _int(value)
    return number if number >= 0 else _no_value()


def _bool(value: Value) -> bool:
    if isinstance(value, str):
        return {"true": True, "false": False}[value.lower()] if value.lower() in ("true", "false") else _no_value()
    return bool(value)


def _size(value: Value) -> int:
    if value is None:
        return 0
    return len(value) if isinstance(value, str | bytes | list | Mapping) else _no_value()


def _timestamp(value: Value) -> datetime:
    """Return a time from RFC 3339, in UTC by default, or from a number of seconds since the epoch."""
    if isinstance(value, datetime):
        return value
    if _is_number(value):
        return _EPOCH + timedelta(seconds=value)
    parsed = datetime.fromisoformat(value)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _date(value: Value) -> datetime:
    """Convert as ``timestamp``, but a number is in seconds, milliseconds or nanoseconds, by its size, as in Inngest."""
    if not _is_number(value):
        return _timestamp(value)
    if value < 946_684_800:  # the year 2000, in seconds
        raise _NoValue
    return _timestamp(value / (1 if value < 9_999_999_999 else 1e3 if value < 9_999_999_999_999 else 1e9))


def _duration(value: Value) -> timedelta:
    """Return a duration as in Go's ``time.ParseDuration``, plus days and weeks: ``1.5h``, ``-10m``, ``1d12h``."""
    if isinstance(value, timedelta):
        return value
    if not _DURATION.fullmatch(value):
        raise _NoValue
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART_OF_DURATION.findall(value))
    return timedelta(seconds=-seconds if value.startswith("-") else seconds)


def _matches(text: Value, pattern: Value, budget: Budget) -> bool:
    """Search for a regular expression; long texts and patterns have no value."""
    if not isinstance(text, str) or len(text) > _MAX_MATCHED or len(pattern) > _MAX_PATTERN:
        raise _NoValue
    budget.take_once(pattern, _COMPILED)
    compiled = _pattern(pattern)
    budget.take(
        len(text) * compiled.programsize // _STATES_PER_UNIT
    )  # in the worst case, RE2 follows all states at once
    return compiled.search(text) is not None


@lru_cache(maxsize=128)  # of a megabyte at most
def _pattern(pattern: str) -> Any:
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    try:
        return re2.compile(pattern, options)
    except re2.error:
        raise _NoValue from None


def _text(function: Callable[[str, str], bool]) -> Callable[[Value, Value], bool]:
    return lambda text, part: function(text, part) if isinstance(text, str) and isinstance(part, str) else _no_value()


def _now() -> datetime:
    """Return the time; in a workflow, such as a topic, it is the same on replay."""
    return workflow.now() if workflow.in_workflow() else datetime.now(UTC)


def _part(of: Callable[[datetime], int]) -> Callable[[Value], int]:
    return lambda value: of(_timestamp(value))


FUNCTIONS: dict[str, tuple[int, Callable[..., Value]]] = {
    "size": (1, _size),
    "contains": (2, _text(lambda text, part: part in text)),
    "startsWith": (2, _text(str.startswith)),
    "endsWith": (2, _text(str.endswith)),
    "matches": (2, _matches),  # which also gets the budget
    "string": (1, _string),
    "int": (1, _int),
    "uint": (1, _uint),
    "double": (1, lambda value: _no_value() if isinstance(value, str) and "_" in value else float(value)),
    "bool": (1, _bool),
    "bytes": (1, lambda value: value if isinstance(value, bytes) else value.encode()),
    "type": (1, lambda value: _TYPES.get(type(value), "map")),
    "dyn": (1, lambda value: value),
    "timestamp": (1, _timestamp),
    "duration": (1, _duration),
    "getFullYear": (1, _part(lambda t: t.year)),
    "getMonth": (1, _part(lambda t: t.month - 1)),
    "getDate": (1, _part(lambda t: t.day)),
    "getDayOfMonth": (1, _part(lambda t: t.day - 1)),
    "getDayOfWeek": (1, _part(lambda t: t.isoweekday() % 7)),
    "getHours": (1, _part(lambda t: t.hour)),
    "getMinutes": (1, _part(lambda t: t.minute)),
    "getSeconds": (1, _part(lambda t: t.second)),
    # Inngest's additional functions
    "lowercase": (1, lambda value: _string(value).lower()),
    "uppercase": (1, lambda value: _string(value).upper()),
    "b64decode": (1, lambda value: base64.b64decode(value).decode()),
    "json_parse": (1, json.loads),
    "date": (1, _date),
    "now": (0, lambda: _now()),
    "now_plus": (1, lambda value: _now() + _duration(value)),
    "now_minus": (1, lambda value: _now() - _duration(value)),
}
_ON_NULL = ("size", "type", "dyn", "string")
"""Functions that accept null; all others return false for it, as for a missing field."""
