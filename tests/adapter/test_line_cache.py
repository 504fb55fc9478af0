"""Another thread may change the cache of source lines at any moment, when it shows an exception of a changed file."""

from __future__ import annotations

import importlib
import linecache
import sys
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

from steporal.closures import member_names, syntax
from steporal.closures.references import Describer
from steporal.closures.source import parsed
from steporal.lint import bodies

SOURCE = '''
def one():
    return """a"""


def two():
    return 1 / 0
'''


class Cache(dict[str, Any]):
    """A cache from which another thread drops each entry once, just after it was found to be there."""

    def __init__(self, file: str) -> None:
        super().__init__({file: linecache.cache[file]})
        self._dropped = False

    def __contains__(self, file: object) -> bool:
        if (is_there := super().__contains__(file)) and not self._dropped:
            self._dropped = True
            del self[file]
        return is_there


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FunctionType:
    """A function of a file whose lines another thread drops from the cache."""
    file = tmp_path / "app.py"
    file.write_text(SOURCE)
    code = compile(SOURCE, file, "exec")
    linecache.getlines(str(file))
    monkeypatch.setattr(linecache, "cache", Cache(str(file)))
    return FunctionType(next(it for it in code.co_consts if isinstance(it, CodeType) and it.co_name == "two"), {})


def test_the_source_of_a_function_is_read(two: FunctionType) -> None:
    tree = parsed(two)
    assert tree is not None
    assert tree.lineno == 6


def test_the_names_of_a_module_are_read(two: FunctionType) -> None:
    assert dict(member_names._bindings(two.__code__.co_filename, "")) == {"one": None, "two": None}


def test_a_line_that_lint_is_to_ignore_is_read(two: FunctionType) -> None:
    tree = bodies.parsed(two)
    assert tree is not None
    assert syntax.lines_of(two.__code__.co_filename)[tree.lineno - 1] == "def two():\n"


def test_a_traceback_is_shown(two: FunctionType) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        two()
    assert "return 1 / 0" in syntax.format_stack(caught.tb)


@pytest.mark.parametrize("text", ['def other():\n    """without an end\n' * 3, "", "\n" * 5 + "def f(:\n"])
def test_a_file_that_was_changed_meanwhile_has_no_source(
    monkeypatch: pytest.MonkeyPatch, two: FunctionType, text: str
) -> None:
    Path(two.__code__.co_filename).write_text(text)
    monkeypatch.setattr(linecache, "cache", {})
    assert parsed(two) is None


UNNAMED = """
def unnamed(function):
    def inner(*arguments):
        return function(*arguments)
    return inner

@unnamed
def charge(amount):
    return amount
"""

HANDLER = """
import steporal
{top}
client = steporal.Client("copied")

@client.workflow(id="order")
async def order(ctx, step):
    return await step.run("charge", charge, 1)
"""


@pytest.mark.parametrize("is_imported", [False, True])
def test_a_function_is_named_as_in_the_file_that_was_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_imported: bool
) -> None:
    """A deployment may copy new files under workers that still run."""
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "copied_app"
    package.mkdir()
    files = {"__init__": "", "payments": UNNAMED, "main": HANDLER.format(top=UNNAMED)}
    if is_imported:
        files["main"] = HANDLER.format(top="from .payments import charge")
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    main = importlib.import_module("copied_app.main")
    for name in files:
        (package / f"{name}.py").write_text("# edited\n")
    linecache.checkcache()
    try:
        describer = Describer("order", main.order.handler, {"copied_app"}, NoRun())
        described = describer.call("charge", main.charge, (1,))
    finally:
        for name in [name for name in sys.modules if name.startswith("copied_app")]:
            del sys.modules[name]
    assert described["function"] == {
        "$": "function",
        "name": f"copied_app.{'payments' if is_imported else 'main'}:charge",
    }


class NoRun:
    """Captures nothing of a run."""

    def encode(self, value: Any) -> None:
        return None

    def is_step(self, value: Any) -> bool:
        return False
