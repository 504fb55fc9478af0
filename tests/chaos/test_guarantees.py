"""The page of guarantees names tests; they are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from . import monkey, plays

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "guarantees.md").read_text()


def named() -> list[tuple[str, str]]:
    """File and function of each test that the page names; ``::function`` alone is in the file before it."""
    found: list[tuple[str, str]] = []
    for file, function in re.findall(r"`([\w/]*\.py)?::(\w+)`", PAGE):
        found.append((file or found[-1][0], function))
    return found


@pytest.mark.parametrize(("file", "function"), named(), ids=lambda name: name)
def test_a_test_that_is_named_is_there(file: str, function: str) -> None:
    assert re.search(rf"def {function}\(", (TESTS / file).read_text())


def test_the_plays_and_kills_that_are_named_are_there() -> None:
    names = re.findall(r"plays\.(\w+)", PAGE)
    assert names
    assert {getattr(plays, name) for name in names} <= plays.PLAYS.keys()
    kills = re.findall(r"`(?:Monkey)?\.(kill_\w+|drain_\w+)`", PAGE)
    assert kills
    assert {getattr(monkey.Monkey, name) for name in kills} <= monkey.KILLS.keys()
