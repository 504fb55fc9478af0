"""Expressions mean what Inngest's do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steporal import DefinitionError
from steporal.routing.expressions import compile_expression

EVENT = {
    "name": "order.placed",
    "id": "e1",
    "ts": 1_700_000_000_000,
    "data": {
        "amount": 120.5,
        "count": 3,
        "zero": 0,
        "email": "Ada@Example.com",
        "empty": "",
        "vip": True,
        "nothing": None,
        "tags": ["a", "b"],
        "items": [{"sku": "x", "n": 1}, {"sku": "y", "n": 5}],
        "encoded": "eyJhIjogMX0=",
        "größe": 1,
    },
}

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def evaluate(source: str, other: dict[str, Any] | None = None) -> Any:
    return compile_expression(source).evaluate(event=EVENT, async_event=other)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("event.name == 'order.placed'", True),
        ("event.data.amount > 100 && event.data.count <= 3", True),
        ("event.data.amount > 200 || event.data.vip", True),
        ("!event.data.vip", False),
        ("event.data['count'] == 3.0", True),
        ("event.data.count == '3'", False),
        ("event.data.vip == 1", False),
        ("event.data.tags[1]", "b"),
        ("event.data.tags[7] == null", True),
        ("'a' in event.data.tags", True),
        ("'amount' in event.data", True),
        ("event.name in ['x', 'order.placed']", True),
        ("event.data.items.exists(i, i.n > 4)", True),
        ("event.data.items.all(i, i.n > 4)", False),
        ("event.data.items.exists_one(i, i.sku == 'x')", True),
        ("event.data.items.map(i, i.n)", [1, 5]),
        ("event.data.items.map(i, i.n > 1, i.sku)", ["y"]),
        ("event.data.items.filter(i, i.n > 1)", [{"sku": "y", "n": 5}]),
        ("has(event.data.email) && !has(event.data.phone)", True),
        ("has(event.data.nothing)", True),
        ("size(event.data.tags) + size('abc')", 5),
        ("event.data.tags.size()", 2),
        ("event.data.email.endsWith('.com')", True),
        ("event.data.email.startsWith('Ada') && event.data.email.contains('@')", True),
        ("event.data.email.matches('^[A-Z]')", True),
        ("lowercase(event.data.email)", "ada@example.com"),
        ("uppercase('a')", "A"),
        ("json_parse(b64decode(event.data.encoded)).a", 1),
        ("date('2024-01-02T00:00:00Z') < date('2024-01-03T00:00:00Z')", True),
        ("date(event.ts) < now()", True),
        ("now_minus('1h') < now() && now() < now_plus('1h')", True),
        ("timestamp('2024-01-02T00:00:00Z') + duration('1h') == timestamp('2024-01-02T01:00:00Z')", True),
        ("timestamp('2024-03-02T05:00:00Z').getMonth()", 2),
        ("1 + 2 * 3 - 4 / 2", 5),
        ("-7 / 2", -3),
        ("-7 % 3", -1),
        ("7.0 / 2", 3.5),
        ("'n' + 1", "n1"),
        ("1 + 'n'", "1n"),
        ("[1] + [2]", [1, 2]),
        ("event.data.count > 2 ? 'many' : 'few'", "many"),
        ("int('42') + int(1.9) == 43", True),
        ("string(3) + string(true)", "3true"),
        ("{'a': 1}.a", 1),
        (r"'\x41\u0042\t\'' + r'\n'", "AB\t'\\n"),
        ('"""a "quoted" text"""', 'a "quoted" text'),
        ("event.data['größe'] == 1", True),
        ("0x1F == 31", True),
        ("// a comment\n true", True),
        ("type(1) == 'int'", True),
    ],
)
def test_an_expression_has_its_value(source: str, value: Any) -> None:
    assert evaluate(source) == value


@pytest.mark.parametrize("missing", ["event.data.gone", "event.data.gone.deeper", "event.data.nothing", "async.data.x"])
@pytest.mark.parametrize("x", ["1", "-1", "'text'", "''", "true", "[1]"])
def test_a_missing_field_is_null(missing: str, x: str) -> None:
    assert evaluate(f"{missing} == {x}") is False
    assert evaluate(f"{x} == {missing}") is False
    assert evaluate(f"{missing} == null") is True
    assert evaluate(f"{missing} != {x}") is True
    assert evaluate(f"{missing} < {x}") is True
    assert evaluate(f"{missing} > {x}") is False
    assert evaluate(f"{x} > {missing}") is True
    assert evaluate(f"size({missing})") == 0


@pytest.mark.parametrize("call", ["startsWith('a')", "contains('')", "matches('.*')"])
def test_a_call_on_a_missing_field_is_false(call: str) -> None:
    assert evaluate(f"event.data.gone.{call}") is False


@pytest.mark.parametrize(
    ("value", "truth"),
    [("0", False), ("''", False), ("null", False), ("[]", True), ("{}", True), ("'false'", True), ("0.1", True)],
)
def test_any_value_has_a_truth(value: str, truth: bool) -> None:
    assert evaluate(f"{value} && true") is truth
    assert evaluate(f"{value} ? true : false") is truth
    assert compile_expression(value).matches(event=EVENT) is truth


@pytest.mark.parametrize(
    "source",
    ["1 / 0", "1 % 0", "'a' < 1", "[1] < [2]", "-'a'", "int('x')", "'a'.matches('(')", "date('never')", "1.5 % 2"],
)
def test_what_cannot_be_evaluated_is_false_and_does_not_spoil_the_rest(source: str) -> None:
    assert evaluate(source) is False
    assert evaluate(f"({source}) || true") is True
    assert evaluate(f"true && !({source})") is True


def test_a_wait_sees_both_events() -> None:
    expression = compile_expression("event.data.email == async.data.email && async.data.n > 1")
    assert expression.matches(event=EVENT, async_event={"data": {"email": "Ada@Example.com", "n": 2}})
    assert not expression.matches(event=EVENT, async_event={"data": {"email": "other", "n": 2}})
    assert not expression.matches(event=EVENT)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "event.data.amount > 100"),
        ("   ", "event.data.amount > 100"),
        ("event.data.amount >", "it ends"),
        ("event.data..x", "'.' stands at character 12"),
        ("event.data.a = 1", "'=' at character 14"),
        ("(event.id", "')' is expected"),
        ("amount > 100", "event.data.amount"),
        ("lower(event.name)", "did you mean 'lowercase'"),
        ("size()", "0 arguments"),
        ("has(event)", "has(event.data.email)"),
        ("async.id == '1'", "'async'"),
        ("event.data.x == 'open", "is not understood"),
        ("(" * 200 + "1" + ")" * 200, "nested"),
        ("!" * 500 + "true", "nested"),
        ("1" + "+1" * 500, "chains"),
        ("event" + ".a" * 500, "chains"),
        ("1 " * 3000, "characters"),
    ],
)
def test_what_is_no_expression_is_refused_with_its_place(source: str, said: str) -> None:
    with pytest.raises(DefinitionError) as error:
        compile_expression(source, allow_async=False)
    assert said in str(error.value)


@given(JSON_VALUES, JSON_VALUES)
def test_no_event_makes_an_expression_raise(left: Any, right: Any) -> None:
    event = {"data": {"left": left, "right": right}}
    for operator in ("==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "in", "&&", "||"):
        compile_expression(f"event.data.left {operator} event.data.right").matches(event=event)
    for function in ("size", "int", "double", "string", "bool", "date", "lowercase", "json_parse", "b64decode", "type"):
        compile_expression(f"{function}(event.data.left)").matches(event=event)
    compile_expression("event.data.left.map(x, x.y + event.data.right[x])").matches(event=event)


@given(JSON_VALUES.filter(lambda value: value is not None))
def test_null_is_less_than_all_else_and_equal_to_nothing_else(value: Any) -> None:
    event = {"data": {"x": value}}
    assert compile_expression("event.data.gone < event.data.x").matches(event=event)
    assert not compile_expression("event.data.gone > event.data.x").matches(event=event)
    assert not compile_expression("event.data.gone == event.data.x").matches(event=event)


@given(st.text(max_size=60))
def test_any_text_compiles_or_is_refused(text: str) -> None:
    try:
        compile_expression(text).matches(event=EVENT)
    except DefinitionError:
        pass
