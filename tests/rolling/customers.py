"""The load: customers who place orders over HTTP, and what must be true of each."""

from __future__ import annotations

import asyncio
import base64
import random
import time
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.effects import Effects
from tests.chaos.stage import Ended, Expected

from .balancer import Balancer

PARCELS = 5
"""Events in one request."""

_LOOK = 0.15
_PAUSE = 0.5
_READ = 1.0


@dataclass(slots=True)
class Customers:
    """Places orders at a rate.

    Attributes:
        runs: All runs that there must be, by workflow id.
        events: How many events gateways have taken.
        signals: How many signals runs have received.
        healed: How many requests were sent again, and taken then.
        wrong: What must not be, in words.
        on_their_way: What those orders wait for that are not done.
    """

    balancer: Balancer
    effects: Effects
    event_key: str
    chance: random.Random
    runs: dict[str, Expected] = field(default_factory=dict)
    events: int = 0
    signals: int = 0
    healed: int = 0
    wrong: list[str] = field(default_factory=list)
    on_their_way: dict[int, str] = field(default_factory=dict)
    _unsure: set[int] = field(default_factory=set)
    _orders: set[asyncio.Task[None]] = field(default_factory=set)

    async def come(self, every: float, at_once: int) -> None:
        """Place orders until cancelled, no more at once than a shop has room for."""
        number = 0
        while True:
            if len(self._orders) >= at_once:
                await asyncio.wait(set(self._orders), return_when=asyncio.FIRST_COMPLETED)
            number += 1
            task = asyncio.create_task(self._order(number))
            self._orders.add(task)
            task.add_done_callback(self._orders.discard)
            await asyncio.sleep(self.chance.uniform(0, 2 * every))

    async def leave(self, patience: float) -> list[str]:
        """Wait until all orders are done; what those wait for that are not."""
        if self._orders:
            await asyncio.wait(set(self._orders), timeout=patience)
        stuck = [f"order {number} waits for {what}" for number, what in self.on_their_way.items()]
        for task in (left := set(self._orders)):
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return stuck

    # --- an order --------------------------------------------------------------------------------------------------

    async def _order(self, number: int) -> None:
        self.on_their_way[number] = "nothing"
        try:
            await self._bought(number)
            if number % 4 == 0:
                await self._parcels(number)
            if number % 3 == 0:
                await self._quoted(number)
        except Exception as err:
            self.wrong.append(f"order {number}: {type(err).__name__}: {err}")
        self.on_their_way.pop(number)

    async def _bought(self, number: int) -> None:
        placed = {"number": number, "seconds": self.chance.choice((0.05, 0.2, 1.5))}
        [id] = await self._send(number, "place", {"name": "rolling.placed", "data": placed})
        run = self._expect(f"rolling/order/{id}", "reserve", "pack")
        await self._until_done(number, run, "reserve")
        await self._send(number, "pay", {"name": "rolling.paid", "data": {"number": number}})
        await self._until_done(number, run, "pack")
        await self._signal(number, f"pick-up/{number}")
        await self._ended(number, run, number)
        self.on_their_way[number] = "its notice"
        while not (notices := self.effects.runs("notice", str(number))):
            await asyncio.sleep(_LOOK)
        await self._ended(number, self._expect(notices[0], "noted"), number)

    async def _parcels(self, number: int) -> None:
        events = [{"name": "rolling.parcel", "data": {"number": number * 100 + n}} for n in range(PARCELS)]
        ids = await self._send(number, "send many", events)
        for n, id in enumerate(ids):
            await self._ended(number, self._expect(f"rolling/parcel/{id}", "sorted"), number * 100 + n)

    async def _quoted(self, number: int) -> None:
        """Nothing makes an invocation that is sent again the same one: where no answer came, it is not."""
        self.on_their_way[number] = "its quote"
        answer = await self.balancer.ask("invoke", "POST", "/invoke/quote", json={"data": {"number": number}})
        if answer is None or answer.status_code >= 500:
            self._unsure.add(number)
            return
        answer.raise_for_status()
        found = await self._read(number, f"/v1/runs/{answer.json()['id']}")
        await self._ended(number, self._expect(found["workflow_id"], "reckon"), number)

    def unsure_runs(self) -> list[str]:
        """The runs of invocations that were not answered: at most one each."""
        found = [(number, self.effects.runs("quote", str(number))) for number in sorted(self._unsure)]
        self.wrong += [f"quote {number} was started {len(runs)} times" for number, runs in found if len(runs) > 1]
        return [run for _, runs in found for run in runs]

    # --- requests --------------------------------------------------------------------------------------------------

    async def _send(self, number: int, kind: str, events: Any) -> list[str]:
        """Send events until they are taken, each time with the same seed; their ids."""
        self.on_their_way[number] = kind
        entropy = base64.b64encode(self.chance.randbytes(10)).decode()
        headers = {"x-inngest-event-id-seed": f"{int(time.time() * 1000)},{entropy}"}
        tries, path = 0, f"/e/{self.event_key}"
        while True:
            tries += 1
            answer = await self.balancer.ask(kind, "POST", path, headers=headers, json=events)
            if answer is not None and answer.status_code < 500:
                break
            await asyncio.sleep(_PAUSE)
        answer.raise_for_status()
        ids: list[str] = answer.json()["ids"]
        self.events += len(ids)
        self.healed += tries > 1
        return ids

    async def _signal(self, number: int, name: str) -> None:
        """Send a signal until a run has received it; where no answer came, it may have."""
        self.on_their_way[number] = "signal"
        may_have_come = False
        while True:
            answer = await self.balancer.ask("signal", "POST", "/v1/signals", json={"signal": name, "data": number})
            if answer is None or answer.status_code >= 500:
                may_have_come = True
            elif answer.status_code == 200:
                self.signals += 1
                self.healed += may_have_come
                return
            elif answer.status_code != 404:
                answer.raise_for_status()
            elif may_have_come and self.effects.runs("notice", str(number)):
                return
            await asyncio.sleep(_PAUSE)

    async def _ended(self, number: int, run: str, result: Any) -> None:
        """Ask for a run until it has ended, and compare it."""
        while (found := await self._read(number, f"/v1/runs/{run}"))["status"] == "Running":
            await asyncio.sleep(_READ)
        if (found["status"], found["output"]) != ("Completed", result):
            self.wrong.append(f"{run} has ended as {found['status']} with {found['output']!r}, not {result!r}")
        self.runs[run].ended = Ended(found["status"], found["output"])

    async def _read(self, number: int, path: str) -> Any:
        self.on_their_way[number] = path
        while True:
            answer = await self.balancer.ask("read", "GET", path)
            if answer is not None and answer.status_code < 500:
                answer.raise_for_status()
                return answer.json()["data"]
            await asyncio.sleep(_PAUSE)

    async def _until_done(self, number: int, run: str, step: str) -> None:
        self.on_their_way[number] = f"step {step!r} of {run}"
        while not self.effects.count(run, step, "end"):
            await asyncio.sleep(_LOOK)

    def _expect(self, run: str, *steps: str) -> str:
        self.runs[run] = Expected(run, frozenset(steps))
        return run
