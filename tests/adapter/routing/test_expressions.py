"""Expressions mean what Inngest's do."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steporal import DefinitionError
from steporal.routing.cel import MACROS
from steporal.routing.expressions import _FUNCTIONS, MAX_ITEMS, compile_expression

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
        "deep": "[" * 100_000,
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
        ("1 == 1.0 && [1] == [1.0] && {'a': 1} == {'a': 1.0}", True),
        ("true in {1: 'a'} || 1 in [true] || {1: 'a'}[true] == 'a'", False),
        ("event.data.gone in ['a'] == false", True),
        ("event.data.email + '-' + 9.1 + '-' + true + '-' + event.data.gone", "Ada@Example.com-9.1-true-"),
        ("'ab12'.matches('^[a-z\\\\d]{0,10}$') && 'ab12'.matches(r'\\d$')", True),
        ("date('2020-01-01T12:00:00') + duration('6h35m10s') == date('2020-01-01T18:35:10')", True),
        ("date(1704067200) == date('2024-01-01') && date(1704067200000) == date('2024-01-01')", True),
        ("int(timestamp(5)) == 5", True),
        ("duration('1.5h') == duration('90m') && duration('-1h') < duration('1s')", True),
        ("duration('1w') == duration('7d') && duration('1d12h') == duration('36h')", True),
        ("b'\\xff' == b'\\377' && b'é' == bytes('é')", True),
        ("event.data.missing < 5 && event.name != '' && (event.data.tag || event.data.email) ? 1 : 0", 1),
    ],
)
def test_an_expression_has_its_value(source: str, value: Any) -> None:
    assert evaluate(source) == value


MISSING = [
    "event.data.gone",
    "event.data.gone.deeper",
    "event.data.nothing.deeper",
    "event.data.tags[7]",
    "async.data.x",
]


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("x", ["0", "1", "-1", "1.5", "'text'", "''", "true", "[1]", "event.data", "now()"])
def test_a_missing_field_equals_nothing_and_is_less_than_everything(missing: str, x: str) -> None:
    assert evaluate(f"{missing} == {x}") is False
    assert evaluate(f"{x} == {missing}") is False
    assert evaluate(f"{missing} != {x}") is True
    assert evaluate(f"{x} != {missing}") is True
    assert evaluate(f"{missing} < {x} && {missing} <= {x}") is True
    assert evaluate(f"{missing} > {x} || {missing} >= {x}") is False
    assert evaluate(f"{x} > {missing} && {x} >= {missing}") is True
    assert evaluate(f"{x} < {missing} || {x} <= {missing}") is False


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("null", ["null", "event.data.nothing"])
def test_a_missing_field_equals_null(missing: str, null: str) -> None:
    assert evaluate(f"{missing} == {null}") is True
    assert evaluate(f"{null} == {missing}") is True
    assert evaluate(f"{missing} != {null}") is False
    assert evaluate(f"{missing} < {null}") is True
    assert evaluate(f"{missing} > {null}") is False


def test_two_missing_fields_are_not_equal() -> None:
    assert evaluate("event.data.gone == async.data.gone", {"data": {}}) is False
    assert evaluate("event.data.gone == event.data.gone") is False
    assert evaluate("event.data.gone != event.data.other") is True
    assert evaluate("event.data.gone < event.data.other") is True
    assert evaluate("event.data.gone > event.data.other") is False


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("m", False),
        ("size(m)", 0),
        ("m.size() == 0", True),
        ("m + 'x'", "x"),
        ("7 + m", 7),
        ("m + m", False),
        ("m - 1", False),
        ("-m", False),
        ("!m", False),
        ("m in ['a', null]", False),
        ("'a' in m", False),
        ("m.startsWith('a')", False),
        ("m.contains('')", False),
        ("m.matches('.*')", False),
        ("'a'.contains(m)", False),
        ("'a'.matches(m)", False),
        ("!'a'.contains(m)", True),
        ("string(m)", False),
        ("int(m)", False),
        ("lowercase(m)", False),
        ("now_plus(m)", False),
        ("m.exists(x, true)", False),
        ("m.all(x, true)", False),
        ("size(m.map(x, x))", 0),
        ("has(m.x)", False),
        ("m || 'other'", "other"),
        ("m && true", False),
        ("m ? 1 : 2", 2),
        ("[m] == [m]", False),
    ],
)
def test_any_other_use_of_a_missing_field_has_inngests_value(source: str, value: Any, missing: str) -> None:
    result = evaluate(re.sub(r"\bm\b(?!')", missing, source))
    assert result == value and type(result) is type(value)


@pytest.mark.parametrize("null", ["null", "event.data.nothing"])
@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("n == null && null == n", True),
        ("n == 0 || n == '' || n == false", False),
        ("n != 0 && n != ''", True),
        ("n < 5 && n < 0.5 && n < 'foo'", True),
        ("n < 0 || n > 0 || n < ''", False),
        ("n <= 0 && n >= 0 && n <= '' && 0 >= n", True),
        ("n > -1", True),
        ("n < -1", False),
        ("5 > n && 3.141 > n", True),
        ("5 < n || 'foo' < n", False),
        ("n < true", False),
        ("n <= n", False),
        ("n in [null]", True),
        ("size(n)", 0),
        ("n.startsWith('')", False),
        ("n || 'fallback'", "fallback"),
    ],
)
def test_null_is_ordered_as_a_zero_and_equals_only_null(source: str, value: Any, null: str) -> None:
    assert evaluate(re.sub(r"\bn\b", null, source)) == value


@pytest.mark.parametrize(
    ("value", "truth"),
    [("0", False), ("0.0", False), ("''", False), ("null", False), ("[]", True), ("{}", True), ("'false'", True)],
)
def test_any_value_has_a_truth(value: str, truth: bool) -> None:
    assert evaluate(f"({value}) ? true : false") is truth
    assert evaluate(f"{value} && true || false") is truth
    assert compile_expression(value).matches(event=EVENT) is truth


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("'first' || 'second'", "first"),
        ("'' || 'second'", "second"),
        ("0 || ''", ""),
        ("'first' && 'second'", "second"),
        ("'' && 'second'", ""),
        ("event.data.gone || event.data.other", False),
        ("false || event.data.tags", ["a", "b"]),
        ("event.data.vip && event.data.count > 2", True),
    ],
)
def test_and_and_or_give_the_operand_that_decides(source: str, value: Any) -> None:
    assert evaluate(source) == value


@pytest.mark.parametrize(
    "source",
    [
        *("1 / 0", "1 % 0", "1.5 % 2", "'a' < 1", "[1] < [2]", "true < 2", "-'a'", "!0", "!'a'"),
        *("int('x')", "int('1_0')", "double('1_0')", "uint(-1)", "bytes(1)", "json_parse('{')", "'a'.matches('(')"),
        *("date('never')", "date(5)", "timestamp(1e300)", "duration('1 hour')", "duration('99999999999999w')"),
        *("[[1][0 / 0]]", "[1][1e308 * 10]", "{[1]: 2}", "event.data.nothing.all(x, true)"),
        "json_parse(event.data.deep)",
    ],
)
def test_what_cannot_be_evaluated_is_as_missing_and_does_not_spoil_the_rest(source: str) -> None:
    assert evaluate(source) is False
    assert evaluate(f"({source}) || true") is True
    assert evaluate(f"({source}) == null") is True
    assert evaluate(f"({source}) != 1 && ({source}) < 1") is True


def test_an_event_nested_deeper_than_pythons_stack_is_no_error() -> None:
    left: list[Any] = []
    right: list[Any] = []
    for _ in range(20_000):
        left, right = [left], [right]
    event = {"a": left, "b": right}
    assert compile_expression("event.a == event.b").matches(event=event) is False
    assert compile_expression("event.a == event.b || event.a").matches(event=event) is True
    assert compile_expression("event").evaluate(event=event) is False


def test_a_value_is_given_as_json() -> None:
    assert evaluate("[date('2024-01-02T03:04:05Z'), duration('1m30s'), b'\\xff']") == [
        "2024-01-02T03:04:05Z",
        "90s",
        "/w==",
    ]
    assert evaluate("{1: 'a'}") == {"1": "a"}


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
        ("event.data..x", "'.' is at character 12"),
        ("event.data.a = 1", "'=' at character 14"),
        ("(event.id", "')' is expected"),
        ("amount > 100", "event.data.amount"),
        ("lower(event.name)", "did you mean 'lowercase'"),
        ("size()", "0 arguments"),
        ("has(event)", "has(event.data.email)"),
        ("async.id == '1'", "'async'"),
        ("event.data.x == 'open", "is not valid here"),
        ("(" * 200 + "1" + ")" * 200, "nested"),
        ("!" * 500 + "true", "nested"),
        ("1" + "+1" * 500, "chains"),
        ("event" + ".a" * 500, "chains"),
        ("(" * 18 + "1" + ("+1" * 99 + ")") * 18, "chains"),
        ("(" * 20 + "event" + (".a" * 90 + ")") * 20, "chains"),
        (r"event.id.matches('^\d+$')", "raw string"),
        (r"'\ud800'", "is not an escape sequence"),
        ("b'\ud800'", "not valid UTF-8"),
        ("[1].all(true, true)", "a name is expected"),
        ("lower(event.name)", "at character 1,"),
        ("event.id == 'x' && nope(1)", "the functions are b64decode, bool"),
        ("event.id == userId", "'userId' at character 13"),
        ("[[1]].all(x, x == [1]) && x", "'x' at character 27"),
        ("٣ == 3", "is not valid here"),
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
    for function, (takes, _) in _FUNCTIONS.items():
        arguments = ", ".join(["event.data.left", "event.data.right"][:takes])
        compile_expression(f"{function}({arguments})").evaluate(event=event)
    for macro in MACROS:
        compile_expression(f"event.data.left.{macro}(x, x.y < event.data.right[x])").evaluate(event=event)
    compile_expression("{event.data.left: -event.data.right}[event.data.left]").evaluate(event=event)
    compile_expression("event.data.left.map(x, x.y + event.data.right[x])").matches(event=event)


@given(JSON_VALUES)
def test_the_table_of_missing_fields_holds_for_all_values(value: Any) -> None:
    def holds(source: str) -> bool:
        return compile_expression(source).matches(event={"data": {"x": value}})

    assert holds("event.data.gone == event.data.x") is (value is None)
    assert holds("event.data.gone != event.data.x") is (value is not None)
    assert holds("event.data.gone < event.data.x")
    assert holds("event.data.gone <= event.data.x")
    assert holds("event.data.x > event.data.gone")
    assert not holds("event.data.gone > event.data.x")
    assert not holds("event.data.gone >= event.data.x")
    assert not holds("event.data.gone in event.data.x")
    assert compile_expression("event.data.gone + event.data.x").evaluate(event={"data": {"x": value}}) == value


@given(JSON_VALUES)
def test_every_value_equals_itself_and_is_given_as_it_is(value: Any) -> None:
    assert compile_expression("event.x").evaluate(event={"x": value}) == value
    assert compile_expression("event.x == event.y").matches(event={"x": value, "y": value})


@given(st.text(max_size=60))
def test_any_text_compiles_or_is_refused(text: str) -> None:
    try:
        compile_expression(text).matches(event=EVENT)
    except DefinitionError:
        pass


def test_no_pattern_makes_a_text_slow() -> None:
    event = {"data": {"text": "a" * 9_000 + "!"}}
    assert compile_expression("event.data.text.matches('^(a+)+$')").matches(event=event) is False


def test_no_list_makes_an_expression_slow() -> None:
    nested = compile_expression("event.data.l.exists(x, event.data.l.exists(y, x == 1 && y == 2))")
    assert nested.matches(event={"data": {"l": [1, 2]}})
    began = time.process_time()
    assert not nested.matches(event={"data": {"l": [1] * 200_000}})
    assert not nested.matches(event={"data": {"l": [0] * 5_000}})
    assert time.process_time() - began < 2
    once = compile_expression("event.data.l.exists(x, x == 2)")
    assert once.matches(event={"data": {"l": [0] * (MAX_ITEMS - 1) + [2]}})
    assert not once.matches(event={"data": {"l": [2] * (MAX_ITEMS + 1)}})
    assert not compile_expression("!event.data.l.exists(x, x == 2)").matches(event={"data": {"l": [0] * 200_000}})
