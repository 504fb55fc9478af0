"""Calls: which edits of a step's call make it another one, and which leave it what it was."""

from __future__ import annotations

import importlib
import linecache
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent
from types import ModuleType
from typing import Any

import pytest

from steporal.closures import member_names
from steporal.closures.calls import MAX_NAMED, AnotherCallError, Call, check_call
from steporal.closures.references import Describer, is_there, target_of, without_code
from steporal.values.encoding import always

PACKAGES = {"edited_app"}
LIBRARIES = {"colorsys", "nturl2path"}  # which nothing else uses

TOP = """
import enum, functools, re
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar
from zoneinfo import ZoneInfo
from pydantic import BaseModel, Field, SecretStr
from pydantic_core import core_schema
from edited_app import stripe, paypal

def send(*given): return given
def other(*given): return given

@dataclass(frozen=True)
class Card:
    number: str
    def charge(self): return "card"

@dataclass(frozen=True)
class Bank:
    number: str
    def charge(self): return "bank"

class Red(enum.Enum):
    LIGHT = 1

class Blue(enum.Enum):
    LIGHT = 1

class Opaque(enum.Enum):
    A = object()
    B = object()

class Money:  # only an annotation says how to send it, and no text what it is
    def __init__(self, amount): self.amount = amount
    def __eq__(self, other): return self.amount == other.amount
    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler):
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, Money) else Money(value),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.amount),
        )

class Bill(BaseModel):
    money: Money
    parts: list[Money] = []

@dataclass
class Noted:
    text: str
    note: InitVar[str] = ""
    def __post_init__(self, note): self.beside = note

T = TypeVar("T")

@dataclass
class Page(Generic[T]):
    items: list[T]
"""

PROVIDER = "def charge(*given): return __name__\n"


class Unread:
    """A run that has no context."""

    def encode(self, value: Any) -> Any:
        return None

    def is_step(self, value: Any) -> bool:
        return False


@dataclass(frozen=True)
class Version:
    """One version of the app.

    Attributes:
        body: Of its handler, which returns the function of a step and its arguments.
        top: What its module has beside.
        files: Its other modules; None for one that there is no more.
    """

    body: str
    top: str = ""
    files: dict[str, str | None] = field(default_factory=dict)


Load = Callable[[Version], ModuleType]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Makes an app, and makes it again after an edit, as another process would load it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    app = tmp_path / "edited_app"

    def forget() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES | LIBRARIES]:
            del sys.modules[name]
        linecache.clearcache()
        importlib.invalidate_caches()
        member_names._read.clear()

    def version(version: Version) -> ModuleType:
        forget()
        handler = f"{TOP}\n{version.top}\ndef handler():\n{indent(version.body, '    ')}\n"
        files = {"__init__.py": "", "stripe.py": PROVIDER, "paypal.py": PROVIDER, "main.py": handler, **version.files}
        app.mkdir(exist_ok=True)
        for file in app.iterdir():
            file.unlink()
        for name, source in files.items():
            if source is not None:
                (app / name).write_text(source)
        return importlib.import_module("edited_app.main")

    yield version
    forget()


def called_by(module: ModuleType) -> Call:
    """The call of the step that a module's handler makes."""
    function, *arguments = module.handler()
    describer = Describer("order", module.handler, PACKAGES, Unread(), secrets=always)
    described = describer.call("pay", function, tuple(arguments))
    target, code = target_of(described["function"])
    whole = without_code(described) if describer.has_order else None
    return Call.of("run", target, *describer.values, code=code, names=describer.names, whole=whole)


def come_back(load: Load, before: Version, now: Version) -> None:
    """Make a call, edit the code, and come back to the call.

    Raises:
        AnotherCallError: It is another one.
    """
    recorded = Call.read(called_by(load(before)).json())
    edited = load(now)

    def exists(named: str, *, exactly: bool = False) -> bool:
        return is_there(named, exactly, edited.handler, "order", PACKAGES)

    assert recorded is not None
    check_call("pay", recorded, called_by(edited), exists)


