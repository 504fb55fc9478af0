"""The page of guarantees names tests; they are there."""

from __future__ import annotations

import re

import pytest
from named_tests import TESTS, is_there, named

from . import monkey, plays

PAGE = (TESTS.parent / "docs" / "guarantees.md").read_text()


@pytest.mark.parametrize(("file", "function"), named(PAGE), ids=lambda name: name)
def test_a_test_that_is_named_is_there(file: str, function: str) -> None:
    assert is_there(file, function)


def test_the_plays_and_kills_that_are_named_are_there() -> None:
    names = re.findall(r"plays\.(\w+)", PAGE)
    assert names
    assert {getattr(plays, name) for name in names} <= plays.PLAYS.keys()
    kills = re.findall(r"`(?:Monkey)?\.(kill_\w+|drain_\w+)`", PAGE)
    assert kills
    assert {getattr(monkey.Monkey, name) for name in kills} <= monkey.KILLS.keys()
