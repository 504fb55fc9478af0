"""Expressions of triggers and waits: CEL, with Inngest's meaning.

The variables are ``event`` and, in waits, ``async``. Where CEL raises, Inngest goes on, and so do we: for a missing
field ``m`` and any ``x``, ``m == x`` is false, ``m == null`` true, ``m != x`` true, ``m < x`` true, ``m > x`` false,
``size(m)`` 0, ``m + x`` is ``x``, and any other operator or call on it false. Two missing fields are not equal, so that
``event.data.id == async.data.id`` matches no events without ids. What has no value, such as ``1 / 0``, is as missing.
A field that is there and null is null: it equals null only, and is ordered as 0 or "". ``&&``, ``||`` and ``?:`` take
any value by its truthiness, as in JavaScript; ``+`` joins strings with numbers.
(https://www.inngest.com/docs/guides/writing-expressions; of Inngest's server, ``pkg/expressions/unknown.go``, its tests
and ``exprenv/overloads.go``)

No CEL library for Python has these rules, nor a tree that they could be added to; their operators raise for null.
"""

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

from ..errors import DefinitionError
from ..events import unknown_field
from ..types import JSON
from . import cel

Value = Any
"""JSON, or bytes, a datetime or a timedelta that a function made, or ``_MISSING``."""

_MISSING: Final = object()
"""A field that is not there, or what cannot be evaluated."""

MAX_ITEMS = 10_000
"""How many items of lists and maps the macros of an expression look at, one in another multiplied."""

_MAX_MATCHED = 10_000
_MAX_PATTERN = 500

