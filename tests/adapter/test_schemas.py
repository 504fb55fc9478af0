"""Data that does not fit a schema costs little to refuse, however much of it does not fit."""

from __future__ import annotations

import json
import resource
import tracemalloc
from collections import deque
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal, Union

import pydantic
import pytest
from annotated_types import MinLen
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    TypeAdapter,
    ValidationError,
    create_model,
    with_config,
)
from recording import Workers
from typing_extensions import TypeAliasType, TypedDict

import steporal
from steporal import Context, InvalidInputError, RunFailedError, Step, event_trigger
from steporal.values.converter import issues, validate
from steporal.values.decoding import validated
from steporal.values.encoding import encode
from steporal.values.fail_fast import fail_fast_validator
from steporal.values.known_types import package_of
from steporal.values.recursive_unions import MEMBERS
from steporal.wire.failures import message_of
from steporal.wire.run_input import decode_input
from steporal.wire.signal_types import issues_of, type_to_check

MANY = 170_000
"""Items in an event of 512 KiB."""


class Item(BaseModel):
    sku: str
    n: int = 1


class Order(BaseModel):
    order_id: str
    items: list[Item]


class Named(BaseModel):
    """Fields with the names of parts of a pydantic schema."""

    model_config = ConfigDict(populate_by_name=True, extra="allow")

    type: list[int]
    metadata: dict[str, list[int]] = Field(default={}, alias="meta")
    default: set[int] = {1}
    config: tuple[int, ...] = ()
    function: list[Literal["list", "dict"]] = ["list"]


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


class Roots(RootModel[dict[str, Item]]):
    pass


@dataclass
class Point:
    x: int
    ys: list[float]


class Typed(TypedDict, total=False):
    points: list[Point]
    parts: deque[int]


class Upper(BaseModel):
    words: list[Annotated[str, AfterValidator(str.upper)]]

    @pydantic.field_validator("words")
    @classmethod
    def sort(cls, words: list[str]) -> list[str]:
        return sorted(words)


class OfItsOwn(BaseModel):
    made: str = ""

    @classmethod
    def model_validate_json(cls, *args: Any, **options: Any) -> Any:
        return cls(made="by itself")


WIDE: Any = [create_model(f"Wide{i}", **{f"f{n}": (int, ...) for n in range(20)}) for i in range(5)]  # type: ignore[call-overload]
Wide = Union[tuple(WIDE)]  # noqa: UP007

LARGE: list[tuple[Any, Any]] = [
    (Order, {"order_id": "A", "items": [{"sku": "x"}, {"sku": "y", "n": 2}] * 200}),
    (list[Order], [{"order_id": "A", "items": [{"sku": "x"}]}] * 200),
    (dict[str, Item | Point], {f"k{n}": {"sku": "x"} if n % 2 else {"x": 1, "ys": [1]} for n in range(200)}),
    (Named, {"type": [1] * 2_000, "meta": {"a": [1, 2]}, "default": [3], "config": [1], "more": [1]}),
    (Tree, {"name": "a" * 3_000, "children": [{"name": "b", "children": [{"name": "c"}]}]}),
    (Roots, {f"k{n}": {"sku": "x"} for n in range(300)}),
    (Typed, {"points": [{"x": "1", "ys": [1, 2.5]}] * 200, "parts": [1, 2]}),
    (Upper, {"words": ["b", "a"] * 800}),
    (Annotated[list[int], MinLen(2)], [1] * 2_000),
    (OfItsOwn, {"made": "x" * 3_000}),
]


@pytest.mark.parametrize(("kind", "data"), LARGE, ids=[str(kind) for kind, _ in LARGE])
def test_large_data_becomes_the_same_value_as_by_pydantic_alone(kind: Any, data: Any) -> None:
    text = json.dumps(data)
    assert len(text) > 2_000
    is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
    expected = kind.model_validate_json(text) if is_model else TypeAdapter(kind).validate_json(text)
    value = validate(data, kind)
    assert type(value) is type(expected)
    assert value == expected
    assert getattr(value, "model_fields_set", None) == getattr(expected, "model_fields_set", None)


