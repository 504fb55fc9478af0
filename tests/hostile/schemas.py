"""Schemas of all kinds of types, and data that does not fit them in as many places as possible."""

from __future__ import annotations

import json
import random
from collections import deque
from typing import Annotated, Any, ForwardRef, Literal, Optional, Union

import pydantic
from pydantic import ConfigDict, Field, Json, RootModel, TypeAdapter, create_model
from typing_extensions import TypeAliasType, TypedDict

from steporal.errors import InvalidInputError
from steporal.values.converter import issues, validate
from steporal.wire.run_input import decode_input

from .attacks import Figures, Turns, attack
from .costs import Limits

MAX_BYTES = 512 * 1024
FIELDS = ("a", "b", "c", "type", "metadata", "default", "items")
"""Names that are also those of parts of a pydantic schema."""

LEAVES: list[Any] = [int, str, float, bool, None, Any, Literal["a", 1], Annotated[int, Field(gt=3)], dict, list]
LIMITS = Limits(seconds=4, megabytes=250)


def _recursive() -> list[Any]:
    """Return types with unions that contain themselves."""
    made: list[Any] = [TypeAliasType("Json", Union[list["Json"], dict[str, "Json"], str, int, None])]  # type: ignore[misc]  # noqa: UP007
    for number in (2, 3):
        names = [f"Member{number}{n}" for n in range(number)]
        inner = Union[tuple(ForwardRef(name) for name in names)]  # type: ignore[misc]  # noqa: UP007
        fields: dict[str, Any] = dict.fromkeys(FIELDS[:3], (Union[list[inner], dict[str, inner], int], 0))  # type: ignore[valid-type]  # noqa: UP007
        members = {name: create_model(name, **fields, **{name: (int, 0)}) for name in names}
        for member in members.values():
            member.model_rebuild(_types_namespace=members)
        made += members.values()
    return made


RECURSIVE = _recursive()


def kind(chance: random.Random, depth: int = 3) -> Any:
    """Return a type."""
    if chance.random() < 0.05:
        return chance.choice(RECURSIVE)
    if depth == 0 or chance.random() < 0.1:
        return chance.choice(LEAVES)

    def inner() -> Any:
        return kind(chance, depth - 1)

    match chance.randrange(9):
        case 0 | 1:
            return list[inner()]  # type: ignore[misc]
        case 2:
            return dict[str, inner()]  # type: ignore[misc]
        case 3:
            return chance.choice([tuple[inner(), ...], tuple[inner(), inner()], set[int], deque[int], frozenset[str]])
        case 4 | 5:
            return Union[tuple(inner() for _ in range(chance.randrange(2, 6)))]  # noqa: UP007
        case 6:
            return chance.choice([Optional[inner()], Annotated[list[inner()], Field(min_length=1)], Json[list[int]]])  # noqa: UP045
        case 7:
            return TypedDict("Typed", dict.fromkeys(chance.sample(FIELDS, 3), inner()), total=chance.random() < 0.5)  # type: ignore[operator]
        case _:
            if chance.random() < 0.2:
                return RootModel[inner()]  # type: ignore[misc]
            fields: dict[str, Any] = {
                name: (inner(), ...) if chance.random() < 0.7 else (inner(), None)
                for name in chance.sample(FIELDS, chance.randrange(1, 6))
            }
            config = ConfigDict(extra=chance.choice(["ignore", "forbid", "allow"]), strict=chance.random() < 0.2)
            return create_model("Model", __config__=config, **fields)


def data(chance: random.Random, size: int, depth: int = 3) -> Any:
    """Return JSON of about ``size`` bytes, of few kinds of values in great number."""
    if depth == 0 or size < 8:
        return chance.choice([None, True, 0, 7, 2.5, "", "a", "9", "[1, 2]", "['a'", {}, []])
    number = chance.choice([1, 3, size // 8])
    match chance.randrange(4):
        case 0:
            return [data(chance, size // number, depth - 1)] * number
        case 1:
            return [data(chance, size // 5, depth - 1) for _ in range(5)]
        case 2:
            return {f"{n:x}": data(chance, size // number, depth - 1) for n in range(min(number, size // 12 or 1))}
        case _:
            return {name: data(chance, size // len(FIELDS), depth - 1) for name in FIELDS}


def nested(chance: random.Random) -> Any:
    """Return JSON of many levels, which a union that contains itself may read as each of its members."""
    made: Any = data(chance, 100, 1)
    for _ in range(chance.choice([3, 8, 30, 90])):
        made = {chance.choice(FIELDS[:3]): [made] * chance.choice([1, 1, 2])}
        if len(json.dumps(made)) > MAX_BYTES // 4:
            break
    return made


def _kind(chance: random.Random) -> Any:
    while True:
        found = kind(chance)
        try:
            TypeAdapter(found)
        except Exception:  # such as a set of lists, or an item of a name that a model cannot have
            continue
        return found


@attack
async def data_that_fits_no_schema(turns: Turns) -> Figures:
    """Large data of any form for a schema: it is read or refused, within bounds of time, memory and text."""
    figures, chance = Figures(), turns.random
    for _ in turns:
        schema = _kind(chance)
        for _ in range(5):
            sent = data(chance, MAX_BYTES // 3) if chance.random() < 0.8 else nested(chance)
            text = json.dumps(sent)
            if len(text) > MAX_BYTES:
                continue
            figures.tried += 1
            figures.measure("bytes of data", len(text))
            with LIMITS.hold(figures, (schema, text[:300])):
                try:
                    decode_input("order", schema, sent)
                    figures.seen["read"] += 1
                except InvalidInputError as err:
                    figures.seen["refused"] += 1
                    figures.measure("characters of a message", len(str(err)))
                    if len(str(err)) > 20_000:
                        figures.breaks("a message is short", (schema, text[:300]))
    return figures


@attack
async def schemas_mean_the_same(turns: Turns) -> Figures:
    """Data that is long enough to be checked up to the first wrong item: the same values are read, the same refused."""
    figures, chance = Figures(), turns.random
    for _ in turns:
        schema = _kind(chance)
        is_model = isinstance(schema, type) and issubclass(schema, pydantic.BaseModel)
        for _ in range(20):
            sent = data(chance, 4_000)
            text = json.dumps(sent)
            figures.tried += 1
            try:
                expected = schema.model_validate_json(text) if is_model else TypeAdapter(schema).validate_json(text)
            except pydantic.ValidationError:
                expected = None
                figures.seen["refused"] += 1
                try:
                    validate(sent, schema)
                    figures.breaks("what pydantic refuses is refused", (schema, text))
                except pydantic.ValidationError as err:
                    if not issues(err):
                        figures.breaks("a refusal says why", (schema, text))
                continue
            figures.seen["read"] += 1
            try:
                value = validate(sent, schema)
            except pydantic.ValidationError:
                figures.breaks("what pydantic reads is read", (schema, text))
                continue
            if repr(value) != repr(expected):
                figures.breaks("what is read is the same", (schema, text))
    return figures