def both(template: str, *parts: str) -> list[Version]:
    """Two versions of a body."""
    return [Version(template.replace("@", part)) for part in parts]


def tops(body: str, *tops: str) -> list[Version]:
    """Two versions of what is beside a body."""
    return [Version(body, top) for top in tops]


ORDER = "class Order(BaseModel):\n    id: str\n"
RECORD = "@dataclass\nclass Order:\n    id: str\n"
POINT = "class Point(NamedTuple):\n    x: int\n    y: int\n"
COLOR = "class Color(enum.Enum):\n    RED = 1\n    BLUE = 2\n"
BARE = """
def bare(function):
    def called(*given): return function(*given)
    return called

@bare
def charge(*given): return 1

@bare
def refund(*given): return 1
"""  # functions behind a decorator without functools.wraps
HANDLER = "\ndef handler(): return {}, 1\n"
UNUSED: dict[str, str | None] = {"one.py": PROVIDER, "two.py": PROVIDER}  # by anything but handlers


ANOTHER = {
    "a function of another module that has the same name": both("return send, @.charge", "stripe", "paypal"),
    "a captured function of another module": both("f = @.charge\nreturn (lambda: f(),)", "stripe", "paypal"),
    "another module": both("module = @\nreturn (lambda: module.charge(),)", "stripe", "paypal"),
    "a partial of another function": both("return send, functools.partial(@.charge, 1)", "stripe", "paypal"),
    "another lambda": both("a, b = lambda: 'a', lambda: 'b'\nreturn send, @", "a", "b"),
    "another captured lambda": both("a, b = lambda: 'a', lambda: 'b'\nf = @\nreturn (lambda: f(),)", "a", "b"),
    "another order of lambdas": both("a, b = lambda: 'a', lambda: 'b'\nreturn send, @", "[a, b]", "[b, a]"),
    "another nested function": both("def a(): return 1\ndef b(): return 2\nf = @\nreturn (lambda: f(),)", "a", "b"),
    "another class with the same fields": both("return send, @('1')", "Card", "Bank"),
    "another order of classes": both("return send, @", "[Card('1'), Bank('1')]", "[Bank('1'), Card('1')]"),
    "another class, deep inside": both("return send, {'to': [@('1')]}", "Card", "Bank"),
    "one more class": both("return send, Card('1'), @('1')", "Card", "Bank"),
    "the same method of another class": both("return (@('1').charge,)", "Card", "Bank"),
    "a class as a value": both("kind = @\nreturn (lambda: kind('1'),)", "Card", "Bank"),
    "a dict for an instance": both("return send, @", "Card('1')", "{'number': '1'}"),
    "the member of another enum": both("return send, @.LIGHT", "Red", "Blue"),
    "another member whose value is an object": both("return send, Opaque.@", "A", "B"),
    "the same text, of another type": both("return send, @", "date(2026, 1, 1)", "Path('2026-01-01')"),
    "the same number, of another type": both("return send, @", "Decimal(5)", "Fraction(5)"),
    "the end of a long pattern": both("return send, re.compile('x' * 250 + '@')", "a", "b"),
    "another zone with the same offset": both(
        "return send, datetime(2026, 1, 1, tzinfo=ZoneInfo('Europe/@'))", "Berlin", "Paris"
    ),
    "another fold": both(
        "return send, datetime(2026, 10, 25, 2, 30, fold=@, tzinfo=ZoneInfo('Europe/Berlin'))", "0", "1"
    ),
    "another nested function, while the first was edited": [
        Version("def a(): return 1\ndef b(): return 2\nreturn (a,)"),
        Version("def a(): return 3\ndef b(): return 2\nreturn (b,)"),
    ],
    "another one of two functions with one name": both(
        "if @:\n    def f(): return 1\nelse:\n    def f(): return 2\nreturn (f,)", "True", "False"
    ),
    "the variables exchanged": both("a, b = @\nreturn (lambda: send(a, b),)", "1, 2", "2, 1"),
    "the variables exchanged, and one renamed": [
        Version("a, b = 1, 2\nreturn (lambda: send(a, b),)"),
        Version("z, b = 2, 1\nreturn (lambda: send(z, b),)"),
    ],
    "a tuple for a list": both("return send, @", "[1, 2]", "(1, 2)"),
    "a deque for a list": both("return send, @", "[1, 2]", "deque([1, 2])"),
    "a deque of another length": both("return send, @", "deque([1, 2])", "deque([1, 2], 2)"),
    "a frozenset for a set": both("return send, @", "{1, 2}", "frozenset({1, 2})"),
    "a bytearray for bytes": both("return send, @", "b'1'", "bytearray(b'1')"),
    "an OrderedDict for a dict": both("return send, @", "{'a': 1}", "OrderedDict(a=1)"),
    "a Counter for a dict": both("return send, @", "{'a': 1}", "Counter(a=1)"),
    "a defaultdict with another factory": both("return send, defaultdict(@)", "int", "list"),
    "a secret for a text": both("return send, @", "'a'", "SecretStr('a')"),
    "a float for an integer": both("return send, @", "1", "1.0"),
    "a bool for an integer": both("return send, @", "1", "True"),
    "a text for a date": both("return send, @", "date(2026, 1, 1)", "'2026-01-01'"),
    "another order of classes of which one is there twice": both(
        "return send, [Card('1'), Bank('1'), @('1')]", "Card", "Bank"
    ),
    "another order of classes as values": both("return send, [Card, Bank, @]", "Card", "Bank"),
    "another order of functions": both("return send, [send, other, @]", "send", "other"),
    "another order of lambdas of which one is there twice": both(
        "a, b = lambda: 'a', lambda: 'b'\nreturn send, [a, b, @]", "a", "b"
    ),
    "a dict and an instance exchanged": both(
        "return send, @", "[Card('1'), {'number': '1'}]", "[{'number': '1'}, Card('1')]"
    ),
    "a member of an enum and its value exchanged": both("return send, @", "[Red.LIGHT, 1]", "[1, Red.LIGHT]"),
    "other content of what only an annotation describes": both("return send, Bill(money=Money(@))", "1", "2"),
    "other content of that in a list": both("return send, Bill(money=Money(1), parts=[Money(@)])", "1", "2"),
    "another attribute beside the fields": both("return send, Noted('a', '@')", "1", "2"),
    "other parameters of a generic class": both("return send, Page[@]([])", "int", "str"),
    "another default of a field": tops(
        "return send, Order(id='1')", f"{ORDER}    currency: str = 'EUR'", f"{ORDER}    currency: str = 'USD'"
    ),
    "another default of a field of a dataclass": tops(
        "return send, Order('1')", f"{RECORD}    currency: str = 'EUR'", f"{RECORD}    currency: str = 'USD'"
    ),
    "the defaults of two fields exchanged": tops(
        "return send, Order('1')", f"{RECORD}    a: int = 1\n    b: int = 2", f"{RECORD}    a: int = 2\n    b: int = 1"
    ),
    "a new field that has not its default": [
        Version("return send, Order(id='1')", ORDER),
        Version("return send, Order(id='1', currency='USD')", f"{ORDER}    currency: str = 'EUR'"),
    ],
    "the fields of a named tuple exchanged": tops(
        "return send, Point(1, 2)", POINT, "class Point(NamedTuple):\n    y: int\n    x: int\n"
    ),
    "another value of a member of an enum": tops("return send, Color.RED", COLOR, COLOR.replace("RED = 1", "RED = 3")),
    "the members of an enum exchanged": tops(
        "return send, Color.RED", COLOR, "class Color(enum.Enum):\n    BLUE = 1\n    RED = 2\n"
    ),
    "a function imported from another module": tops(
        "return charge, 1", "from edited_app.stripe import charge", "from edited_app.paypal import charge"
    ),
    "a function imported under a name of its own from another module": tops(
        "return pay, 1", "from edited_app.stripe import charge as pay", "from edited_app.paypal import charge as pay"
    ),
    "a captured function imported from another module": tops(
        "f = charge\nreturn (lambda: f(),)",
        "from edited_app.stripe import charge",
        "from edited_app.paypal import charge",
    ),
    "a decorated function without its name, imported from another module": [
        Version("return charge, 1", f"from edited_app.{name} import charge", {"one.py": BARE, "two.py": BARE})
        for name in ("one", "two")
    ],
    "another decorated function without its name": [
        Version(f"return {name}, 1", "", {"main.py": BARE + HANDLER.format(name)}) for name in ("charge", "refund")
    ],
    "another imported decorated function without its name": [
        Version(f"return {name}, 1", "from edited_app.one import charge, refund", {"one.py": BARE})
        for name in ("charge", "refund")
    ],
    "another module that only the handler imports": [
        Version(f"from edited_app import {name} as module\nreturn (lambda: module.charge(),)", files=UNUSED)
        for name in ("one", "two")
    ],
    "another module of a library that only the handler imports": [
        Version(f"import {name} as module\nreturn (lambda: module.charge(),)") for name in sorted(LIBRARIES)
    ],
}


