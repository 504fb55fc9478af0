"""Values as JSON that remembers their types."""

from __future__ import annotations

import json
from typing import Any

import pytest
from apps import values
from hypothesis import given
from hypothesis import strategies as st

from steporal.converter import to_json
from steporal.encoding import decode, encode, plain
from steporal.errors import UnserializableError
from steporal.type_names import TypeNotFoundError

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.dates()
    | st.datetimes()
    | st.timedeltas()
    | st.uuids()
)
HASHABLE = st.recursive(SCALARS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4)
NESTED = st.recursive(
    HASHABLE, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(HASHABLE, inner, max_size=4), max_leaves=12
)


@given(NESTED)
def test_any_nested_value_comes_back(value: Any) -> None:
    encoded = json.loads(json.dumps(encode(value), allow_nan=False))
    assert decode(encoded) == value


@pytest.mark.parametrize("name", values.VALUES)
def test_a_value_of_every_type_comes_back(name: str) -> None:
    value = values.VALUES[name]
    assert values.difference(decode(json.loads(json.dumps(encode(value)))), value) is None


@pytest.mark.parametrize("value", [None, True, 5, 0.5, "text", [1, {"a": [None]}], {}])
def test_plain_json_is_written_as_it_is(value: Any) -> None:
    assert encode(value) == value


@given(st.dictionaries(st.text() | st.just("$"), st.integers() | st.text(), max_size=3))
def test_a_dict_that_looks_like_a_tag_is_only_a_dict(value: dict[str, Any]) -> None:
    assert decode(json.loads(json.dumps(encode(value)))) == value


@pytest.mark.parametrize(
    "name", ["subprocess:Popen", "os:system", "builtins:int", "apps.values:VALUES", "apps.values:datetime", "none:X"]
)
@pytest.mark.parametrize("tag", ["model", "dataclass", "enum", "namedtuple"])
def test_only_classes_of_data_are_made(tag: str, name: str) -> None:
    with pytest.raises(TypeNotFoundError):
        decode({"$": tag, "type": name, "value": []}, packages={"apps"})


def test_a_module_outside_the_app_is_not_imported() -> None:
    with pytest.raises(TypeNotFoundError, match="'antigravity' is not loaded in this process, and not part of the app"):
        decode({"$": "model", "type": "antigravity:Fly", "value": {}}, packages={"apps"})


def test_a_class_that_was_renamed_is_named() -> None:
    with pytest.raises(TypeNotFoundError, match=r"'apps\.values' has no .*'Gone'; was it renamed or moved\?"):
        decode({"$": "model", "type": "apps.values:Gone", "value": {}}, packages={"apps"})


def test_plain_drops_the_tags() -> None:
    encoded = encode({"order": values.ORDER, "pair": (1, values.Colour.RED), "keys": {1: 2}})
    assert plain(encoded)["order"]["items"][0]["sku"] == "a-1"
    assert plain(encoded)["pair"] == [1, "red"]
    assert plain(encoded)["keys"] == {"1": 2}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (object(), "object cannot be sent"),
        ({"a": [1, object()]}, r"object at a\[1\] cannot be sent"),
        ({"a b": {"c": print}}, r"at a b\.c"),
        (type("Text", (str,), {})("x"), "convert it to a plain str"),
    ],
)
def test_what_cannot_be_sent_is_named_with_its_place(value: Any, says: str) -> None:
    with pytest.raises(UnserializableError, match=says):
        encode(value)


def test_a_value_that_contains_itself_cannot_be_sent() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(UnserializableError):
        encode(value)
    with pytest.raises(UnserializableError):
        to_json(value)
