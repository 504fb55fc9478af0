"""Definition of the command ``steporal``: its subcommands, arguments and flags, and nothing else.

Each subcommand imports its implementation when it runs, so that ``steporal --help`` answers at once.
"""

from __future__ import annotations

import platform
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from .arguments import duration, whole_number
from .config import config
from .connection import Connection
from .gateway.options import GatewayOptions
from .leaving import leave
from .logs import log_without_settings, name_app, set_up_logging
from .options import (
    Group,
    checking_option,
    client_of,
    codec_option,
    connection_options,
    data_converter,
    json_option,
    target_argument,
    targets_argument,
)
from .problems import missing, perform
from .runs.command import runs
from .settings import file_of, settings_of, tell_unknown_variables, values_of
from .telemetry import MetricsOptions, set_up_runtime
from .traces import exporter_of, exporting


def _print_versions(ctx: click.Context, param: click.Parameter, is_requested: bool) -> None:
    if is_requested and not ctx.resilient_parsing:
        import temporalio.service

        import steporal

        python = platform.python_version()
        click.echo(f"steporal {steporal.__version__} (temporalio {temporalio.service.__version__}, Python {python})")
        ctx.exit()


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_versions,
    help="Show the versions of Steporal, Temporal's SDK and Python, and exit.",
)
def cli() -> None:
    """Durable functions in plain Python, on Temporal.

    Start with `steporal dev MODULE:CLIENT`. It runs a Temporal dev server, and a worker for the client in the variable
    CLIENT of MODULE, such as shop:client.

    Commands connect to Temporal with flags, Temporal's environment variables (TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE,
    TEMPORAL_API_KEY, ...) and the profiles of its configuration file, in this order. worker, gateway and dev also
    read STEPORAL_... variables and the file steporal.toml; `steporal config` prints the settings.
    """


@cli.command()
@target_argument
@connection_options
@settings_of("worker")
def worker(target: str, connection: Connection, **settings: Any) -> None:
    """Serve a client's workflows, until SIGTERM or SIGINT."""
    from .loading import load_client
    from .serving import serve

    serve(lambda: load_client(target), connection, **settings)


@cli.command("gateway")
@target_argument
@connection_options
@settings_of("gateway")
def gateway_command(target: str, connection: Connection, log_level: str, log_format: str, **options: Any) -> None:
    """Accept events over HTTP, with Inngest's API, until SIGTERM or SIGINT.

    STEPORAL_EVENT_KEYS holds the event keys, and STEPORAL_API_KEYS the keys for the rest of the API, separated by
    commas.
    """
    try:
        from .gateway.command import keys_of, run_gateway
    except ModuleNotFoundError as err:
        raise missing(err, "gateway") from None
    from .loading import load_client

    set_up_logging(log_level, log_format)
    tell_unknown_variables()
    exporter = exporter_of(options.pop("traces"))
    set_up_runtime(metrics=MetricsOptions.of(options))
    gateway_options = GatewayOptions(**options)
    keys = keys_of(gateway_options)
    client = load_client(target)
    name_app(client.id)
    with exporting(exporter, f"{client.id}-gateway") as plugins:

        async def serve() -> None:
            await run_gateway(client, await connection.connect(client.data_converter, plugins), keys, gateway_options)

        perform(serve())


@cli.command("codec-server")
@settings_of("codec-server")
def codec_server_command(log_level: str, log_format: str, **options: Any) -> None:
    """Decrypt values for Temporal's UI and command line, until SIGTERM or SIGINT.

    STEPORAL_CODEC_KEYS holds the access keys, separated by commas; requests send one in the header Authorization:
    Bearer KEY. Values are decrypted with STEPORAL_ENCRYPTION_KEYS and STEPORAL_DECRYPTION_KEYS.
    """
    try:
        from .codec.command import run_codec_server
    except ModuleNotFoundError as err:
        raise missing(err, "gateway") from None
    from .codec.options import CodecOptions

    set_up_logging(log_level, log_format)
    tell_unknown_variables()
    perform(run_codec_server(CodecOptions(**options)))


@cli.group(cls=Group)
def encryption() -> None:
    """Manage the keys that encrypt values in Temporal."""


@encryption.command("new-key")
def new_key_command() -> None:
    """Print a new key, for STEPORAL_ENCRYPTION_KEYS or STEPORAL_DECRYPTION_KEYS."""
    from steporal.encryption import new_key

    click.echo(new_key())


@cli.command()
@targets_argument
@settings_of("dev")
def dev(targets: tuple[str, ...], **options: Any) -> None:
    """Run a Temporal dev server, an HTTP gateway, and workers that restart when the code changes."""
    from .loading import check_exists

    try:
        from .dev import DevOptions, run_dev
    except ModuleNotFoundError as err:
        raise missing(err, "dev") from None
    set_up_logging(options["log_level"], options["log_format"])
    tell_unknown_variables()
    for target in targets:
        check_exists(target)
    dev_options = DevOptions(config_file=file_of(click.get_current_context()), **options)
    with exporting(exporter_of(dev_options.traces), "steporal-gateway") as plugins:
        perform(run_dev(targets, dev_options, plugins))


