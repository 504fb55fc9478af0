"""Measures Steporal beside the same workflows written by hand, and writes ``benchmarks/RESULTS.md``.

All sides of a comparison run in one process against one dev server in memory, in turn, round after round, so that what
else the machine does hits them alike. Figures are medians over the rounds; what counts is their ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.metadata
import os
import platform
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from benchmarks import gateway, listeners, make_forty, memory, native, shop, topics
from steporal_workers.devserver import dev_server
from steporal_workers.leaving import leave

RESULTS = Path(__file__).with_name("RESULTS.md")

Start = Callable[[], Awaitable[Any]]

AT_ONCE = 50
BURSTS_PER_ROUND = 3  # one of runs is over in a second or two


@dataclass
class Sides:
    """Ways of doing the same, by name, and what was measured of each."""

    starts: dict[str, Start]
    throughput: dict[str, list[float]] = field(default_factory=dict)
    latency: dict[str, list[float]] = field(default_factory=dict)

    async def measure(self, rounds: int, at_once: int, alone: int) -> Sides:
        """Measure all sides in turn: runs a second with ``at_once`` together, seconds of one that is alone."""
        for start in self.starts.values():
            await asyncio.gather(*(start() for _ in range(at_once // 2)))
        names = list(self.starts)
        for number in range(rounds):
            for name in names if number % 2 else reversed(names):
                start = self.starts[name]
                began = time.perf_counter()
                await asyncio.gather(*(start() for _ in range(at_once)))
                self.throughput.setdefault(name, []).append(at_once / (time.perf_counter() - began))
                for _ in range(alone):
                    began = time.perf_counter()
                    await start()
                    self.latency.setdefault(name, []).append(time.perf_counter() - began)
        return self

    def rows(self, label: str, ours: str) -> list[str]:
        """Rows of a table: throughput and latency of each side, and ours as a ratio of it."""
        rows = []
        for name in self.starts:
            rate, alone = statistics.median(self.throughput[name]), statistics.median(self.latency[name])
            cells = [label, name, f"{rate:.1f} ± {_spread(self.throughput[name]):.1f}", f"{alone * 1000:.1f}"]
            if name != ours:
                # Round by round: the two of a round have the same weather.
                pairs = zip(self.throughput[ours], self.throughput[name], strict=True)
                cells.append(f"**{statistics.median(a / b for a, b in pairs):.2f}**")
                cells.append(f"**{statistics.median(self.latency[ours]) / alone:.2f}**")
            rows.append("| " + " | ".join([*cells, *[""] * (6 - len(cells))]) + " |")
        return rows


def _spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


class Bench:
    """The server, and a worker for each side."""

    def __init__(self, temporal: Client, rounds: int) -> None:
        self.temporal = temporal
        config = temporal.config()
        config["data_converter"] = pydantic_data_converter
        self.by_hand = Client(**config)
        self.rounds = rounds

    async def worker(self, stack: AsyncExitStack, app: Any) -> None:
        plugin = app.plugin()
        await stack.enter_async_context(Worker(self.temporal, task_queue=app.task_queue, plugins=[plugin]))
        await plugin.registered.wait()

    def hand_written(self, queue: str, workflows: list[type], *, sandboxed: bool) -> Worker:
        runner: dict[str, Any] = {} if sandboxed else {"workflow_runner": UnsandboxedWorkflowRunner()}
        return Worker(self.by_hand, task_queue=queue, workflows=workflows, activities=[native.add], **runner)

    def ours(self, workflow: Any, data: Any) -> Start:
        async def start() -> Any:
            return await (await workflow.start(data)).result()

        return start

    def theirs(self, workflow: str, data: Any, queue: str) -> Start:
        async def start() -> Any:
            return await self.by_hand.execute_workflow(
                workflow, data, id=f"{workflow}/{uuid.uuid4()}", task_queue=queue, result_type=int
            )

        return start

    async def steps(self, counts: Iterable[int]) -> list[str]:
        """Runs of so many steps, and of three that are local."""
        rows: list[str] = []
        async with AsyncExitStack() as stack:
            await self.worker(stack, shop.client)
            for queue, sandboxed in (("unsandboxed", False), ("stock", True)):
                await stack.enter_async_context(self.hand_written(queue, native.WORKFLOWS, sandboxed=sandboxed))
            order = {"order_id": "a", "amount": 1}
            for count in counts:
                workflow = shop.client.get_workflow(f"steps-{count}")
                sides = {"Steporal": self.ours(workflow, order)}
                if count == 3:
                    sides["Steporal, lambdas"] = self.ours(shop.lambdas_3, order)
                sides["by hand, no sandbox"] = self.theirs(f"native-steps-{count}", order, "unsandboxed")
                sides["by hand, stock sandbox"] = self.theirs(f"native-steps-{count}", order, "stock")
                progress(f"runs of {count} steps")
                measured = await Sides(sides).measure(
                    BURSTS_PER_ROUND * self.rounds, AT_ONCE if count < 50 else 10, 5 if count < 50 else 2
                )
                rows += measured.rows(f"{count} steps", "Steporal")
            local = {
                "Steporal": self.ours(shop.local_3, order),
                "Steporal, ordinary steps": self.ours(shop.steps_3, order),
                "by hand, no sandbox": self.theirs("native-local-3", order, "unsandboxed"),
            }
            progress("local steps")
            measured = await Sides(local).measure(BURSTS_PER_ROUND * self.rounds, AT_ONCE, 5)
            rows += measured.rows("3 local steps", "Steporal")
        return rows

    async def forty(self) -> list[str]:
        """Three steps, in modules of forty workflows."""
        with tempfile.TemporaryDirectory() as folder:
            make_forty.write(folder)
            sys.path.insert(0, folder)
            ours, theirs = importlib.import_module("forty_ours"), importlib.import_module("forty_native")
            workflows = [getattr(theirs, f"Forty{n}") for n in range(40)]
            async with AsyncExitStack() as stack:
                await self.worker(stack, ours.client)
                for queue, sandboxed in (("forty-unsandboxed", False), ("forty-stock", True)):
                    await stack.enter_async_context(self.hand_written(queue, workflows, sandboxed=sandboxed))
                progress("modules of forty workflows")
                order = {"order_id": "a", "amount": 1}
                sides = {
                    "Steporal": self.ours(ours.forty_7, order),
                    "by hand, no sandbox": self.theirs("forty-7", order, "forty-unsandboxed"),
                    "by hand, stock sandbox": self.theirs("forty-7", order, "forty-stock"),
                }
                measured = await Sides(sides).measure(BURSTS_PER_ROUND * self.rounds, AT_ONCE, 5)
            sys.path.remove(folder)
        return measured.rows("3 steps, 40 workflows in the module", "Steporal")

    async def events(self) -> list[str]:
        """From ``send_event`` until all runs are started; beside as many starts by hand, one after the other's."""
        rows: list[str] = []
        async with AsyncExitStack() as stack:
            await self.worker(stack, listeners.client)
            await stack.enter_async_context(self.hand_written("unsandboxed", native.WORKFLOWS, sandboxed=False))

            async def send(name: str, count: int = 1) -> None:
                await listeners.client.send_event([{"name": name} for _ in range(count)])

            async def start_by_hand(count: int) -> None:
                slots = asyncio.Semaphore(64)

                async def one() -> None:
                    async with slots:
                        await self.by_hand.start_workflow(
                            "native-nothing", {}, id=str(uuid.uuid4()), task_queue="unsandboxed"
                        )

                await asyncio.gather(*(one() for _ in range(count)))

            for label, name, sent, started in (
                ("1 event, 1 workflow", "starts.1", 1, 1),
                ("1 event, 10 workflows", "starts.10", 1, 10),
                ("1 event, 100 workflows", "starts.100", 1, 100),
                ("1,000 events in a call, 1 workflow each", "one.of.many", 1000, 1000),
            ):
                progress(label)
                ours, theirs = [], []
                for _ in range(max(self.rounds, 2)):
                    began = time.perf_counter()
                    await send(name, sent)
                    ours.append(time.perf_counter() - began)
                    began = time.perf_counter()
                    await start_by_hand(started)
                    theirs.append(time.perf_counter() - began)
                    await asyncio.sleep(started / 200)  # the runs themselves end
                mine, floor = statistics.median(ours), statistics.median(theirs)
                ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
                rows.append(f"| {label} | {mine * 1000:.1f} | {floor * 1000:.1f} | **{ratio:.2f}** |")
        return rows


