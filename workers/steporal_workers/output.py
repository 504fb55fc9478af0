"""Output of commands: data on standard output, everything else on standard error.

Ids, names, messages and data may come from strangers, so everything that is printed here has its control characters
escaped.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from steporal.triggers import CronTrigger

from .escaping import printable
from .logs import is_json, say_as_log

if TYPE_CHECKING:
    from steporal.routing.catalog.listing import AppList, Entry

_WIDTH_OF_A_PIPE = 200


class _Console(Console):
    """Console that sends a terminal no control characters but its own colours and cursor movements."""

    def render_str(self, text: str, **options: Any) -> Text:
        """See base class; tables measure this text, too."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See base class."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def console(*, stderr: bool = False) -> Console:
    """Return a console; it has no colours if the output is not a terminal, or ``NO_COLOR`` is set."""
    result = _Console(stderr=stderr, highlight=False)
    if not result.is_terminal:
        result.width = _WIDTH_OF_A_PIPE
    return result


def say(text: str) -> None:
    """Print a message, in rich's markup, on standard error; log it if the log format is JSON."""
    if is_json():
        say_as_log(Text.from_markup(text).plain)
        return
    console(stderr=True).print(text, soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning on standard error; log it if the log format is JSON."""
    if is_json():
        say_as_log(text, level=logging.WARNING)
        return
    console(stderr=True).print(Text("warning: ", "bold yellow").append(text, "not bold default"), soft_wrap=True)


def print_line(text: str) -> None:
    """Print a line of data, such as an id."""
    click.echo(printable(text))


def print_json(data: Any) -> None:
    """Print data as JSON, with control characters escaped."""
    click.echo(printable(json.dumps(data, ensure_ascii=False, indent=2)))


def apps_table(apps: Iterable[AppList]) -> Table:
    """Return a table of the workflows that apps have registered."""
    table = Table("app", "task queue", "workflow", "triggers")
    for app in sorted(apps, key=lambda app: app.id):
        for position, listed in enumerate(sorted(app.workflows, key=lambda listed: listed.id)):
            shown = (app.id, app.task_queue) if position == 0 else ("", "")
            table.add_row(*shown, listed.id, "\n".join(map(describe_trigger, listed.triggers)) or "-")
        table.add_section()
    return table


def schedules_table(schedules: Sequence[str]) -> Table:
    """Return a table of the Temporal schedules of apps."""
    table = Table("schedule")
    for schedule in schedules:
        table.add_row(schedule)
    return table


def describe_trigger(entry: Entry) -> str:
    """Return a short description of a trigger."""
    if entry.event is None:
        return f"cron {CronTrigger(entry.cron or '', entry.timezone).described}"
    return f"{entry.event} if {entry.if_exp}" if entry.if_exp else entry.event
