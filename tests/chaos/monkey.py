"""Kills workers and the server, at random and at moments that are worth it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

from temporalio.service import RPCError

from steporal.wire.names import CHECKPOINT

from .cluster import Cluster, Killed, WorkerProcess
from .effects import Effect, Effects
from .oracle import SYSTEM

_LOOK = 0.01
_PATIENCE = 10.0
"""How long it waits for a moment, in seconds."""

_AT_ONCE = 2
"""How many kills are under way at once, from the kill until what was killed is back."""

LONGEST_PAUSE = 3.0
"""How long nothing takes the place of what was killed, at most, in seconds."""


@dataclass
class Monkey:
    """What kills.

    Attributes:
        cluster: Whom it kills.
        effects: By which it knows the moments.
        chance: Its chance.
        killed: What it has killed.
        drained: The workers among it that were drained, with their exit status.
        calm: Set to end it.
    """

    cluster: Cluster
    effects: Effects
    chance: random.Random
    killed: list[Killed] = field(default_factory=list)
    drained: list[tuple[Killed, int]] = field(default_factory=list)
    calm: asyncio.Event = field(default_factory=asyncio.Event)

    async def rage(self, every: float) -> None:
        """Kill something every so many seconds, until told to be calm; what was killed has come back then."""
        kinds = list(KILLS)
        under_way: set[asyncio.Future[None]] = set()
        while not await self._is_calm_in(self.chance.uniform(0.5, 1.5) * every):
            kill = self.chance.choices(kinds, list(KILLS.values()))[0]
            under_way.add(asyncio.ensure_future(kill(self)))
            if len(under_way) == _AT_ONCE:
                done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.gather(*done)
        await asyncio.gather(*under_way)

    async def follow(self, script: Sequence[tuple[float, Kill]]) -> None:
        """Kill what a script says, each after a pause in seconds."""
        for pause, kill in script:
            if await self._is_calm_in(pause):
                return
            await kill(self)

    async def _is_calm_in(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self.calm.wait(), seconds)
        except TimeoutError:
            return False
        return True

    # --- at random -------------------------------------------------------------------------------------------------

    async def kill_worker(self) -> None:
        self._note(await self._any_worker().kill(self._pause()))

    async def drain_worker(self) -> None:
        killed, status = await self._any_worker().drain(self._pause())
        self._note(killed)
        self.drained.append((killed, status))

    async def kill_server(self) -> None:
        self._note(await self.cluster.server.kill(self._pause()))

    async def kill_server_and_worker(self) -> None:
        worker = self._any_worker()
        server, killed = await asyncio.gather(
            self.cluster.server.kill(self._pause()), self._after(self.chance.uniform(0, 1), worker)
        )
        self._note(server)
        self._note(killed)

    async def kill_worker_twice(self) -> None:
        """The second time while it starts, connects and registers its app."""
        worker = self._any_worker()
        pid = worker.pid
        first = asyncio.create_task(worker.kill(self._pause()))
        while worker.pid == pid:
            await asyncio.sleep(_LOOK)
        second = await self._after(self.chance.uniform(0, 4), worker)
        self._note(await first)
        self._note(second, "as it starts")

    async def _after(self, pause: float, worker: WorkerProcess) -> Killed:
        await asyncio.sleep(pause)
        return await worker.kill(self._pause())

    # --- at a moment -----------------------------------------------------------------------------------------------

    async def kill_in_step(self) -> None:
        """While a step function runs."""
        begun = await self._moment(lambda row: row.phase == "begin" and row.step in ("slow", "once"))
        if begun is not None:
            await asyncio.sleep(self.chance.uniform(0, 0.6))
            await self._kill_all([worker for worker in self._serving() if worker.pid == begun.pid], "in a step")

    async def kill_in_fan_out(self) -> None:
        """While many events are being sent by one step."""
        begun = await self._moment(lambda row: row.phase == "end" and row.step == "about to fan out")
        if begun is not None:
            await asyncio.sleep(self.chance.uniform(0.05, 2))
            await self._kill_all(self._of(begun), "in a fan-out")

    async def kill_in_subscription(self) -> None:
        """While a run subscribes to a topic, or opens a mailbox."""
        steps = ("about to wait", "about to listen")
        begun = await self._moment(lambda row: row.phase == "end" and row.step in steps)
        if begun is not None:
            await asyncio.sleep(self.chance.uniform(0, 0.1))
            await self._kill_all(self._of(begun), "in a subscription")

    async def kill_in_checkpoint(self) -> None:
        """While runs are asked to park; they are held for a moment, and go on by themselves."""
        open_runs = f"ExecutionStatus = 'Running' AND NOT WorkflowType STARTS_WITH '{SYSTEM}'"
        try:
            async for run in self.cluster.temporal.list_workflows(open_runs):
                handle = self.cluster.temporal.get_workflow_handle(run.id)
                await handle.signal(CHECKPOINT, {"hold": self.chance.uniform(0.5, 5)})
        except RPCError:  # the server is being killed, or the run has ended
            pass
        await asyncio.sleep(self.chance.uniform(0, 0.5))
        await self._kill_all([self._any_worker()], "in a checkpoint")

    async def kill_server_in_fan_out(self) -> None:
        """While many events are being sent by one step."""
        begun = await self._moment(lambda row: row.phase == "end" and row.step == "about to fan out")
        if begun is not None:
            await asyncio.sleep(self.chance.uniform(0.05, 2))
            self._note(await self.cluster.server.kill(self._pause()), "in a fan-out")

    async def _moment(self, wanted: Callable[[Effect], bool]) -> Effect | None:
        """Wait for a row; None if none comes for long, or it is to be calm."""
        number = self.effects.last()
        try:
            async with asyncio.timeout(_PATIENCE):
                while not self.calm.is_set():
                    for row in self.effects.after(number):
                        number = row.number
                        if wanted(row):
                            return row
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            pass
        return None

    async def _kill_all(self, workers: Sequence[WorkerProcess], moment: str) -> None:
        for killed in await asyncio.gather(*(worker.kill(self._pause()) for worker in workers)):
            self._note(killed, moment)

    # --- whom ------------------------------------------------------------------------------------------------------

    def _serving(self) -> list[WorkerProcess]:
        return [worker for worker in self.cluster.workers.values() if worker.is_serving]

    def _any_worker(self) -> WorkerProcess:
        return self.chance.choice(self._serving() or list(self.cluster.workers.values()))

    def _of(self, row: Effect) -> list[WorkerProcess]:
        """All workers of the app whose step this is: which of them goes on with the run nobody knows."""
        targets = {worker.target for worker in self.cluster.workers.values() if worker.pid == row.pid}
        return [worker for worker in self._serving() if worker.target in targets]

    def _pause(self) -> float:
        return self.chance.uniform(0, LONGEST_PAUSE)

    def _note(self, killed: Killed, moment: str = "") -> None:
        kind = f"{killed.kind} {moment}".strip()
        self.killed.append(Killed(kind, killed.name, killed.pid, killed.at, killed.back))
        self.effects.note_kill(kind, killed.name, killed.pid, killed.at, killed.back)


Kill = Callable[[Monkey], Coroutine[None, None, None]]

KILLS: dict[Kill, int] = {
    Monkey.kill_worker: 5,
    Monkey.drain_worker: 5,
    Monkey.kill_server: 3,
    Monkey.kill_server_and_worker: 1,
    Monkey.kill_worker_twice: 2,
    Monkey.kill_in_step: 3,
    Monkey.kill_in_fan_out: 2,
    Monkey.kill_in_subscription: 3,
    Monkey.kill_in_checkpoint: 3,
    Monkey.kill_server_in_fan_out: 1,
}
"""All ways to kill, each with its weight in the draw."""
