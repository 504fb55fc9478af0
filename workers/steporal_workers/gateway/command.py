"""``steporal gateway``: serves HTTP until a signal stops it."""

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
    """Serve until SIGINT, SIGTERM or SIGHUP; then answer pending requests. A second signal ends the process at once.

    Raises:
        Failure: The address or port cannot be used.
    """
    client.temporal = temporal
    with stop_signals() as stop:
        async with gateway(client, keys, options, stop):
            await stop.wait()
            say("stopping: requests that have arrived are answered; send another signal to stop at once")
    say("stopped")


def keys_of(options: GatewayOptions) -> Keys:
    """Return the keys of the settings.

    Raises:
        Mistake: No keys are set, or one is too short.
    """
    check_keys(EVENT_KEYS, options.event_keys or ())
    check_keys(API_KEYS, options.api_keys or ())
    return Keys.of(options.event_keys, options.api_keys, insecure_any_key=options.insecure_any_key)


@asynccontextmanager
async def gateway(
    client: steporal.Client, keys: Keys, options: GatewayOptions, stop: asyncio.Event
) -> AsyncIterator[str]:
    """Run a gateway while the context lasts; print its address and who may use it.

    Args:
        client: See :func:`create_app`.
        keys: The keys of the gateway.
        options: The flags.
        stop: Set when the process receives a signal to stop.

    Raises:
        Failure: The address or port cannot be used.
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
    """Return the task queues of all apps, as the gateway still runs when no worker is left."""
    snapshot = await client.sending.dispatcher(await client.connect()).catalog.read_all()
    return {SYSTEM_TASK_QUEUE, *snapshot.apps.values()}
