"""Values as JSON that remembers exactly what they were."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import threading
import typing
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta, timezone, tzinfo
from fractions import Fraction
from pathlib import PurePosixPath
from types import ModuleType
from typing import Annotated, Any

import pydantic
import pytest
from apps import data_kinds as kinds
from apps import values
from hypothesis import given
from hypothesis import strategies as st

from steporal.errors import UnencryptedSecretError, UnserializableError
from steporal.values.converter import to_json
from steporal.values.decoding import decode
from steporal.values.encoding import MAX_DEPTH, MAX_FLAG, MAX_GENERICS, encode
from steporal.values.readable import plain
from steporal.values.type_names import TypeNotFoundError

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


def read(data: Any) -> Any:
    """What an app whose packages are these makes of encoded data."""
    return decode(data, packages=("apps", "edited", __name__))


@given(NESTED)
def test_any_nested_value_comes_back(value: Any) -> None:
    encoded = json.loads(json.dumps(encode(value), allow_nan=False))
    assert read(encoded) == value


@pytest.mark.parametrize("name", values.VALUES)
def test_a_value_of_every_type_comes_back(name: str) -> None:
    value = values.VALUES[name]
    assert values.difference(read(json.loads(json.dumps(encode(value)))), value) is None


@pytest.mark.parametrize("value", [None, True, 5, 0.5, "text", [1, {"a": [None]}], {}])
def test_plain_json_is_written_as_it_is(value: Any) -> None:
    assert encode(value) == value


@given(st.dictionaries(st.text() | st.just("$"), st.integers() | st.text(), max_size=3))
def test_a_dict_that_looks_like_a_tag_is_only_a_dict(value: dict[str, Any]) -> None:
    assert read(json.loads(json.dumps(encode(value)))) == value


@pytest.mark.parametrize(
    "name", ["subprocess:Popen", "os:system", "builtins:int", "apps.values:VALUES", "apps.values:datetime", "none:X"]
)
@pytest.mark.parametrize("tag", ["model", "dataclass", "enum", "namedtuple"])
def test_only_classes_of_data_are_made(tag: str, name: str) -> None:
    with pytest.raises(TypeNotFoundError):
        decode({"$": tag, "type": name, "value": []}, packages={"apps"})


def test_a_module_outside_the_app_is_not_imported() -> None:
    with pytest.raises(TypeNotFoundError, match="'antigravity:Fly' is not one of the classes of package 'antigravity'"):
        decode({"$": "model", "type": "antigravity:Fly", "value": {}}, packages={"apps"})
    assert "antigravity" not in sys.modules


def test_a_class_that_was_renamed_is_named() -> None:
    with pytest.raises(TypeNotFoundError, match=r"'apps\.values' has no .*'Gone'; was it renamed or moved\?"):
        decode({"$": "model", "type": "apps.values:Gone", "value": {}}, packages={"apps"})


def test_plain_drops_the_tags() -> None:
    encoded = encode({"order": values.ORDER, "pair": (1, values.Colour.RED), "keys": {1: 2}})
    assert plain(encoded)["order"]["items"][0]["sku"] == "a-1"
    assert plain(encoded)["pair"] == [1, "red"]
    assert plain(encoded)["keys"] == {"1": 2}


# --- what is refused -----------------------------------------------------------------------------------------------


class Text(str):
    pass


class Berlin(tzinfo):
    def utcoffset(self, when: datetime | None) -> None:
        return None


@dataclasses.dataclass
class Stack(list[int]):
    name: str = ""


@dataclasses.dataclass
class Queue(deque[int]):
    n: int


@dataclasses.dataclass
class Day(date):
    name: str = ""

    def __new__(cls, name: str = "") -> Day:
        return super().__new__(cls, 2026, 1, 1)


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


def with_attribute(value: Any) -> Any:
    value.more = 1
    return value


def locked() -> kinds.Private:
    value = kinds.Private(n=1)
    value._seen = {"lock": threading.Lock()}
    return value


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (object(), "^object cannot be sent"),
        ({"a": [1, object()]}, r"^object at a\[1\] cannot be sent"),
        ({"a b": {"c": print}}, r"at a b\.c"),
        (Text("x"), "convert it to a plain str"),
        ({"tags": [Text("x")]}, r"test_encoding\.Text at tags\[0\] cannot be sent; convert it to a plain str"),
        ({Text("x"): 1}, "test_encoding.Text at key 'x' cannot be sent"),
        (kinds.Owner.model_construct(pets=[kinds.Animal(name="a"), object()]), r"^object at pets\[1\] cannot"),
        (kinds.Open(known=1, more=object()), "^object at more cannot"),
        (locked(), r"^_thread\.lock at _seen\.lock cannot"),
        (kinds.Derived("a", {1: object()}), r"^object at more\[1\] cannot"),
        (kinds.Pair(1, (object(),)), r"^object at right\[0\] cannot"),
        (Queue(1), "as it is both a dataclass and a deque; keep the deque in a field"),
        (Day(), "as it is both a dataclass and a date; keep the date in a field"),
        (with_attribute(OrderedDict()), "it has attributes beside its items; use a dataclass"),
        (with_attribute(Counter()), "it has attributes beside its items; use a dataclass"),
        ({"a": PurePosixPath("\udcff")}, r"^pathlib\.PurePosixPath at a contains a lone surrogate"),
        ([re.compile("\ud800")], r"^re\.Pattern at \[0\] contains a lone surrogate"),
        (timezone(timedelta(0), "\ud800"), r"^datetime\.timezone contains a lone surrogate"),
        ({Unprintable(): 1}, r"^test_encoding\.Unprintable at key <test_encoding.Unprintable> cannot be sent"),
        ([range(10**5000)], r"^range at \[0\] has an integer of thousands of digits; send the integer itself"),
        (Fraction(10**5000, 7), r"^fractions\.Fraction has an integer of thousands of digits"),
        ({10**5000: object()}, r"^object at \[<int>\] cannot be sent"),
        (Stack("s"), "as it is both a dataclass and a list; keep the list in a field"),
        (defaultdict(lambda: 1), "built-in type as its default_factory"),
        ({"at": datetime(2026, 1, 1, tzinfo=Berlin())}, r"datetime at at cannot be sent: the time zone .*Berlin"),
        (["\ud800"], r"^str at \[0\] contains a lone surrogate"),
        ({"\ud800": 1}, "^str at key .* contains a lone surrogate"),
        ([kinds.Animal], r"^the class apps\.data_kinds\.Animal at \[0\] cannot be sent; send its name"),
        (kinds.Page[Annotated[int, pydantic.Field(gt=0)]](items=[]), "derive a class from it, and use that"),
        (type("Made", (kinds.Animal,), {})(name="x"), "Made cannot be sent, as it cannot be found by name"),
        (type("Dog", (kinds.Animal,), {"__module__": "apps.data_kinds"})(name="x"), "its name now means another class"),
    ],
)
def test_what_cannot_be_sent_is_named_with_its_place(value: Any, says: str) -> None:
    with pytest.raises(UnserializableError, match=says):
        encode(value)


def test_a_class_in_a_function_cannot_be_sent() -> None:
    class Local(pydantic.BaseModel):
        pass

    with pytest.raises(UnserializableError, match=r"defined inside a function .* move the class to module level"):
        encode([Local()])


def test_a_value_that_contains_itself_cannot_be_sent() -> None:
    value: list[Any] = []
    value.append({"again": value})
    with pytest.raises(UnserializableError, match=r"^list at \[0\]\.again contains itself"):
        encode(value)
    with pytest.raises(UnserializableError):
        to_json(value)
    tree = kinds.Tree(value=1)
    tree.children.append(tree)
    with pytest.raises(UnserializableError, match=r"^apps\.data_kinds\.Tree at children\[0\] contains itself"):
        encode(tree)


def test_a_value_that_is_nested_too_deep_cannot_be_sent() -> None:
    def chain(length: int) -> kinds.Linked:
        value = kinds.Linked(0)
        for number in range(1, length):
            value = kinds.Linked(number, value)
        return value

    deepest = chain(MAX_DEPTH)
    assert read(json.loads(json.dumps(encode(deepest)))) == deepest
    with pytest.raises(UnserializableError, match=r"at next\.next.* nested more than 150 levels deep"):
        encode(chain(MAX_DEPTH + 1))
    pairs: dict[Any, Any] = {}
    for _ in range(MAX_DEPTH - 1):
        pairs = {1: pairs}
    assert read(json.loads(json.dumps(encode(pairs)))) == pairs


def test_a_refusal_at_the_end_of_a_long_chain_comes_at_once() -> None:
    value = kinds.Linked(object())
    for number in range(MAX_DEPTH - 2):
        value = kinds.Linked(number, value)
    with pytest.raises(UnserializableError, match=r"^object at next\.next.*value cannot be sent"):
        encode(value)


def test_an_integer_of_thousands_of_digits_comes_back() -> None:
    assert read(json.loads(json.dumps(encode({"n": 10**5000, -(10**4500): 1})))) == {"n": 10**5000, -(10**4500): 1}


def test_a_set_is_written_in_the_same_order_everywhere() -> None:
    assert encode({"c", "a", "b", 1}) == {"$": "set", "value": ["a", "b", "c", 1]}
    assert encode(frozenset({frozenset({"b"}), frozenset({"a"})}))["value"][0]["value"] == ["a"]


def test_the_same_list_twice_arrives_as_two_equal_lists() -> None:
    names = ["a"]
    assert read(encode([names, names])) == [["a"], ["a"]]


# --- secrets -------------------------------------------------------------------------------------------------------

SECRETS = [pydantic.SecretStr("hunter2"), pydantic.SecretBytes(b"hunter2"), pydantic.Secret("hunter2")]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_refused_where_payloads_are_not_encrypted(secret: Any) -> None:
    with pytest.raises(
        UnencryptedSecretError, match=r"at login\.more\[0\] cannot be sent.*; encrypt payloads"
    ) as refused:
        encode({"login": kinds.Derived("a", [secret])})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_shown_as_asterisks(secret: Any) -> None:
    encoded = encode({"token": secret}, secrets=lambda: True)
    assert plain(encoded) == {"token": "**********"}
    assert plain(encoded, reveal=True) == {"token": "hunter2"}


# --- classes that change -------------------------------------------------------------------------------------------

BEFORE = """
import dataclasses, enum, pydantic
from typing import Any, NamedTuple
class Inner(pydantic.BaseModel):
    x: int
