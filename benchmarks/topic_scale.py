"""One event name at scale: ``python -m benchmarks.topic_scale --waits 100000 --events 200000``.

Subscribes runs that do not exist, as the workers of many runs would, and measures how a topic adds parts, finds the
waits of events, and works off a backlog that arrived without a worker.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from steporal.routing.topics.client import EVENTS_PER_SIGNAL, Topics
from steporal.routing.topics.directory import directory_id, read_entries, shard_of
from steporal.routing.topics.subscription import Subscription
from steporal.routing.topics.topic import topic_id
from steporal.types import JSON
from steporal.wire.names import LATE
from steporal.worker.plugin import system_worker
from steporal_workers.devserver import dev_server

_AT_ONCE = 500
_SAMPLE = 500
_SERVE = "--serve"


def _subscription(order: str) -> Subscription:
    return Subscription(
        workflow_id=f"shop/process-order/{uuid.uuid4()}",
        run_id=str(uuid.uuid4()),
        key="paid",
        kind="once",
        source="event.data.id == async.data.id",
        event={"data": {"id": order}},
        until=time.time() + 86_400,
    )


def _event(name: str, order: str) -> dict[str, JSON]:
    return {"name": name, "id": str(uuid.uuid4()), "data": {"id": order, "amount": 5}, "ts": 1, "v": None}


async def _waits(temporal: Client, name: str) -> dict[int, int]:
    """Return the number of waits in a topic, by the count of its parts."""
    described = await temporal.get_workflow_handle(directory_id(shard_of(name))).describe()
    entries, _ = read_entries(await described.memo())
    counts = [parts.count for parts in entries[name].parts] if name in entries else [1]
    return {count: sum([await _count(temporal, topic_id(name, count, n)) for n in range(count)]) for count in counts}


async def _count(temporal: Client, workflow_id: str) -> int:
    try:
        return int((await temporal.get_workflow_handle(workflow_id).query("steporal.subscriptions"))["count"])
    except RPCError as err:
        return 0 if err.status == RPCStatusCode.NOT_FOUND else 1  # a worker that is busy does not answer


async def _late(temporal: Client) -> int:
    """Return the number of workflows that hold events for a topic."""
    return (await temporal.count_workflows(f"WorkflowType = '{LATE}' AND ExecutionStatus = 'Running'")).count


@asynccontextmanager
async def _serving(address: str) -> AsyncIterator[None]:
    """Run a system worker in a process of its own."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.topic_scale", _SERVE, address)
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def serve(address: str) -> None:
    """Serve the system workflows until the process is terminated."""
    async with system_worker(await Client.connect(address)):
        await asyncio.Event().wait()


async def crowd(temporal: Client, address: str, waits: int, rate: int) -> None:
    """Subscribe runs at a rate, then send events to some of them."""
    name, topics, slots = f"scale.{uuid.uuid4()}", Topics(temporal), asyncio.Semaphore(_AT_ONCE)

    async def subscribe(order: int) -> None:
        async with slots:
            await topics.subscribe([name], _subscription(f"order {order}"))

    async with _serving(address):
        began, tasks = time.perf_counter(), []
        for order in range(waits):
            tasks.append(asyncio.create_task(subscribe(order)))
            if order % 500 == 0:
                await asyncio.sleep(max(0.0, began + order / rate - time.perf_counter()))
        await asyncio.gather(*tasks)
        while sum((found := await _waits(temporal, name)).values()) < waits:
            await asyncio.sleep(0.5)
        print(f"{waits:,} waits after {time.perf_counter() - began:.0f} s; by count of parts: {found}", flush=True)
        began, orders = time.perf_counter(), range(0, waits, max(waits // _SAMPLE, 1))
        await topics.publish([_event(name, f"order {order}") for order in orders])
        while sum((await _waits(temporal, name)).values()) > waits - len(orders):
            await asyncio.sleep(0.2)
        print(f"{len(orders):,} events found their waits after {time.perf_counter() - began:.1f} s", flush=True)


async def backlog(temporal: Client, address: str, events: int) -> None:
    """Send events while no worker is up, then start one."""
    name, topics = f"scale.{uuid.uuid4()}", Topics(temporal)
    async with _serving(address):
        await topics.subscribe([name], _subscription("last"))
    began = time.perf_counter()
    for first in range(0, events, 20 * EVENTS_PER_SIGNAL):
        await topics.publish([_event(name, f"other {n}") for n in range(first, min(first + 1_000, events))])
    await topics.publish([_event(name, "last")])
    print(
        f"{events:,} events sent in {time.perf_counter() - began:.0f} s, {await _late(temporal)} calls late", flush=True
    )
    began = time.perf_counter()
    async with _serving(address):
        while await _count(temporal, topic_id(name)) or await _late(temporal):
            await asyncio.sleep(0.5)
    print(f"worked off in {time.perf_counter() - began:.0f} s", flush=True)


async def main(waits: int, events: int, rate: int) -> None:
    """Measure both on a server of their own."""
    async with dev_server() as server:
        await crowd(server.client, server.address, waits, rate)
        await backlog(server.client, server.address, events)


if __name__ == "__main__":
    if sys.argv[1:2] == [_SERVE]:
        asyncio.run(serve(sys.argv[2]))
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--waits", type=int, default=100_000)
        parser.add_argument("--events", type=int, default=200_000)
        parser.add_argument("--rate", type=int, default=2_000, help="subscriptions a second")
        options = parser.parse_args()
        asyncio.run(main(options.waits, options.events, options.rate))
