"""Definition of the commands ``steporal runs ...``: arguments and flags, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ..options import Group, checking_option, client_of, codec_option, connection_options, data_converter, json_option
from ..problems import perform

if TYPE_CHECKING:
    from steporal.operations.queries import Filters

STATUSES = ("running", "stuck", "completed", "failed", "cancelled", "terminated", "timed-out")


def _since(context: click.Context, parameter: click.Parameter, text: str | None) -> datetime | None:
    """Parse a time, or a duration before now."""
    from steporal.durations import parse_duration

    if text is None:
        return None
    try:
        return datetime.now(UTC) - parse_duration(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f'{text!r} is neither a duration, such as "1h30m", nor a time, such as 2030-01-31T09:00:00+01:00'
        ) from None
    return moment.astimezone()  # without a time zone, it is in that of this machine


_FILTERS = (
    click.option("--workflow", metavar="ID", help="Only the runs of this workflow."),
    click.option("--app", metavar="ID", help="Only the runs of this app."),
    click.option("--event", metavar="NAME", help="Only runs that this event started; `order.*` is a pattern."),
    click.option("--event-id", metavar="ID", help="Only runs that the event with this id started."),
    click.option("--since", metavar="WHEN", callback=_since, help="Only runs since then: 1h30m, or an ISO 8601 time."),
    click.option("--where", metavar="QUERY", help="Only runs that match this query, in Temporal's query language."),
)


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags that select runs to a command."""
    for option in reversed(_FILTERS):
        command = option(command)
    return command


def _filters(options: dict[str, Any]) -> Filters:
    from steporal.operations.queries import Filters

    return Filters(**options)


@click.group(cls=Group)
def runs() -> None:
    """Find runs, show them, end them, and run them again.

    A run has two ids: its own, ctx.run_id, and Temporal's workflow id, {app}/{workflow}/{event id}. Every command
    accepts both.
    """


@runs.command("list")
@filter_options
@click.option("--status", type=click.Choice(STATUSES), help="Only runs with this status.")
@click.option("--limit", type=click.IntRange(min=1), default=20, metavar="N", help="The maximum number of runs.")
@connection_options
@codec_option
@json_option
def list_command(connection: Any, codec: str | None, limit: int, as_json: bool, **options: Any) -> None:
    """List open runs and the runs that ended last, the most recently started first."""
    from .listing import run_list

    async def operation() -> None:
        temporal = await connection.connect(data_converter(codec))
        await run_list(temporal, _filters(options), limit=limit, as_json=as_json)

    perform(operation())


@runs.command()
@click.argument("id")
@click.option("--watch", is_flag=True, help="Refresh the output until the run ends.")
@click.option("--stack", is_flag=True, help="Show all lines of the stack traces of errors.")
@connection_options
@codec_option
@json_option
def show(id: str, watch: bool, stack: bool, connection: Any, codec: str | None, as_json: bool) -> None:
    """Show what the run ID has done, step by step, and what it waits for.

    An error is shown with the line of your code that raised it.
    """
    from .showing import run_show

    if watch and as_json:
        raise click.UsageError("--watch is for people, and --json for programs: use one of them")

    async def operation() -> None:
        temporal = await connection.connect(data_converter(codec))
        await run_show(temporal, id, watch=watch, stack=stack, as_json=as_json)

    perform(operation())


@runs.command()
@click.argument("id")
@click.option("--wait", is_flag=True, help="Wait until the run ends.")
@connection_options
@codec_option
@json_option
def result(id: str, wait: bool, connection: Any, codec: str | None, as_json: bool) -> None:
    """Print the result of the run ID, as JSON. Exits with 1, and prints the error, if the run failed."""
    from .ending import run_result

    async def operation() -> None:
        await run_result(await connection.connect(data_converter(codec)), id, wait=wait, as_json=as_json)

    perform(operation())


@runs.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@filter_options
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask for confirmation.")
@connection_options
@json_option
def cancel(ids: tuple[str, ...], **options: Any) -> None:
    """Cancel runs: those with these ids, or all open runs that the flags select.

    Running steps receive Temporal's cancellation, and `finally` may run further steps.
    """
    _end("cancel", ids, reason=None, **options)


@runs.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@filter_options
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask for confirmation.")
@click.option("--reason", metavar="TEXT", help="The reason, which Temporal records.")
@connection_options
@json_option
def terminate(ids: tuple[str, ...], **options: Any) -> None:
    """End runs immediately: those with these ids, or all open runs that the flags select.

    None of their code runs any more: no `finally`, no failure handler, and no event reports the end.
    """
    _end("terminate", ids, **options)


def _end(
    verb: Any,
    ids: tuple[str, ...],
    *,
    connection: Any,
    reason: str | None,
    is_sure: bool,
    as_json: bool,
    **options: Any,
) -> None:
    from .ending import run_batch, run_end

    is_query = any(value is not None for value in options.values())
    if bool(ids) == is_query:
        raise click.UsageError(f"{verb} takes ids of runs, or flags that select runs, such as --where QUERY")

    async def operation() -> None:
        temporal = await connection.connect()
        if ids:
            await run_end(temporal, verb, ids, reason=reason, as_json=as_json)
        else:
            filters = _filters({**options, "status": "running"})
            await run_batch(temporal, verb, filters, reason=reason, is_sure=is_sure, as_json=as_json)

    perform(operation())


@runs.command()
@click.argument("id")
@click.option(
    "--from", "from_step", metavar="STEP", help="Keep the results of the steps that finished before this step."
)
@click.option("--input", "data", metavar="JSON", help="A new input; - reads it from standard input, @FILE from a file.")
@connection_options
@checking_option
@json_option
def rerun(id: str, from_step: str | None, data: str | None, connection: Any, codec: str | None, as_json: bool) -> None:
    """Run the work of the run ID again, in a new run, and print the new run's workflow id.

    The new run has the same input and its own event id. With --from, it begins with what had finished when that step
    began; its waits, listeners and ids are its own.
    """
    from ..arguments import read_json

    value = None if data is None else read_json(data, "--input")
    from steporal.operations.rerun import SAME

    from .rerun import run_rerun

    client = client_of(codec)

    async def operation() -> None:
        temporal = await connection.connect(None if client is None else client.data_converter)
        new_input = SAME if data is None else value
        await run_rerun(temporal, id, definitions=client, from_step=from_step, data=new_input, as_json=as_json)

    perform(operation())
