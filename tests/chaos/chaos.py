"""One chaos, from the first process to the report."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from temporalio.client import Client
from temporalio.service import RPCError

import steporal
from steporal.routing.catalog.reading import CACHE_SECONDS

from .cluster import Start, anew, cluster
from .effects import Effects
from .monkey import Monkey
from .oracle import Repeated, bad_drains, judge, repeating, strangers
from .plays import PLAYS, Play
from .report import Report
from .stage import Findings, Stage

logger = logging.getLogger("chaos")

T = TypeVar("T")

Rage = Callable[[Monkey], Coroutine[None, None, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a chaos goes.

    Attributes:
        seed: Of all chance.
        seconds: How long plays begin; None: until what kills has ended.
        at_once: How many plays are going on.
        scale: How many runs a fan-out starts.
        patience: How long all runs have to end after that, in seconds.
        rage: What kills, as long as plays begin.
        skew: How many seconds the workers' clocks are wrong.
        starts: How workers are started.
    """

    seed: int
    seconds: float | None
    at_once: int
    scale: int
    patience: float
    rage: Rage
    skew: float = 0.0
    starts: Start = anew


class Theatre:
    """Plays going on, some at once."""

    def __init__(self, options: Options, temporal: Client, effects: Effects) -> None:
        self.findings = Findings()
        self.on_stage: dict[asyncio.Task[None], Stage] = {}
        self._options = options
        self._temporal = temporal
        self._sender = steporal.Client("chaos-sender", temporal=temporal)
        self._effects = effects
        self._chance = random.Random(f"plays {options.seed}")

    async def perform(self, raging: asyncio.Future[None]) -> None:
        """Begin plays for as long as the options say, and until there was each kind once; then by weight.

        Args:
            raging: What kills.
        """
        kinds = list(PLAYS)
        first = self._chance.sample(kinds, len(kinds))
        seconds = self._options.seconds
        until = time.monotonic() + seconds if seconds is not None else math.inf
        number = 0
        while first or (time.monotonic() < until and not raging.done()):
            if len(self.on_stage) < self._options.at_once:
                play = first.pop() if first else self._chance.choices(kinds, list(PLAYS.values()))[0]
                self._begin(play, number := number + 1)
                await asyncio.sleep(0.02)
            else:
                left = None if first or seconds is None else max(until - time.monotonic(), 0)
                ending = self.on_stage if first else {*self.on_stage, raging}
                await asyncio.wait(ending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        logger.info("no more plays begin; %d are going on", len(self.on_stage))

    async def close(self) -> list[str]:
        """Wait for the end of all plays; what those wait for that do not end."""
        if self.on_stage:
            await asyncio.wait(self.on_stage, timeout=self._options.patience)
        left = dict(self.on_stage)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return [f"{stage.name} waits for {stage.waits_for}" for stage in left.values()]

    def _begin(self, play: Play, number: int) -> None:
        stage = Stage(
            f"{play.__name__}-{number}",
            number * 100,
            temporal=self._temporal,
            sender=self._sender,
            effects=self._effects,
            findings=self.findings,
            chance=random.Random(f"{self._options.seed} {number}"),
            scale=self._options.scale,
        )
        task = asyncio.create_task(self._play(play, stage))
        self.on_stage[task] = stage
        task.add_done_callback(lambda task: self.on_stage.pop(task))

    async def _play(self, play: Play, stage: Stage) -> None:
        try:
            await play(stage)
        except Exception as err:
            logger.exception("%s", stage.name)
            self.findings.problems.append(f"{stage.name}: {type(err).__name__}: {err}")
        else:
            self.findings.plays[play.__name__] = self.findings.plays.get(play.__name__, 0) + 1


async def run(options: Options, folder: Path) -> Report:
    """Run a chaos; its files and logs are in a folder."""
    began = time.monotonic()
    database = folder / "effects.db"
    effects = Effects(database)
    try:
        async with cluster(folder, database, options.starts, options.skew) as processes:
            monkey = Monkey(processes, effects, random.Random(f"kills {options.seed}"))
            theatre = Theatre(options, processes.temporal, effects)
            await asyncio.sleep(CACHE_SECONDS)  # for as long an app may not know of another that has just registered
            loaded = time.monotonic()
            raging = asyncio.create_task(options.rage(monkey))
            await theatre.perform(raging)
            loaded = time.monotonic() - loaded
            monkey.calm.set()
            await raging
            stuck = await theatre.close()
            repeated_tasks = await _answered(lambda: repeating(processes.temporal, effects.all()))
            report = _report(options, effects, theatre.findings, monkey, stuck, repeated_tasks)
            wrong, report.parked = await _answered(lambda: strangers(processes.temporal, theatre.findings.runs))
            report.wrong += wrong
    finally:
        effects.close()
    report.loaded, report.seconds = loaded, time.monotonic() - began
    return report


def _report(
    options: Options,
    effects: Effects,
    findings: Findings,
    monkey: Monkey,
    stuck: list[str],
    repeated_tasks: set[str],
) -> Report:
    verdict = judge(effects.all(), findings.runs.values(), monkey.killed, repeated_tasks)
    return Report(
        seed=options.seed,
        skew=options.skew,
        runs=sum(run.ended is not None for run in findings.runs.values()),
        plays=Counter(findings.plays),
        kills=Counter(killed.kind for killed in monkey.killed),
        restarts=sum(len(worker.unexpected) for worker in monkey.cluster.workers.values()),
        steps=verdict.happened,
        attempts=verdict.begun,
        interrupted=verdict.interrupted,
        events=effects.count_sent("event"),
        signals=effects.count_sent("signal"),
        repeated=Counter(repeated.because or "no kill" for repeated in verdict.repeated),
        lost=verdict.lost,
        stuck=stuck,
        unexplained=[_told(repeated) for repeated in verdict.unexplained],
        wrong=findings.problems + bad_drains(monkey.drained, monkey.killed),
    )


def _told(repeated: Repeated) -> str:
    effect = repeated.effect
    return (
        f"{effect.step!r} of {effect.workflow_id}, attempt {effect.attempt}, process {effect.pid}, at {effect.at:.3f}"
    )


async def _answered(ask: Callable[[], Coroutine[None, None, T]]) -> T:
    """What the server says, as soon as it is back."""
    while True:
        try:
            return await ask()
        except RPCError:
            await asyncio.sleep(0.2)
