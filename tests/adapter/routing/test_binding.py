"""Expressions bound to what started a run: they mean the same, and the index never hides a match."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steporal.expressions.binding import bind, keys_at
from steporal.expressions.expression import compile_expression

VALUES = st.sampled_from([None, True, False, 0, 1, 1.0, 2.5, "", "1", "a", [1], {"x": 1}])
DATA = st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES, max_size=3)
EVENTS = st.fixed_dictionaries({"name": st.just("n"), "id": st.just("i")}, optional={"data": DATA})
TERMS = [
    "event.data.a == async.data.a",
    "async.data.b == event.data.a",
    'async.data["c"] == event.data.b',
    "async.data.a == 1",
    "async.data.a == null",
    "null == async.data.b",
    "async.data.a == event.data.gone",
    "async.data.b != event.data.b",
    "async.data.c > event.data.c",
    "has(event.data.b)",
    "size(event.data) > 1",
    "event.data.x.exists(k, k == 'x')",
    "async.data.b in [1, event.data.b]",
    "true",
]
SOURCES = st.lists(st.sampled_from(TERMS), min_size=1, max_size=3).flatmap(
    lambda terms: st.sampled_from([" && ".join(terms), " || ".join(terms), f"({terms[0]}) && !({terms[-1]})"])
)


@given(SOURCES, EVENTS, EVENTS)
def test_a_bound_expression_means_the_same_and_its_index_hides_no_match(
    source: str, event: dict[str, Any], new: dict[str, Any]
) -> None:
    bound = bind(source, event)
    expected = compile_expression(source).matches(event=event, async_event=new)
    assert bound.matches(new) is expected
    assert bind(source, bound.event) == bound, "what was kept is enough to bind again"
    if expected and bound.index is not None:
        path, key = bound.index
        assert key in list(keys_at(path, new))


@pytest.mark.parametrize(
    ("source", "index"),
    [
        ("async.data.id == event.data.id", (("data", "id"), ("string", "7"))),
        ("event.data.id == async.data.id && async.data.n > 3", (("data", "id"), ("string", "7"))),
        ("async.data.kind == 'card'", (("data", "kind"), ("string", "card"))),
        ("async.data.n == event.data.n + 1", (("data", "n"), ("number", "0x3"))),
        ("async.data.n > 3", None),
        ("async.data.id == event.data.id || async.data.n > 3", None),
        ("async.data.at == now()", None),
        ("async.data.list == event.data.list", None),
        ("async.data.a == async.data.b", None),
    ],
)
def test_an_equality_that_must_hold_is_the_index(source: str, index: Any) -> None:
    assert bind(source, {"data": {"id": "7", "n": 2, "list": [1]}}).index == index


def test_only_what_the_expression_looks_at_is_kept() -> None:
    event = {"name": "n", "id": "i", "data": {"id": "7", "large": "x" * 1000, "user": {"id": 1, "name": "Ada"}}}
    source = "async.data.id == event.data.id && async.data.user == event.data.user.id"
    assert bind(source, event).event == {"data": {"id": "7", "user": {"id": 1}}}
    assert bind("async.data.id == 5", event).event == {}
    assert bind("size(event) > 1", event).event == event
