"""A value of every type that may be captured or returned, and workflows that send each through a step."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

import pydantic

import steporal
from steporal import Context, Step

client = steporal.Client("values", max_attempts=1)

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    DEEP = (0, 0, 139)


class Level(enum.IntEnum):
    LOW = 1


class Kind(enum.StrEnum):
    BOOK = "book"


class Flag(enum.Flag):
    A = 1
    B = 2


class Item(pydantic.BaseModel):
    sku: str = pydantic.Field(alias="itemSku")
    price: Decimal
    at: datetime | None = None

    model_config = pydantic.ConfigDict(populate_by_name=True)


class Order(pydantic.BaseModel):
    id: UUID
    items: list[Item]
    tags: set[str] = set()
    colour: Colour = Colour.RED


class Page(pydantic.BaseModel, Generic[T]):
    number: int
    content: T


@dataclasses.dataclass(frozen=True)
class Address:
    street: str
    since: date
    neighbours: tuple[Address, ...] = ()


@dataclasses.dataclass
class Parcel(Generic[T]):
    weight: float
    to: Address


class Point(NamedTuple):
    x: float
    label: Colour


class Outer:
    class Inner(pydantic.BaseModel):
        text: str


ITEM = Item(itemSku="a-1", price=Decimal("9.90"), at=datetime(2026, 5, 1, 12, tzinfo=UTC))
ORDER = Order(id=UUID(int=7), items=[ITEM], tags={"gift"}, colour=Colour.RED)
HOME = Address("Elm 1", date(2020, 2, 29))

VALUES: dict[str, Any] = {
    "none": None,
    "bool": True,
    "int": -(2**70),
    "float": 0.1,
    "infinity": float("inf"),
    "text": 'smile 😀\n"quoted"\u2028',
    "bytes": b"\x00\xff",
    "list": [1, "two", [3.0, None]],
    "dict": {"a": {"b": [1]}},
    "dict with other keys": {1: "one", (2, 3): "pair", None: "none"},
    "dict with a dollar": {"$": "model", "type": "os:system"},
    "tuple": (1, ("nested", (2,))),
    "empty tuple": (),
    "set": {1, 2, 3},
    "frozenset": frozenset({"a", "b"}),
    "naive datetime": datetime(2026, 5, 1, 12, 30, 15, 123456),
    "aware datetime": datetime(2026, 5, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    "date": date(2026, 2, 28),
    "time": time(23, 59, 59, 999999),
    "timedelta": timedelta(days=-3, microseconds=1),
    "uuid": UUID(int=42),
    "decimal": Decimal("1.10"),
    "complex": 1 + 2j,
    "path": Path("/tmp/file"),
    "enum": Colour.RED,
    "enum of tuple": Colour.DEEP,
    "int enum": Level.LOW,
    "str enum": Kind.BOOK,
    "flag": Flag.A | Flag.B,
    "model": ORDER,
    "model with alias": ITEM,
    "nested class": Outer.Inner(text="in"),
    "generic model": Page[Item](number=1, content=ITEM),
    "generic model of int": Page[int](number=1, content=2),
    "generic model of generic": Page[Page[int]](number=1, content=Page[int](number=2, content=3)),
    "generic model of list": Page[list[Item]](number=1, content=[ITEM]),
    "generic model of dict": Page[dict[str, int]](number=1, content={"a": 1}),
    "generic model of optional": Page[int | None](number=1, content=None),
    "dataclass": HOME,
    "dataclass in dataclass": Address("Elm 2", date(2021, 1, 1), (HOME,)),
    "generic dataclass": Parcel[int](1.5, HOME),
    "named tuple": Point(1.5, Colour.RED),
    "everything nested": {"orders": [ORDER], "by point": {Point(0.0, Colour.DEEP): (HOME, {Level.LOW})}},
}


def difference(value: Any, expected: Any) -> str | None:
    """How a value that has come back differs from the one that was sent; None if it does not."""
    if type(value) is not type(expected):
        return f"a {type(value)} instead of a {type(expected)}"
    if value != expected:
        return f"{value!r} instead of {expected!r}"
    return None


def same(value: Any) -> Any:
    return value


Differences = dict[str, str]
"""How values differ after their way through a step, by their names in ``VALUES``."""


async def compared(check: Callable[[str], Awaitable[str | None]]) -> Differences:
    """What a check says about each value, where it says anything."""
    results = await asyncio.gather(*[check(name) for name in VALUES], return_exceptions=True)
    return {name: str(result) for name, result in zip(VALUES, results, strict=True) if result is not None}


@client.workflow(id="captured")
async def captured(ctx: Context[Any], step: Step) -> Differences:
    """Captures each value in a step function, which compares it with the worker's own."""

    async def check(name: str) -> str | None:
        value = VALUES[name]
        return await step.run(f"compare {name}", lambda: difference(value, VALUES[name]))

    return await compared(check)


@client.workflow(id="passed")
async def passed(ctx: Context[Any], step: Step) -> Differences:
    """Passes each value as an argument."""

    def differs(value: Any, name: str) -> str | None:
        return difference(value, VALUES[name])

    async def check(name: str) -> str | None:
        return await step.run(f"compare {name}", differs, VALUES[name], name)

    return await compared(check)


@client.workflow(id="returned")
async def returned(ctx: Context[Any], step: Step) -> Differences:
    """Has a step return each value."""

    async def check(name: str) -> str | None:
        value = await step.run(f"load {name}", lambda: VALUES[name])
        return difference(value, VALUES[name])

    return await compared(check)


@client.workflow(id="functions")
async def functions(ctx: Context[Any], step: Step) -> list[Any]:
    """Captures functions, which capture others."""
    base = 10

    def add(n: int) -> int:
        return n + base

    def twice(function: Callable[[int], int], n: int) -> int:
        return function(function(n))

    def even(n: int) -> bool:
        return n == 0 or odd(n - 1)

    def odd(n: int) -> bool:
        return n != 0 and even(n - 1)

    return [
        await step.run("nested", lambda: add(1)),
        await step.run("of a function", lambda: twice(add, 1)),
        await step.run("as an argument", twice, add, 2),
        await step.run("of the module", lambda: same(base)),
        await step.run("each other", lambda: even(10)),
    ]
