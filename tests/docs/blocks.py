"""The commands in the fenced blocks of pages, as a shell takes them apart."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(r"^```(?:console|bash|sh|shell)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")

_STUBS = r"""
record() { printf '%s\0' "$@" >&9; printf '\x1e\0' >&9; }
command_not_found_handle() { if [ "$1" = git ]; then echo abc1234; else record "$@"; fi; }
.() { record . "$@"; }
export() { record export "$@"; builtin export "$@"; }
PATH=$PWD/.bin
"""
"""No program is found, so each that is called is written down; what is built into the shell happens."""


@dataclass(frozen=True, slots=True)
class Typed:
    """A command of a page.

    Attributes:
        page: The page.
        words: What it consists of, without quotes and comments.
    """

    page: str
    words: tuple[str, ...]

    @property
    def program(self) -> str:
        return self.words[0]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def commands_in(page: str, folder: Path) -> list[Typed]:
    """The commands of a page, in their order.

    Args:
        page: The page, from the root of the repository.
        folder: Where they are typed.
    """
    blocks = _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    assert all(block.startswith("$ ") for block in blocks), f"a block of {page} does not begin with a command"
    script = re.sub(r"^\$ ", "", "\n".join(blocks), flags=re.MULTILINE)
    (folder / ".bin").mkdir(exist_ok=True)
    if not (cat := folder / ".bin/cat").exists():
        cat.symlink_to(shutil.which("cat") or "/bin/cat")
    (folder / ".script").write_text(_STUBS + script)
    with (folder / ".commands").open("w+b") as written:
        # The words go to descriptor 9, as theirs is the standard output.
        ended = subprocess.run(
            ["bash", "-c", f"exec 9>&{written.fileno()}; . ./.script"],
            cwd=folder,
            pass_fds=[written.fileno()],
            capture_output=True,
            text=True,
            check=False,
        )
        written.seek(0)
        records = written.read().decode().split("\0\x1e\0")[:-1]
    assert (ended.returncode, ended.stderr) == (0, ""), f"{page}: {ended.stderr}"
    return [Typed(page, tuple(record.split("\0"))) for record in records]


def python_in(page: str) -> list[str]:
    """The Python blocks of a page."""
    return _PYTHON.findall((ROOT / page).read_text(encoding="utf-8"))


def spans_in(page: str) -> list[str]:
    """The commands within the text of a page: spans of code that begin with ``steporal``."""
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [span for span in _SPAN.findall(text) if span.startswith("steporal ")]
