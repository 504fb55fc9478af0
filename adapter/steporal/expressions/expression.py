"""Expressions of triggers and waits: CEL, with Inngest's meaning.

The variables are ``event`` and, in waits, ``async``. Where CEL raises an error, Inngest continues, and so does
Steporal. For a missing field ``m`` and any ``x``: ``m == x`` is false, ``m == null`` true, ``m != x`` true, ``m < x``
true, ``m > x`` false, ``size(m)`` is 0, ``m + x`` is ``x``, and any other operator or call on it is false. Two missing
fields are not equal, so that ``event.data.id == async.data.id`` matches no events without ids. An expression without a
value, such as ``1 / 0``, counts as missing. A field that exists and is null equals only null, and is ordered as 0 or
"". ``&&``, ``||`` and ``?:`` use the truthiness of any value, as in JavaScript; ``+`` joins strings with numbers.
(https://www.inngest.com/docs/guides/writing-expressions; in Inngest's server, ``pkg/expressions/unknown.go``, its tests
and ``exprenv/overloads.go``)

No CEL library for Python has these rules, or a tree that they could be added to; their operators raise for null.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from ..errors import DefinitionError
from ..events import unknown_field
from ..metrics import EXPRESSIONS_OVER_BUDGET
from ..types import JSON
from . import cel
from .budget import MAX_UNITS, Budget, OverBudgetError
from .evaluation import FUNCTIONS, MISSING, Scope, Value, as_json, truthy, value_of
from .text_cache import cached

_log = logging.getLogger("steporal")


@dataclass(frozen=True, slots=True)
class Judgement:
    """Outcome of an evaluation.

    Attributes:
        is_true: Whether the expression is true for the events.
        units: The units that the evaluation took, at most ``MAX_UNITS``; a unit is a microsecond or two.
        is_over_budget: Whether the evaluation exceeded its budget; it then counts as false.
    """

    is_true: bool
    units: int
    is_over_budget: bool = False


@dataclass(frozen=True, slots=True)
class Expression:
    """Compiled expression.

    Attributes:
        source: The expression's text.
        tree: The expression's tree.
    """

    source: str
    tree: cel.Node

    def judge(self, *, event: Mapping[str, JSON], async_event: Mapping[str, JSON] | None = None) -> Judgement:
        """Evaluate the expression for ``event`` and ``async``; never raises."""
        budget = Budget()
        try:
            is_true = truthy(self._value(event, async_event, budget))
        except OverBudgetError:
            return Judgement(is_true=False, units=MAX_UNITS, is_over_budget=True)
        return Judgement(is_true, MAX_UNITS - budget.left)

    def matches(self, *, event: Mapping[str, JSON], async_event: Mapping[str, JSON] | None = None) -> bool:
        """Return whether the expression is true for ``event`` and ``async``; never raises."""
        return self.judge(event=event, async_event=async_event).is_true

    def evaluate(self, *, event: Mapping[str, JSON], async_event: Mapping[str, JSON] | None = None) -> JSON:
        """Return the expression's value; False if it has none, or if its field is missing. Never raises.

        Times are returned as RFC 3339, durations as seconds (``"90s"``), bytes as base64, as in Protobuf's JSON.
        """
        budget = Budget()
        try:
            return as_json(self._value(event, async_event, budget), budget)
        except OverBudgetError:
            return False

    def _value(self, event: Mapping[str, JSON], async_event: Mapping[str, JSON] | None, budget: Budget) -> Value:
        return value_of(self.tree, _scope(event, MISSING if async_event is None else async_event, budget))


def _scope(event: Mapping[str, JSON], async_event: Value, budget: Budget) -> Scope:
    return Scope({"event": event, "async": async_event}, budget)


@cached
def compile_expression(source: str, allow_async: bool = True) -> Expression:
    """Compile an expression.

    The regular expressions of ``matches`` are RE2's, as in CEL: a search takes time in proportion to the text, whatever
    the pattern. Everything that an evaluation reads and creates is taken from one budget, ``MAX_UNITS``; an expression
    that exceeds it is false. So no event can delay the events after it.

    Args:
        source: The text, with at most 4,096 characters, 32 levels of brackets and 120 levels of operators.
        allow_async: Whether the variable ``async`` may be used, as in waits.

    Raises:
        DefinitionError: The text is not a valid expression, or uses a variable or function that does not exist.
    """
    if not isinstance(source, str) or not source.strip():
        raise DefinitionError(f"the expression is {source!r}; it takes CEL, such as 'event.data.amount > 100'")
    try:
        tree = cel.parse(source)
        variables = frozenset({"event", "async"} if allow_async else {"event"})
        for problem in cel.problems(tree, variables, {name: takes for name, (takes, _) in FUNCTIONS.items()}):
            raise DefinitionError(f"the expression {_shown(source)} {problem}")
    except cel.CELSyntaxError as err:
        raise DefinitionError(
            f"the expression {_shown(source)} is not valid CEL: {err}; write CEL such as 'event.data.amount > 100'"
        ) from None
    except RecursionError:
        raise DefinitionError(f"the expression {_shown(source)} is nested too deep; use fewer brackets") from None
    return Expression(source, tree)


def check_expression(source: str, *, allow_async: bool = True) -> None:
    """Check an expression where it is defined, including that it only uses fields that events have.

    Raises:
        DefinitionError: The expression is not valid; the message has the mistake.
    """
    for variable, field in _fields(compile_expression(source, allow_async).tree):
        if unknown := unknown_field(field):
            raise DefinitionError(f"the expression {_shown(source)} uses {f'{variable}.{field}'!r}{unknown}")


def _fields(node: cel.Node, hidden: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
    """Yield the fields of ``event`` and ``async`` that a tree uses, each with its variable."""
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


def evaluated(node: cel.Node, event: Mapping[str, JSON], budget: Budget) -> tuple[bool, Value]:
    """Return whether a part of an expression has a value for ``event`` alone, and the value.

    Raises:
        OverBudgetError: The evaluation exceeds the budget.
    """
    value = value_of(node, _scope(event, MISSING, budget))
    return value is not MISSING, value


@lru_cache(maxsize=1024)
def warn_over_budget(source: str, whose: str) -> None:
    """Log that an evaluation exceeded its budget, once for each expression and owner."""
    _log.warning(
        "the expression %s of %s exceeds %s units for some event, and then counts as false; compare or search fewer "
        "items or shorter texts (%s counts such events)",
        _shown(source),
        whose,
        f"{MAX_UNITS:,}",
        EXPRESSIONS_OVER_BUDGET.exposed,
    )


def _shown(source: str) -> str:
    return repr(source if len(source) <= 500 else source[:500] + "…")
