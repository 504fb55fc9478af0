"""Classes of every kind, whose values must arrive as themselves, and a workflow that sends a value every way."""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
from collections import defaultdict, deque
from datetime import datetime, time
from decimal import Decimal
from typing import Any, Generic, NamedTuple, TypeVar

import pydantic
from pydantic import AliasChoices, AliasGenerator, BaseModel, ConfigDict, Field, PrivateAttr
from pydantic.alias_generators import to_camel

import steporal
from steporal import Context, Step

client = steporal.Client("kinds", max_attempts=1)

T = TypeVar("T")


# --- models --------------------------------------------------------------------------------------------------------


class Animal(BaseModel):
    name: str


class Dog(Animal):
    breed: str


class Owner(BaseModel):
    pets: list[Animal]
    favourite: Animal | None = None


class Masked(BaseModel):
    number: str

    @pydantic.field_serializer("number")
    def masked(self, value: str) -> str:
        return "****" + value[-4:]


class Whole(BaseModel):
    inner: Any

    @pydantic.model_serializer
    def written(self) -> dict[str, Any]:
        return {"hidden": True}


class Excluded(BaseModel):
    text: str
    internal: Any = Field(exclude=True)


class CamelOut(BaseModel):
    model_config = ConfigDict(alias_generator=AliasGenerator(serialization_alias=to_camel))
    first_name: str


class OldName(BaseModel):
    name: str = Field(validation_alias=AliasChoices("name_v2", "userName"))


class Taxed(BaseModel):
    amount: float

    @pydantic.field_validator("amount")
    @classmethod
    def with_tax(cls, value: float) -> float:
        return value * 1.2


class Split(BaseModel):
    tags: list[str]

    @pydantic.field_validator("tags", mode="before")
    @classmethod
    def split(cls, value: Any) -> Any:
        return value.split(",")


class Total(BaseModel):
    model_config = ConfigDict(extra="forbid")
    net: int

    @pydantic.computed_field
    @property
    def gross(self) -> int:
        return self.net * 2


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    known: int = 0


class Private(BaseModel):
    n: int
    _seen: Any = PrivateAttr(default_factory=list)


class Patch(BaseModel):
    name: str | None = None
    email: str | None = None


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)
    at: datetime
    pair: tuple[int, str]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)
    n: float


class Cached(BaseModel):
    n: int

    @functools.cached_property
    def double(self) -> int:
        return self.n * 2


class Numbers(pydantic.RootModel[list[Any]]):
    pass


class Lenient(BaseModel):
    """Its ``__eq__`` is true of everything, even of its own JSON."""

    n: int

    def __eq__(self, other: object) -> bool:
        return True


class Careless(BaseModel):
    """Its ``__eq__`` takes everything for one of its kind."""

    n: int

    def __eq__(self, other: Any) -> bool:
        return bool(self.n == other.n)


class Reading(BaseModel):
    value: float


class Page(BaseModel, Generic[T]):
    items: list[T]
    next: Page[T] | None = None


class Numbered(BaseModel):
    """Its ``__new__`` wants an argument."""

    n: int

    def __new__(cls, n: int) -> Numbered:
        return super().__new__(cls)


class Tree(BaseModel):
    value: Any
    children: list[Tree] = []


# --- dataclasses, tuples, enums ------------------------------------------------------------------------------------


@dataclasses.dataclass
class Tally:
    n: Any
    hits: Any = dataclasses.field(default=0, init=False)


@dataclasses.dataclass
class Gross:
    amount: float

    def __post_init__(self) -> None:
        self.amount *= 1.2


@dataclasses.dataclass
class Scaled:
    n: int
    by: dataclasses.InitVar[int]

    def __post_init__(self, by: int) -> None:
        self.n *= by


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    x: Any
    y: Any = None


@dataclasses.dataclass(slots=True)
class Eager:
    """It has every attribute that one asks for, so ``hasattr`` says nothing."""

    n: int

    def __getattr__(self, name: str) -> int:
        return 0


@dataclasses.dataclass
class Base:
    name: str


@dataclasses.dataclass
class Derived(Base):
    more: Any = ""


@dataclasses.dataclass
class Holder(Generic[T]):
    item: T
    unset: str = None  # type: ignore[assignment]


@pydantic.dataclasses.dataclass
class Checked:
    n: int
    inner: Any = None


@dataclasses.dataclass
class Linked:
    value: Any
    next: Linked | None = None


class Pair(NamedTuple):
    left: Any
    right: Any = None


class Shade(enum.Enum):
    DARK = "dark"
    RGB = (0, 0, 1)
    NAMELESS = Decimal("1.50")


class Size(enum.IntEnum):
    SMALL = 1


class Word(enum.StrEnum):
    YES = "yes"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Bits(enum.IntFlag):
    ONE = 1
    TWO = 2


# --- the same or not -----------------------------------------------------------------------------------------------


