"""The server on its file and what else runs, as processes that can be ended and come back."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import temporalio.client

import steporal
import steporal_workers
from steporal_workers.devserver import DevServer, DevServerError, dev_server

from .clocks import skewed
from .effects import DATABASE, clock

ROOT = Path(__file__).parents[2]
GRACEFUL_SECONDS = 15

_START_TRIES = 20


@dataclass(frozen=True, slots=True)
class Killed:
    """Something that was killed, and came back.

    Attributes:
        kind: What was done.
        name: To what.
        pid: The process.
        at: When, by ``clock``.
        back: When another had taken its place.
    """

    kind: str
    name: str
    pid: int
    at: float
    back: float


class Server:
    """A dev server that keeps its data in a file, and its port."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "temporal.db"
        self._stack = AsyncExitStack()
        self._running: DevServer | None = None
        self._ending = asyncio.Lock()

    @property
    def running(self) -> DevServer:
        assert self._running is not None
        return self._running

    async def start(self) -> temporalio.client.Client:
        """Start it; a client of it, which finds it again after a kill."""
        self._running = await self._stack.enter_async_context(dev_server(db_file=self._file))
        return self._running.client

    async def kill(self, pause: float) -> Killed:
        """Kill it with SIGKILL, and start it again after a pause."""
        async with self._ending:
            return await self._end(signal.SIGKILL, pause)

    async def restart(self, pause: float) -> Killed:
        """Stop it with SIGTERM, and start it again after a pause."""
        async with self._ending:
            return await self._end(signal.SIGTERM, pause)

    async def _end(self, number: signal.Signals, pause: float) -> Killed:
        pid, port = self.running.pid, int(self.running.address.rpartition(":")[2])
        at = clock()
        os.kill(pid, number)
        await self._stack.aclose()
        await asyncio.sleep(pause)
        for remaining in reversed(range(_START_TRIES)):
            try:
                self._running = await self._stack.enter_async_context(dev_server(port=port, db_file=self._file))
                break
            except DevServerError:  # somebody's connection may have been given the port meanwhile
                if not remaining:
                    raise
                await asyncio.sleep(0.5)
        return Killed(f"server {number.name}", "server", pid, at, clock())

    async def stop(self) -> None:
        await self._stack.aclose()


Start = Callable[[Sequence[str], Mapping[str, str]], Awaitable[asyncio.subprocess.Process]]
"""Starts a command of ``steporal``, given its arguments and its environment, whose standard error can be read."""


async def anew(arguments: Sequence[str], environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    """Start a command as people do."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "steporal_workers", *arguments),
        cwd=ROOT,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C is for who runs this, who stops it
    )


class KeptProcess:
    """``steporal`` in a process of its own, which is started again whenever it ends.

    Attributes:
        name: What it is called in logs.
        kind: Its command: ``worker`` or ``gateway``.
        starts: How it is started.
        unexpected: The ends that nobody asked for, by exit status.
    """

    serving = b"serving app"
    """What it says when it serves."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path, variables: Mapping[str, str]) -> None:
        self.name = name
        self.kind = arguments[0]
        self.starts: Start = anew
        self.unexpected: list[int] = []
        self._arguments = arguments
        self._log = folder / f"{name}.log"
        self._variables = variables
        self._process: asyncio.subprocess.Process | None = None
        self._serving = asyncio.Event()
        self._asked = False
        self._closing = False
        self._pause = 0.0
        self._keeping: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Its process now, or the last one."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_serving(self) -> bool:
        return self._serving.is_set()

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        self._keeping = asyncio.create_task(self._keep())
        await self.until_serving()

    async def until_serving(self) -> None:
        assert self._keeping is not None
        waiting = asyncio.create_task(self._serving.wait())
        await asyncio.wait([waiting, self._keeping], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._keeping.done():
            self._keeping.result()

    async def kill(self, pause: float) -> Killed:
        """Kill it with SIGKILL; another is started after a pause."""
        return await self._end(signal.SIGKILL, pause)

    async def drain(self, pause: float) -> tuple[Killed, int]:
        """Stop it with SIGTERM; another is started after a pause. Also its exit status."""
        process = self._process
        killed = await self._end(signal.SIGTERM, pause)
        assert process is not None and process.returncode is not None
        return killed, process.returncode

    async def _end(self, number: signal.Signals, pause: float) -> Killed:
        assert self._process is not None
        pid, at = self.pid, clock()
        self._asked, self._pause = True, pause
        self._serving.clear()
        with suppress(ProcessLookupError):
            self._process.send_signal(number)
        await self.until_serving()
        return Killed(f"{self.kind} {number.name}", self.name, pid, at, clock())

    async def _keep(self) -> None:
        while not self._closing:
            self._asked = False
            with self._log.open("ab") as log:
                self._process = await self.starts(self._arguments, {**os.environ, **_SEARCHED, **self._variables})
                assert self._process.stderr is not None
                async for line in self._process.stderr:
                    log.write(line)
                    log.flush()
                    if self.serving in line:
                        self._serving.set()
            status = await self._process.wait()
            self._serving.clear()
            if not self._asked and not self._closing:
                self.unexpected.append(status)
            await asyncio.sleep(self._pause)
            self._pause = 0.2

    async def stop(self) -> None:
        self._closing = True
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
        if self._keeping is not None:
            await self._keeping


class WorkerProcess(KeptProcess):
    """``steporal worker``.

    Attributes:
        target: What it serves.
    """

    def __init__(self, name: str, target: str, folder: Path, variables: Mapping[str, str], *options: str) -> None:
        limits = ("--graceful-timeout", f"{GRACEFUL_SECONDS}s", "--max-concurrent-steps", "50")
        super().__init__(name, ["worker", target, *limits, *options], folder, variables)
        self.target = target


_SEARCHED = {
    "PYTHONPATH": os.pathsep.join(
        [str(ROOT), *(str(Path(package.__file__ or "").parents[1]) for package in (steporal, steporal_workers))]
    ),
    "PYTHONFAULTHANDLER": "1",
    "TEMPORAL_CONFIG_FILE": os.devnull,
    "TEMPORAL_NAMESPACE": "default",
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """All processes.

    Attributes:
        temporal: A client of the server.
        server: The server.
        workers: The workers, by name.
    """

    temporal: temporalio.client.Client
    server: Server
    workers: Mapping[str, WorkerProcess]


TARGETS = {
    "orders-1": "tests.chaos.orders:client",
    "orders-2": "tests.chaos.orders:client",
    "mail-1": "tests.chaos.mail:client",
}
"""The worker processes: what each serves."""


@asynccontextmanager
async def cluster(folder: Path, database: Path, starts: Start, skew: float = 0.0) -> AsyncIterator[Cluster]:
    """A server and workers, as long as the context lasts.

    Args:
        folder: Where their logs and the server's file are.
        database: Where steps write down that they have happened.
        starts: How workers are started.
        skew: How many seconds the clocks of workers are wrong, each second worker's ahead and the others' behind.
    """
    server = Server(folder)
    workers: dict[str, WorkerProcess] = {}
    try:
        temporal = await server.start()
        variables = {"TEMPORAL_ADDRESS": server.running.address, DATABASE: str(database)}
        for number, (name, target) in enumerate(TARGETS.items()):
            clocks = skewed(skew if number % 2 else -skew) if skew else {}
            workers[name] = WorkerProcess(name, target, folder, {**variables, **clocks})
            workers[name].starts = starts
        await asyncio.gather(*(worker.start() for worker in workers.values()))
        yield Cluster(temporal, server, workers)
    finally:
        await asyncio.gather(*(worker.stop() for worker in workers.values()))
        await server.stop()
