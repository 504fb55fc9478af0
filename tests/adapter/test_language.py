"""Docstrings and messages read as English is written: docs/glossary.md has the words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "adapter").rglob("*.py"), *(ROOT / "workers").rglob("*.py")])

OPENINGS = {"What", "Whether", "How", "Who", "Which", "Where", "When", "If"}

PHRASES = re.compile(
    r"\b(?<!there )(is|are) no (?!longer\b|more\b)[a-z]+ *[,;:.]|\b(?<!there )(is|are) none\b|\bof which (?=has|have)\b"
)


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the texts of a module that people read, with their lines."""
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)):
                yield node.lineno, text


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        is_documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if is_documented and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text


@pytest.mark.parametrize("package", ["adapter", "workers"])
def test_docstrings_begin_with_a_noun_or_a_verb(package: str) -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for file in FILES
        if file.is_relative_to(ROOT / package)
        for line, text in docstrings(ast.parse(file.read_text(encoding="utf-8")))
        if text.split()[0].strip(",.:;") in OPENINGS
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", ["adapter", "workers"])
def test_nothing_is_no_thing(package: str) -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{line}: {found[0]}"
        for file in FILES
        if file.is_relative_to(ROOT / package)
        for line, text in texts(ast.parse(file.read_text(encoding="utf-8")))
        if (found := PHRASES.search(text))
    ]
    assert not wrong, "\n".join(wrong)
