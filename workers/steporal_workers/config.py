"""``steporal config``: prints the settings of the processes, and where each value comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from .connection import MASK, Connection
from .output import console, print_json
from .settings import COMMANDS, Value, encryption_keys, tell_unknown_variables, values_of

if TYPE_CHECKING:
    from steporal.encryption import Key

_TEMPORAL = "temporal"

_WITHOUT = ("dev", "codec-server")
"""Commands that do not connect to Temporal, or that run their own server."""


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("command", type=click.Choice(COMMANDS), required=False)
@click.argument("arguments", metavar="[ARGUMENTS]...", nargs=-1, type=click.UNPROCESSED)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def config(command: str | None, arguments: tuple[str, ...], as_json: bool) -> None:
    """Print the settings of COMMAND, or of all commands, and the source of each; secrets are masked.

    COMMAND and ARGUMENTS are what you would start. Nothing is started, and no server is needed. A setting that is not
    valid is an error, as it would be then.
    """
    tell_unknown_variables()
    rows = [row for name in ([command] if command else COMMANDS) for row in _rows(name, list(arguments))]
    rows += _temporal_rows(command or "worker", list(arguments))
    if as_json:
        print_json([dict(zip(("command", "setting", "value", "source"), row, strict=True)) for row in rows])
        return
    console().print(_table(rows))


Row = tuple[str, str, Any, str]


def _rows(name: str, arguments: list[str]) -> list[Row]:
    _, values = values_of(_commands()[name], name, arguments)
    return [(name, value.setting.key(name), _shown(value), value.source) for value in values]


def _temporal_rows(name: str, arguments: list[str]) -> list[Row]:
    """Return the rows of Temporal's connection."""
    ctx, _ = values_of(_commands()[name], name, arguments)
    options = {field: ctx.params[field] for field in Connection.__dataclass_fields__ if field in ctx.params}
    return [(_TEMPORAL, *row) for row in Connection(**options).described()] if name not in _WITHOUT else []


def _commands() -> Mapping[str, click.Command]:
    group = click.get_current_context().find_root().command
    assert isinstance(group, click.Group)
    return group.commands


def _shown(value: Value) -> Any:
    from steporal.durations import format_duration

    if value.setting.type is encryption_keys and value.value:
        return f"{MASK} ({', '.join(key.id for key in _keys(value.value))})"
    if value.setting.is_secret and value.value:
        return f"{MASK} ({len(value.value)})"
    if isinstance(value.value, timedelta):
        return format_duration(value.value)
    if value.setting.may_be_list and value.value:
        return ", ".join(map(str, value.value))
    if value.value is None or value.value == ():
        return value.setting.default_is
    return value.value if isinstance(value.value, bool | int) else str(value.value)


def _keys(texts: Sequence[str]) -> tuple[Key, ...]:
    from steporal.encryption import Keys

    return Keys.of(texts).encryption


def _table(rows: Sequence[Row]) -> Table:
    table = Table("", "setting", "value", "source")
    before = None
    for command, setting, value, source in rows:
        if before not in (None, command):
            table.add_section()
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        table.add_row(command if command != before else "", setting, escape(shown), escape(source))
        before = command
    return table