def difference(value: Any, expected: Any, path: str = "value") -> str | None:
    """Return how two values differ, in class or in content; None if they do not."""
    kind = type(expected)
    if type(value) is not kind:
        return f"{path} is a {type(value)} instead of a {kind}: {_text(value)} instead of {_text(expected)}"
    if kind in (set, frozenset):
        return _of_each(sorted(value, key=_text), sorted(expected, key=_text), path)
    if isinstance(expected, dict):
        if isinstance(expected, defaultdict) and value.default_factory is not expected.default_factory:
            return f"{path} has the factory {value.default_factory!r}"
        return _of_each([*value.items()], [*expected.items()], path)
    if isinstance(expected, list | tuple | deque):
        if isinstance(expected, deque) and value.maxlen != expected.maxlen:
            return f"{path} has maxlen {value.maxlen}"
        return _of_each([*value], [*expected], path)
    if isinstance(expected, pydantic.SecretStr | pydantic.SecretBytes | pydantic.Secret):
        return difference(value.get_secret_value(), expected.get_secret_value(), f"{path}.get_secret_value()")
    if isinstance(expected, BaseModel):
        return difference(_state_of_model(value), _state_of_model(expected), path)
    if isinstance(expected, Eager):
        return difference(value.n, expected.n, f"{path}.n")
    if dataclasses.is_dataclass(expected):
        return difference(_state(value), _state(expected), path)
    return None if _is_same(value, expected) else f"{path} is {_text(value)} instead of {_text(expected)}"


def _text(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # an integer of thousands of digits
        return str(hash(value))


def _of_each(values: list[Any], expected: list[Any], path: str) -> str | None:
    if len(values) != len(expected):
        return (
            f"{path} has {len(values)} items instead of {len(expected)}: {_text(values)} instead of {_text(expected)}"
        )
    found = (difference(*pair, f"{path}[{i}]") for i, pair in enumerate(zip(values, expected, strict=True)))
    return next(filter(None, found), None)


def _state_of_model(model: BaseModel) -> dict[str, Any]:
    state = {name: value for name, value in vars(model).items() if name in type(model).model_fields}
    return {
        "fields": state,
        "set": model.__pydantic_fields_set__,
        "extra": model.__pydantic_extra__,
        "private": model.__pydantic_private__,
    }


def _state(value: Any) -> dict[str, Any]:
    state = {name: each for name, each in getattr(value, "__dict__", {}).items() if name != "__orig_class__"}
    return state or {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _is_same(value: Any, expected: Any) -> bool:
    if isinstance(expected, float | complex | Decimal):
        return repr(value) == repr(expected)
    if isinstance(expected, datetime | time):
        times = [
            (each.replace(tzinfo=None), each.fold, type(each.tzinfo), repr(each.tzinfo)) for each in (value, expected)
        ]
        return times[0] == times[1]
    return bool(value == expected)


def is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


# --- every way there is --------------------------------------------------------------------------------------------


def same(value: Any) -> Any:
    return value


@client.workflow(id="echo")
async def echo(ctx: Context[Any], step: Step) -> Any:
    """Return the input."""
    return ctx.input.data


@client.workflow(id="every way")
async def every_way(ctx: Context[Any], step: Step) -> list[Any]:
    """Return the input, its copies that went through steps and another run, and how they differ from it here."""
    value = ctx.input.data
    captured = await step.run("captured", lambda: value)
    passed = await step.run("passed", same, value)
    of_context = await step.run("of a context", lambda: ctx.input.data)
    invoked = await step.invoke_workflow("invoked", workflow=echo, data=value)
    copies = [captured, passed, of_context, invoked]
    return [value, *copies, *[difference(copy, value) for copy in copies]]


@dataclasses.dataclass
class Owned:
    """A value whose method is a step."""

    content: Any

    def get(self) -> Any:
        """Return the content."""
        return self.content


class Way(BaseModel):
    """A way through a run: a value, and the hops that it takes one after the other."""

    value: Any
    hops: list[str]


HOPS = (
    "captured",
    "captured by an async function",
    "captured around it",
    "default",
    "keyword default",
    "argument",
    "partial",
    "method",
    "local",
    "invoke",
    "park",
    "attempt",
)


@client.workflow(id="a way", max_attempts=len(HOPS), ext=steporal.WorkflowExt(park_after="1s"))
async def a_way(ctx: Context[Any], step: Step) -> list[Any]:
    """Return what has come of a value after each hop, and how it differed from the input here."""
    way: Way = ctx.input.data
    value, arrived = way.value, []
    for number, hop in enumerate(way.hops):
        value = await _after(hop, f"{number} {hop}", value, ctx, step)
        arrived.append([value, difference(value, way.value)])
    return arrived


async def _after(hop: str, id: str, value: Any, ctx: Context[Any], step: Step) -> Any:
    async def of_a_coroutine() -> Any:
        return value

    def inner() -> Any:
        return value

    def with_default(*, value: Any = value) -> Any:
        return value

    match hop:
        case "captured":
            return await step.run(id, lambda: value)
        case "captured by an async function":
            return await step.run(id, of_a_coroutine)
        case "captured around it":
            return (await step.run(id, lambda: Owned({"of": [(inner(),)]}))).content["of"][0][0]
        case "default":
            return await step.run(id, lambda value=value: value)
        case "keyword default":
            return await step.run(id, with_default)
        case "argument":
            return await step.run(id, same, value)
        case "partial":
            return await step.run(id, functools.partial(same, value=value))
        case "method":
            return await step.run(id, Owned(value).get)
        case "local":
            return await step.run(id, lambda: value, local=True)
        case "invoke":
            return await step.invoke_workflow(id, workflow=echo, data=value)
        case "park":
            await step.sleep(id, "1100ms")
            return value
        case _:
            value = await step.run(id, lambda: value)
            if ctx.attempt == 0:
                raise RuntimeError("the next attempt is handed what this one was")
            return value