def progress(what: str) -> None:
    print(f"{time.strftime('%X')}  {what}", file=sys.stderr, flush=True)


@dataclass
class Tables:
    """Rows of the page's tables."""

    runs: list[str]
    events: list[str]
    topic: list[str]
    resumed: list[str]
    crowd: list[str]
    gateway: list[str]
    asleep: list[str]


async def waiting(bench: Bench, rounds: int, crowd: int, waiters: tuple[int, ...]) -> tuple[list[str], ...]:
    """What concerns topics, with a worker whose cache is large enough."""
    client = topics.client
    plugin = client.plugin()
    client.temporal = bench.temporal
    async with Worker(
        bench.temporal, task_queue=client.task_queue, plugins=[plugin], max_cached_workflows=2 * crowd + 1000
    ):
        await plugin.registered.wait()
        progress("events into a topic")
        topic = await topics.throughput(bench.temporal)
        progress("from send_event to the resumed run")
        resumed = await topics.resumed(bench.temporal, waiters, 5 * rounds)
        progress("a crowd")
        return topic, resumed, await topics.crowd(bench.temporal, crowd)


async def main(rounds: int, runs_asleep: int, crowd: int, waiters: tuple[int, ...]) -> str:
    """Measure everything; the page of results."""
    async with dev_server(ui=False) as server:
        bench = Bench(server.client, rounds)
        runs = await bench.steps((1, 3, 10, 50)) + await bench.forty()
        events = await bench.events()
        progress("the gateway")
        through = await gateway.requests(server.client, rounds)  # before the crowd, which the process remembers
        topic, resumed, crowded = await waiting(bench, rounds, crowd, waiters)
        progress("runs asleep")
        asleep = await memory.compare(server.address, runs_asleep)
    return page(rounds, Tables(runs, events, topic, resumed, crowded, through, asleep))


