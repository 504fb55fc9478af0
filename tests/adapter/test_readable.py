"""Values as JSON for people and other programs."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated, Any

import pytest
from apps import data_kinds as kinds
from pydantic import BaseModel, ConfigDict, PlainSerializer, SecretStr
from recording import Workers

import steporal
from steporal import Context, RunFailedError, Step, UnserializableError
from steporal.values.encoding import encode
from steporal.values.readable import outward, plain

pytestmark = pytest.mark.outside_runs


class Opaque:
    pass


class Credentials(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    device: Annotated[Opaque, PlainSerializer(lambda device: "device")]
    token: SecretStr


class WithOpaque(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    inner: Any


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, None]}, {"a": [1, None]}),
        (kinds.CamelOut(first_name="Ann"), {"firstName": "Ann"}),
        ({kinds.Frozen(n=1)}, [{"n": 1}]),
        (kinds.Masked(number="4111111111111111"), {"number": "****1111"}),
        ({"at": datetime(2026, 1, 1, tzinfo=UTC), "of": (1, 2)}, {"at": "2026-01-01T00:00:00Z", "of": [1, 2]}),
        (kinds.Shade.DARK, "dark"),
        (kinds.Size.SMALL, 1),
        ({"$": "model"}, {"$": "model"}),
        (kinds.Tree(value={"$": 1}), {"value": {"$": 1}, "children": []}),
        (kinds.Lenient(n=1), {"n": 1}),
        (kinds.Careless(n=1), {"n": 1}),
    ],
)
def test_other_programs_are_given_what_pydantic_writes(value: Any, expected: Any) -> None:
    assert outward(value) == expected


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"token": SecretStr("hunter2")}, "a secret, which JSON for other programs shows as asterisks"),
        ({"n": math.nan}, "such as NaN"),
        (kinds.Tree(value=math.nan), "such as NaN"),
        ({kinds.Frozen(n=math.nan)}, "such as NaN"),
        (Credentials(device=Opaque(), token=SecretStr("hunter2")), "a secret, which JSON for other programs shows"),
        ({"rows": [Opaque()]}, r"Opaque at rows\[0\] cannot be sent"),
        (WithOpaque(inner=[Opaque()]), r"Opaque at inner\[0\] cannot be sent"),
    ],
)
def test_what_other_programs_could_not_read_is_refused(value: Any, says: str) -> None:
    with pytest.raises(UnserializableError, match=says):
        outward(value)


async def test_a_secret_is_not_sent_with_a_signal_or_a_request(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="fetches", max_attempts=1)
    async def fetches(ctx: Context[Any], step: Step) -> None:
        await step.ext.fetch("post", "POST", "https://example.com", json={"token": SecretStr("hunter2")})

    with pytest.raises(UnserializableError, match="the data of signal 'go' cannot be sent: it contains a secret"):
        await app.send_signal("go", {"token": SecretStr("hunter2")})
    async with workers(app):
        with pytest.raises(RunFailedError, match="json cannot be sent: it contains a secret"):
            await (await fetches.start()).result()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (kinds.Numbers([1, 2]), [1, 2]),
        (kinds.Open(known=1, further="x"), {"known": 1, "further": "x"}),
        (kinds.Pair(1, kinds.Shade.DARK), [1, "dark"]),
        ({1: "a", (2, "b"): "c"}, {"1": "a", '[2,"b"]': "c"}),
        (b"text", "text"),
        (b"\xff", "/w=="),
        (math.inf, "Infinity"),
        ({"b", "a"}, ["a", "b"]),
    ],
)
def test_plain_drops_the_tags(value: Any, expected: Any) -> None:
    assert plain(encode(value)) == expected