@pytest.mark.parametrize("kind", [kind for kind, _ in LARGE[:-1]], ids=[str(kind) for kind, _ in LARGE[:-1]])
def test_every_kind_of_type_has_a_validator_that_fails_fast(kind: Any) -> None:
    assert fail_fast_validator(kind) is not None


MOST_ISSUES = 100

HOSTILE: list[tuple[Any, Any]] = [
    (Order, {"order_id": "A", "items": [1] * MANY}),
    (Order, {"order_id": "A", "items": [{}] * MANY}),
    (list[Wide], [{}] * MANY),
    (dict[str, Wide], {f"{n:x}": {} for n in range(50_000)}),
    (dict[str, dict[str, list[Item]]], {f"{n:x}": {"a": [1, 1]} for n in range(30_000)}),
    (tuple[Item, ...], [1] * MANY),
    (set[int], ["a"] * MANY),
    (deque[int], ["a"] * MANY),
    (list[list[int]], [["a"] * 10] * 10_000),
    (Roots, {f"{n:x}": 1 for n in range(50_000)}),
    (create_model("Closed", __config__=ConfigDict(extra="forbid")), {f"{n:x}": 1 for n in range(50_000)}),
]


@pytest.mark.parametrize(("kind", "data"), HOSTILE, ids=[str(kind) for kind, _ in HOSTILE])
def test_what_does_not_fit_in_many_places_is_refused_at_once(kind: Any, data: Any) -> None:
    adapter = TypeAdapter(kind)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInputError) as refused:
            decode_input("order", kind, data)
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024 * 1024
    finally:
        tracemalloc.stop()
    with pytest.raises(ValidationError) as found:
        validate(data, kind)
    # Pydantic has no flag for fields that are too many; each is one issue, and no more.
    most = MANY if getattr(kind, "model_config", {}).get("extra") == "forbid" else MOST_ISSUES
    assert found.value.error_count() <= most, "it was looked at up to there"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200 * 1024, "in KiB, with what Rust takes"
    assert len(str(refused.value)) < 10_000
    assert adapter.core_schema, "the type itself is left as it was"


class Leaf(BaseModel):
    leaf: int
    kids: list[Union[Leaf, Branch]] = []  # noqa: UP007


class Branch(BaseModel):
    name: str = ""
    kids: list[Union[Leaf, Branch]] = []  # noqa: UP007


@with_config(ConfigDict(strict=True))
class Strict(TypedDict):
    day: date
    parts: tuple[int, ...]


class Dated(BaseModel):
    model_config = ConfigDict(strict=True)
    at: Union[date, str, Strict, list[Dated], dict[str, Dated]]  # noqa: UP007


Json = TypeAliasType("Json", Union[list["Json"], dict[str, "Json"], str, int, None])  # noqa: UP007
RECURSIVE: list[tuple[Any, Any]] = [
    (Branch, {"kids": [{"kids": [{"leaf": 1}, {"name": "b"}]}, {"leaf": 2, "kids": [{"name": "c"}]}]}),
    (Dated, {"at": [{"at": "2020-01-01"}, {"at": {"day": "2020-01-01", "parts": [1]}}, {"at": {"x": {"at": "y"}}}]}),
    (Json, {"a": [1, None, {"b": ["c"]}]}),
    (list[Json], [[[[[1]]]]]),
]


@pytest.mark.parametrize("padding", [0, 3_000])
@pytest.mark.parametrize(("kind", "data"), RECURSIVE, ids=[str(kind) for kind, _ in RECURSIVE])
def test_a_union_that_contains_itself_reads_what_pydantic_reads(kind: Any, data: Any, padding: int) -> None:
    sent = {**data, "name": "x" * padding} if kind is Branch else data
    text = json.dumps(sent)
    assert validate(sent, kind) == TypeAdapter(kind).validate_json(text)


