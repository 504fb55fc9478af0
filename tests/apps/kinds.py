"""Classes of every kind, beside a workflow that a body uses them in; some may be shared by runs, some must not be."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Annotated, Any, ClassVar
from uuid import UUID, uuid4

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

import steporal
from steporal import Context, Step

client = steporal.Client("kinds")


class Status(StrEnum):
    NEW = "new"
    PAID = "paid"


class Line(BaseModel):
    sku: str
    status: Status = Status.NEW


class Order(BaseModel):
    """Only data, with only data in it."""

    model_config = ConfigDict(frozen=True)
    lines: list[Line] = Field(default_factory=list)


class BigOrder(Order):
    discount: float = 0.1


class Node(BaseModel):
    children: list[Node] = []


SHARED = {"Status", "Line", "Order", "BigOrder", "Node"}


class Level(Enum):
    """Has a method."""

    LOW = 1

    def next(self) -> int:
        return self.value + 1


class HasLevel(BaseModel):
    level: Level


class Made(BaseModel):
    """Another default each time."""

    id: UUID = Field(default_factory=uuid4)


class HasMade(BaseModel):
    made: Made


def not_empty(value: str) -> str:
    return value or "empty"


Name = Annotated[str, AfterValidator(not_empty)]


class Named(BaseModel):
    """Validated by a function of this module."""

    name: Name


class Checked(BaseModel):
    name: str

    _check = field_validator("name")(not_empty)


class Counted(BaseModel):
    """Has a variable that a run could change."""

    seen: ClassVar[dict[str, int]] = {}


class Twice(BaseModel):
    first: int


class Twice(BaseModel):  # type: ignore[no-redef]  # noqa: F811
    second: int


@dataclass
class Basket:
    items: list[str] = field(default_factory=list)


class HasBasket(BaseModel):
    basket: Basket


NOT_SHARED = {
    "Level", "HasLevel", "Made", "HasMade", "Named", "Checked", "Counted", "Twice", "Basket", "HasBasket",
}  # fmt: skip


@client.workflow(id="kinds", input_schema=Order)
async def kinds(ctx: Context[Order], step: Step) -> dict[str, Any]:
    """Which classes are those that the step sees, and whether values of all kinds cross."""
    Counted.seen["run"] = Counted.seen.get("run", 0) + 1
    here = {name: id(globals()[name]) for name in SHARED | NOT_SHARED}
    there = await step.run("there", lambda: {name: id(globals()[name]) for name in SHARED | NOT_SHARED})
    basket = await step.run("basket", lambda: HasBasket(basket=Basket(["a"])))
    level = await step.run("level", lambda: HasLevel(level=Level.LOW))
    line = await step.run("line", lambda: Line(sku="a", status=Status.PAID))
    return {
        "shared": sorted(name for name in here if here[name] == there[name]),
        "crossed": [
            basket == HasBasket(basket=Basket(["a"])),
            level.level is Level.LOW,
            line.status is Status.PAID,
            type(ctx.input.data) is Order,
        ],
        "seen": Counted.seen["run"],
    }