def page(rounds: int, tables: Tables) -> str:
    """The results as Markdown."""
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = f"Python {platform.python_version()}, temporalio {importlib.metadata.version('temporalio')}"
    machine = f"{os.cpu_count()} cores, {gib:.0f} GiB, {platform.system()}, {versions}"
    by_hand = ("CHAOS.md", "SEARCH.md", "HOSTILE.md", "ROLLING.md", "LONG.md", "NOTES.md")
    written = "\n".join(RESULTS.with_name(name).read_text(encoding="utf-8").strip() + "\n" for name in by_hand)
    table = "\n".join
    return f"""# Results

Made by `make bench`: medians over {rounds} rounds, in which the sides take turns, against one dev server in memory, in
one process with all workers. {machine}. What counts are the ratios: Steporal's figure divided by the other's.

## Runs

{AT_ONCE} runs at once (10 with 50 steps), and one run alone, in {BURSTS_PER_ROUND * rounds} rounds. Above 1 is faster
for throughput, below 1 for latency.

| what | side | runs a second | one alone, ms | throughput ratio | latency ratio |
|---|---|---|---|---|---|
{table(tables.runs)}

## Events

Time from `send_event` until all runs are started, beside as many plain `start_workflow` calls, as many at once.

| what | send_event, ms | plain starts, ms | ratio |
|---|---|---|---|
{table(tables.events)}

## Events that runs wait for

Into one topic with a waiting run that they do not match.

| what | events a second | ratio |
|---|---|---|
{table(tables.topic)}

From `send_event` to the end of the run that it resumes, while so many other runs wait for the same event; one matches.

| the wait matches | others | median, ms | ratio to one other |
|---|---|---|---|
{table(tables.resumed)}

Runs that wait for one event at once, in one worker process.

| runs | until all wait | worker's memory, per run | events in the topic's history | until all have ended |
|---|---|---|---|---|
{table(tables.crowd)}

## The gateway

Requests a second on 32 connections that are kept, beside `send_event`, 32 at once, in the same process. The client
is in it, too.

| request | gateway | send_event | ratio |
|---|---|---|---|
{table(tables.gateway)}

## Runs that wait

Memory of a worker process with runs asleep in its cache.

| side | before, MiB | after, MiB | per run, KiB |
|---|---|---|---|
{table(tables.asleep)}

{written}"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--asleep", type=int, default=1000)
    parser.add_argument("--crowd", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="one round, and nothing written")
    options = parser.parse_args()
    if options.quick:
        print(asyncio.run(main(1, 50, 100, (1, 1_000))))
    else:
        RESULTS.write_text(
            asyncio.run(main(options.rounds, options.asleep, options.crowd, (1, 1_000, 10_000))), encoding="utf-8"
        )
        print(f"written: {RESULTS.relative_to(Path.cwd())}")
    leave(0)