@cli.command()
@click.argument("name")
@click.option(
    "--data",
    metavar="JSON",
    default="{}",
    help="The data, a JSON object; - reads it from standard input, @FILE from a file.",
)
@click.option("--id", "event_id", metavar="ID", help="The event's id; each workflow starts at most once per id.")
@click.option(
    "--ts",
    metavar="TIME",
    help="Milliseconds since the epoch, or an ISO 8601 time; a time in the future delays the runs.",
)
@click.option("--version", "v", metavar="TEXT", help="The version of the data.")
@connection_options
@codec_option
@json_option
def send(name: str, data: str, connection: Connection, codec: str | None, as_json: bool, **fields: Any) -> None:
    """Send the event NAME."""
    from .arguments import parse_ts, read_json

    if name.startswith("{"):
        example = f"steporal send NAME --data {shlex.quote(name)}"
        raise click.UsageError(f"NAME is {name!r}, which looks like data; write {example}")
    optional = {"id": fields["event_id"], "ts": parse_ts(fields["ts"]), "v": fields["v"]}
    event = {"name": name, "data": read_json(data, "--data")} | {k: v for k, v in optional.items() if v is not None}

    from .send import send_event

    async def operation() -> None:
        await send_event(await connection.connect(data_converter(codec)), event, as_json=as_json)

    perform(operation())


@cli.command()
@click.argument("name")
@click.option(
    "--data", metavar="JSON", default="null", help="The data; - reads it from standard input, @FILE from a file."
)
@connection_options
@codec_option
@json_option
def signal(name: str, data: str, connection: Connection, codec: str | None, as_json: bool) -> None:
    """Send the signal NAME to the run that waits for it, and print the run's id."""
    from .arguments import read_json

    value = read_json(data, "--data")
    from .send import send_signal

    async def operation() -> None:
        await send_signal(await connection.connect(data_converter(codec)), name, value, as_json=as_json)

    perform(operation())


@cli.command()
@click.argument("workflow")
@click.option(
    "--input",
    "data",
    metavar="JSON",
    default="null",
    help="The input; - reads it from standard input, @FILE from a file.",
)
@click.option("--app", metavar="ID", help="The app, if several apps have a workflow of this id.")
@click.option("--id", "run_id", metavar="ID", help="Temporal's workflow id of the run.")
@click.option("--wait", is_flag=True, help="Wait until the run ends, and print its result.")
@connection_options
@checking_option
@json_option
def start(workflow: str, data: str, connection: Connection, codec: str | None, **options: Any) -> None:
    """Start a run of WORKFLOW.

    With --client, an input that does not fit the workflow's input_schema is refused before the run starts; without
    --client, the run fails.
    """
    from .arguments import read_json

    value = read_json(data, "--input")
    from .send import start_workflow

    client = client_of(codec)

    async def operation() -> None:
        temporal = await connection.connect(None if client is None else client.data_converter)
        await start_workflow(temporal, workflow, value, definitions=client, **options)

    perform(operation())


@cli.command()
@connection_options
@json_option
def setup(connection: Connection, as_json: bool) -> None:
    """Register Steporal's search attributes in Temporal's namespace, for finding runs. Run it once per namespace."""
    from .setup import run_setup

    async def operation() -> None:
        await run_setup(await connection.connect(), as_json=as_json)

    perform(operation())


@cli.command()
@target_argument
@click.option("--revision", type=whole_number(0), metavar="N", help="The revision number of the code.")
@click.option("--take-over", is_flag=True, help="Register the list whichever list of the app is in force.")
@connection_options
@json_option
def sync(target: str, revision: int | None, take_over: bool, connection: Connection, as_json: bool) -> None:
    """Register a client's workflows and triggers, as a worker does when it starts.

    Changes nothing, and exits with 1, if a list of a higher revision is in force, or the list of the current version in
    Worker Versioning.
    """
    from .loading import load_client

    client = load_client(target)
    client.revision = client.revision if revision is None else revision
    from .registry import sync as register

    async def operation() -> None:
        temporal = await connection.connect(client.data_converter)
        await register(client, temporal, take_over=take_over, as_json=as_json)

    perform(operation())


@cli.command()
@target_argument
@json_option
def lint(target: str, as_json: bool) -> None:
    """Find nondeterministic calls in workflow bodies: time, randomness, network, files, environment, threads.

    Reads the source only: it runs none of it and needs no server. Exits with 1 if it finds something, and with 2 if
    MODULE:CLIENT has no workflows.
    """
    from .loading import load_client

    client = load_client(target)
    from .lint import run_lint

    raise click.exceptions.Exit(run_lint(client, target, as_json=as_json))


