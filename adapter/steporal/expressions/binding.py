"""Expressions of waits, bound to the event that started the run.

The values that a wait's expression reads from ``event`` are known when the wait begins. Only the parts that the
expression reads are kept, and a value that it compares for equality becomes the key by which a topic finds the wait
among thousands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from temporalio import workflow

from ..metrics import EXPRESSIONS_OVER_BUDGET
from ..types import JSON
from . import cel
from .budget import MAX_UNITS, Budget, OverBudgetError, key_of
from .budget import Key as Key
from .expression import Judgement, compile_expression, evaluated, warn_over_budget
from .text_cache import cached

Path = tuple[str, ...]

_NULL: Final[Key] = ("null", None)
_MISSING: Final[Key] = ("missing", None)


@dataclass(frozen=True, slots=True)
class Bound:
    """Expression with the parts of ``event`` that it reads.

    Attributes:
        source: The expression's text.
        event: The parts of the event that it reads.
        index: A path in ``async``, and the key that its value must have for the expression to be true; None without a
            suitable equality.
        units: The units that the search for the index took, as in :class:`~.expressions.Judgement`.
    """

    source: str
    event: Mapping[str, JSON]
    index: tuple[Path, Key] | None
    units: int = field(default=0, compare=False)

    def judge(self, async_event: Mapping[str, JSON]) -> Judgement:
        """Evaluate the expression for a new event; never raises. In a workflow, count evaluations over budget."""
        judgement = compile_expression(self.source).judge(event=self.event, async_event=async_event)
        if judgement.is_over_budget and workflow.in_workflow():
            EXPRESSIONS_OVER_BUDGET.add(workflow.metric_meter())
            if not workflow.unsafe.is_replaying():
                warn_over_budget(self.source, f"a wait in {workflow.info().workflow_id!r}")
        return judgement

    def matches(self, async_event: Mapping[str, JSON]) -> bool:
        """Return whether the expression is true for a new event; never raises."""
        return self.judge(async_event).is_true


def bind(source: str, event: Mapping[str, JSON]) -> Bound:
    """Bind an expression to the event that started the run, or to the parts of it that an earlier ``bind`` kept."""
    plan, budget = _plan(source), Budget()
    index = _index(plan.equalities, event, budget)
    return Bound(source, _seen(plan.paths, event), index, min(MAX_UNITS, MAX_UNITS - budget.left))


@dataclass(frozen=True, slots=True)
class _Plan:
    """Properties of an expression that do not depend on the event: the parts that it reads, and its equalities."""

    paths: tuple[Path, ...]
    equalities: tuple[tuple[Path, cel.Node], ...]


@cached
def _plan(source: str) -> _Plan:
    tree = compile_expression(source).tree
    return _Plan(tuple(dict.fromkeys(_paths(tree))), tuple(_equalities(tree)))


def keys_at(path: Path, async_event: Mapping[str, JSON]) -> Iterator[Key]:
    """Yield the keys of the waits that a new event may match by its value at a path."""
    value: Any = async_event
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            yield _NULL  # a missing field equals null
            return
        value = value[name]
    key = key_of(value)
    if key is not None:
        yield key
    if key == _NULL:
        yield _MISSING


def _index(
    equalities: tuple[tuple[Path, cel.Node], ...], event: Mapping[str, JSON], budget: Budget
) -> tuple[Path, Key] | None:
    try:
        for path, other in equalities:
            has_value, value = evaluated(other, event, budget)
            key = key_of(value) if has_value else _MISSING
            if key is not None:
                return path, key
    except OverBudgetError:
        pass
    return None


def _equalities(tree: cel.Node) -> Iterator[tuple[Path, cel.Node]]:
    """Yield paths in ``async``, each with the expression that the value must be equal to."""
    for term in _terms(tree):
        if isinstance(term, cel.Binary) and term.operator == "==":
            for side, other in ((term.left, term.right), (term.right, term.left)):
                path = _path(side, "async")
                if path and "async" not in _names(other) and not _reads_clock(other):
                    yield path, other


def _terms(node: cel.Node) -> Iterator[cel.Node]:
    """Yield the terms that must all be true for an expression to be true."""
    if isinstance(node, cel.Logical) and node.operator == "&&":
        for operand in node.operands:
            yield from _terms(operand)
    else:
        yield node


def _path(node: cel.Node, root: str) -> Path | None:
    """Return ``("data", "id")`` for ``async.data.id`` and ``async.data["id"]``; None for anything else."""
    names: list[str] = []
    while True:
        match node:
            case cel.Member(of, name) | cel.Index(of, cel.Literal(str() as name)):
                names.append(name)
                node = of
            case cel.Name(name) if name == root:
                return tuple(reversed(names))
            case _:
                return None


def _names(node: cel.Node) -> set[str]:
    own = {node.name} if isinstance(node, cel.Name) else set()
    return own.union(*(_names(child) for child in cel.children(node)))


def _reads_clock(node: cel.Node) -> bool:
    return (isinstance(node, cel.Call) and node.function.startswith("now")) or any(
        map(_reads_clock, cel.children(node))
    )


def _seen(paths: tuple[Path, ...], event: Mapping[str, JSON]) -> Mapping[str, JSON]:
    seen: dict[str, Any] = {}
    for path in paths:
        if not path:
            return dict(event)
        _copy(path, event, seen)
    return seen


def _paths(node: cel.Node) -> Iterator[Path]:
    """Yield the parts of ``event`` that an expression reads; ``()`` is the whole event."""
    path = _path(node, "event")
    if path is not None:
        yield path
        return
    if isinstance(node, cel.Has) and (path := _path(node.of, "event")) is not None:
        yield (*path, node.field)
        return
    for child in cel.children(node):
        yield from _paths(child)


def _copy(path: Path, source: Mapping[str, Any], target: dict[str, Any]) -> None:
    name, *rest = path
    if name not in source:
        return
    value = source[name]
    if not rest or not isinstance(value, Mapping):
        target[name] = value
        return
    inner = target.get(name)
    if inner is not value:  # not copied whole before
        target[name] = inner = inner if isinstance(inner, dict) else {}
        _copy(tuple(rest), value, inner)
