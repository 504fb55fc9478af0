"""Writes the table of all names in histories into docs/wire-names.md; a test checks that it is up to date."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from steporal.wire import names

TARGET = Path(__file__).with_name("wire-names.md")
TABLES = re.compile(r"## .*", re.DOTALL)
_HEADING = re.compile(r"# --- (.+?) -+$", re.MULTILINE)
_ROW = re.compile(r"^\| `(.*?)` \| (.*?) \| (\S+) \|$", re.MULTILINE)


def page(before: str, version: str) -> str:
    """Return the page: names that it has already keep the version since which they exist.

    Args:
        before: The page as it is.
        version: The version that adds the others.

    Raises:
        LookupError: A name of an earlier version is gone, or has another value.
    """
    since = {row[1]: row[3] for row in _ROW.finditer(before)}
    source = Path(names.__file__).read_text(encoding="utf-8")
    headings = [(source.count("\n", 0, match.start()) + 1, match[1]) for match in _HEADING.finditer(source)]
    body = ast.parse(source).body
    blocks: dict[str, list[str]] = {}
    for position, statement in enumerate(body):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.value, ast.Constant):
            continue
        heading = [text for line, text in headings if line < statement.lineno][-1]
        following = body[position + 1] if position + 1 < len(body) else None
        is_described = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        meaning = str(following.value.value) if is_described else ""  # type: ignore[union-attr]
        value = statement.value.value
        row = f"| `{value}` | {meaning.replace('``', '`').replace('|', '/')} | {since.get(value, version)} |"
        blocks.setdefault(heading, []).append(row)
    rows = "\n".join(row for block in blocks.values() for row in block)
    if gone := [name for name, first in since.items() if first != version and f"| `{name}` |" not in rows]:
        raise LookupError(f"histories of released versions have {gone}, which steporal/wire/names.py no longer has")
    text = [
        f"## {heading[0].upper()}{heading[1:]}\n\n| name | what it is | since |\n|---|---|---|\n" + "\n".join(rows)
        for heading, rows in blocks.items()
    ]
    return TABLES.sub("", before) + "\n\n".join(text) + "\n"


if __name__ == "__main__":
    from steporal import __version__

    TARGET.write_text(page(TARGET.read_text(encoding="utf-8"), __version__), encoding="utf-8")
