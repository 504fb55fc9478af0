"""Suggestions for wrong usage of the command line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

import click

_OTHER_OPTIONS = {
    "--data": ("--input",),
    "--input": ("--data",),
    "--payload": ("--data", "--input"),
    "--event-id": ("--id",),
    "--run-id": ("--id",),
    "--workflow-id": ("--id",),
    "--host": ("--address",),
    "--server": ("--address",),
    "--follow": ("--watch",),
    "--module": ("--client",),
}
"""Options that users may try, each with the options of this CLI that it may mean."""

_OTHER_COMMANDS = {
    "": {
        "help": "`steporal --help`, or `steporal COMMAND --help`",
        "run": "`steporal worker MODULE:CLIENT` to serve workflows, or `steporal start WORKFLOW` to start a run",
        "serve": "`steporal worker MODULE:CLIENT`",
        "trigger": "`steporal send NAME`",
        "event": "`steporal send NAME`",
        "invoke": "`steporal start WORKFLOW`",
        "list": "`steporal runs list`",
        "show": "`steporal runs show ID`",
        "status": "`steporal runs show ID`",
        "result": "`steporal runs result ID`",
        "cancel": "`steporal runs cancel ID`",
        "terminate": "`steporal runs terminate ID`",
        "rerun": "`steporal runs rerun ID`",
        "workflows": "`steporal catalog`",
        "register": "`steporal sync MODULE:CLIENT`",
    },
    "runs": {"start": "`steporal start WORKFLOW`", "signal": "`steporal runs send-signal NAME`"},
}
"""Commands that users may try, by group, each with the command of this CLI."""

_CHOOSES = "choose runs with --workflow ID or --where QUERY"
_OF_COMMANDS = {
    "replay": f"name a history with --history FILE, or {_CHOOSES}",
    "recover": _CHOOSES,
    "checkpoint": _CHOOSES,
    "list": "`steporal runs show ID` shows a run",
}
_DATA = ("--data", "--input")


def of_extra_arguments(context: click.Context, extra: Sequence[str]) -> str:
    """Return the message for arguments that a command does not take."""
    command = context.command
    takes = " ".join(p.make_metavar(context) for p in command.params if isinstance(p, click.Argument))
    taken = f"{takes} only" if takes else "no arguments"
    fact = f"{context.command_path} takes {taken}, but got the extra arguments {' '.join(map(shlex.quote, extra))}"
    options = _options(command)
    if data := next((name for name in _DATA if name in options), None):
        example = shlex.quote(extra[0]) if _is_json(extra[0]) else "JSON"
        return f"{fact}; data is written as {data} {example}"
    advice = _OF_COMMANDS.get(command.name or "")
    return f"{fact}; {advice}" if advice else fact


def of_unknown_option(context: click.Context, name: str) -> str | None:
    """Return the message for an option that a command does not have; None if click's own message is as good."""
    command = context.command
    if isinstance(command, click.Group):
        if any(name in _options(each) for each in command.commands.values()):
            return f"write {name} after the command, as in {context.command_path} COMMAND {name} ..."
        return None
    options = _options(command)
    other = next((other for other in _OTHER_OPTIONS.get(name, ()) if other in options), None)
    return f"{context.command_path} has no option {name}; write {other}" if other else None


def of_unknown_command(context: click.Context, name: str) -> str | None:
    """Return the message for a command that a group does not have; None if click's own message is as good."""
    group = context.command
    of_group = "" if context.parent is None else group.name or ""
    instead = _OTHER_COMMANDS.get(of_group, {}).get(name)
    if instead is None and of_group == "runs" and "/" in name:
        instead = f"`steporal runs show {shlex.quote(name)}`"
    return f"{context.command_path} has no command {name!r}; write {instead}" if instead else None


def of_text_for_json(text: str) -> str:
    """Return a hint for text on the command line that is not valid JSON; empty if there is none."""
    if text[:1] in ("{", "["):
        return "; put single quotes around it, so that the shell keeps its double quotes: '{\"id\": 1}'"
    return f"; text is written with double quotes: {shlex.quote(json.dumps(text))}" if text.isprintable() else ""


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _options(command: click.Command) -> set[str]:
    return {name for parameter in command.params if isinstance(parameter, click.Option) for name in parameter.opts}
