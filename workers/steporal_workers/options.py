"""The options that several commands have."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .connection import Connection
from .settings import options_of_connection

if TYPE_CHECKING:
    from temporalio.converter import DataConverter

T = TypeVar("T")


def connection_options(command: Callable[..., T]) -> Callable[..., T]:
    """The flags that say where Temporal is; handed over as ``connection``."""

    @click.option("--address", metavar="HOST:PORT", help="Temporal's address.  [default: localhost:7233]")
    @click.option("--namespace", metavar="NAME", help="Temporal's namespace.  [default: default]")
    @click.option("--api-key", metavar="KEY", help="An API key; better given as TEMPORAL_API_KEY.")
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


def data_converter(target: str | None) -> DataConverter | None:
    if target is None:
        return None
    from .loading import load_client

    return load_client(target).data_converter
