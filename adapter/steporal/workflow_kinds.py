"""Kinds of the Temporal workflow classes that Steporal registers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

T = TypeVar("T", bound=type)

Kind = Literal["run", "delivery", "system"]
"""``run``: a run of a handler; ``delivery``: a delivery to a sink; ``system``: the catalog, a topic or a mailbox."""

_KIND = "__steporal_kind__"


def of_kind(kind: Kind) -> Callable[[T], T]:
    """Decorate a workflow class with its kind."""

    def mark(cls: T) -> T:
        setattr(cls, _KIND, kind)
        return cls

    return mark


def kind_of(cls: type) -> Kind | None:
    """Return the kind of a workflow class; None for one that is not Steporal's."""
    kind: Kind | None = vars(cls).get(_KIND)
    return kind