class Model(pydantic.BaseModel):
    name: str = pydantic.Field(serialization_alias="theName")
    inner: Inner
    note: str = ""
    _hidden: int = 1
@dataclasses.dataclass
class Data:
    a: int
    b: int = 2
    c: int = dataclasses.field(default=0, init=False)
class Pair(NamedTuple):
    left: int
    right: int
class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"
"""


@contextmanager
def module(source: str) -> Iterator[Any]:
    """A module ``edited`` with this source."""
    made = sys.modules["edited"] = ModuleType("edited")
    try:
        exec(source, made.__dict__)
        yield made
    finally:
        del sys.modules["edited"]


def edited(make: str, *changes: tuple[str, str]) -> Any:
    """A value that is made of the source before, and decoded by the source after these changes."""
    with module(BEFORE) as before:
        value = eval(make, before.__dict__)
        if make.startswith("Model"):
            value._hidden = 7
        encoded = json.loads(json.dumps(encode(value)))
    after = BEFORE
    for old, new in changes:
        assert old in after
        after = after.replace(old, new)
    with module(after):
        return read(encoded)


MODEL = "Model(name='n', inner=Inner(x=1))"


def test_a_model_with_a_new_field_has_its_default() -> None:
    value = edited(MODEL, ('    note: str = ""', '    note: str = ""\n    added: int = 5'))
    assert (value.name, value.inner.x, value.added, value._hidden) == ("n", 1, 5, 7)
    assert value.model_fields_set == {"name", "inner"}


def test_a_model_whose_field_has_another_type_is_validated() -> None:
    assert edited(MODEL, ("    x: int", "    x: float")).inner.x == 1.0
    with pytest.raises(TypeNotFoundError, match=r"edited\.Inner has changed since .*: x: "):
        edited(MODEL, ("    x: int", "    x: 'datetime.date'"), ("import dataclasses", "import datetime, dataclasses"))


def test_a_model_with_a_new_field_without_default_says_so() -> None:
    with pytest.raises(TypeNotFoundError, match=r"edited\.Model has changed since .*: added: Field required"):
        edited(MODEL, ('    note: str = ""', '    note: str = ""\n    added: int'))


def test_a_model_whose_methods_and_validators_were_edited_is_not_validated() -> None:
    refuses = (
        "    _hidden: int = 1",
        "    _hidden: int = 1\n    @pydantic.field_validator('name')\n    def no(cls, value): raise ValueError('no')",
    )
    assert edited(MODEL, refuses).name == "n"


def test_a_dataclass_with_a_new_field_has_its_default() -> None:
    value = edited("Data(1)", ("    b: int = 2", "    b: int = 2\n    d: int = 4"))
    assert (value.a, value.b, value.c, value.d) == (1, 2, 0, 4)


def test_the_fields_of_a_named_tuple_go_by_their_names() -> None:
    value = edited("Pair(1, 2)", ("    left: int\n    right: int", "    right: int\n    left: int\n    third: int = 3"))
    assert (value.left, value.right, value.third) == (1, 2, 3)


def test_a_member_of_an_enum_is_found_by_name_or_value() -> None:
    assert edited("Colour.RED", ('"red"', '"crimson"')).name == "RED"
    assert edited("Colour.RED", ("RED =", "SCARLET =")).name == "SCARLET"
    swapped = edited("Colour.RED", ('RED = "red"', 'RED = "x"'), ('BLUE = "blue"', 'BLUE = "red"'))
    assert swapped.value == "red"
    with pytest.raises(TypeNotFoundError, match=r"edited\.Colour has no member 'RED'; was it renamed or removed\?"):
        edited("Colour.RED", ('RED = "red"', 'PINK = "pink"'))


FORWARD = """
import dataclasses, pydantic
from typing import Optional
class Person(pydantic.BaseModel):
    address: 'Optional[Address]' = None
    number: int = 1
    @pydantic.field_validator('number')
    def doubled(cls, value): return value * 2
