"""A function's code tree: what is written inside it, and how it is told from other code."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest

from steporal.closures.code import fingerprint, imported_into, nested_codes, nonlocal_writes, place, position, unwrapped


def handler(order: int) -> Any:
    factor = 2

    def charge() -> int:
        def tax() -> int:
            return order

        return tax() * factor

    return [charge, lambda: order, [lambda: n for n in range(2)]]


def compiled(source: str, name: str = "f") -> FunctionType:
    """A function from its source."""
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    function: FunctionType = namespace[name]
    return function


def test_the_tree_has_every_nested_function_by_its_path() -> None:
    paths = [nested.path for nested in nested_codes(handler.__code__)]
    assert paths[:3] == ["charge", "charge.<locals>.tax", "<lambda>"]
    assert sum("<lambda>" in path for path in paths) == 2


def test_a_variable_of_the_handler_is_not_outside_and_one_around_it_is() -> None:
    around = 1

    def inner_handler() -> Callable[[], int]:
        own = 2
        return lambda: around + own

    (found,) = nested_codes(inner_handler.__code__)
    assert found.is_outside("around")
    assert not found.is_outside("own")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("lambda: a + 1", "lambda: a + 2"),
        ("lambda: a + 1", "lambda: b + 1"),
        ("lambda: a.x", "lambda: a.y"),
        ("lambda: 1", "lambda: True"),
        ("lambda: 1", "lambda: 1.0"),
        ("lambda: 0.0", "lambda: -0.0"),
        ("lambda: 'a'", "lambda: b'a'"),
        ("lambda: a in {1, 2}", "lambda: a in {1, 3}"),
        ("lambda: (1, 2)", "lambda: (1, '2')"),
        ("lambda n=1: n", "lambda m=1: m"),
        ("lambda *n: n", "lambda **n: n"),
        ("lambda: [x for x in a]", "lambda: [x for x in b]"),
        ("lambda: (lambda: 1)", "lambda: (lambda: 2)"),
    ],
)
def test_code_that_does_something_else_has_another_fingerprint(one: str, other: str) -> None:
    codes = [compiled(f"a = b = None\ndef f(): return {source}").__code__ for source in (one, other)]
    first, second = (nested_codes(code)[0].code for code in codes)
    assert fingerprint(first) != fingerprint(second)


def test_code_that_moved_has_the_same_fingerprint() -> None:
    source = "def f():\n    return lambda a: {'k': a in {'x', 'y', 'z'}, 'n': [i for i in (1, 2)]}"
    moved = compiled("# a comment\n\n\n" + source.replace("lambda", "(  # another\n  lambda") + ")")
    assert fingerprint(nested_codes(compiled(source).__code__)[0].code) == fingerprint(
        nested_codes(moved.__code__)[0].code
    )


def test_nonlocal_writes_are_found_at_any_depth() -> None:
    def outer() -> list[Callable[[], None]]:
        total = seen = 0

        def add() -> None:
            nonlocal total
            total += 1

        def deep() -> None:
            def deeper() -> None:
                nonlocal seen
                del seen

            deeper()

        def own() -> None:
            mine = 0

            def inner() -> None:
                nonlocal mine
                mine += total

            inner()

        return [add, deep, own]

    add, deep, own = outer()
    assert nonlocal_writes(add.__code__) == ("total",)
    assert nonlocal_writes(deep.__code__) == ("seen",)
    assert nonlocal_writes(own.__code__) == ()


def test_the_modules_that_a_function_imports_are_known_by_the_variables_that_have_them() -> None:
    source = """
def f():
    import os
    import xml.dom
    import xml.dom.minidom as parser, json as reader
    from concurrent import futures as later
    other = 5
    return lambda: (os, xml, parser, reader, later, other)
"""
    assert imported_into(compiled(source).__code__) == {
        "os": {"os"},
        "xml": {"xml"},
        "parser": {"xml.dom.minidom", "xml.dom.minidom.minidom"},
        "reader": {"json"},
        "later": {"concurrent.futures"},
    }


def test_a_decorated_function_is_unwrapped() -> None:
    @functools.wraps(handler)
    def wrapper(*args: Any) -> Any:
        return handler(*args)

    assert unwrapped(wrapper) is handler
    assert unwrapped(print) is None


def test_a_position_is_the_file_and_the_line() -> None:
    assert position(handler) == place(handler.__code__) == f"runtime/test_code.py:{handler.__code__.co_firstlineno}"
    assert position(asyncio.sleep).startswith("asyncio/tasks.py:")
    assert position(len) == ""
