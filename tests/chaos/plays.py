"""The plays: what happens around one run of each kind, and what must be true of it.

A play is a function of a :class:`~.stage.Stage`. To add one: write it, and put it into ``PLAYS``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from . import mail, orders
from .stage import UNKNOWN, Stage

Play = Callable[[Stage], Awaitable[None]]


async def steps(stage: Stage) -> None:
    run, _ = await stage.start(orders.steps, stage.number, "sync", "async", "local", "together", "together:1")
    await stage.ended(run, result=[stage.number + n for n in range(5)])


async def slow(stage: Stage) -> None:
    """Its finish is told to the other app, once."""
    run, _ = await stage.start(orders.slow, stage.number, "before", "slow")
    await stage.ended(run, result=stage.number + 1)
    told = await stage.runs_of(mail.on_finished, run)
    stage.demand(len(told) == 1, f"{run} has finished, and was told to {told}")
    await stage.ended(stage.expect(told[0], "noted"), result=run)


async def retried(stage: Stage) -> None:
    run, _ = await stage.start(orders.retried, stage.number, "third time", "after")
    await stage.ended(run, result=[stage.number, ["never", "refused"], "on"])


async def once(stage: Stage) -> None:
    """A step of one attempt begins once, also if its worker is killed in it."""
    run, _ = await stage.start(orders.once, stage.number)
    returned = (await stage.ended(run)).result
    stage.demand(returned in (stage.number, None), f"{run} returned {returned}")
    begun, ended = stage.count(run, "once", "begin"), stage.count(run, "once", "end")
    stage.demand(begun <= 1, f"the only attempt of {run} has begun {begun} times")
    stage.demand(returned is None or ended == 1, f"{run} returned {returned}, and its step has ended {ended} times")


async def bodies(stage: Stage) -> None:
    run, _ = await stage.start(orders.bodies, stage.number, "before", "beside", "after")
    await stage.ended(run, result=[stage.number + n for n in range(3)])


async def branches(stage: Stage) -> None:
    """Each branch gets its own results, a race is decided once, and what was given up does not begin again."""
    run, _ = await stage.start(
        orders.branches, stage.number, "reserve", "reserve@5", "reserve@6", "ask 0", "ask 1", "ask 2"
    )
    expected = [[stage.number + n] * 3 for n in range(3)]
    await stage.ended(run, result=[True, None, expected, [0, 1, 2]])
    ordered = [n for n in range(3) if stage.count(run, f"order from {n}", "begin")]
    stage.demand(len(ordered) == 1, f"{run} has ordered from {ordered}")


async def sleeper(stage: Stage) -> None:
    milliseconds = stage.random.randint(500, 6_000)
    run, _ = await stage.start(orders.sleeper, milliseconds, "before", "after")
    slept = (await stage.ended(run)).result
    stage.demand(slept * 1000 >= milliseconds, f"{run} slept {slept} s, not {milliseconds} ms")


async def invoker(stage: Stage) -> None:
    """Each invocation starts one run."""
    run, _ = await stage.start(orders.invoker, stage.number)
    await stage.ended(run, result=[stage.number + 1, stage.number + 2])
    for n in range(2):
        children = await stage.runs_of(mail.invoked, f"{run} {n}")
        stage.demand(len(children) == 1, f"{run} has invoked {children}")
        await stage.ended(stage.expect(children[0], "count"), result=stage.number + n + 1)


async def announcer(stage: Stage) -> None:
    """Each event starts a run in each app."""
    run, _ = await stage.start(orders.announcer, stage.name, "told")
    ids = (await stage.ended(run)).result
    stage.demand(ids[:2] == [f"{stage.name}-{n}" for n in range(2)], f"{run} sent {ids}")
    stage.demand(len(set(ids)) == 3, f"{run} sent {ids}")
    for workflow in (orders.heard_by_orders, mail.heard_by_mail):
        for id in ids:
            await stage.ended(stage.expect(f"{workflow.app}/{workflow.id}/{id}", "heard"), result=id)


async def fan_out(stage: Stage) -> None:
    """Each of many events starts a run."""
    data = {"name": stage.name, "count": stage.scale}
    run, _ = await stage.start(orders.fan_out, data, "about to fan out")
    await stage.ended(run, result=stage.scale)
    for n in range(stage.scale):
        await stage.ended(stage.expect(f"{mail.client.id}/leaf/{stage.name}-{n}", "leaf"), result=n)


async def sent_twice(stage: Stage) -> None:
    """An event that is sent again starts nothing again."""
    for _ in range(2):
        await stage.send("chaos.leaf", stage.name, {"number": stage.number})
        await stage.pause(2)
    await stage.ended(stage.expect(f"{mail.client.id}/leaf/{stage.name}", "leaf"), result=stage.number)


async def waiter(stage: Stage) -> None:
    """An event that is sent after the wait has begun reaches it; sent again, it reaches no later wait."""
    data = {"number": stage.number}
    run, _ = await stage.start(orders.waiter, data, "about to wait", "heard", "heard:1")
    first, second = f"{stage.name}-1", f"{stage.name}-2"
    await stage.until_waiting(run)
    await stage.send("chaos.paid", first, data)
    await stage.until_waiting(run, 2)
    await stage.send("chaos.paid", first, data)
    await stage.pause(1)
    await stage.send("chaos.paid", second, data)
    await stage.ended(run, result=[first, second])


async def listener(stage: Stage) -> None:
    """Everything that is sent after it has begun to listen is heard, once and in order."""
    data = {"number": stage.number}
    run, _ = await stage.start(mail.listener, data, "about to listen", "listening", "heard", "heard:4")
    await stage.until_done(run, "listening")
    ids = [f"{stage.name}-{n}" for n in range(5)]
    for id in ids:
        await stage.send("chaos.news", id, data)
        await stage.pause(0.5)
    await stage.ended(run, result=ids)


async def signalled(stage: Stage) -> None:
    """What senders are told is what the run has received; here the wait lasts until it has."""
    run, run_id = await _signalled(stage, "1h")
    await stage.until_waiting(run)
    told: dict[int, str | None] = {}
    ending = asyncio.create_task(stage.ended(run))
    while not ending.done():
        told[len(told)] = await stage.signal(stage.name, len(told))
        await asyncio.wait([ending], timeout=1)
    received = (await ending).result
    stage.demand(received is not None, f"{run} has received nothing, and senders were told {told}")
    _agree(stage, run, run_id, told, received)


async def signalled_in_time(stage: Stage) -> None:
    """The same at the moment when the wait ends."""
    run, run_id = await _signalled(stage, "2s")
    await stage.until_done(run, "about to wait")
    await asyncio.sleep(stage.random.uniform(1.6, 2.1))
    told = {n: await stage.signal(stage.name, n) for n in range(3)}
    _agree(stage, run, run_id, told, (await stage.ended(run)).result)


async def _signalled(stage: Stage, timeout: str) -> tuple[str, str]:
    data = {"signal": stage.name, "timeout": timeout}
    return await stage.start(orders.signalled, data, "about to wait", "heard")


def _agree(stage: Stage, run: str, run_id: str, told: dict[int, str | None], received: int | None) -> None:
    receivers = {n: who for n, who in told.items() if who not in (None, UNKNOWN)}
    case = f"{run} ({run_id}) has received {received}; senders were told {told}"
    stage.demand(set(receivers.values()) <= {run_id}, case)
    stage.demand(set(receivers) <= {received}, case)
    if received is not None:
        stage.demand(told.get(received) in (run_id, UNKNOWN), case)


async def signaller(stage: Stage) -> None:
    """A run that sends a signal to one that waits is told who has received it."""
    run, run_id = await _signalled(stage, "1h")
    await stage.until_waiting(run)
    sender, _ = await stage.start(orders.signaller, stage.name, "told")
    await stage.ended(sender, result=run_id)
    await stage.ended(run, result="from a run")


async def stopped(stage: Stage) -> None:
    """An event cancels the run, which cleans up; that is told once."""
    data = {"number": stage.number}
    run, run_id = await stage.start(orders.stopped, data, "ready", "clean up")
    await stage.until_sleeping(run, "for long")
    for _ in range(2):
        await stage.send("chaos.stop", stage.name, data)
    await stage.ended(run, "cancelled")
    await stage.ended(stage.expect(f"{mail.client.id}/on-cancelled/{run_id}", "noted"), result=run)


async def failing(stage: Stage) -> None:
    """A run that fails is told, and picked up by its failure handler."""
    run, run_id = await stage.start(orders.failing, stage.number, "before")
    await stage.ended(run, "NonRetryableError")
    await stage.ended(stage.expect(f"{orders.client.id}/failing-failure/{run_id}", "picked up"), result=run)
    await stage.ended(stage.expect(f"{mail.client.id}/on-failed/{run_id}", "noted"), result=run)


PLAYS: dict[Play, int] = {
    steps: 8,
    slow: 6,
    retried: 4,
    once: 4,
    bodies: 4,
    branches: 4,
    sleeper: 5,
    invoker: 4,
    announcer: 4,
    fan_out: 1,
    sent_twice: 2,
    waiter: 6,
    listener: 5,
    signalled: 4,
    signalled_in_time: 4,
    signaller: 4,
    stopped: 4,
    failing: 4,
}
"""All plays, each with its weight in the draw."""
