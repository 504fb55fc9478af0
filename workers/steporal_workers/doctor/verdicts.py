"""What a check says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import temporalio.client
from temporalio.api.workflowservice.v1 import DescribeNamespaceResponse

import steporal

State = Literal["good", "warning", "bad"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check has found.

    Attributes:
        said: One line, with the values that it is about.
        remedy: What to do, unless it is good.
    """

    state: State
    said: str
    remedy: str = ""


def good(said: str) -> Verdict:
    """All is as it should be."""
    return Verdict("good", said)


def warning(said: str, remedy: str) -> Verdict:
    """It works, but perhaps not as expected; or it could not be checked."""
    return Verdict("warning", said, remedy)


def bad(said: str, remedy: str) -> Verdict:
    """Something does not work."""
    return Verdict("bad", said, remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is looked at.

    Attributes:
        target: The client, as the command line named it.
        event_keys: The gateway's.
        api_keys: The gateway's.
        insecure_any_key: Whether the gateway is open where it has no keys.
        namespace: What Temporal says of the namespace.
    """

    target: str
    client: steporal.Client
    temporal: temporalio.client.Client
    event_keys: Sequence[str]
    api_keys: Sequence[str]
    insecure_any_key: bool
    namespace: DescribeNamespaceResponse


Check = Callable[[Subject], Awaitable[Verdict]]


def listing(names: Sequence[str], most: int = 5) -> str:
    """Names in a line."""
    return ", ".join(map(repr, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
