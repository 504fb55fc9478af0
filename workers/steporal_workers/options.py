"""Options that several commands share."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from . import usage
from .connection import Connection
from .settings import client_of_file, options_of_connection

if TYPE_CHECKING:
    from temporalio.converter import DataConverter

    import steporal

T = TypeVar("T")

_CLIENT = re.compile(r"^(\w+)\s*(?::[^=]+)?=\s*(?:steporal\.)?Client\(", re.MULTILINE)


class Command(click.Command):
    """Command whose help lists the flags of the connection last, under their own heading.

    Its errors for unknown arguments and options suggest what was probably meant.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See base class."""
        ctx.allow_extra_args = True
        with _unknown_options(ctx):
            extra = super().parse_args(ctx, args)
        if extra and not ctx.resilient_parsing:
            ctx.fail(usage.of_extra_arguments(ctx, extra))
        return extra

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See base class."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": [], "Connection to Temporal": []}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None:
                is_connection = param.name in Connection.__dataclass_fields__
                sections["Connection to Temporal" if is_connection else "Options"].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class Group(click.Group):
    """Group of such commands."""

    command_class = Command
    group_class = type

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See base class."""
        with _unknown_options(ctx):
            return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See base class."""
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            message = usage.of_unknown_command(ctx, args[0])
            if message:
                ctx.fail(message)
        return super().resolve_command(ctx, args)


@contextmanager
def _unknown_options(ctx: click.Context) -> Iterator[None]:
    """Suggest the option that was probably meant."""
    try:
        yield
    except click.NoSuchOption as err:
        message = usage.of_unknown_option(ctx, err.option_name)
        if message is None:
            raise
        ctx.fail(message)


class _Target(click.types.StringParamType):
    name = "module:client"

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None) -> str:
        """Suggest the client that is probably meant."""
        clients = [
            f"{path.stem}:{name}"
            for path in sorted(Path.cwd().glob("*.py"))
            for name in _CLIENT.findall(path.read_text(encoding="utf-8", errors="replace"))
        ]
        if clients:
            return f"Found here: {', '.join(clients[:5])}"
        return "Name the module and the variable that holds your steporal.Client, such as shop:client"


class _TargetArgument(click.Argument):
    """Client that the command serves or checks; by default, the client that ``steporal.toml`` names."""

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, Any]:
        """See base class."""
        value, source = super().consume_value(ctx, opts)
        if not self.value_is_missing(value) or ctx.resilient_parsing:
            return value, source
        client = client_of_file(ctx)
        if client is None:
            return value, source
        return ((client,) if self.nargs == -1 else client), ParameterSource.DEFAULT_MAP


target_argument = click.argument("target", metavar="MODULE:CLIENT", type=_Target(), cls=_TargetArgument)
targets_argument = click.argument("targets", metavar="[MODULE:CLIENT]...", nargs=-1, cls=_TargetArgument)


def connection_options(command: Callable[..., T]) -> Callable[..., T]:
    """Add the flags of the connection to a command; the function receives them as ``connection``."""

    @click.option("--address", metavar="HOST:PORT", help="Temporal's address.  [default: localhost:7233]")
    @click.option("--namespace", metavar="NAME", help="Temporal's namespace.  [default: default]")
    @click.option("--api-key", metavar="KEY", help="An API key; TEMPORAL_API_KEY is safer than this flag.")
    @click.option("--profile", metavar="NAME", help="A profile of Temporal's configuration file.")
    @click.option("--tls/--no-tls", default=None, help="Whether to use TLS.")
    @click.option("--tls-cert", type=click.Path(path_type=Path), help="The client's certificate.")
    @click.option("--tls-key", type=click.Path(path_type=Path), help="The client's private key.")
    @click.option("--tls-ca", type=click.Path(path_type=Path), help="The certificate of the server's CA.")
    @click.option("--tls-server-name", metavar="NAME", help="The name in the server's certificate.")
    @options_of_connection
    @functools.wraps(command)
    def wrapped(*args: Any, **options: Any) -> T:
        names = Connection.__dataclass_fields__
        connection = Connection(**{name: options.pop(name) for name in names})
        return command(*args, connection=connection, **options)

    return wrapped


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
codec_option = click.option(
    "--client", "codec", metavar="MODULE:CLIENT", help="Use this client's codec and external storage."
)

checking_option = click.option(
    "--client",
    "codec",
    metavar="MODULE:CLIENT",
    help="Use this client's codec and external storage, and check the input by its input_schema.",
)


def client_of(target: str | None) -> steporal.Client | None:
    """Load the client that the flag names; None without the flag."""
    if target is None:
        return None
    from .loading import load_client

    return load_client(target)


def data_converter(target: str | None) -> DataConverter | None:
    """Return the data converter of the client that the flag names; None without the flag."""
    client = client_of(target)
    return None if client is None else client.data_converter
