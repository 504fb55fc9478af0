"""Docstrings and messages read as English is written: docs/glossary.md has the words."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

OPENINGS = {"What", "Whether", "How", "Who", "Which", "Where", "When", "If"}

PHRASES = re.compile(
    r"\b(?<!there )(is|are) no (?!longer\b|more\b)[a-z]+ *[,;:.]|\b(?<!there )(is|are) none\b|\bof which (?=has|have)\b"
)


def texts(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield the texts of a module."""
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))


def docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield the docstrings of a module, its classes, functions, attributes and constants."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        is_documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for before, each in pairwise([None, *body]):
            match each:
                case ast.Expr(value=ast.Constant(value=str()) as text):
                    if (before is None and is_documented) or isinstance(before, ast.Assign | ast.AnnAssign):
                        yield text


def begins_wrong(text: str) -> bool:
    return text.split(maxsplit=1)[0].strip(",.:;") in OPENINGS


@pytest.mark.parametrize("package", ["adapter", "workers"])
@pytest.mark.parametrize(
    ("parts", "is_wrong"), [(docstrings, begins_wrong), (texts, PHRASES.search)], ids=["openings", "phrases"]
)
def test_texts_are_written_as_the_style_says(
    package: str, parts: Callable[[ast.Module], Iterator[ast.Constant]], is_wrong: Callable[[str], object]
) -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{text.lineno}: {str(text.value).splitlines()[0]}"
        for file in sorted((ROOT / package).rglob("*.py"))
        for text in parts(ast.parse(file.read_text(encoding="utf-8")))
        if is_wrong(str(text.value))
    ]
    assert not wrong, "\n".join(wrong)
