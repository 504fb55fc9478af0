"""Values of every kind arrive as themselves: nested, generic, recursive, through steps and runs, in both directions."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import AsyncIterator
from datetime import UTC, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal
from zoneinfo import ZoneInfo

import pydantic
import pytest
import temporalio.client
from apps import data_kinds as kinds
from encrypting import with_keys
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic_core import TzInfo
from recording import Workers
from storage import Folder, with_storage

from steporal.encryption import new_key
from steporal.values.decoding import decode
from steporal.values.encoding import encode
from steporal_workers.devserver import dev_server

pytestmark = pytest.mark.outside_runs

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
ZONES = st.none() | st.sampled_from(
    [UTC, timezone(timedelta(hours=-3)), timezone(timedelta(hours=1), "CET"), ZoneInfo("Europe/Berlin"), TzInfo(7200)]
)
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    TEXT,
    st.binary(max_size=8),
    st.complex_numbers(),
    st.decimals().filter(lambda value: not value.is_snan()),
    st.dates(),
    st.times(timezones=st.just(UTC) | st.just(ZoneInfo("Europe/Berlin"))) | st.times(),
    st.datetimes(timezones=ZONES),
    st.timedeltas(),
    st.uuids(),
    st.fractions(),
    st.integers(4_400, 4_500).map(lambda digits: 10**digits),
    st.ip_addresses(),
    st.sampled_from(
        [
            PurePosixPath("a/b"),
            PureWindowsPath("c:/x"),
            range(1, 9, 3),
            ZoneInfo("Asia/Tokyo"),
            UTC,
            ipaddress.ip_network("10.0.0.0/8"),
            ipaddress.ip_interface("10.0.0.1/8"),
            pydantic.HttpUrl("https://example.com/a?b=c"),
            pydantic.PostgresDsn("postgresql://user@localhost/db"),
            pydantic.ByteSize(1024),
            re.compile("a+", re.IGNORECASE),
            Fraction(1, 3),
            *kinds.Shade,
            *kinds.Size,
            *kinds.Word,
            kinds.Right.READ | kinds.Right.WRITE,
            kinds.Right(0),
            kinds.Bits.ONE,
            kinds.Bits(7),
        ]
    ),
)
HASHABLE = st.recursive(
    SCALARS,
    lambda inner: (
        st.tuples(inner, inner)
        | st.frozensets(inner, max_size=3)
        | st.builds(kinds.Pair, inner, inner)
        | st.builds(kinds.Slotted, inner, inner)
    ),
    max_leaves=4,
)


def _private(n: int, seen: Any) -> kinds.Private:
    value = kinds.Private(n=n)
    value._seen = seen
    return value


def _tally(n: Any, hits: Any) -> kinds.Tally:
    value = kinds.Tally(n)
    value.hits = hits
    return value


def _cached(n: int) -> kinds.Cached:
    value = kinds.Cached(n=n)
    assert value.double == n * 2
    return value


MODELS: st.SearchStrategy[Any] = st.one_of(
    st.builds(kinds.Dog, name=TEXT, breed=TEXT),
    st.builds(kinds.Owner, pets=st.lists(st.builds(kinds.Dog, name=TEXT, breed=TEXT), max_size=3)),
    st.builds(kinds.Masked, number=TEXT),
    st.builds(kinds.CamelOut, first_name=TEXT),
    st.builds(lambda name: kinds.OldName(userName=name), TEXT),  # type: ignore[call-arg]
    st.builds(kinds.Taxed, amount=st.floats()),
    st.just(kinds.Split(tags="a,b")),  # type: ignore[arg-type]
    st.builds(kinds.Total, net=st.integers()),
    st.just(kinds.Patch(name="x")) | st.just(kinds.Patch()) | st.just(kinds.Patch(email=None)),
    st.builds(kinds.Strict, at=st.datetimes(timezones=ZONES), pair=st.tuples(st.integers(), TEXT)),
    st.builds(_cached, st.integers()),
    st.just(kinds.Animal.model_construct()),
    st.builds(kinds.Numbered, n=st.integers()),
    st.builds(kinds.Eager, st.integers()),
    st.just(Decimal("sNaN12")),
)


def _around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Containers, and classes with fields of any type."""
    items = st.lists(inner, max_size=3)
    pairs = st.dictionaries(HASHABLE, inner, max_size=3)
    return st.one_of(
        items,
        items.map(tuple),
        items.map(deque),
        items.map(lambda each: deque(each, maxlen=5)),
        st.dictionaries(TEXT | st.just("$"), inner, max_size=3),
        pairs,
        pairs.map(OrderedDict),
        pairs.map(lambda each: defaultdict(list, each)),
        st.sets(HASHABLE, max_size=3),
        st.lists(HASHABLE, max_size=3).map(Counter),
        st.builds(kinds.Whole, inner=inner),
        st.builds(kinds.Excluded, text=TEXT, internal=inner),
        st.builds(lambda known, extra: kinds.Open(known=known, further=extra), st.integers(), inner),
        st.builds(_private, st.integers(), inner),
        items.map(kinds.Numbers),
        st.builds(lambda each: kinds.Page[Any](items=each, next=kinds.Page[Any](items=[])), items),
        st.just(kinds.Page[Literal["a", kinds.Shade.DARK]](items=["a", kinds.Shade.DARK])),
        st.builds(lambda each: kinds.Page[int](items=each), st.lists(st.integers(), max_size=3)),
        st.builds(lambda value, leaf: kinds.Tree(value=value, children=[kinds.Tree(value=leaf)] * 2), inner, inner),
        st.builds(_tally, inner, inner),
        st.builds(kinds.Gross, st.floats()),
        st.builds(kinds.Scaled, st.integers(), st.integers()),
        st.builds(kinds.Slotted, inner, inner),
        st.builds(kinds.Derived, TEXT, inner),
        st.builds(kinds.Holder, inner) | st.builds(kinds.Holder[int], st.integers()),
        st.builds(kinds.Checked, st.integers(), inner),
        st.builds(lambda first, second: kinds.Linked(first, kinds.Linked(second)), inner, inner),
        st.builds(kinds.Pair, inner, inner),
    )