@cli.command()
@target_argument
@click.option("--workflow", metavar="ID", help="Only the runs of this workflow.")
@click.option("--where", metavar="QUERY", help="Only runs that match this query, in Temporal's query language.")
@click.option("--hold", type=duration, metavar="DURATION", default="10m", help="Maximum time that runs stay parked.")
@click.option(
    "--timeout", type=duration, metavar="DURATION", default="1m", help="Maximum time to wait for steps in flight."
)
@click.option("--release", is_flag=True, help="Release the runs that an earlier checkpoint holds.")
@connection_options
@json_option
def checkpoint(target: str, connection: Connection, release: bool, as_json: bool, **options: Any) -> None:
    """Park the open runs of an app before its workers are replaced.

    A parked run holds none of the code that it was running, and resumes with the code that is deployed then. Steps that
    have begun finish first; steps that have not begun are held. Exits with 1 if some runs are still busy at the
    timeout; they park as soon as their current step finishes.
    """
    from .loading import load_client

    client = load_client(target)
    from steporal.operations.checkpoint import CheckpointOptions

    from .checkpoint import run_checkpoint, run_release

    async def operation() -> int:
        temporal = await connection.connect(client.data_converter)
        run = run_release if release else run_checkpoint
        return await run(client, temporal, CheckpointOptions(**options), as_json=as_json)

    raise click.exceptions.Exit(perform(operation()))


@cli.command()
@target_argument
@click.option("--workflow", metavar="ID", help="Only the runs of this workflow.")
@click.option("--where", metavar="QUERY", help="Only runs that match this query, in Temporal's query language.")
@click.option("--closed", is_flag=True, help="Include runs that have ended.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="The maximum number of runs, the most recently started first.",
)
@click.option(
    "--history",
    "files",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    metavar="FILE",
    help="Replay this history instead, as `temporal workflow show --output json` writes it; needs no server.",
)
@connection_options
@json_option
def replay(target: str, connection: Connection, files: tuple[Path, ...], **options: Any) -> None:
    """Check that the code fits the open runs of an app, before a deploy.

    Replays the histories of the runs with the code on this machine, and changes nothing. Exits with 1 if a run would be
    stuck.
    """
    from .loading import load_client

    client = load_client(target)
    from .replay import ReplayOptions, run_replay

    set_up_runtime()  # `connection.connect` does it too, but is not called if there are files

    async def operation() -> int:
        converter = connection.converter(client.data_converter)
        temporal = None if files else await connection.connect(client.data_converter)
        return await run_replay(client, temporal, converter, ReplayOptions(files=files, **options))

    raise click.exceptions.Exit(perform(operation()))


@cli.command()
@target_argument
@click.option("--workflow", metavar="ID", help="Only the runs of this workflow.")
@click.option("--where", metavar="QUERY", help="Only runs that match this query, in Temporal's query language.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and change nothing.")
@click.option(
    "--timeout", type=duration, metavar="DURATION", default="1m", help="Maximum time to wait for running steps."
)
@click.option("--interrupt", is_flag=True, help="Do not wait for running steps; they begin again.")
@connection_options
@json_option
def recover(target: str, connection: Connection, as_json: bool, **options: Any) -> None:
    """Continue open runs that are stuck because the code does not fit their histories.

    Reads from Temporal's history what each run has done, and resets the run: it runs from the top with this code, and
    no finished step runs again. Runs that fit the code are left alone. Exits with 1 if some runs are still stuck.
    """
    from .loading import load_client

    client = load_client(target)
    from steporal.operations.recover import RecoverOptions

    from .recover import run_recover

    async def operation() -> int:
        temporal = await connection.connect(client.data_converter)
        return await run_recover(client, temporal, RecoverOptions(**options), as_json=as_json)

    raise click.exceptions.Exit(perform(operation()))


@cli.command()
@connection_options
@codec_option
@json_option
def catalog(connection: Connection, codec: str | None, as_json: bool) -> None:
    """Show the apps, their workflows, triggers and schedules."""
    from .registry import show_catalog

    async def operation() -> None:
        await show_catalog(await connection.connect(data_converter(codec)), as_json=as_json)

    perform(operation())


@cli.command()
@click.option("--keep", is_flag=True, envvar="KEEP", help="Leave the server and its UI up, until Ctrl-C.")
def demo(keep: bool) -> None:
    """Run a short demo on an embedded dev server; needs a clone of the repository."""
    from .demo import run_demo

    perform(run_demo(keep=keep))


@cli.command()
@target_argument
@connection_options
@json_option
def doctor(target: str, connection: Connection, as_json: bool) -> None:
    """Check an installation: server, namespace, permissions, limits, clock, workers, catalog, schedules, keys.

    Changes nothing. Each line is good, a warning, or bad, with a remedy. Exits with 1 if something is bad.
    """
    from .loading import load_client

    tell_unknown_variables()
    _, settings = values_of(gateway_command, "gateway", [])
    client = load_client(target)
    from .doctor.command import run_doctor

    gateway = {value.setting.name: value.value for value in settings}
    raise click.exceptions.Exit(perform(run_doctor(client, connection, gateway, target=target, as_json=as_json)))


cli.add_command(config)
cli.add_command(runs)
runs.add_command(signal, "send-signal")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command, and end the process."""
    log_without_settings()
    try:
        cli(arguments, prog_name="steporal")
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else 1)
    leave(0)
