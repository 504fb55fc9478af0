"""``steporal gateway``: serve HTTP until told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import temporalio.client
from rich.markup import escape

import steporal
from steporal.metrics import meter_of
from steporal.observability.tracing import is_traced
from steporal.wire.names import SYSTEM_TASK_QUEUE

from ..output import say
from ..task_queues import measured
from ..worker import stop_signals
from .app import create_app
from .keys import API_KEYS, EVENT_KEYS, Keys, check_keys
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
        async with gateway(client, keys, options, stop):
            await stop.wait()
            say("stopping: requests that have arrived are answered; another signal ends them at once")
    say("stopped")


def keys_of(options: GatewayOptions) -> Keys:
    """The keys that are set.

    Raises:
        Mistake: There are none, or one is too short.
    """
    check_keys(EVENT_KEYS, options.event_keys or ())
    check_keys(API_KEYS, options.api_keys or ())
    return Keys.of(options.event_keys, options.api_keys, insecure_any_key=options.insecure_any_key)


@asynccontextmanager
async def gateway(
    client: steporal.Client, keys: Keys, options: GatewayOptions, stop: asyncio.Event
) -> AsyncIterator[str]:
    """A gateway that runs while the context lasts; says where it is, and who may use it.

    Args:
        client: See :func:`create_app`.
        keys: Who may use it.
        options: The flags.
        stop: Set when the process is told to stop.

    Raises:
        Failure: It cannot listen.
    """
    temporal = await client.connect()
    app = create_app(client, keys, is_stopping=stop.is_set, meter=meter_of(temporal), is_traced=is_traced(temporal))
    measuring = measured(client, temporal, "gateway", lambda: _task_queues(client))
    async with serving(app, options.host, options.port) as url, measuring:
        say(f"[bold green]gateway[/] at [bold]{escape(url)}[/]")
        for what, ring, variable in (("/e", keys.event, EVENT_KEYS), ("/v1, /invoke", keys.api, API_KEYS)):
            if ring.is_open:
                say(f"  {what}: [yellow]open to everybody who reaches it[/]")
            elif ring.is_closed:
                say(f"  {what}: [yellow]closed[/]: {variable} is not set")
        yield url
        await asyncio.sleep(options.drain_delay.total_seconds())


async def _task_queues(client: steporal.Client) -> set[str]:
    """Those of all apps, as the gateway goes on where no worker is left."""
    snapshot = await client.sending.dispatcher(await client.connect()).catalog.read_all()
    return {SYSTEM_TASK_QUEUE, *snapshot.apps.values()}
