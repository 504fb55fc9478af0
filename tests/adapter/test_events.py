"""What can be sent as an event, and what becomes of it."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from ulid import ULID

from steporal import InvalidEventError, SentEvent
from steporal.events import (
    MAX_EVENT_BYTES,
    ReceivedEvent,
    check_event_name,
    derived_ulid,
    event_matches,
    new_ulid,
    prepare_events,
    wildcard_prefix,
)

NOW_MS = 1_700_000_000_000

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
PARTS = st.lists(st.text() | st.integers(), max_size=4)


class Color(Enum):
    RED = "red"


class Model(BaseModel):
    n: int = 1


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def prepare(events: Any, **options: Any) -> list[ReceivedEvent]:
    return prepare_events(events, new_id=lambda position: f"new {position}", now_ms=NOW_MS, **options)


def refusal(events: Any, **options: Any) -> str:
    with pytest.raises(InvalidEventError) as refused:
        prepare(events, **options)
    return str(refused.value)


# --- events that can be sent ---------------------------------------------------------------------------------------


def test_what_is_absent_is_filled_in() -> None:
    assert prepare({"name": "a"}) == [ReceivedEvent(name="a", data={}, id="new 0", ts=NOW_MS, v=None)]


def test_what_is_given_is_kept() -> None:
    event = {"name": "a", "data": {"n": 1}, "id": "e1", "ts": NOW_MS - 1, "v": "2"}
    assert [prepared.model_dump() for prepared in prepare(event)] == [event]


def test_none_is_as_good_as_absent() -> None:
    assert prepare({"name": "a", "data": None, "id": None, "ts": None, "v": None}) == prepare({"name": "a"})


def test_a_model_and_a_dict_are_as_good() -> None:
    assert prepare(SentEvent(name="a", data={"n": 1})) == prepare({"name": "a", "data": {"n": 1}})


@pytest.mark.parametrize("container", [list, tuple])
def test_several_keep_their_order_and_get_ids_by_position(container: Callable[[Any], Any]) -> None:
    events = container([{"name": "a"}, SentEvent(name="b", id="given"), {"name": "c"}])
    assert [(event.name, event.id) for event in prepare(events)] == [("a", "new 0"), ("b", "given"), ("c", "new 2")]


def test_data_is_sent_as_it_was_with_tuples_as_lists() -> None:
    names = ["a"]
    (event,) = prepare({"name": "order.placed", "data": {"pairs": (1, names)}})
    names.append("b")
    assert event.data == {"pairs": [1, ["a"]]}


@pytest.mark.parametrize("none", [[], ()])
def test_no_events_are_none(none: Any) -> None:
    assert prepare(none) == []


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=5))
def test_any_json_object_passes_as_it_is(data: dict[str, Any]) -> None:
    (event,) = prepare({"name": "a", "data": data})
    assert event.data == data
    assert json.loads(event.model_dump_json())["data"] == json.loads(json.dumps(data))


@pytest.mark.parametrize("data", [OrderedDict(a=1), {"pair": (1, 2)}])
def test_what_json_writes_as_an_object_or_array_passes(data: Any) -> None:
    assert prepare({"name": "a", "data": data})[0].data == json.loads(json.dumps(data))


@pytest.mark.parametrize("text", ["😀", "größe/née", "a b", "!?#%&'\"\\", "x" * 512])
def test_emoji_and_punctuation_are_fine_in_names(text: str) -> None:
    assert prepare({"name": text})[0].name == text


@pytest.mark.parametrize("event_id", ["😀" * 100, "x" * 400, " ", "a/b"])
def test_an_id_has_up_to_400_bytes(event_id: str) -> None:
    assert prepare({"name": "a", "id": event_id})[0].id == event_id


@pytest.mark.parametrize("ts", [315_532_800_000, 4_102_444_800_000])
def test_a_time_is_between_1980_and_2100(ts: int) -> None:
    assert prepare({"name": "a", "ts": ts})[0].ts == ts


# --- events that cannot --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ({}, "event has no name; an event is {'name'"),
        ({"name": None}, "event: name is None (NoneType); event names are strings"),
        ({"name": 3}, "event: name is 3 (int)"),
        ({"name": ""}, "event: name is ''"),
        ({"name": " a"}, "event: name is ' a'"),
        ({"name": "a\n"}, r"event: name is 'a\n'"),
        ({"name": "x" * 513}, "with 513 characters; the maximum is 512"),
        ({"name": "😀" * 226}, "with 904 bytes in UTF-8; the maximum is 900"),
        ({"name": "a\ud800"}, r"name is 'a\ud800', which contains a lone surrogate"),
        ({"name": "a.*"}, "only triggers can have wildcards"),
        ({"name": "inngest/function.failed"}, "names that start with 'inngest/' are reserved"),
        ({"name": "steporal/x"}, "names that start with 'steporal/' are reserved"),
        ({"name": "a", "dta": {}}, "event has the unknown key 'dta' (did you mean 'data'?)"),
        ({"name": "a", "zzz": 1}, "unknown key 'zzz'; the fields of an event are name, data, id, ts, v"),
        ({"name": "a", 3: 1}, "unknown key 3"),
        ({"name": "a", "data": [1]}, "event ('a'): data is [1]; it takes a JSON object"),
        ({"name": "a", "data": "text"}, "data is 'text'"),
        ({"name": "a", "id": ""}, "event ('a'): id is ''; ids are strings of 1 to 400 bytes"),
        ({"name": "a", "id": 5}, "id is 5"),
        ({"name": "a", "id": "x" * 401}, "ids are strings of 1 to 400 bytes"),
        ({"name": "a", "id": "😀" * 101}, "ids are strings of 1 to 400 bytes"),
        ({"name": "a", "id": "\ud800"}, r"id is '\ud800'"),
        ({"name": "a", "ts": "now"}, "event ('a'): ts is 'now'; it takes an int of milliseconds since the epoch"),
        ({"name": "a", "ts": 1.5}, "ts is 1.5"),
        ({"name": "a", "ts": True}, "ts is True"),
        ({"name": "a", "ts": 1_700_000_000}, "ts is 1700000000; it takes an int of milliseconds"),
        ({"name": "a", "ts": 315_532_799_999}, "1980 to 2100"),
        ({"name": "a", "ts": 4_102_444_800_001}, "1980 to 2100"),
        ({"name": "a", "ts": 10**5_000}, "ts is <int>"),
        ({"name": "a", "v": 2}, "event ('a'): v is 2; versions are strings"),
        ({"name": "a", "v": "\ud800"}, r"v is '\ud800'"),
    ],
)
def test_a_field_that_cannot_be_is_named(event: Any, says: str) -> None:
    assert says in refusal(event)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"items": [0, 1, {"when": datetime(2026, 1, 1, tzinfo=UTC)}]}, "data.items[2].when is datetime.datetime("),
        (
            {"when": datetime(2026, 1, 1, tzinfo=UTC)},
            "a datetime.datetime, which is not valid JSON; write .isoformat()",
        ),
        ({"on": date(2026, 1, 1)}, "write .isoformat()"),
        ({"order": Model()}, "data.order is Model(n=1)"),
        ({"order": Model()}, "write .model_dump(mode='json')"),
        ({"ids": {1}}, "data.ids is {1}, a builtins.set, which is not valid JSON; write sorted(...) or list(...)"),
        ({"price": Decimal("1.5")}, "data.price is Decimal('1.5'), a decimal.Decimal"),
        ({"id": UUID(int=0)}, "data.id is UUID("),
        ({"color": Color.RED}, "data.color is <Color.RED: 'red'>"),
        ({"raw": b"x"}, "data.raw is b'x', a builtins.bytes"),
        ({"a": Unprintable()}, "data.a is <test_events.Unprintable>"),
        ({"pair": (1, {2})}, "data.pair[1] is {2}"),
        ({"n": float("nan")}, "data.n is nan, which is not valid JSON"),
        ({"n": [float("inf")]}, "data.n[0] is inf"),
        ({"n": -float("inf")}, "data.n is -inf"),
        ({"n": 10**5_000}, "data.n is an integer of thousands of digits"),
        ({"a": {1: "b"}}, "data.a has the key 1; JSON keys are strings"),
        ({None: 1}, "data has the key None"),
        ({"a": "\ud800"}, "data.a contains a lone surrogate"),
        ({"a": {"\ud800": 1}}, r"data.a has the key '\ud800'"),
    ],
)
def test_data_that_is_no_json_is_named_by_its_path(data: Any, says: str) -> None:
    message = refusal({"name": "order.placed", "data": data})
    assert message.startswith("event ('order.placed'): data")
    assert says in message


def test_data_that_contains_itself_is_refused() -> None:
    data: dict[str, Any] = {}
    data["self"] = data
    assert "nested more than 100 deep" in refusal({"name": "a", "data": data})


@pytest.mark.parametrize("events", ["order.placed", b"x", None, 5, {"a"}, iter([]), object(), b"x" * 10_000])
def test_what_is_no_event_is_told_what_one_is(events: Any) -> None:
    message = refusal(events)
    assert "it takes a SentEvent or a dict with a name, or a list of them" in message
    assert len(message) < 250


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ({"name": "b", "data": {"n": {1}}}, "event 1 ('b'): data.n is {1}"),
        ({"nme": "b"}, "event 1 has the unknown key 'nme' (did you mean 'name'?)"),
        ({"data": {}}, "event 1 has no name"),
        ("b", "event 1 is 'b'; it takes a SentEvent or a dict"),
        (None, "event 1 is None"),
        ([{"name": "b"}], "event 1 is [{'name': 'b'}]"),
    ],
)
def test_in_a_list_the_position_is_named(second: Any, says: str) -> None:
    assert says in refusal([{"name": "a"}, second, {"name": "c"}])


def test_the_size_is_that_of_json_in_utf_8() -> None:
    event = {"name": "a", "data": {"text": "é"}, "id": "1", "ts": NOW_MS, "v": "1"}
    size = len(json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode())
    assert prepare(event, max_bytes=size)
    assert f"event ('a') has {size} bytes of JSON; the maximum is {size - 1}." in refusal(event, max_bytes=size - 1)


def test_an_event_has_at_most_512_kib() -> None:
    assert "the maximum is 524,288" in refusal({"name": "a", "data": {"text": "x" * MAX_EVENT_BYTES}})


def test_a_call_has_at_most_5000_events() -> None:
    assert len(prepare([{"name": "a"}] * 5_000)) == 5_000
    assert refusal([{"name": "a"}] * 5_001) == "5,001 events in one call; the maximum is 5,000"


def test_a_model_takes_no_other_fields_and_does_not_change() -> None:
    with pytest.raises(ValidationError, match="dta"):
        SentEvent(name="a", dta={})  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="frozen"):
        SentEvent(name="a").name = "b"


# --- names and patterns --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["order.*", "app/*", "app/user.*", "a.b.*", "order.placed"])
def test_a_pattern_is_a_name_or_ends_with_a_wildcard(pattern: str) -> None:
    assert check_event_name(pattern, pattern=True) == pattern


@pytest.mark.parametrize(
    "pattern", ["*", ".*", "/*", "a*", "a.*.b", "*.a", "a.**", "a.*/*", "inngest/*", "steporal/*", "a." * 17 + "*"]
)
def test_a_wildcard_elsewhere_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"^name is "):
        check_event_name(pattern, pattern=True)


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("order.placed", "order.placed", True),
        ("order.placed", "order.placed.late", False),
        ("order.*", "order.placed", True),
        ("order.*", "order.item.added", True),
        ("order.*", "order", False),
        ("order.*", "orders.placed", False),
        ("order.*", "Order.placed", False),
        ("app/*", "app/user.created", True),
        ("app/user.*", "app/user.created", True),
        ("app/user.*", "app/users", False),
    ],
)
def test_a_pattern_matches_what_starts_with_its_prefix(pattern: str, name: str, matches: bool) -> None:
    assert event_matches(pattern, name) is matches


@pytest.mark.parametrize(("pattern", "prefix"), [("order.*", "order."), ("app/*", "app/"), ("order.placed", None)])
def test_a_wildcard_has_a_prefix(pattern: str, prefix: str | None) -> None:
    assert wildcard_prefix(pattern) == prefix


# --- ids -----------------------------------------------------------------------------------------------------------


def test_new_ids_differ() -> None:
    assert len({new_ulid() for _ in range(1_000)}) == 1_000
    assert ULID.from_str(new_ulid())


@given(st.integers(min_value=0, max_value=2**48 - 1), PARTS)
def test_a_derived_id_is_a_ulid_of_its_time_and_a_pure_function(timestamp_ms: int, parts: list[str | int]) -> None:
    derived = derived_ulid(timestamp_ms, *parts)
    assert derived == derived_ulid(timestamp_ms, *parts)
    assert int.from_bytes(ULID.from_str(derived).bytes[:6], "big") == timestamp_ms


@given(PARTS, PARTS)
def test_other_parts_are_another_id(some: list[str | int], others: list[str | int]) -> None:
    assert (derived_ulid(NOW_MS, *some) == derived_ulid(NOW_MS, *others)) is (some == others)


@pytest.mark.parametrize(
    ("some", "others"), [(("ab", "c"), ("a", "bc")), (("a,b",), ("a", "b")), (("1",), (1,)), ((), ("",))]
)
def test_parts_are_joined_unambiguously(some: tuple[str | int, ...], others: tuple[str | int, ...]) -> None:
    assert derived_ulid(NOW_MS, *some) != derived_ulid(NOW_MS, *others)


def test_a_derived_id_stays_the_same_between_releases() -> None:
    assert derived_ulid(NOW_MS, "run", "step", 0) == "01HF7YAT00PHPWAC3WBNHWQ8RB"