_TYPES: dict[type, str] = {str: "string", bool: "bool", int: "int", float: "double", bytes: "bytes", list: "list"}
_TYPES |= {datetime: "google.protobuf.Timestamp", timedelta: "google.protobuf.Duration", type(None): "null_type"}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_PART_OF_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|[smhdw])")
_DURATION = re.compile(rf"[-+]?(?:{_PART_OF_DURATION.pattern})+")


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression.

    Attributes:
        source: Its text.
        tree: Its tree.
    """

    source: str
    tree: cel.Node

    def matches(self, *, event: Mapping[str, JSON], async_event: Mapping[str, JSON] | None = None) -> bool:
        """Whether the expression is true of ``event`` and ``async``; never raises."""
        return _truthy(self._value(event, async_event))

    def evaluate(self, *, event: Mapping[str, JSON], async_event: Mapping[str, JSON] | None = None) -> JSON:
        """The expression's value; False where it has none or its field is missing. Never raises.

        Times are given as RFC 3339, durations as seconds (``"90s"``), bytes as base64, as in Protobuf's JSON.
        """
        value = _apply(_json, self._value(event, async_event))
        return False if value is _MISSING else value

    def _value(self, event: Mapping[str, JSON], async_event: Mapping[str, JSON] | None) -> Value:
        return _apply(_evaluate, self.tree, _variables(event, _MISSING if async_event is None else async_event))


@lru_cache(maxsize=4096)
def compile_expression(source: str, allow_async: bool = True) -> Expression:
    """Compile an expression.

    The regular expressions that ``matches`` takes are RE2's, as in CEL: a search takes time in proportion to the text,
    whatever the pattern, so that no event can hold up the events after it. For the same reason ``exists`` and the like
    look at 10,000 items in all; an expression that needs more has no value.

    Args:
        source: The text; of at most 4,096 characters, 32 levels of brackets and 120 levels of operators.
        allow_async: Whether the variable ``async`` may be used, as in waits.

    Raises:
        DefinitionError: It is not a valid expression, or uses a variable or function that does not exist.
    """
    if not isinstance(source, str) or not source.strip():
        raise DefinitionError(f"the expression is {source!r}; it takes CEL, such as 'event.data.amount > 100'")
    try:
        tree = cel.parse(source)
        variables = frozenset({"event", "async"} if allow_async else {"event"})
        for problem in cel.problems(tree, variables, {name: takes for name, (takes, _) in _FUNCTIONS.items()}):
            raise DefinitionError(f"the expression {_shown(source)} {problem}")
    except cel.CELSyntaxError as err:
        raise DefinitionError(
            f"the expression {_shown(source)} is not valid CEL: {err}; write CEL such as 'event.data.amount > 100'"
        ) from None
    except RecursionError:
        raise DefinitionError(f"the expression {_shown(source)} is nested too deep; use fewer brackets") from None
    return Expression(source, tree)


def check_expression(source: str, *, allow_async: bool = True) -> None:
    """Check an expression where it is defined; also that it uses no field of an event that no event has.

    Raises:
        DefinitionError: It is not valid; the message names the mistake.
    """
    for variable, field in _fields(compile_expression(source, allow_async).tree):
        if unknown := unknown_field(field):
            raise DefinitionError(f"the expression {_shown(source)} uses {f'{variable}.{field}'!r}{unknown}")


def _fields(node: cel.Node, hidden: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
    """The fields of ``event`` and ``async`` that a tree uses, each with its variable."""
    match node:
        case (
            cel.Member(cel.Name(variable), field)
            | cel.Has(cel.Name(variable), field)
            | cel.Index(cel.Name(variable), cel.Literal(str() as field))
        ):
            if variable in ("event", "async") and variable not in hidden:
                yield variable, field
        case cel.Macro(_, of, variable):
            yield from _fields(of, hidden)
            for part in cel.children(node)[1:]:
                yield from _fields(part, hidden | {variable})
        case _:
            for child in cel.children(node):
                yield from _fields(child, hidden)


def evaluated(node: cel.Node, event: Mapping[str, JSON]) -> tuple[bool, Value]:
    """Whether a part of an expression has a value of ``event`` alone, and which."""
    value = _apply(_evaluate, node, _variables(event, _MISSING))
    return value is not _MISSING, value


def _shown(source: str) -> str:
    return repr(source if len(source) <= 500 else source[:500] + "…")


# --- evaluation ----------------------------------------------------------------------------------------------------


class _NoValue(Exception):
    """Something has no value."""


_LEFT = "\0left"
"""The name, which no variable can have, of how many items macros may still look at."""


def _variables(event: Mapping[str, JSON], async_event: Value) -> dict[str, Value]:
    return {"event": event, "async": async_event, _LEFT: [MAX_ITEMS]}


def _evaluate(node: cel.Node, variables: Mapping[str, Value]) -> Value:
    match node:
        case cel.Literal(value):
            return value
        case cel.Name(name):
            return variables[name]
        case cel.Member(of, key):
            return _get(_evaluate(of, variables), key)
        case cel.Index(of, index):
            return _get(_evaluate(of, variables), _evaluate(index, variables))
        case cel.Has(of, key):
            container = _evaluate(of, variables)
            return isinstance(container, Mapping) and key in container
        case cel.Logical(symbol, operands):
            return _logical(symbol, operands, variables)
        case cel.Conditional(test, then, otherwise):
            return _evaluate(then if _test(test, variables) else otherwise, variables)
        case cel.Unary(symbol, operand):
            value = _evaluate(operand, variables)
            return False if value is _MISSING else _apply(_UNARY[symbol], value)
        case cel.Binary(symbol, left, right):
            return _binary(symbol, _evaluate(left, variables), _evaluate(right, variables))
        case cel.Call(function, arguments):
            return _call(function, [_evaluate(argument, variables) for argument in arguments])
        case cel.Macro():
            return _macro(node, variables)
        case cel.ListOf(items):
            return _complete([_evaluate(item, variables) for item in items])
        case cel.MapOf(pairs):
            return _map(pairs, variables)
        case _:
            assert_never(node)


def _test(node: cel.Node, variables: Mapping[str, Value]) -> bool:
    return _truthy(_evaluate(node, variables))


def _logical(symbol: str, operands: tuple[cel.Node, ...], variables: Mapping[str, Value]) -> Value:
    """The operand that decides, or the last."""
    value: Value = _MISSING
    for operand in operands:
        value = _evaluate(operand, variables)
        if _truthy(value) is (symbol == "||"):
            break
    return value


def _binary(symbol: str, left: Value, right: Value) -> Value:
    if left is _MISSING or right is _MISSING:
        return _binary_of_missing(symbol, left, right)
    return _apply(_OPERATORS[symbol], left, right)


def _binary_of_missing(symbol: str, left: Value, right: Value) -> Value:
    match symbol:
        case "==":
            return left is None or right is None
        case "!=":
            return left is not None and right is not None
        case "<" | "<=":
            return left is _MISSING
        case ">" | ">=":
            return left is not _MISSING
        case "+" if left is not right:
            return right if left is _MISSING else left
        case _:
            return False


def _call(function: str, arguments: list[Value]) -> Value:
    absent = any(argument is _MISSING for argument in arguments)
    if absent or (arguments and arguments[0] is None and function not in _ON_NULL):
        return 0 if function == "size" else False
    return _apply(_FUNCTIONS[function][1], *arguments)


def _apply(function: Callable[..., Value], *arguments: Value) -> Value:
    try:
        return function(*arguments)
    except Exception:  # whatever an event has in it must not stop the events after it
        return _MISSING


def _complete(items: list[Value]) -> Value:
    return _MISSING if any(item is _MISSING for item in items) else items


def _map(pairs: tuple[tuple[cel.Node, cel.Node], ...], variables: Mapping[str, Value]) -> Value:
    made: dict[Value, Value] = {}
    for key_node, value_node in pairs:
        key, value = _evaluate(key_node, variables), _evaluate(value_node, variables)
        if not isinstance(key, str | int | float) or value is _MISSING:
            return _MISSING
        made[key] = value
    return made


def _macro(node: cel.Macro, variables: Mapping[str, Value]) -> Value:
    of = _evaluate(node.of, variables)
    if not isinstance(of, list | Mapping):
        return _MISSING
    left = variables[_LEFT]
    left[0] -= len(of)
    if left[0] < 0:
        raise _NoValue
    scopes = [{**variables, node.variable: item} for item in of]
    if node.kind == "map":
        kept = scopes if node.condition is None else [s for s in scopes if _test(node.condition, s)]
        return _complete([_evaluate(node.body, scope) for scope in kept])
    results = (_test(node.body, scope) for scope in scopes)
    if node.kind == "all":
        return all(results)
    if node.kind == "exists":
        return any(results)
    if node.kind == "exists_one":
        return sum(results) == 1
    return [item for item, kept in zip(of, results, strict=True) if kept]


def _truthy(value: Value) -> bool:
    """As in JavaScript: null, false, 0, NaN and "" are false; every list and map is true."""
    if value is _MISSING or (isinstance(value, float) and math.isnan(value)):
        return False
    return bool(value) if value is None or isinstance(value, str | int | float) else True


def _get(container: Value, key: Value) -> Value:
    if isinstance(container, Mapping):
        if isinstance(key, str):
            return container.get(key, _MISSING)
        return next((value for other, value in container.items() if _equal(other, key)), _MISSING)
    if isinstance(container, list) and _is_number(key) and key % 1 == 0:
        return container[int(key)] if 0 <= key < len(container) else _MISSING
    return _MISSING


def _json(value: Value) -> JSON:
    match value:
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case timedelta():
            return _string(value)
        case bytes():
            return base64.b64encode(value).decode()
        case list():
            return [_json(item) for item in value]
        case Mapping():
            return {_string(key): _json(item) for key, item in value.items()}
        case _:
            return value


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Value) -> Any:
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


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Value, Value], bool]:
    """Null is ordered as the zero of the other's type; a null has no order with another, nor with other types."""

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


