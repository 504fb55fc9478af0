"""``steporal lint``: finds nondeterministic calls in the bodies of an app's workflows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich.markup import escape

import steporal
from steporal.lint import Finding, findings

from .output import console, print_json, say
from .problems import Mistake


def run_lint(client: steporal.Client, target: str, *, as_json: bool) -> int:
    """Print the findings, and return the exit status: 1 if there is any other than a warning.

    Raises:
        Mistake: The app has no workflows to check.
    """
    if not client.workflows:
        module = target.partition(":")[0]
        raise Mistake(
            f"app {client.id!r} has no workflows once {module!r} is imported, so there is nothing to check; name the "
            "module that imports the modules with its workflows, as you do for `steporal worker`"
        )
    results = findings(client)
    if as_json:
        print_json([asdict(finding) for finding in results])
        return _status(results)
    shown = console()
    for finding in results:
        shown.print(_in_colour(finding), soft_wrap=True)
    count = len(client.workflows)
    workflows = f"{count} workflow{'s' * (count != 1)} of app {client.id!r}"
    if results:
        number = f"{len(results)} finding{'s' * (len(results) != 1)}"
        say(
            f"{escape(workflows)}: [red]{number}[/]; to accept a line as it is, add the comment "
            f"{escape('# steporal: ignore')}"
        )
    else:
        say(f"{escape(workflows)}: [green]nothing found[/]")
    return _status(results)


def _status(found: Sequence[Finding]) -> int:
    return int(any(not finding.is_warning for finding in found))


def _in_colour(finding: Finding) -> str:
    place, _, rest = str(finding).partition(": ")
    if finding.is_warning:
        rest = f"warning: {rest}"
    what, _, instead = rest.rpartition("; ")
    return f"[bold]{escape(place)}[/]: [yellow]{escape(what)}[/]; {escape(instead)}"