class Employee(Person):
    pass
@pydantic.dataclasses.dataclass
class Visit:
    to: 'Address'
class Forest(pydantic.RootModel['list[Forest] | int']):
    pass
class Address(pydantic.BaseModel):
    city: str = ''
class Manager(Person):
    pass
class Late(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(defer_build=True)
    trees: 'list[Late]' = []
"""


@pytest.mark.parametrize(
    "make",
    [
        "Person(address=Address(city='Rome'), number=2)",
        "Employee(number=2)",
        "Manager(number=2)",
        "Visit(Address(city='Rome'))",
        "Forest([Forest(1)])",
        "Late(trees=[Late()])",
        "Person.model_construct(number=4)",
    ],
)
def test_a_class_that_names_one_further_down_comes_back_where_nobody_has_used_it_yet(make: str) -> None:
    with module(FORWARD) as sender:
        value = eval(make, sender.__dict__)
        encoded = json.loads(json.dumps(encode(value)))
    with module(FORWARD) as reader:
        decoded = read(encoded)
        assert type(decoded) is getattr(reader, make.partition("(")[0].partition(".")[0])
        assert (repr(decoded), encode(decoded)) == (repr(value), encoded)


def test_the_digest_of_a_class_is_the_same_as_soon_as_the_classes_exist_that_it_names() -> None:
    first, _, rest = FORWARD.partition("class Address")
    with module(first) as made:
        encode(made.Person.model_construct())
        exec(f"class Address{rest}", made.__dict__)
        after = encode(made.Person.model_construct())
    with module(FORWARD) as made:
        assert encode(made.Person.model_construct()) == after


@pytest.mark.parametrize(
    "parameter",
    [
        int,
        None,
        list[int],
        typing.List[int],  # noqa: UP006 (to pydantic another class than list[int])
        typing.List,  # noqa: UP006
        typing.Dict[str, typing.Tuple[int, ...]],  # noqa: UP006
        tuple[()],
        int | None,
        typing.Optional[int],  # noqa: UP045
        typing.Union[int, typing.List[str]],  # noqa: UP006, UP007
        typing.Sequence[int],
        Sequence[int],
        kinds.Page[typing.List[int]],  # noqa: UP006
    ],
)
def test_a_generic_model_has_its_parameters_as_they_were_written(parameter: Any) -> None:
    page = kinds.Page[parameter].model_construct(items=[])
    assert type(read(json.loads(json.dumps(encode(page))))) is type(page)
    holder = kinds.Holder[parameter](1)
    assert read(json.loads(json.dumps(encode(holder)))).__orig_class__ == kinds.Holder[parameter]


@pytest.mark.parametrize("kind", [kinds.Page[int], kinds.Holder[int]])
def test_a_value_has_as_many_instances_of_a_generic_class_as_it_likes(kind: Any) -> None:
    made = [kinds.Page[int](items=[n]) if kind is kinds.Page[int] else kind(n) for n in range(3 * MAX_GENERICS)]
    for value in (made, [[each] for each in made], {str(n): each for n, each in enumerate(made)}):
        assert read(json.loads(json.dumps(encode(value, packages={"apps"})))) == value


def test_instances_of_more_generic_classes_than_a_reader_makes_are_refused() -> None:
    each = [kinds.Holder[typing.Literal[n]](n) for n in range(MAX_GENERICS + 1)]  # type: ignore[valid-type]
    assert read(encode(each[1:], packages={"apps"})) == each[1:]
    with pytest.raises(UnserializableError, match="instances of at most 100 generic classes"):
        encode(each, packages={"apps"})


@pytest.mark.parametrize(
    ("value", "packages", "named"),
    [
        (kinds.Holder[int](1), __name__, "apps.data_kinds:Holder"),
        (kinds.Holder[threading.Thread](1), "apps", "threading:Thread"),
        (kinds.Page[int](items=[]), __name__, "apps.data_kinds:Page"),
    ],
)
def test_an_instance_of_a_generic_class_that_no_reader_makes_is_refused(value: Any, packages: str, named: str) -> None:
    with pytest.raises(UnserializableError, match=f"cannot be sent: '{named}' is not "):
        encode(value, packages={packages})


def test_flags_that_no_reader_takes_are_refused() -> None:
    largest = kinds.Bits(MAX_FLAG - 1)
    assert read(encode(largest)) is largest
    with pytest.raises(
        UnserializableError, match=r"kinds\.Bits at \[0\] cannot be sent; it has a flag beyond the 128th"
    ):
        encode([kinds.Bits(MAX_FLAG)])


def test_a_list_of_instances_names_their_class_once() -> None:
    encoded = encode([kinds.Animal(name=name) for name in "abc"])
    assert json.dumps(encoded).count("data_kinds:Animal") == 1
    assert plain(encoded) == [{"name": "a"}, {"name": "b"}, {"name": "c"}]
    mixed = [
        kinds.Animal(name="a"),
        kinds.Dog(name="b", breed="c"),
        {"name": "d"},
        kinds.Patch(name="x"),
        kinds.Patch(),
    ]
    assert kinds.difference(read(json.loads(json.dumps(encode(mixed)))), mixed) is None


@pytest.mark.parametrize(
    "data",
    [
        {"$": "model", "type": "apps.data_kinds:Animal"},
        {"$": "model", "type": 5, "value": {}},
        {"$": "model", "type": "apps.data_kinds:Animal", "shape": "0", "value": []},
        {"$": "dataclass", "type": {"generic": "apps.data_kinds:Holder"}, "value": {}},
        {"$": "decimal", "value": "much"},
        {"$": "bytes", "value": 5},
        {"$": "datetime", "value": "yesterday"},
        {"$": "datetime", "value": "2026-01-01T00:00:00", "zone": "Middle/Earth"},
        {"$": "path", "class": "PosixPath", "value": "/"},
        {"$": "url", "class": "TypeAdapter", "value": "x"},
        {"$": "defaultdict", "factory": "eval", "value": []},
        {"$": "secret", "of": "function", "value": "x"},
        {"$": "list", "of": {"$": "model", "type": "os:system", "shape": "0"}, "value": [{}]},
        {"$": "set", "value": [[1]]},
        {"$": {}, "value": 1},
        {"$": "new in a later version"},
    ],
)
def test_data_that_nobody_has_encoded_is_an_error_of_ours(data: Any) -> None:
    with pytest.raises(TypeNotFoundError):
        decode([data], packages={"apps"})


# --- types that bring their own schema -----------------------------------------------------------------------------


class Phone(str):
    """A text with a schema of its own, as in pydantic-extra-types."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: pydantic.GetCoreSchemaHandler) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())


class Contact(pydantic.BaseModel):
    phone: Phone
    others: list[Phone] = []
    note: Any = None


@dataclasses.dataclass
class Caller:
    phone: Phone
    name: Text


@pytest.mark.parametrize(
    "value",
    [
        Contact(phone=Phone("1")),
        Contact(phone=Phone("1"), others=[Phone("2"), Phone("3")], note=datetime(2026, 1, 1)),
        [Contact(phone=Phone("1")), Contact(phone=Phone("2"))],
        {"deep": [kinds.Tree(value=Contact(phone=Phone("1")))]},
    ],
)
def test_a_field_of_a_type_with_its_own_schema_comes_back(value: Any) -> None:
    decoded = read(json.loads(json.dumps(encode(value))))
    assert kinds.difference(decoded, value) is None


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (Contact(phone=Phone("1"), note=Phone("2")), r"Phone at note cannot be sent; convert it to a plain str"),
        (Contact.model_construct(phone=Text("1")), r"Text at phone cannot"),
        (
            Contact(phone=Phone("1"), others=[Phone("2")]).model_copy(update={"others": [Text("x")]}),
            r"Text at others\[0\]",
        ),
        (Caller(Phone("1"), Text("x")), r"Text at name cannot"),
        ([Phone("1")], r"Phone at \[0\] cannot"),
    ],
)
def test_a_value_that_its_annotation_does_not_read_the_same_is_refused(value: Any, says: str) -> None:
    with pytest.raises(UnserializableError, match=says):
        encode(value)