@pytest.mark.parametrize("size", [0, 3_000])
@pytest.mark.parametrize("leaf", [{}, {"leaf": 1}, {"leaf": "x", "name": 5}])
def test_a_union_that_contains_itself_is_not_tried_for_ever(leaf: Any, size: int) -> None:
    """A hundred levels of two members would take longer than there are processors."""
    data = leaf
    for _ in range(90):
        data = {"kids": [data]}
    with pytest.raises(InvalidInputError, match="tried too often: add a field to its models"):
        decode_input("order", Branch, {**data, "name": "x" * size})
    with pytest.raises(InvalidInputError, match="tried too often"):
        decode_input("order", list[Branch], [data])


def test_what_is_wrong_in_a_union_that_contains_itself_has_pydantics_path() -> None:
    with pytest.raises(InvalidInputError) as refused:
        decode_input("order", Branch, {"kids": [{"kids": [{"name": 5}]}]})
    assert "kids.0.Branch.kids.0.Branch.name: Input should be a valid string" in str(refused.value)
    assert MEMBERS not in str(refused.value)


def test_small_data_is_refused_with_all_that_is_wrong() -> None:
    with pytest.raises(InvalidInputError) as refused:
        decode_input("order", Order, {"items": [{"sku": 1}, {}, {"sku": "x", "n": "many"}]})
    for issue in ("order_id: Field required", "items.0.sku: ", "items.1.sku: ", "items.2.n: "):
        assert issue in str(refused.value)


def test_large_data_is_refused_with_the_first_wrong_item_of_each_list() -> None:
    with pytest.raises(InvalidInputError) as refused:
        decode_input("order", Order, {"items": [{"sku": "x" * 2_000}, {"sku": 1}, {"sku": 2}]})
    assert "order_id: Field required" in str(refused.value)
    assert "items.1.sku: " in str(refused.value)
    assert "items.2" not in str(refused.value)


def test_issues_are_listed_up_to_a_number_and_a_length() -> None:
    def said(data: Any, kind: Any) -> str:
        with pytest.raises(pydantic.ValidationError) as refused:
            TypeAdapter(kind).validate_python(data)
        return issues(refused.value)

    assert said(["a"] * 2, list[int]).count("Input should be a valid integer") == 2
    assert said(["a"] * 30, list[int]).endswith(
        "19: Input should be a valid integer, unable to parse string as an integer; and 10 more"
    )
    assert said(["a"] * 5_000, list[int]) == "5,000 issues, which are too many to list"
    assert len(said({"k" * 500_000: "a"}, dict[str, int])) < 500


def test_an_error_of_pydantics_that_a_body_or_step_raises_has_a_bounded_text() -> None:
    with pytest.raises(pydantic.ValidationError) as few:
        Order.model_validate({})
    with pytest.raises(pydantic.ValidationError) as many:
        Order.model_validate({"order_id": "A", "items": [1] * 50_000})
    assert message_of(few.value) == str(few.value)
    assert message_of(many.value) == "50,000 validation errors for Order: 50,000 issues, which are too many to list"


def test_data_of_a_signal_and_exact_values_are_refused_at_once_too() -> None:
    said = issues_of(
        {"order_id": "A", "items": [{}] * MANY},
        type_to_check(Order, decode_input),
        {package_of(__name__)},
    )
    assert said == "items.0.sku: Field required"
    value = [{} for _ in range(MANY)]
    with pytest.raises(pydantic.ValidationError) as refused:
        validated(value, encode(value), list[Wide])
    assert refused.value.error_count() == 100


async def test_events_that_do_not_fit_a_schema_fail_their_runs_and_hold_up_no_other(
    app: steporal.Client, workers: Workers
) -> None:
    @app.workflow(id="process", input_schema=Order, triggers=[event_trigger(f"{app.id}.placed")])
    async def process(ctx: Context[Order], step: Step) -> str:
        return ctx.input.data.order_id

    hostile = {"order_id": "A", "items": [{}] * 100_000}
    async with workers(app):
        sent = await app.send_event([{"name": f"{app.id}.placed", "data": hostile} for _ in range(5)])
        honest = await process.start(Order(order_id="B", items=[]))
        assert await honest.result() == "B"
        for run in sent.runs:
            with pytest.raises(RunFailedError, match=r"items\.0\.sku: Field required") as failed:
                await (await app.get_run(run.workflow_id)).result()
            assert failed.value.name == "InvalidInputError"
