"""Development environment: a dev server, and workers that restart when the code changes."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import temporalio.client
import watchfiles
from rich.markup import escape

import steporal
from steporal.app import REVISION
from steporal.encryption import Keys, data_converter
from steporal.values.encrypted import DECRYPTION_KEYS, ENCRYPTION_KEYS

from .codec.command import codec_server, listening
from .codec.options import DEFAULT_PORT as DEFAULT_CODEC_PORT
from .devserver import HOST, NAMESPACE, DevServer, dev_server, stops_with
from .gateway.command import gateway
from .gateway.keys import Keys as GatewayKeys
from .gateway.keys import Ring
from .gateway.options import DEFAULT_PORT as DEFAULT_GATEWAY_PORT
from .gateway.options import GatewayOptions
from .listening import url_of
from .output import say
from .problems import Failure
from .settings import UNDER_DEV
from .worker import stop_signals

DYNAMIC_CONFIG = (
    # Temporal retries the workflow task of a failed body: by default up to ten minutes later, here soon after an edit.
    'history.workflowTaskRetryMaxInterval="2s"',
)

DEFAULT_PORT = 7233
DEFAULT_UI_PORT = 8233

_RELOAD_GRACE_SECONDS = 5
_KILL_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DevOptions:
    """Flags of ``steporal dev``."""

    port: int = DEFAULT_PORT
    ui_port: int = DEFAULT_UI_PORT
    db_file: Path | None = None
    watch: Sequence[Path] = ()
    log_level: str = "info"
    log_format: str = "text"
    traces: str | None = None
    config_file: Path | None = None
    gateway: bool = True
    gateway_port: int = DEFAULT_GATEWAY_PORT
    codec_port: int = DEFAULT_CODEC_PORT
    encryption_keys: Sequence[str] | None = field(default=None, repr=False)
    decryption_keys: Sequence[str] | None = field(default=None, repr=False)

    @property
    def keys(self) -> Keys:
        """Keys that encrypt and decrypt values."""
        return Keys.of(self.encryption_keys or (), self.decryption_keys or ())


async def run_dev(
    targets: Sequence[str], options: DevOptions, plugins: Sequence[temporalio.client.Plugin] = ()
) -> None:
    """Run a dev server, a gateway, and a worker for each ``module:attribute``, until a signal stops all of them.

    If encryption keys are set, this also runs a codec server, with which Temporal's UI shows encrypted values.

    Args:
        targets: The clients.
        options: The flags.
        plugins: The plugins of the gateway's Temporal client.

    Raises:
        DevServerError: The server does not start, or ends by itself.
        Failure: The gateway or the codec server cannot listen, or the code cannot be watched.
    """
    codec = _codec_socket(options)
    with stop_signals() as stop:
        async with (
            dev_server(
                port=options.port,
                ui=True,
                ui_port=options.ui_port,
                db_file=options.db_file,
                search_attributes=True,
                ui_codec=url_of(codec) if codec else None,
                dynamic_config=DYNAMIC_CONFIG,
            ) as server,
            stops_with(server, stop),
            AsyncExitStack() as workers,
        ):
            _announce(server, options)
            if codec:
                ui = str(server.ui_url)
                pages = [ui, ui.replace(HOST, "localhost")]
                await workers.enter_async_context(codec_server(codec, options.keys, Ring(None), pages, stop))
            if options.gateway:
                await workers.enter_async_context(_gateway(server, options, stop, plugins))
            if not targets:
                say("no worker: name your clients to serve them, such as `steporal dev shop:client`")
            else:
                changes = _changes(options.watch or [Path.cwd()], stop)
                watching = asyncio.ensure_future(anext(changes, None))
                processes = [_WorkerProcess(target, server.address, options) for target in targets]
                for process in processes:
                    workers.push_async_callback(process.stop)
                    await process.start()
                await _reload(processes, changes, watching, stop)
            await stop.wait()
            say("stopping")
    say("stopped")


def _announce(server: DevServer, options: DevOptions) -> None:
    kept = f"kept in {options.db_file}" if options.db_file else "in memory"
    say(f"[bold green]Temporal dev server[/] at [bold]{server.address}[/], data {escape(kept)}")
    say(f"  Temporal UI: [link={server.ui_url}]{server.ui_url}[/link]")
    if options.port != DEFAULT_PORT:
        say(f"  for other commands: export TEMPORAL_ADDRESS={server.address}")


def _codec_socket(options: DevOptions) -> socket.socket | None:
    if not options.keys:
        return None
    try:
        return listening(HOST, options.codec_port)
    except Failure as err:
        raise Failure(f"{err.message}: --codec-port N") from None


@asynccontextmanager
async def _gateway(
    server: DevServer, options: DevOptions, stop: asyncio.Event, plugins: Sequence[temporalio.client.Plugin]
) -> AsyncIterator[None]:
    """Run a gateway in this process, which stays up while workers restart; the workers validate what it starts."""
    config = server.client.config()
    config["data_converter"], config["plugins"] = data_converter(options.keys), list(plugins)
    client = steporal.Client("steporal", temporal=temporalio.client.Client(**config))
    async with AsyncExitStack() as stack:
        try:
            here = GatewayOptions(port=options.gateway_port)
            await stack.enter_async_context(gateway(client, GatewayKeys.any(), here, stop))
        except Failure as err:
            raise Failure(f"{err.message}: --gateway-port N, or --no-gateway") from None
        yield


# --- reload --------------------------------------------------------------------------------------------------------


async def _changes(folders: Sequence[Path], stop: asyncio.Event) -> AsyncIterator[list[Path]]:
    """Yield the Python files that change, as they do."""
    try:
        async for files in watchfiles.awatch(
            *folders, watch_filter=watchfiles.PythonFilter(), stop_event=stop, recursive=True
        ):
            yield sorted({Path(path) for _, path in files})
    except (OSError, RuntimeError) as err:
        raise Failure(f"the code cannot be watched for changes: {err}; watch fewer files with --watch FOLDER") from err


async def _reload(
    processes: Sequence[_WorkerProcess],
    changes: AsyncIterator[list[Path]],
    first: asyncio.Future[list[Path] | None],
    stop: asyncio.Event,
) -> None:
    changed = await first
    while changed and not stop.is_set():
        shown = ", ".join(_relative(path) for path in changed[:3]) + (", …" if len(changed) > 3 else "")
        say(f"[bold]{escape(shown)}[/] changed; restarting")
        await asyncio.gather(*(process.restart() for process in processes))
        changed = await anext(changes, None)


def _relative(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


class _WorkerProcess:
    """Process of ``steporal worker``; only a new process is certain to have the new code."""

    def __init__(self, target: str, address: str, options: DevOptions) -> None:
        self._target = target
        self._command = [sys.executable, "-m", "steporal_workers", "worker", target]
        self._command += ["--graceful-timeout", f"{_RELOAD_GRACE_SECONDS}s", "--log-level", options.log_level]
        self._command += ["--log-format", options.log_format, "--health-port", "0", "--without-gateway"]
        self._command += ["--traces", options.traces] if options.traces else []
        self._command += ["--config", str(options.config_file)] if options.config_file else []
        self._environment = {**_environment(address), **_keys(options)}
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        # The worker that started last has the highest revision, even if an edit restores an older file.
        environment = {**self._environment, REVISION: str(int(time.time()))}
        # In its own session: it would receive a Ctrl-C in the terminal twice, and the second one stops it at once.
        self._process = await asyncio.create_subprocess_exec(
            *self._command, env=environment, stdin=asyncio.subprocess.DEVNULL, start_new_session=True
        )
        self._watcher = asyncio.create_task(self._report_end(self._process))

    async def _report_end(self, process: asyncio.subprocess.Process) -> None:
        status = await process.wait()
        say(
            f"[yellow]the worker of {escape(self._target)} ended with status {status}[/]; "
            "it restarts when the code changes"
        )

    async def stop(self) -> None:
        if self._process is None or self._watcher is None:
            return
        self._watcher.cancel()
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(_KILL_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                with suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()

    async def restart(self) -> None:
        await self.stop()
        await self.start()


def _keys(options: DevOptions) -> dict[str, str]:
    """Return the keys as environment variables, whatever their source is."""
    variables = {ENCRYPTION_KEYS: options.encryption_keys, DECRYPTION_KEYS: options.decryption_keys}
    return {name: ",".join(keys) for name, keys in variables.items() if keys}


def _environment(address: str) -> dict[str, str]:
    """Return the worker's environment, in which Temporal is the dev server, also for user code that connects to it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TEMPORAL_")}
    return {
        **inherited,
        "TEMPORAL_ADDRESS": address,
        "TEMPORAL_NAMESPACE": NAMESPACE,
        "TEMPORAL_CONFIG_FILE": os.devnull,
        UNDER_DEV: "1",
        # Python reuses a cached file if its size and second match, which is possible after a quick edit.
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
