"""The tests that a page of the documentation names."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent


def named(page: str) -> list[tuple[str, str]]:
    """Return file and function of each test that a page names; ``::function`` alone is in the file before it."""
    found: list[tuple[str, str]] = []
    for file, function in re.findall(r"`([\w/]*\.py)?::(\w+)`", page):
        found.append((file or found[-1][0], function))
    return found


def is_there(file: str, function: str) -> bool:
    """Return whether a test that is named exists."""
    return re.search(rf"def {function}\(", (TESTS / file).read_text()) is not None