VALUES = st.recursive(HASHABLE | MODELS, _around, max_leaves=10)
SECRETS: st.SearchStrategy[Any] = st.one_of(
    st.builds(pydantic.SecretStr, TEXT),
    st.builds(pydantic.SecretBytes, st.binary(max_size=4)),
    st.builds(pydantic.Secret, st.integers()),
)


def read(data: Any) -> Any:
    return decode(data, packages=("apps",))


def through_json(value: Any, **options: Any) -> Any:
    return json.loads(json.dumps(encode(value, **options), allow_nan=False))


@pytest.mark.timeout(480)
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(VALUES)
def test_a_value_of_any_kind_is_decoded_as_itself(value: Any) -> None:
    assert kinds.difference(read(through_json(value)), value) is None


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(VALUES)
def test_a_value_is_encoded_the_same_each_time(value: Any) -> None:
    encoded = through_json(value)
    assert through_json(read(encoded)) == encoded


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.recursive(SECRETS, _around, max_leaves=4))
def test_secrets_are_decoded_as_themselves_where_payloads_are_encrypted(value: Any) -> None:
    assert kinds.difference(read(through_json(value, secrets=lambda: True)), value) is None


def some_values(count: int, strategy: st.SearchStrategy[Any] = VALUES) -> list[Any]:
    """Values that hypothesis makes, other ones each time."""
    found: list[Any] = []

    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(strategy)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return found


async def test_a_value_of_any_kind_goes_through_runs_and_steps_as_itself(workers: Workers) -> None:
    values = some_values(25)
    async with workers(kinds.client):
        runs = await asyncio.gather(*[kinds.every_way.start(value) for value in values])
        results = await asyncio.gather(*[run.result() for run in runs])
    for value, (*copies, captured, passed, of_context, invoked) in zip(values, results, strict=True):
        assert (captured, passed, of_context, invoked) == (None, None, None, None)
        assert [kinds.difference(copy, value) for copy in copies] == [None] * 5


WAYS = st.lists(st.sampled_from(kinds.HOPS), min_size=3, max_size=5)


async def arrives_by_every_way(workers: Workers, value: st.SearchStrategy[Any], count: int) -> None:
    """Send values through runs, each by a way of its own, and compare what has come of them after each hop."""
    ways = some_values(count, st.builds(kinds.Way, value=value, hops=WAYS))
    async with workers(kinds.client):
        runs = await asyncio.gather(*[kinds.a_way.start(way) for way in ways])
        results = await asyncio.gather(*[run.result() for run in runs])
    for way, arrived in zip(ways, results, strict=True):
        assert [difference for _, difference in arrived] == [None] * len(way.hops), way.hops
        assert [kinds.difference(value, way.value) for value, _ in arrived] == [None] * len(way.hops), way.hops


async def test_a_value_of_any_kind_arrives_as_itself_by_any_way_through_a_run(workers: Workers) -> None:
    await arrives_by_every_way(workers, VALUES, 20)


@pytest.fixture
async def own_server() -> AsyncIterator[temporalio.client.Client]:
    """A client of a server of its own: others could not read what a catalog has from an app that encrypts."""
    async with dev_server(ui=False) as server:
        yield server.client


@pytest.mark.integration
async def test_a_secret_arrives_as_itself_by_any_way_where_payloads_are_encrypted(
    own_server: temporalio.client.Client,
) -> None:
    secrets = st.recursive(SECRETS, _around, max_leaves=4)
    await arrives_by_every_way(Workers(with_keys(own_server, new_key()), 1000), secrets, 15)


@pytest.mark.integration
async def test_a_value_arrives_as_itself_by_any_way_through_external_storage(
    own_server: temporalio.client.Client, tmp_path: Path
) -> None:
    stored = with_storage(own_server, Folder(tmp_path), payload_size_threshold=0)
    await arrives_by_every_way(Workers(stored, 1000), VALUES, 10)
    assert len(Folder(tmp_path).sizes()) > 10
