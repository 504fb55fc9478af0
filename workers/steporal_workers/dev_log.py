"""The log of workers under ``steporal dev``: a short line for each start, step, error and end, aligned."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterable
from datetime import datetime

import click

from steporal.observability.progress import LOGGER, PROGRESS, Progress, State
from steporal.wire.failures import FAILED_CODE
from steporal.wire.workflow_ids import run_name

from .escaping import one_entry, printable
from .logs import TextFormatter
from .stacks import own_place

_TAIL = 6
_ULID_LENGTH = 26
_MIN_WIDTH = 12
_MARKS: dict[State, tuple[str, str]] = {
    "started": ("▶", "cyan"),
    "waits": ("…", "white"),
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "cancelled": ("-", "yellow"),
}
_ENDS = ("completed", "failed", "cancelled")


def set_up() -> None:
    """Show the progress of runs, and shorten errors."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(DevFormatter())
        handler.addFilter(_is_new)
    logging.getLogger(LOGGER).setLevel(logging.DEBUG)


def align(workflows: Iterable[str]) -> None:
    """Make the column of workflows wide enough for these ids."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, DevFormatter):
            handler.formatter.width = max([handler.formatter.width, *map(len, workflows)])


def _is_new(record: logging.LogRecord) -> bool:
    """Return whether a record adds something to the lines of runs and of `steporal dev`."""
    return not (record.name == "steporal.workflow" and str(record.msg).startswith("run %r failed")) and not (
        record.name == "steporal" and str(record.msg).startswith("app %r is registered")
    )


class DevFormatter(TextFormatter):
    """Formats the progress of runs as ``10:41:39.307  order QQFP1Z  ✓ charge  12 ms``.

    Attributes:
        width: The width of the column of workflows.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self._is_coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        self.width, self._id_width = _MIN_WIDTH, _TAIL

    def format(self, record: logging.LogRecord) -> str:
        """See base class."""
        clock = self._paint(datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3], "bright_black")
        progress: Progress | None = getattr(record, PROGRESS, None)
        if progress is not None:
            return f"{clock}  {self._run(progress.workflow, progress.workflow_id)}  {self._change(progress)}"
        if getattr(record, FAILED_CODE, False) and record.exc_info:
            place = own_place("".join(traceback.format_tb(record.exc_info[2])))
            first = f"{clock}  {self._of_run(record)}{self._paint('!', 'yellow')} {one_entry(_without_run(record))}"
            return "\n".join([first, *(f"{' ' * 16}{printable(line)}" for line in (place.lines if place else ()))])
        return super().format(record)

    def _run(self, workflow: str, workflow_id: str) -> str:
        workflow, id = one_entry(workflow), one_entry(_short(workflow_id))
        self.width, self._id_width = max(self.width, len(workflow)), max(self._id_width, len(id))
        name = self._paint(workflow.ljust(self.width), None, bold=True)
        return f"{name} {self._paint(id.ljust(self._id_width), 'bright_black')}"

    def _of_run(self, record: logging.LogRecord) -> str:
        info = getattr(record, "temporal_activity", None) or getattr(record, "temporal_workflow", None)
        return f"{self._run(info['workflow_type'], info['workflow_id'])}  " if info else ""

    def _change(self, progress: Progress) -> str:
        mark, colour = _MARKS[progress.state]
        if progress.step is None:
            mark = "■" if progress.state in _ENDS else mark
            words = [progress.state, progress.detail]
            words += [progress.workflow_id] if progress.state == "started" else []
        else:
            words = [progress.step, progress.detail if progress.state != "failed" else f"failed: {progress.detail}"]
        took = "" if progress.seconds is None else self._paint(f"  {_took(progress.seconds)}", "bright_black")
        return f"{self._paint(mark, colour)} {one_entry(' '.join(filter(None, words)))}{took}"

    def _paint(self, text: str, colour: str | None, *, bold: bool = False) -> str:
        return click.style(text, fg=colour, bold=bold or None) if self._is_coloured else text


def _short(workflow_id: str) -> str:
    """Return a short id for a run: the end of its event's id, or the beginning of an id that a user chose."""
    name = run_name(workflow_id)
    id = name.event_id if name else workflow_id
    return id[-_TAIL:] if len(id) == _ULID_LENGTH else id[:_MIN_WIDTH]


def _without_run(record: logging.LogRecord) -> str:
    """Return the message without the ids that the line begins with."""
    text = record.getMessage()
    info = getattr(record, "temporal_activity", None)
    return text.replace(f" of run {info['workflow_id']!r}", "", 1) if info else text


def _took(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
