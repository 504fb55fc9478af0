"""What commands print: data on standard output, everything else on standard error.

Ids, names, messages and data may be a stranger's: whatever is printed here has its control characters escaped.
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
    """A console whose own colours and cursor movements are all that a terminal is told."""

    def render_str(self, text: str, **given: Any) -> Text:
        """See base class; what a table measures, too."""
        return super().render_str(printable(text), **given)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See base class."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def console(*, stderr: bool = False) -> Console:
    """A console without colours where the output is no terminal, or ``NO_COLOR`` is set."""
    made = _Console(stderr=stderr, highlight=False)
    if not made.is_terminal:
        made.width = _WIDTH_OF_A_PIPE
    return made


def say(text: str) -> None:
    """Tell people something that is not data, in rich's markup; where everything is logged as JSON, log it."""
    if is_json():
        say_as_log(Text.from_markup(text).plain)
        return
    console(stderr=True).print(text, soft_wrap=True)


def warn(text: str) -> None:
    """Tell people of something that they may not have meant; where everything is logged as JSON, log it."""
    if is_json():
        say_as_log(text, level=logging.WARNING)
        return
    console(stderr=True).print(Text("warning: ", "bold yellow").append(text, "not bold default"), soft_wrap=True)


def print_line(text: str) -> None:
    """Print a line of data, such as an id."""
    click.echo(printable(text))


def print_json(data: Any) -> None:
    """Print data for programs; control characters as JSON writes them."""
    click.echo(printable(json.dumps(data, ensure_ascii=False, indent=2)))


def apps_table(apps: Iterable[AppList]) -> Table:
    """What apps have registered, one row for each workflow."""
    table = Table("app", "task queue", "workflow", "triggers")
    for app in sorted(apps, key=lambda app: app.id):
        for position, listed in enumerate(sorted(app.workflows, key=lambda listed: listed.id)):
            shown = (app.id, app.task_queue) if position == 0 else ("", "")
            table.add_row(*shown, listed.id, "\n".join(map(describe_trigger, listed.triggers)) or "-")
        table.add_section()
    return table


def schedules_table(schedules: Sequence[str]) -> Table:
    """The Temporal schedules of apps."""
    table = Table("schedule")
    for schedule in schedules:
        table.add_row(schedule)
    return table


def describe_trigger(entry: Entry) -> str:
    """A trigger in a few words."""
    if entry.event is None:
        return f"cron {CronTrigger(entry.cron or '', entry.timezone).described}"
    return f"{entry.event} if {entry.if_exp}" if entry.if_exp else entry.event
