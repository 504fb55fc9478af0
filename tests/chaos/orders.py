"""The app that two worker processes serve."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import steporal
from steporal import (
    CancelOn,
    Context,
    NonRetryableError,
    RetryPolicy,
    RunFailure,
    Step,
    StepError,
    WorkflowExt,
    event_trigger,
    reference,
)

from .doing import act, act_async, refuse, succeed_at

# An attempt that a kill ended counts as one, so a kill after the other must not use them up.
client = steporal.Client(
    "chaos-orders",
    max_attempts=100,
    retry=RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=2)),
    park_after="1s",
)


def a_while(ctx: Context[Any]) -> float:
    return ctx.random.random() * 0.3


@client.workflow(id="steps", input_schema=int)
async def steps(ctx: Context[int], step: Step) -> list[int]:
    """Steps of every make, one after the other and together."""
    number = ctx.input.data
    first = await step.run("sync", act, number, a_while(ctx))
    second = await step.run("async", act_async, number + 1, a_while(ctx))
    third = await step.run("local", act, number + 2, local=True)
    both = await asyncio.gather(*(step.run("together", lambda: act(number + n, 0.1)) for n in (3, 4)))
    return [first, second, third, *both]


@client.workflow(id="slow", input_schema=int)
async def slow(ctx: Context[int], step: Step) -> int:
    """A step that is long enough to be killed in."""
    before = await step.run("before", act, ctx.input.data, local=True)
    return await step.run("slow", act, before + 1, 2.0)


@client.workflow(id="retried", input_schema=int)
async def retried(ctx: Context[int], step: Step) -> list[Any]:
    """Steps that fail, and succeed later or never."""
    third_time = await step.run("third time", succeed_at, 3, ctx.input.data)
    never: list[str] = []
    try:
        await step.run("never", succeed_at, 1_000, None, max_attempts=3)
    except StepError as err:
        never.append(err.step_id)
    try:
        await step.run("refused", refuse)
    except StepError as err:
        never.append(err.step_id)
    return [third_time, never, await step.run("after", act, "on")]


@client.workflow(id="once", input_schema=int)
async def once(ctx: Context[int], step: Step) -> int | None:
    """A step that must not be tried again, whatever becomes of it."""
    try:
        return await step.run("once", act, ctx.input.data, 0.7, max_attempts=1)
    except StepError:
        return None


@client.workflow(id="bodies", input_schema=int)
async def bodies(ctx: Context[int], step: Step) -> list[int]:
    """A body that raises twice, once while a step is in flight."""
    before = await step.run("before", act, ctx.input.data)
    beside = asyncio.create_task(step.run("beside", act, ctx.input.data + 1, 0.5))
    await step.sleep("a moment", "100ms")
    if ctx.attempt == 0:
        raise ValueError("the body does not like its first attempt")
    after = await step.run("after", act, ctx.input.data + 2)
    return [before, await beside, after]


@client.workflow(id="branches", input_schema=int)
async def branches(ctx: Context[int], step: Step) -> Any:
    """Three branches of several steps with the same ids, a race, and a body that raises and is parked amid them."""
    number = ctx.input.data
    takes = [a_while(ctx) for _ in range(6)]

    async def order(n: int) -> list[int]:
        reserved = await step.run("reserve", lambda: act(number + n, takes[n]))
        if n == 1:
            await step.sleep("wait for stock", "2500ms")
        charged = await step.run("charge", lambda: act(reserved, takes[n + 3]))
        return [reserved, charged, await step.run("ship", lambda: act(charged))]

    asked = [asyncio.create_task(step.run(f"ask {n}", act, n, takes[n])) for n in range(3)]
    (first, *_), _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    winner = first.result()
    ordered = await step.run(f"order from {winner}", act, winner)
    try:
        async with asyncio.timeout(0.5):
            late = await step.run("too slow", act_async, 1, 60.0)
    except TimeoutError:
        late = None
    orders = [asyncio.create_task(order(n)) for n in range(3)]
    await step.sleep("a moment", "200ms")
    if ctx.attempt == 0 and not await step.run("again", act, False):
        raise ValueError("the body does not like its first attempt")
    return [ordered == winner, late, await asyncio.gather(*orders), await asyncio.gather(*asked)]


@client.workflow(id="sleeper", input_schema=int)
async def sleeper(ctx: Context[int], step: Step) -> float:
    """Sleeps between two steps; returns for how many seconds."""
    await step.run("before", act, None)
    began = ctx.now()
    await step.sleep("nap", ctx.input.data)
    slept = ctx.now() - began
    await step.run("after", act, None)
    return slept.total_seconds()


@client.workflow(id="invoker", input_schema=int)
async def invoker(ctx: Context[int], step: Step) -> list[int]:
    """Invokes two runs of the other app at once."""
    child = reference("chaos-mail", "invoked", output_type=int)
    data = [{"number": ctx.input.data + n, "by": f"{ctx.ext.workflow_id} {n}"} for n in range(2)]
    return await asyncio.gather(*(step.invoke_workflow("child", workflow=child, data=given) for given in data))


@client.workflow(id="announcer", input_schema=str)
async def announcer(ctx: Context[str], step: Step) -> list[str]:
    """Sends three events, which start runs in both apps; two have ids of their own."""
    events: list[dict[str, Any]] = [{"name": "chaos.announced", "id": f"{ctx.input.data}-{n}"} for n in range(2)]
    sent = await step.ext.send_event("announce", [*events, {"name": "chaos.announced"}])
    await step.run("told", act, sent.ids)
    return sent.ids


@client.workflow(id="heard-by-orders", triggers=[event_trigger("chaos.announced")])
async def heard_by_orders(ctx: Context[Any], step: Step) -> str:
    return await step.run("heard", act, ctx.input.id)


@client.workflow(id="fan-out")
async def fan_out(ctx: Context[Any], step: Step) -> int:
    """Sends many events in one step, each of which starts a run."""
    name, count = ctx.input.data["name"], ctx.input.data["count"]
    await step.run("about to fan out", act, None, local=True)
    events = [{"name": "chaos.leaf", "id": f"{name}-{n}", "data": {"number": n}} for n in range(count)]
    sent = await step.ext.send_event("fan out", events)
    return len(sent.ids)


@client.workflow(id="waiter")
async def waiter(ctx: Context[Any], step: Step) -> list[str | None]:
    """Waits twice for events of one kind."""
    heard: list[str | None] = []
    for _ in range(2):
        await step.run("about to wait", act, None, local=True)
        event = await step.ext.wait_for_event("paid", event="chaos.paid", match="data.number", timeout="1h")
        heard.append(event.id if event else None)
        await step.run("heard", act, heard[-1], 0.0, str(heard[-1]))
    return heard


@client.workflow(id="signalled")
async def signalled(ctx: Context[Any], step: Step) -> Any:
    """Waits for a signal."""
    await step.run("about to wait", act, None, local=True)
    signal = await step.wait_for_signal("wait", signal=ctx.input.data["signal"], timeout=ctx.input.data["timeout"])
    data = signal.data if signal else None
    return await step.run("heard", act, data, 0.0, str(data))


@client.workflow(id="signaller", input_schema=str)
async def signaller(ctx: Context[str], step: Step) -> str | None:
    """Sends a signal, and returns who received it."""
    sent = await step.send_signal("send", signal=ctx.input.data, data="from a run")
    return await step.run("told", act, sent.run_id, 0.0, str(sent.run_id))


@client.workflow(id="stopped", ext=WorkflowExt(cancel_on=[CancelOn("chaos.stop", match="data.number")]))
async def stopped(ctx: Context[Any], step: Step) -> None:
    """Sleeps until an event cancels it."""
    await step.run("ready", act, None)
    try:
        await step.sleep("for long", "1d")
    finally:
        await step.run("clean up", act, None)


async def pick_up(ctx: Context[RunFailure], step: Step) -> str:
    return await step.run("picked up", act, ctx.input.data.workflow_id)


@client.workflow(id="failing", input_schema=int, ext=WorkflowExt(on_failure=pick_up))
async def failing(ctx: Context[int], step: Step) -> None:
    """Fails after a step; its failure handler runs."""
    await step.run("before", act, None)
    raise NonRetryableError(f"order {ctx.input.data} cannot be")