@pytest.mark.parametrize("edit", ANOTHER)
def test_an_edit_that_makes_another_call(load: Load, edit: str) -> None:
    before, now = ANOTHER[edit]
    come_back(load, before, before)
    with pytest.raises(AnotherCallError, match="step 'pay' has become another call"):
        come_back(load, before, now)


THE_SAME = {
    "the body of a nested function": both("def f():\n    return @\nreturn (f,)", "1", "2"),
    "the body of a captured function": both("def f():\n    return @\nreturn (lambda: f(),)", "1", "2"),
    "a captured lambda": both("f = lambda: @\nreturn (lambda: f(),)", "1", "2"),
    "a lambda": both("return (lambda: @,)", "1", "2"),
    "the name of a nested function": both("def @(): return 1\nreturn (@,)", "f", "g"),
    "the name of a captured function": both("def @(): return 1\nreturn (lambda: @(),)", "f", "g"),
    "the name of a captured variable": both("@ = 5\nreturn (lambda: @,)", "amount", "total"),
    "the order of a set": both("return send, @", "{Card('1'), Red.LIGHT, 3}", "{3, Red.LIGHT, Card('1')}"),
    "the order of a dict": both("return send, @", "{'a': 1, 'b': 2}", "{'b': 2, 'a': 1}"),
    "a partial for arguments": both("return @", "send, 1", "functools.partial(send, 1),"),
    "the name of one of two captured variables": both(
        "@, order = 5, 6\nreturn (lambda: send(@, order),)", "amount", "total"
    ),
    "the order in which a lambda uses its variables": both("a, b = 5, 6\nreturn (lambda: send(@),)", "a, b", "b, a"),
    "the order in which a lambda uses functions": both(
        "a, b = stripe.charge, paypal.charge\nreturn (lambda: send(@),)", "a, b", "b, a"
    ),
    "one of two equal lambdas": both("a, b = (lambda: @), (lambda: 1)\nreturn (a,)", "1", "2"),
    "one of two equal captured lambdas": both("a, b = (lambda: @), (lambda: 1)\nreturn (lambda: a(),)", "1", "2"),
    "a lambda that there is a second time now": both("a, b = (lambda: 1), (lambda: @)\nreturn send, a", "2", "1"),
    "a field with a default": tops("return send, Order(id='1')", ORDER, f"{ORDER}    currency: str = 'EUR'"),
    "a field with a default that a function makes": tops(
        "return send, Order(id='1')", ORDER, f"{ORDER}    lines: list = Field(default_factory=lambda: ['a'])"
    ),
    "a field with a model for a default": tops(
        "return send, Order(id='1')", ORDER, f"{ORDER}    card: Bill = Bill(money=Money(1))"
    ),
    "a field with a member of an enum for a default": tops(
        "return send, Order(id='1')", ORDER, f"{ORDER}    color: Red = Red.LIGHT"
    ),
    "a field of a dataclass": tops(
        "return send, Order('1')", RECORD, f"{RECORD}    lines: list = field(default_factory=list)"
    ),
    "a field of a named tuple": tops("return send, Point(1, 2)", POINT, f"{POINT}    z: int = 0"),
    "a field that has its default removed": tops(
        "return send, Order(id='1')", f"{ORDER}    currency: str = 'EUR'", ORDER
    ),
    "the order of fields": tops(
        "return send, Order(id='1', to='2')", f"{ORDER}    to: str", "class Order(BaseModel):\n    to: str\n    id: str"
    ),
    "the order of a dict of several classes": both(
        "return send, @", "{'a': Card('1'), 'b': Bank('1')}", "{'b': Bank('1'), 'a': Card('1')}"
    ),
    "the name of a member of an enum": tops("return send, Color(1)", COLOR, COLOR.replace("RED", "CRIMSON")),
    "what a body has read of a cached property": [
        Version(
            f"order = Order('1')\n{line}\nreturn send, order",
            f"{RECORD}    @functools.cached_property\n    def total(self): return 5",
        )
        for line in ("", "order.total")
    ],
    "a module that was moved": [
        Version(f"import edited_app.{name} as module\nreturn (lambda: module.charge(),)", "", {f"{name}.py": PROVIDER})
        for name in ("one", "two")
    ],
    "a function that was moved, and imported where it was": [
        Version("return charge, 1", "from edited_app.stripe import charge"),
        Version(
            "return charge, 1",
            "from edited_app.one import charge",
            {"one.py": PROVIDER, "stripe.py": "from edited_app.one import charge"},
        ),
    ],
    "a captured function that was moved, and imported where it was": [
        Version("f = charge\nreturn (lambda: f(),)", "from edited_app.stripe import charge"),
        Version(
            "f = charge\nreturn (lambda: f(),)",
            "from edited_app.one import charge",
            {"one.py": PROVIDER, "stripe.py": "from edited_app.one import charge"},
        ),
    ],
}


