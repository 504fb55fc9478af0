"""Verdict of a check, and the subject that is checked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import temporalio.client
from temporalio.api.workflowservice.v1 import DescribeNamespaceResponse

from ...client import Client

State = Literal["good", "warning", "bad"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of a check.

    Attributes:
        state: The severity.
        message: One line, with the values that it concerns.
        remedy: Advice, unless the state is good.
    """

    state: State
    message: str
    remedy: str = ""


def good(message: str) -> Verdict:
    """Return a verdict that all is as it should be."""
    return Verdict("good", message)


def warning(message: str, remedy: str) -> Verdict:
    """Return a verdict that something works, but perhaps not as expected, or that it could not be checked."""
    return Verdict("warning", message, remedy)


def bad(message: str, remedy: str) -> Verdict:
    """Return a verdict that something does not work."""
    return Verdict("bad", message, remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Installation that is checked.

    Attributes:
        target: The client, as the command line names it.
        client: The app.
        temporal: The connection to the namespace.
        namespace: Temporal's description of the namespace.
    """

    target: str
    client: Client
    temporal: temporalio.client.Client
    namespace: DescribeNamespaceResponse


Check = Callable[[Subject], Awaitable[Verdict]]


def listing(names: Sequence[str], limit: int = 5) -> str:
    """Return the names in one line, at most ``limit`` of them."""
    return ", ".join(map(repr, names[:limit])) + (f" and {len(names) - limit} more" if len(names) > limit else "")
