"""Calls: which edits of a step's call make it another one, and which leave it what it was."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from textwrap import indent
from types import ModuleType
from typing import Any

import pytest

from steporal.runtime.calls import MAX_NAMED, AnotherCallError, Call, check_call
from steporal.runtime.references import Describer, is_there, target_of

PACKAGES = {"edited_app"}

TOP = """
import enum, functools, re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo
from pydantic import BaseModel
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
"""

PROVIDER = "def charge(*given): return __name__"


class Unread:
    """A run that has no context."""

    def encode(self, value: Any) -> Any:
        return None

    def is_step(self, value: Any) -> bool:
        return False


Load = Callable[[str], ModuleType]


@pytest.fixture
def load() -> Iterator[Load]:
    """Makes, and makes again after an edit, the module of an app, beside two others that are never edited."""
    names = ["edited_app", "edited_app.stripe", "edited_app.paypal"]

    def module(name: str, source: str) -> ModuleType:
        loaded = sys.modules[name] = ModuleType(name)
        loaded.__path__ = []
        exec(compile(source, f"{name}.py", "exec"), loaded.__dict__)
        return loaded

    package = module("edited_app", "")
    for name in names[1:]:
        setattr(package, name.rpartition(".")[2], module(name, PROVIDER))
    kept = dict(vars(package))

    def version(source: str) -> ModuleType:
        loaded = sys.modules["edited_app"] = ModuleType("edited_app")
        vars(loaded).update(kept)
        exec(compile(source, "edited_app.py", "exec"), loaded.__dict__)
        return loaded

    yield version
    for name in names:
        del sys.modules[name]


def called_by(module: ModuleType) -> Call:
    """The call of the step that a module's handler makes."""
    function, *arguments = module.handler()
    describer = Describer("order", module.handler, PACKAGES, Unread())
    described = describer.call("pay", function, tuple(arguments))
    target, code = target_of(described["function"])
    return Call.of("run", target, *describer.values, code=code, named=describer.named)


def come_back(load: Load, before: str, now: str, top: str = "", new_top: str | None = None) -> None:
    """Make a call, edit the code, and come back to the call.

    Raises:
        AnotherCallError: It is another one.
    """

    def source(top: str, body: str) -> str:
        return f"{TOP}\n{top}\ndef handler():\n{indent(body, '    ')}\n"

    recorded = Call.read(called_by(load(source(top, before))).json())
    edited = load(source(top if new_top is None else new_top, now))

    def exists(named: str, *, exactly: bool = False) -> bool:
        return is_there(named, exactly, edited.handler, "order", PACKAGES)

    assert recorded is not None
    check_call("pay", recorded, called_by(edited), exists)


def both(template: str, *parts: str) -> list[str]:
    return [template.replace("@", part) for part in parts]


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
        "def a(): return 1\ndef b(): return 2\nreturn (a,)",
        "def a(): return 3\ndef b(): return 2\nreturn (b,)",
    ],
    "another one of two functions with one name": both(
        "if @:\n    def f(): return 1\nelse:\n    def f(): return 2\nreturn (f,)", "True", "False"
    ),
    "the variables exchanged": both("a, b = @\nreturn (lambda: send(a, b),)", "1, 2", "2, 1"),
}


@pytest.mark.parametrize("edit", ANOTHER)
def test_an_edit_that_makes_another_call(load: Load, edit: str) -> None:
    before, now = ANOTHER[edit]
    come_back(load, before, before)
    with pytest.raises(AnotherCallError, match="step 'pay' comes back as another call"):
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
}


@pytest.mark.parametrize("edit", THE_SAME)
def test_an_edit_that_leaves_a_call_what_it_was(load: Load, edit: str) -> None:
    come_back(load, *THE_SAME[edit])


@pytest.mark.parametrize("alias", ["", "Order = Purchase"])
def test_a_class_that_was_renamed_makes_no_other_call(load: Load, alias: str) -> None:
    top = "class Order(BaseModel):\n    id: str\n"
    renamed = f"{top.replace('Order', 'Purchase')}{alias}\n"
    come_back(load, "return send, Order(id='1')", "return send, Purchase(id='1')", top, renamed)


def test_a_function_that_was_moved_makes_no_other_call(load: Load) -> None:
    top, moved = "def charge(*given): return given\n", "from edited_app.stripe import charge\n"
    come_back(load, "return charge, 1", "return charge, 1", top, moved)
    come_back(load, "return send, charge", "return send, charge", top, moved)


def test_the_message_names_what_has_taken_the_place_of_what(load: Load) -> None:
    before, now = ANOTHER["another class with the same fields"]
    with pytest.raises(AnotherCallError, match="with 'edited_app:Bank' in place of 'edited_app:Card'"):
        come_back(load, before, now)
    before, now = ANOTHER["another module"]
    with pytest.raises(AnotherCallError, match=r"with 'module edited_app\.paypal' in place of"):
        come_back(load, before, now)


@pytest.mark.parametrize(
    "named", ["{", "{}", '{"generic": 5}', "[", "a:b:c", "function ", "function x: y #z", "module "]
)
def test_a_name_that_nobody_has_made_is_of_nothing_that_exists(load: Load, named: str) -> None:
    handler = load("def handler(): pass").handler
    assert not is_there(named, False, handler, "order", PACKAGES)


@pytest.mark.parametrize("named", ["text", [1], {}, ["shop:Order"] * (MAX_NAMED + 1)])
def test_a_description_with_names_that_nobody_has_made_is_none(named: Any) -> None:
    assert Call.read(["run", "shop:charge", "", "", "", "", named]) is None