@pytest.mark.parametrize("edit", THE_SAME)
def test_an_edit_that_leaves_a_call_what_it_was(load: Load, edit: str) -> None:
    come_back(load, *THE_SAME[edit])


@pytest.mark.parametrize("alias", ["", "Order = Purchase"])
def test_a_class_that_was_renamed_makes_no_other_call(load: Load, alias: str) -> None:
    renamed = f"{ORDER.replace('Order', 'Purchase')}{alias}\n"
    come_back(load, Version("return send, Order(id='1')", ORDER), Version("return send, Purchase(id='1')", renamed))


def test_a_function_that_was_moved_makes_no_other_call(load: Load) -> None:
    top, moved = "def charge(*given): return given\n", "from edited_app.one import charge\n"
    for body in ("return charge, 1", "return send, charge"):
        come_back(load, Version(body, top), Version(body, moved, {"one.py": PROVIDER}))


def test_the_message_names_what_has_taken_the_place_of_what(load: Load) -> None:
    before, now = ANOTHER["another class with the same fields"]
    with pytest.raises(AnotherCallError, match=r"with 'edited_app\.main:Bank' in place of 'edited_app\.main:Card'"):
        come_back(load, before, now)
    before, now = ANOTHER["another module"]
    with pytest.raises(AnotherCallError, match=r"with 'module edited_app\.paypal' in place of"):
        come_back(load, before, now)


@pytest.mark.parametrize(
    "named",
    [
        *("{", "{}", '{"generic": 5}', "[", "a:b:c", "function ", "function x: y #z", "module "),
        '{"generic":' * 900,
        f"module edited_app.{'a.' * 4_000}x",
        f"module edited_app.{'a.' * 500_000}x",
        f"function workflow order: x #y x{'9' * 5_000}",
    ],
    ids=lambda named: str(named[:20]),
)
def test_a_name_that_nobody_has_made_is_of_nothing_that_exists(load: Load, named: str) -> None:
    handler = load(Version("pass")).handler
    assert not is_there(named, False, handler, "order", PACKAGES)


@pytest.mark.parametrize("named", ["text", [1], {}, ["shop:Order"] * (MAX_NAMED + 1)])
def test_a_description_with_names_that_nobody_has_made_is_none(named: Any) -> None:
    assert Call.read(["run", "shop:charge", "", "", "", "", named]) is None
