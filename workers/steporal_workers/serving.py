"""Worker process of ``steporal worker`` and ``client.run()``: sets up logs, metrics, traces, gateway and worker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from .connection import Connection
from .gateway.options import GatewayOptions
from .logs import name_app, set_up_logging
from .problems import Mistake, missing, perform
from .settings import UNDER_DEV, tell_unknown_variables
from .telemetry import MetricsOptions, set_up_runtime
from .traces import exporter_of, exporting

if TYPE_CHECKING:
    import temporalio.client

    import steporal

    First = Callable[[steporal.Client, temporalio.client.Client], Awaitable[None]]


def serve(
    load: Callable[[], steporal.Client], connection: Connection, *, log_level: str, log_format: str, **options: Any
) -> None:
    """Serve a client's workflows until a signal stops the worker.

    Args:
        load: Returns the client; called once the log is set up.
        connection: The flags of the connection.
        log_level: The lowest level to log.
        log_format: ``text`` or ``json``.
        **options: The other settings of a worker.

    Raises:
        Failure: The worker cannot start, or cannot continue.
    """
    from .worker import WorkerOptions, run_worker

    set_up_logging(log_level, log_format)
    first = _under_dev(log_level, log_format) if os.environ.get(UNDER_DEV) else None
    tell_unknown_variables()
    exporter = exporter_of(options.pop("traces"))
    # Without a cache of runs, only the SDK's core reports some failures, so its log is not reduced.
    is_quiet = log_level != "debug" and options["max_cached_workflows"] != 0
    set_up_runtime(is_quiet=is_quiet, metrics=MetricsOptions.of(options))
    if options["deployment"] and not options["build_id"]:
        raise Mistake("--deployment needs --build-id; set it to the build that this worker runs")
    revision = options.pop("revision")
    of_gateway, with_gateway = _gateway_options(options), options.pop("with_gateway")
    serving = _gateway(of_gateway) if with_gateway else None
    client = load()
    client.revision = client.revision if revision is None else revision
    name_app(client.id)
    with exporting(exporter, client.id) as plugins:

        async def operation() -> None:
            temporal = await connection.connect(client.data_converter, plugins)
            beside = serving(client) if serving else None
            await run_worker(client, temporal, WorkerOptions(**options), beside=beside, first=first)

        perform(operation())


def _under_dev(log_level: str, log_format: str) -> First:
    """Show the progress of runs, and return the preparation of the worker."""
    from . import dev_log
    from .before_serving import check_and_recover

    if log_level in ("debug", "info") and log_format == "text":
        dev_log.set_up()
    return check_and_recover


def _gateway_options(options: dict[str, Any]) -> GatewayOptions:
    """Take the gateway's options out of a worker's."""
    shared = {name: options.pop(name) for name in ("event_keys", "api_keys", "insecure_any_key", "drain_delay")}
    return GatewayOptions(host=options.pop("gateway_host"), port=options.pop("gateway_port"), **shared)


def _gateway(
    options: GatewayOptions,
) -> Callable[[steporal.Client], Callable[[asyncio.Event], AbstractAsyncContextManager[str]]]:
    """Return a factory for the gateway beside a worker; this checks its keys."""
    try:
        from .gateway.command import gateway, keys_of
    except ModuleNotFoundError as err:
        raise missing(err, "gateway") from None
    keys = keys_of(options)
    return lambda client: lambda stop: gateway(client, keys, options, stop)
