"""Expressions from all of the grammar, on events that are made to be dear.

An expression is an app's, and so may be any. What a sender can do is in the data: long lists and texts, deep nesting,
huge numbers, patterns, numbers whose hashes are the same.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from steporal.errors import DefinitionError
from steporal.expressions.binding import bind, keys_at
from steporal.expressions.budget import MAX_UNITS, Budget, Key, OverBudgetError
from steporal.expressions.cel import MACROS
from steporal.expressions.evaluation import FUNCTIONS, MISSING, Scope, truthy, value_of
from steporal.expressions.expression import Expression, compile_expression

from .attacks import Figures, Turns, attack
from .costs import Limits

FIELDS = ("a", "b", "c", "items", "text")
OPERATORS = ("==", "!=", "<", ">", "<=", ">=", "in", "+", "-", "*", "/", "%", "&&", "||")
LITERALS = ("0", "1", "-1", "2.5", "1e300", "''", "'a'", "'ab'", "true", "null", "[]", "[1, 'a']", "{'a': 1}", "b'a'")
PATTERNS = ("a+", "(a?){40}a{40}", "([ab]*a[ab]{99}){3}c$", "\\pL{90}", "((.?){30}){30}", "(", "^(a+)+$")
MAX_BYTES = 512 * 1024
MERSENNE = 2**61 - 1
"""Python's hash of an integer is its remainder by this."""

LIMITS = Limits(seconds=2, megabytes=150)


class Unbounded(Budget):
    """As much as an evaluation wants, without a set to search by."""

    __slots__ = ()

    def take(self, units: int = 1) -> None:
        """Take nothing, but for what would never end."""
        self.left -= units
        if self.left < -20 * MAX_UNITS:
            raise OverBudgetError

    def keys_in(self, items: list[Any]) -> frozenset[Key] | None:
        """Have a list searched item by item."""
        return None


def source_of(chance: random.Random, depth: int = 4, variables: tuple[str, ...] = ()) -> str:
    """Return an expression."""

    def inner(*more: str) -> str:
        return source_of(chance, depth - 1, (*variables, *more))

    if depth == 0 or chance.random() < 0.15:
        fields = [f"{of}.data.{chance.choice(FIELDS)}" for of in ("event", "async")]
        return chance.choice([*fields, *fields, *variables, *variables, chance.choice(LITERALS)])
    variable = f"v{len(variables)}"
    match chance.randrange(8):
        case 0 | 1:
            return f"({inner()} {chance.choice(OPERATORS)} {inner()})"
        case 2:
            function, (takes, _) = chance.choice(list(FUNCTIONS.items()))
            return f"{function}({', '.join(inner() for _ in range(takes))})"
        case 3 | 4:
            condition = f"{inner(variable)}, " if chance.random() < 0.2 else ""
            kind = "map" if condition else chance.choice(MACROS)
            return f"{inner()}.{kind}({variable}, {condition}{inner(variable)})"
        case 5:
            return f"{inner()}[{inner()}]"
        case 6:
            return chance.choice([f"!{inner()}", f"-{inner()}", f"({inner()} ? {inner()} : {inner()})"])
        case _:
            return chance.choice([f"[{inner()}, {inner()}]", f"{{{inner()}: {inner()}}}", f"has({inner()}.a)"])


