"""Restarts in turn under load, from the first process to the report."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import httpx

from tests.chaos.cluster import KeptProcess, Killed, Server, Start, WorkerProcess, anew
from tests.chaos.effects import DATABASE, Effects, clock
from tests.chaos.oracle import Repeated, judge, strangers

from .balancer import Balancer, balancing
from .customers import Customers
from .report import Report

EVENT_KEY, API_KEY = "rolling-event-key", "rolling-api-key-of-all"
DRAIN_DELAY = "1500ms"

_HOST = "127.0.0.1"
_TARGET = "tests.rolling.shop:client"


ALL = ("worker", "gateway", "worker", "gateway", "both")
FEW = ("worker", "gateway", "both")
"""Processes: a worker, a gateway, or a worker with a gateway beside it. Two of each kind are the least."""


class GatewayProcess(KeptProcess):
    """``steporal gateway``."""

    serving = b"gateway at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How it goes.

    Attributes:
        seed: Of all chance.
        processes: What there is, each started again in its turn.
        seconds: How long at least; each round is finished.
        every: Seconds from one order to the next.
        at_once: How many orders are on their way at most.
        pause: Seconds from one restart to the next.
        server_every: In which rounds the server is restarted, too: each second with 2.
        away: For how many seconds the server is away, one time after the other.
        patience: Seconds for all orders to be done, at the end.
        starts: How processes are started.
    """

    seed: int
    processes: Sequence[str]
    seconds: float
    every: float
    at_once: int
    pause: float
    server_every: int
    away: Sequence[float]
    patience: float
    starts: Start = anew


@dataclass(slots=True)
class Installation:
    """All processes, and what has been done to them.

    Attributes:
        restarted: All restarts.
        badly: The processes that did not end well, in words.
    """

    server: Server
    processes: Mapping[str, KeptProcess]
    ports: Mapping[str, int]
    restarted: list[Killed] = field(default_factory=list)
    badly: list[str] = field(default_factory=list)

    async def roll(self, name: str) -> None:
        """Stop a process, start it again, and wait until it is ready, as every deployment does."""
        killed, status = await self.processes[name].drain(pause=0)
        await self._until_ready(name)
        self.restarted.append(Killed(killed.kind, killed.name, killed.pid, killed.at, clock()))
        if status != 0:
            self.badly.append(f"{name} has ended with status {status}")

    async def restart_server(self, away: float) -> None:
        """Stop the server, and start it again on its file."""
        self.restarted.append(await self.server.restart(pause=away))
        await asyncio.gather(*map(self._until_ready, self.processes))

    async def _until_ready(self, name: str) -> None:
        async with httpx.AsyncClient(base_url=f"http://{_HOST}:{self.ports[name]}", timeout=5) as http:
            while True:
                try:
                    if (await http.get("/ready")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)


@asynccontextmanager
async def installation(options: Options, folder: Path, database: Path) -> AsyncIterator[Installation]:
    """A server on a file, and all processes, as long as the context lasts."""
    server = Server(folder)
    temporal = await server.start()
    variables = {
        "TEMPORAL_ADDRESS": temporal.service_client.config.target_host,
        "STEPORAL_EVENT_KEYS": EVENT_KEY,
        "STEPORAL_API_KEYS": API_KEY,
        "STEPORAL_DRAIN_DELAY": DRAIN_DELAY,
        DATABASE: str(database),
    }
    names = [f"{kind}-{number}" for number, kind in enumerate(options.processes)]
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    processes: dict[str, KeptProcess] = {}
    for name, port in ports.items():
        match name.partition("-")[0]:
            case "worker":
                processes[name] = WorkerProcess(name, _TARGET, folder, variables, "--health-port", str(port))
            case "gateway":
                processes[name] = GatewayProcess(name, ["gateway", _TARGET, "--port", str(port)], folder, variables)
            case _:
                beside = ("--with-gateway", "--gateway-port", str(port))
                processes[name] = WorkerProcess(name, _TARGET, folder, variables, *beside)
    for process in processes.values():
        process.starts = options.starts
    try:
        await asyncio.gather(*(process.start() for process in processes.values()))
        yield Installation(server, processes, ports)
    finally:
        await asyncio.gather(*(process.stop() for process in processes.values()))
        await server.stop()


async def run(options: Options, folder: Path) -> Report:
    """Roll for a while under load; files and logs are in a folder."""
    began = clock()
    effects = Effects(database := folder / "effects.db")
    try:
        async with installation(options, folder, database) as installed:
            urls = {name: f"http://{_HOST}:{port}" for name, port in installed.ports.items() if "worker" not in name}
            async with balancing(urls, API_KEY) as balancer:
                customers = Customers(balancer, effects, EVENT_KEY, random.Random(options.seed))
                loaded = clock()
                coming = asyncio.create_task(customers.come(options.every, options.at_once))
                await _roll(installed, options)
                coming.cancel()
                loaded = clock() - loaded
                stuck = await customers.leave(options.patience)
            expected = [*customers.runs, *customers.unsure_runs()]
            found, parked = await strangers(installed.server.running.client, expected)
            report = _report(effects, customers, balancer, installed)
    finally:
        effects.close()
    report.seed, report.seconds, report.loaded = options.seed, clock() - began, loaded
    report.stuck, report.parked = stuck, parked
    report.wrong += found
    return report


async def _roll(installed: Installation, options: Options) -> None:
    until, number, away = clock() + options.seconds, 0, cycle(options.away)
    while clock() < until or not number:
        number += 1
        for name in installed.processes:
            await asyncio.sleep(options.pause)
            await installed.roll(name)
        if number % options.server_every == 0:
            await asyncio.sleep(options.pause)
            await installed.restart_server(next(away))
    await asyncio.sleep(options.pause)


def _report(effects: Effects, customers: Customers, balancer: Balancer, installed: Installation) -> Report:
    ends = list(installed.restarted)
    verdict = judge(effects.all(), customers.runs.values(), ends)
    processes = installed.processes.values()
    ended_unasked = [f"{one.name} has ended by itself: {one.unexpected}" for one in processes if one.unexpected]
    return Report(
        orders=sum(run.startswith("rolling/order/") for run in customers.runs),
        runs=sum(run.ended is not None for run in customers.runs.values()),
        events=customers.events,
        signals=customers.signals,
        healed=customers.healed,
        restarts=Counter(killed.kind for killed in ends),
        down=[(killed.at, killed.back) for killed in ends if killed.name == "server"],
        asked=balancer.asked,
        unready=balancer.unready,
        idle_seconds=balancer.idle_seconds,
        steps=verdict.happened,
        attempts=verdict.begun,
        lost=verdict.lost,
        doubled=[_told(repeated) for repeated in verdict.unexplained],
        untold=[_told(repeated) for repeated in verdict.repeated if repeated.because],
        wrong=customers.wrong + installed.badly + ended_unasked,
    )


def _told(repeated: Repeated) -> str:
    return f"{repeated.effect.step!r} of {repeated.effect.workflow_id}"


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server((_HOST, 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]
