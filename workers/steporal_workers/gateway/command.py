"""``steporal gateway``: serve HTTP until told to stop."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import temporalio.client
from rich.markup import escape

import steporal

from ..output import say
from ..worker import stop_signals
from .app import create_app
from .keys import API_KEYS, EVENT_KEYS, Keys
from .options import GatewayOptions
from .server import serving


async def run_gateway(
    client: steporal.Client, temporal: temporalio.client.Client, keys: Keys, options: GatewayOptions
) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; then answer what has come. A second signal ends the process at once.

    Raises:
        Failure: It cannot listen.
    """
    client.temporal = temporal
    with stop_signals() as stop:
        async with gateway(client, keys, options):
            await stop.wait()
            say("stopping: requests that have come are answered; another signal ends them at once")
    say("stopped")


def keys_of(options: GatewayOptions) -> Keys:
    """The keys that the environment sets.

    Raises:
        Mistake: There are none.
    """
    return Keys.from_environment(os.environ, insecure_any_key=options.insecure_any_key)


@asynccontextmanager
async def gateway(client: steporal.Client, keys: Keys, options: GatewayOptions) -> AsyncIterator[str]:
    """A gateway that runs while the context lasts; says where it is, and who may use it.

    Raises:
        Failure: It cannot listen.
    """
    async with serving(create_app(client, keys), options.host, options.port) as url:
        say(f"[bold green]gateway[/] at [bold]{escape(url)}[/]")
        for what, ring, variable in (("/e", keys.event, EVENT_KEYS), ("/v1, /invoke", keys.api, API_KEYS)):
            if ring.is_open:
                say(f"  {what}: [yellow]open to everybody who reaches it[/]")
            elif ring.is_closed:
                say(f"  {what}: [yellow]closed[/]: {variable} is not set")
        yield url
