"""Findings as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Finding:
    """Code in a body that another run of the same code would not repeat.

    Attributes:
        file: The absolute path of the file.
        line: The line, from 1.
        workflow: The workflow's id.
        does: The description: ``calls time.time``, ``reads os.environ``.
        instead: The remedy: ``use ctx.now(), or put it in a step.run(...)``.
        called_from: The lines that lead there from the body, as ``file:line``; empty if the code is in the body.
        is_warning: Whether the code is correct, and only an edit of it needs care.
    """

    file: str
    line: int
    workflow: str
    does: str
    instead: str
    called_from: tuple[str, ...] = ()
    is_warning: bool = False

    def __str__(self) -> str:
        way = f" (called from {', '.join(map(_shown, self.called_from))})" if self.called_from else ""
        return f"{_shown(self.file)}:{self.line}: workflow {self.workflow!r} {self.does}{way}; {self.instead}"


def _shown(path: str) -> str:
    """Return a path relative to the working directory, if the path is inside it."""
    here = str(Path.cwd())
    return path.removeprefix(here).lstrip("/\\") if path.startswith(here) else path