def _contained(item: Value, container: Value) -> bool:
    if isinstance(container, Mapping) and isinstance(item, str):
        return item in container
    return any(_equal(item, other) for other in container) if isinstance(container, list | Mapping) else _no_value()


_UNARY: dict[str, Callable[[Value], Value]] = {"!": _not, "-": lambda value: -_number(value)}
_OPERATORS: dict[str, Callable[[Value, Value], Value]] = {
    "==": _equal,
    "!=": lambda left, right: not _equal(left, right),
    "<": _ordered(operator.lt),
    ">": _ordered(operator.gt),
    "<=": _ordered(operator.le),
    ">=": _ordered(operator.ge),
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
    """RFC 3339, in UTC if it does not say; or a number of seconds since the epoch."""
    if isinstance(value, datetime):
        return value
    if _is_number(value):
        return _EPOCH + timedelta(seconds=value)
    parsed = datetime.fromisoformat(value)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _date(value: Value) -> datetime:
    """As ``timestamp``, but a number is of seconds, milliseconds or nanoseconds, by its size (Inngest's dateutil)."""
    if not _is_number(value):
        return _timestamp(value)
    if value < 946_684_800:  # the year 2000, in seconds
        raise _NoValue
    return _timestamp(value / (1 if value < 9_999_999_999 else 1e3 if value < 9_999_999_999_999 else 1e9))


def _duration(value: Value) -> timedelta:
    """As Go's ``time.ParseDuration`` has them, with days and weeks: ``1.5h``, ``-10m``, ``1d12h``."""
    if isinstance(value, timedelta):
        return value
    if not _DURATION.fullmatch(value):
        raise _NoValue
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART_OF_DURATION.findall(value))
    return timedelta(seconds=-seconds if value.startswith("-") else seconds)


def _matches(text: Value, pattern: Value) -> bool:
    """Searches for a regular expression; long texts and patterns have no value."""
    if not isinstance(text, str) or len(text) > _MAX_MATCHED or len(pattern) > _MAX_PATTERN:
        raise _NoValue
    return _pattern(pattern).search(text) is not None


@lru_cache(maxsize=1024)
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
    """The time; in a workflow, such as a topic, the same when it is replayed."""
    return workflow.now() if workflow.in_workflow() else datetime.now(UTC)


def _part(of: Callable[[datetime], int]) -> Callable[[Value], int]:
    return lambda value: of(_timestamp(value))


_FUNCTIONS: dict[str, tuple[int, Callable[..., Value]]] = {
    "size": (1, _size),
    "contains": (2, _text(lambda text, part: part in text)),
    "startsWith": (2, _text(str.startswith)),
    "endsWith": (2, _text(str.endswith)),
    "matches": (2, _matches),
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
    # Inngest's own
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
"""Functions of null; every other is false of it, as of a missing field."""
