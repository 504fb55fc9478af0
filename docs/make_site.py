"""Write the pages of the documentation site, which ``make docs-site`` builds.

Pages link to files of the repository, which the site does not have: such a link becomes its text. ``README.md`` is the
first page, and ``CHANGELOG.md`` one of the reference.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "build" / "docs"

_LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<target>[^)\s]+)\)")
_FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)


def page(source: Path, pages: dict[Path, str]) -> str:
    """Return a page of the site.

    Args:
        source: The page in the repository.
        pages: Names on the site, by file of the repository.
    """

    def link(match: re.Match[str]) -> str:
        text, target = match["text"], match["target"]
        if "://" in target or target.startswith(("#", "mailto:")):
            return match[0]
        path, _, anchor = target.partition("#")
        name = pages.get((source.parent / path).resolve())
        return text if name is None else f"[{text}]({name}{'#' if anchor else ''}{anchor})"

    parts = _FENCE.split(source.read_text(encoding="utf-8"))
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in parts)


def main() -> None:
    """Write all pages, and the pictures in them, into ``build/docs``."""
    pictures = {path: path.name for path in sorted((ROOT / "docs").glob("*.svg"))}
    sources = {path: path.name for path in sorted((ROOT / "docs").glob("*.md"))}
    pages = {ROOT / "README.md": "index.md", ROOT / "CHANGELOG.md": "changelog.md", **sources}
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir(parents=True)
    for source, name in pages.items():
        (TARGET / name).write_text(page(source, pages | pictures), encoding="utf-8")
    for source, name in pictures.items():
        shutil.copyfile(source, TARGET / name)
    print(f"{len(pages)} pages in {TARGET.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
