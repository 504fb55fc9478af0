"""The expressions of `deploy/observability`, and what they ask for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import yaml

OBSERVABILITY = Path(__file__).parents[1] / "deploy" / "observability"

VARIABLES = {
    "$__rate_interval": "5m",
    "$namespace": ".*",
    "$task_queue": ".*",
    "$workflow": ".*",
}
"""What Grafana puts in, and something that it may be."""


@dataclass(frozen=True)
class Asked:
    """What one expression asks for.

    Attributes:
        where: Which expression it is.
        selectors: By name of a metric, the labels that it is chosen by.
        grouped: The labels that are grouped by.
    """

    where: str
    selectors: list[tuple[str, frozenset[str]]]
    grouped: frozenset[str]


def rules() -> list[dict[str, Any]]:
    """The alert rules."""
    read = yaml.safe_load((OBSERVABILITY / "alerts.yaml").read_text())
    return [rule for group in read["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    found: dict[str, Any] = json.loads((OBSERVABILITY / "dashboard.json").read_text())
    return found


def panels() -> list[dict[str, Any]]:
    """The panels of the dashboard that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def asked() -> list[Asked]:
    """What all expressions ask for.

    Raises:
        ValueError: One is no PromQL.
    """
    found = [of_expression(f"alert {rule['alert']}", rule["expr"]) for rule in rules()]
    for panel in panels():
        found += [of_expression(f"panel {panel['title']!r}", target["expr"]) for target in panel["targets"]]
    return found


def of_expression(where: str, text: str) -> Asked:
    for variable, value in VARIABLES.items():
        text = text.replace(variable, value)
    selectors: list[tuple[str, frozenset[str]]] = []
    grouped: set[str] = set()
    for node in _nodes(promql_parser.parse(text)):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            grouped.update(node.modifier.labels)
        if isinstance(node, promql_parser.MatrixSelector):
            node = node.vector_selector
        if isinstance(node, promql_parser.VectorSelector):
            selectors.append((str(node.name), frozenset(matcher.name for matcher in node.matchers.matchers)))
    return Asked(where, selectors, frozenset(grouped))


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for name in ("lhs", "rhs", "expr"):
        inner = getattr(node, name, None)
        if isinstance(inner, promql_parser.Expr):
            yield from _nodes(inner)
    for argument in getattr(node, "args", ()) if isinstance(node, promql_parser.Call) else ():
        yield from _nodes(argument)
