"""Whether a value is of a type already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, NewType, Protocol, TypeVar

import pytest
from apps import data_kinds as kinds
from pydantic import Field
from typing_extensions import TypedDict

from steporal.values.fitting import fits

DOG = kinds.Dog(name="a", breed="b")
UserId = NewType("UserId", int)
T = TypeVar("T")
Bound = TypeVar("Bound", bound=kinds.Animal)
Positive = Annotated[int, Field(gt=0)]


class Closing(TypedDict):
    at: datetime


class Opening(Closing, total=False):
    note: str


class Named(Protocol):
    name: str


AT = datetime(2026, 1, 1)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (DOG, kinds.Animal),
        ([DOG], list[kinds.Animal]),
        ({"a": [DOG]}, dict[str, list[kinds.Animal]]),
        ((DOG, 1), tuple[kinds.Animal, int]),
        ((1, 2, 3), tuple[int, ...]),
        ([1], Sequence[int]),
        ({"a": 1}, Mapping[str, int]),
        ({1}, set[int]),
        (None, kinds.Animal | None),
        (DOG, kinds.Animal | None),
        (1, float),
        (5, UserId),
        (5, Positive),
        (-5, Positive),
        ("a", Literal["a", "b"]),
        ({"at": AT}, Opening),
        ({"at": AT, "note": ""}, Opening),
        (kinds.Page[int](items=[]), kinds.Page),
        (kinds.Holder(1), kinds.Holder[int]),
        (object(), Any),
        (object(), T),
        (DOG, Bound),
        (None, None),
    ],
)
def test_a_value_fits_its_type(value: Any, kind: Any) -> None:
    assert fits(value, kind)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (kinds.Animal(name="a"), kinds.Dog),
        ({"name": "a"}, kinds.Animal),
        ([DOG, {"name": "a"}], list[kinds.Animal]),
        ({"a": "1"}, dict[str, int]),
        ((1, 2), tuple[int]),
        ([1], tuple[int]),
        (True, int),
        (True, float),
        (1, Literal[True]),
        ("2026-01-01", datetime),
        ({}, Opening),
        ({"at": AT, "more": 1}, Opening),
        (kinds.Page(items=[]), kinds.Page[int]),
        (kinds.Animal(name="a"), Named),
        ("", None),
    ],
)
def test_a_value_does_not_fit_another_type(value: Any, kind: Any) -> None:
    assert not fits(value, kind)


def test_metadata_is_trusted_of_what_was_checked_before_alone() -> None:
    assert not fits(5, Positive, trusts_metadata=False)
    assert not fits([5], list[Positive], trusts_metadata=False)