def value(chance: random.Random, size: int, depth: int = 3) -> Any:
    """Return JSON of about ``size`` bytes."""
    number = max(1, size // 8)
    makers: list[Callable[[], Any]] = [
        lambda: chance.choice([None, True, False, 0, 1, -1, 2.5, 1e300, "", "a", "ab"]),
        lambda: chance.choice(["a", "ab", "Ä", "2026-01-01", "9"]) * number,
        lambda: 10 ** min(number, 4_200),
        lambda: json.dumps([0] * (number // 2)),
        lambda: [chance.choice([0, 1, "a", None])] * number,
        lambda: [n * MERSENNE for n in range(number // 3)],
        lambda: [chance.choice(PATTERNS) + str(n % 50) for n in range(number // 4)],
        lambda: {str(n): n for n in range(number // 2)},
        lambda: [f"a{n}" for n in range(number)],
        lambda: _nested(min(number, 900)),
    ]
    if depth:
        makers.append(lambda: [value(chance, size // 4, depth - 1) for _ in range(4)])
        makers.append(lambda: {field: value(chance, size // 5, depth - 1) for field in FIELDS})
    return chance.choice(makers)()


def _nested(depth: int) -> Any:
    made: Any = 1
    for _ in range(depth):
        made = [made]
    return made


def event(chance: random.Random, size: int) -> dict[str, Any]:
    """Return an event."""
    data = {field: value(chance, size // len(FIELDS)) for field in FIELDS}
    return {"id": "1", "name": "a", "ts": 1_700_000_000_000, "data": data}


def loop_of(chance: random.Random) -> str:
    """Return an expression of the kind whose cost has two factors: for each item, something of a whole field."""
    outer, inner = (f"{chance.choice(['event', 'async'])}.data.{chance.choice(FIELDS)}" for _ in range(2))
    body = chance.choice(
        [
            f"v0 in {inner}",
            f"{inner}[v0] == 1",
            f"{inner} == {outer} && v0 == 'x'",
            f"{inner}.{chance.choice(['contains', 'startsWith', 'endsWith', 'matches'])}(v0)",
            f"v0.matches({inner})",
            f"{inner} + v0 == 'x'",
            f"{chance.choice(['lowercase', 'string', 'json_parse', 'bytes', 'date', 'int'])}({inner}) == v0",
            f"{inner}.{chance.choice(MACROS)}(v1, {chance.choice(['v0 == v1', 'v1 in [v0]', 'size(v0 + v1) > 9'])})",
            source_of(chance, 2, ("v0",)),
        ]
    )
    last = chance.choice(["", "", ".exists(v2, v2 == 'y')", ".map(v2, [v2, v2])"])
    return f"{outer}.{chance.choice(MACROS)}(v0, {body}){last}"


def _expression(chance: random.Random) -> Expression:
    while True:
        try:
            return compile_expression(loop_of(chance) if chance.random() < 0.5 else source_of(chance))
        except DefinitionError:
            continue


@attack
async def dear_expressions(turns: Turns) -> Figures:
    """Random expressions on large events: time, memory and units are bounded, and nothing is raised."""
    figures, chance = Figures(), turns.random
    for _ in turns:
        expression = _expression(chance)
        for size in (2_000, 50_000, MAX_BYTES):
            one, other = event(chance, size), event(chance, size)
            with LIMITS.hold(figures, expression.source):
                judgement = expression.judge(event=one, async_event=other)
                bound = bind(expression.source, one)
                again = bound.judge(other)
            figures.tried += 1
            figures.seen["over budget" if judgement.is_over_budget else str(judgement.is_true).lower()] += 1
            figures.measure("units", judgement.units)
            if (
                judgement.units > MAX_UNITS
                or bound.units > MAX_UNITS
                or (judgement.is_over_budget and judgement.is_true)
            ):
                figures.breaks("no evaluation takes more than its budget and is true", expression.source)
            if again.is_true != judgement.is_true and "now" not in expression.source:
                figures.breaks("bound to its event, an expression means the same", expression.source)
            if judgement.is_true and bound.index is not None and bound.index[1] not in keys_at(bound.index[0], other):
                figures.breaks("the index of a topic hides no match", expression.source)
    return figures


@attack
async def budgeted_expressions(turns: Turns) -> Figures:
    """Random expressions on small events: within the budget, the result is what it is without one."""
    figures, chance = Figures(), turns.random
    for _ in turns:
        expression = _expression(chance)
        one, other = event(chance, 1_500), event(chance, 1_500)
        judgement = expression.judge(event=one, async_event=other)
        figures.tried += 1
        figures.seen["over budget" if judgement.is_over_budget else str(judgement.is_true).lower()] += 1
        if judgement.is_over_budget or "now" in expression.source:
            continue
        try:
            found = value_of(expression.tree, Scope({"event": one, "async": other}, Unbounded()))
        except OverBudgetError:
            figures.breaks("what is within the budget takes no 20 times of it unbounded", expression.source)
            continue
        if (truthy(found) if found is not MISSING else False) != judgement.is_true:
            figures.breaks("within the budget, the result is what it is without one", (expression.source, one, other))
    return figures


@attack
async def expressions_of_patterns(turns: Turns) -> Figures:
    """Patterns of an event's, one after the other, each another."""
    figures, chance = Figures(), turns.random
    expression = compile_expression("event.data.patterns.exists(p, async.data.texts.exists(t, t.matches(p)))")
    for number in turns:
        patterns = [_pattern(chance) + str(number * 1_000 + n) for n in range(200)]
        texts = [chance.choice(["a", "ab", "é", "aé "]) * chance.randrange(1, 5_000) for _ in range(5)]
        with LIMITS.hold(figures, patterns[:3]):
            judgement = expression.judge(event={"data": {"patterns": patterns}}, async_event={"data": {"texts": texts}})
        figures.tried += 1
        figures.seen["over budget" if judgement.is_over_budget else str(judgement.is_true).lower()] += 1
    return figures


def _pattern(chance: random.Random, depth: int = 3) -> str:
    if depth == 0:
        return chance.choice(["a", "b", ".", "[ab]", "\\pL", "\\w", "[^x]", "(?i)é", "^", "$", "\\b"])
    inner = _pattern(chance, depth - 1)
    return chance.choice(
        [
            f"({inner})*",
            f"({inner}?){{{chance.randrange(60)}}}",
            f"{inner}|{_pattern(chance, depth - 1)}",
            inner * 3,
            inner,
        ]
    )
