"""Events that waiting runs hear of: into a topic, and from ``send_event`` to the resumed run."""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

import steporal
from benchmarks.memory import resident
from steporal import Context, Step
from steporal.routing.topics.client import Topics
from steporal.routing.topics.subscription import Subscription
from steporal.routing.topics.topic import topic_id
from steporal.values.converter import to_raw
from steporal.wire.names import SUBSCRIBE

client = steporal.Client("bench-topics")

SINGLY = 500
BATCHED = 5_000


@client.workflow(id="waits-for-its-order")
async def waits_for_its_order(ctx: Context[Any], step: Step) -> float:
    event = await step.ext.wait_for_event("paid", event=ctx.input.data["event"], match="data.order", timeout="1h")
    return event.data["sent"] if event else 0.0


@client.workflow(id="waits-by-expression")
async def waits_by_expression(ctx: Context[Any], step: Step) -> float:
    event = await step.ext.wait_for_event("paid", event=ctx.input.data["event"], if_exp=EXPRESSION, timeout="1h")
    return event.data["sent"] if event else 0.0


EXPRESSION = "async.data.order.startsWith(event.data.order)"


@workflow.defn(name="bench-empty", sandboxed=False)
class Empty:
    """Takes signals and does nothing: the floor."""

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)

    @workflow.signal
    def nothing(self, data: Any) -> None: ...


async def throughput(temporal: Client) -> list[str]:
    """Rows: events a second into one topic, singly and in calls of many, beside raw signals."""
    name = f"bench.{uuid.uuid4()}"
    await fill(temporal, name, 1, "data.order")
    async with Worker(
        temporal, task_queue="bench-empty", workflows=[Empty], workflow_runner=UnsandboxedWorkflowRunner()
    ):
        empty = await temporal.start_workflow(Empty.run, id=str(uuid.uuid4()), task_queue="bench-empty")
        event = {"name": name, "data": {"order": "none"}}
        floor = await rate(SINGLY, lambda: empty.signal(Empty.nothing, event))
        singly = await rate(SINGLY, lambda: client.send_event(event))
        await empty.terminate()
    began = time.perf_counter()
    await client.send_event([event] * BATCHED)
    batched = BATCHED / (time.perf_counter() - began)
    return [
        f"| raw signals to an empty workflow, the floor | {floor:.0f} | |",
        f"| `send_event`, one event a call | {singly:.0f} | **{singly / floor:.2f}** |",
        f"| `send_event`, {BATCHED:,} events in a call | {batched:.0f} | **{batched / floor:.2f}** |",
    ]


async def rate(count: int, call: Callable[[], Awaitable[Any]], at_once: int = 32) -> float:
    """Calls a second."""
    slots = asyncio.Semaphore(at_once)

    async def one() -> None:
        async with slots:
            await call()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    return count / (time.perf_counter() - began)


async def fill(temporal: Client, name: str, count: int, match: str | None) -> None:
    """Subscribe runs that are not there, in signals of hundreds, as so many waiting runs would have."""
    source = EXPRESSION if match is None else f"event.{match} == async.{match}"
    subscriptions = [
        Subscription(
            workflow_id=f"waits/{uuid.uuid4()}",
            run_id=str(uuid.uuid4()),
            key="paid",
            kind="once",
            source=source,
            event={"data": {"order": f"other {n}"}},
            until=time.time() + 3600,
        )
        for n in range(count)
    ]
    await Topics(temporal).subscribe([name], subscriptions[0])
    topic = temporal.get_workflow_handle(topic_id(name))
    for start in range(1, count, 500):
        batch = [s.model_dump(mode="json", exclude_defaults=True) for s in subscriptions[start : start + 500]]
        await topic.signal(SUBSCRIBE, to_raw(batch))
    while await waiting_in(topic) < count:
        await asyncio.sleep(0.1)


async def waiting_in(topic: WorkflowHandle[Any, Any]) -> int:
    """How many runs wait in a topic."""
    count: int = (await topic.query("steporal.subscriptions", rpc_timeout=timedelta(seconds=30)))["count"]
    return count


async def resumed(temporal: Client, waiters: tuple[int, ...], rounds: int) -> list[str]:
    """Rows: from ``send_event`` to the resumed run's end, with so many others waiting."""
    rows: list[str] = []
    for label, waiting, match in (
        ("by equality", waits_for_its_order, "data.order"),
        ("by an expression that no index helps", waits_by_expression, None),
    ):
        first = 0.0
        for count in waiters:
            name = f"bench.{uuid.uuid4()}"
            await fill(temporal, name, count, match)
            times = [await resume(waiting, name, f"mine {n}") for n in range(rounds)]
            median = statistics.median(times) * 1000
            first = first or median
            rows.append(f"| {label} | {count:,} | {median:.0f} | **{median / first:.2f}** |")
    return rows


async def resume(waiting: steporal.Workflow[Any, Any], name: str, order: str) -> float:
    """Seconds from ``send_event`` until a waiting run has ended."""
    run = await waiting.start({"event": name, "order": order})
    while (await run.temporal.describe()).history_length < 6:  # it has subscribed and started its timer
        await asyncio.sleep(0.01)
    began = time.perf_counter()
    await client.send_event({"name": name, "data": {"order": order, "sent": 0.0}})
    await run.result()
    return time.perf_counter() - began


async def crowd(temporal: Client, count: int) -> list[str]:
    """Rows about so many real runs that wait at once: memory, the topic's history, the time to wake them all."""
    name = f"bench.{uuid.uuid4()}"
    before = resident()
    began = time.perf_counter()
    slots = asyncio.Semaphore(32)

    async def start(n: int) -> steporal.Run[Any]:
        async with slots:
            return await waits_for_its_order.start({"event": name, "order": "all"})

    runs = await asyncio.gather(*(start(n) for n in range(count)))
    topic = temporal.get_workflow_handle(topic_id(name))
    while await waiting_in(topic) < count:
        await asyncio.sleep(0.5)
    asleep = time.perf_counter() - began
    after = resident()
    described = await topic.describe()
    began = time.perf_counter()
    await client.send_event({"name": name, "data": {"order": "all", "sent": 0.0}})

    async def ended(run: steporal.Run[Any]) -> None:
        async with slots:
            await run.result()

    await asyncio.gather(*(ended(run) for run in runs))
    woken = time.perf_counter() - began
    kib = (after - before) * 1024 / count
    speed = f"{woken:.0f} s, {count / woken:.0f} a second"
    return [f"| {count:,} | {asleep:.0f} s | {kib:.0f} KiB | {described.history_length:,} | {speed} |"]
