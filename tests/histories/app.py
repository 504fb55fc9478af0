"""The workflows whose runs are recorded. They only grow: an edit of one does not fit the histories that there are.

The tests replay them with each version of Python, so that bodies here do not use ``asyncio.wait_for``, which
ends sooner in some than in others.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Coroutine
from datetime import timedelta
from functools import partial
from typing import Any

from pydantic import BaseModel
from temporalio import workflow

import steporal
from steporal import CancelOn, Context, Step, StepError, WorkflowExt, cron_trigger, event_trigger

QUICKLY = steporal.RetryPolicy(initial_interval=timedelta(milliseconds=10))
PARKED = "1s"

shop = steporal.Client("histories-shop", retry=QUICKLY)
warehouse = steporal.Client("histories-warehouse", retry=QUICKLY)
audit = steporal.Client("histories-audit", retry=QUICKLY)

APPS = (shop, warehouse, audit)


class Order(BaseModel):
    order_id: str
    amount: float = 1.0


def define_sinks(url: str) -> None:
    """Where events are delivered to is known when there is a receiver; no history depends on it."""
    shop.event_sink("hook.*", url, id="hook", retry=QUICKLY, allow_private=True)
    shop.event_sink("unheard", url, id="hook-in-vain", retry=QUICKLY, give_up_after="1s", allow_private=True)


def doubled(amount: float) -> float:
    return amount * 2


def broken() -> None:
    raise KeyError("out of order")


def final() -> None:
    raise steporal.NonRetryableError("never")


def at_second_attempt(ctx: Context[Any]) -> int:
    if ctx.attempt == 0:
        raise ValueError("not yet")
    return ctx.attempt


def later(ctx: Context[Any]) -> int:
    if ctx.attempt == 0:
        raise steporal.RetryAfterError("busy", timedelta(milliseconds=20))
    return ctx.attempt


def hold_the_lock(seconds: int) -> str:
    """Keep Python's global lock, so that no thread of the process sends a heartbeat."""
    ctypes.PyDLL(None).sleep(seconds)
    return "held"


async def slow(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


async def error_of(step: Coroutine[Any, Any, Any]) -> str | None:
    """The name of the error that a step ends with."""
    try:
        await step
    except StepError as err:
        return f"{err.step_id}: {err.name}"
    return None


async def race(*steps: Coroutine[Any, Any, Any]) -> list[Any]:
    """What each step returned, None for those that have lost."""
    tasks = [asyncio.create_task(step) for step in steps]
    await workflow.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    return [None if isinstance(result, asyncio.CancelledError) else result for result in ended]


# --- steps ---------------------------------------------------------------------------------------------------------


@shop.workflow(id="process-order", input_schema=Order, triggers=[event_trigger("order.*", "event.data.amount > 0")])
async def process_order(ctx: Context[Order], step: Step) -> dict[str, Any]:
    """Each step that succeeds by itself."""
    order = ctx.input.data
    drawn = [ctx.random.random(), str(ctx.uuid4())]

    async def reserved() -> Order:
        return Order(order_id=order.order_id, amount=order.amount + 1)

    amount = await step.run("amount", lambda: order.amount)
    kept = await step.run("reserve", reserved)
    results = [
        await step.run("function", doubled, amount),
        await step.run("partial", partial(doubled, kept.amount)),
        await step.run("context", lambda: [ctx.run_id, ctx.input.id, drawn]),
        await step.run("local", lambda: order.order_id, local=True),
    ]
    results += [await step.run("item", lambda: number) for number in range(3)]
    results += await asyncio.gather(*(step.run(f"side {n}", lambda: n) for n in range(3)), step.sleep("nap", 30))
    async with asyncio.TaskGroup() as group:
        group.create_task(step.run("in a group", slow, 0.01))
        group.create_task(step.sleep_until("until", ctx.now() + timedelta(milliseconds=20)))
    async with asyncio.timeout(60):
        await step.run("in time", slow, 0.01)
    await asyncio.sleep(0.01)
    one = await step.ext.send_event("send", {"name": "shipped", "data": {"order": order.order_id}})
    many = await step.ext.send_event("send many", [{"name": "shipped", "data": {"n": n}} for n in range(3)])
    return {"results": results, "kept": kept, "sent": [*one.ids, *many.ids], "attempt": ctx.attempt}


@shop.workflow(id="step-failures", max_attempts=2)
async def step_failures(ctx: Context[Any], step: Step) -> list[Any]:
    """Each way in which a step fails, or does not at last."""
    return [
        await step.run("retried", lambda: at_second_attempt(ctx)),
        await step.run("later", lambda: later(ctx)),
        await error_of(step.run("broken", broken)),
        await error_of(step.run("final", final)),
        await error_of(step.run("timed out", slow, 5, timeout=50, max_attempts=1)),
        await error_of(step.run("local", broken, local=True)),
        await error_of(step.run("local and final", final, local=True)),
        await error_of(step.run("of a type", lambda: "text", output_type=int)),
        await asyncio.gather(error_of(step.run("a", broken)), error_of(step.run("b", final)), step.run("c", slow, 0.1)),
        await race(step.run("slow", slow, 5), step.sleep("quick", 50)),
        await race(step.sleep("long", "1h"), step.run("short", slow, 0.01)),
    ]


@shop.workflow(id="body-attempts", max_attempts=3)
async def body_attempts(ctx: Context[Any], step: Step) -> list[Any]:
    """Raises, with a step in flight that the next attempt joins; then again, with an error that says when."""
    first = await step.run("first", lambda: "first")
    in_flight = asyncio.create_task(step.run("in flight", slow, 0.3))
    await step.sleep("a moment", 20)
    if ctx.attempt == 0:
        raise ValueError("not yet")
    slept = await in_flight
    if ctx.attempt == 0:
        raise steporal.RetryAfterError("later", timedelta(milliseconds=50))
    return [first, slept, ctx.attempt]


async def told_of_failure(ctx: Context[steporal.RunFailure], step: Step) -> str:
    name, message = ctx.input.data.error.name, ctx.input.data.error.message  # its stack has places of the recorder
    return await step.run("note", lambda: f"{name}: {message}")


@shop.workflow(id="fails", max_attempts=2, ext=WorkflowExt(on_failure=told_of_failure))
async def fails(ctx: Context[Any], step: Step) -> None:
    """Fails for good: by its body, or by a step."""
    await step.run("work", lambda: 1)
    if ctx.input.data == "step":
        await step.run("broken", broken)
    raise ValueError("the body is broken")


@shop.workflow(id="yearly", triggers=[cron_trigger("@yearly")])
async def yearly(ctx: Context[Any], step: Step) -> list[Any]:
    scheduled = await step.run("scheduled", lambda: ctx.input.data["scheduledAt"])
    return [ctx.input.type, ctx.input.ext.cron, scheduled]


@shop.workflow(id="fetches", max_attempts=2)
async def fetches(ctx: Context[Any], step: Step) -> list[Any]:
    url = ctx.input.data
    found = await step.ext.fetch("found", "POST", f"{url}/found", json={"a": 1})
    busy = await step.ext.fetch("busy", "GET", f"{url}/busy")
    refused = await step.ext.fetch("refused", "GET", f"{url}/refused")
    return [
        [response.status for response in (found, busy, refused)],
        await error_of(step.ext.fetch("broken", "GET", f"{url}/broken")),
    ]


# --- other runs ----------------------------------------------------------------------------------------------------


@shop.workflow(id="child")
async def child(ctx: Context[Any], step: Step) -> Any:
    """Sleeps for as long as it is told to, and returns or fails."""
    await step.sleep("a while", ctx.input.data.get("sleep", 10))
    if ctx.input.data.get("fails"):
        raise steporal.NonRetryableError("the child is broken")
    return {"child of": ctx.input.data["of"]}


@warehouse.workflow(id="pack", input_schema=Order)
async def pack(ctx: Context[Order], step: Step) -> Order:
    return await step.run("pack", lambda: ctx.input.data)


@shop.workflow(id="invokes")
async def invokes(ctx: Context[Any], step: Step) -> list[Any]:
    packing = steporal.reference(warehouse.id, "pack", output_type=Order)
    return [
        await step.invoke_workflow("own", workflow=child, data={"of": "own"}),
        await step.invoke_workflow("another app's", workflow=pack, data=Order(order_id="1")),
        await step.invoke_workflow("by reference", workflow=packing, data={"order_id": "2"}),
        await error_of(step.invoke_workflow("unknown", workflow=steporal.reference(warehouse.id, "unpack"))),
        await error_of(step.invoke_workflow("fails", workflow=child, data={"of": "fails", "fails": True})),
        await error_of(step.invoke_workflow("late", workflow=child, data={"of": "late", "sleep": "2s"}, timeout=100)),
        await asyncio.gather(*(step.invoke_workflow(f"side {n}", workflow=child, data={"of": n}) for n in range(3))),
        await race(step.invoke_workflow("lost", workflow=child, data={"of": "x", "sleep": "2s"}), step.sleep("s", 50)),
    ]


@audit.workflow(
    id="hears-of-ends",
    triggers=[event_trigger("inngest/function.finished"), event_trigger("inngest/function.cancelled")],
)
async def hears_of_ends(ctx: Context[Any], step: Step) -> Any:
    return await step.run("note", lambda: ctx.input.data["workflow"])


# --- events --------------------------------------------------------------------------------------------------------


@shop.workflow(id="waits-for-events", triggers=[event_trigger("waits.start")])
async def waits_for_events(ctx: Context[Any], step: Step) -> list[Any]:
    """An event that comes; one of several; none; and one whose wait has lost a race."""
    matching = await step.ext.wait_for_event("matching", event="waits.paid", match="data.order", timeout="1h")
    several = await step.ext.wait_for_event("several", event=["waits.a", "waits.b", "paid.*"], timeout="1h")
    none = await step.ext.wait_for_event("none", event="waits.none", timeout=50)
    lost = await race(step.ext.wait_for_event("lost", event="waits.lost", timeout="1h"), step.run("won", lambda: "won"))
    return [matching and matching.id, several and several.id, none, lost]


@shop.workflow(id="waits-in-a-crowd")
async def waits_in_a_crowd(ctx: Context[Any], step: Step) -> str | None:
    event = await step.ext.wait_for_event("wait", event="crowd", timeout="1h")
    return event and event.id


@shop.workflow(id="listens")
async def listens(ctx: Context[Any], step: Step) -> list[Any]:
    """Acts while it listens; closes one listener, and leaves the other one open."""
    heard: list[Any] = []
    await step.ext.listen("to the end", event="heard.never", timeout="1h")
    expression = "async.data.n > 0 && async.data.n < 100"
    async with await step.ext.listen("listen", event="heard.*", if_exp=expression, timeout="1h") as listener:
        await step.run("act", slow, 0.05)
        for _ in range(3):
            event = await listener.next("next")
            heard.append(event and event.data["n"])
        heard.append(await listener.next("no more", timeout=50))
    return heard


@shop.workflow(
    id="cancelled-by-events",
    triggers=[event_trigger("cancelled.start")],
    ext=WorkflowExt(cancel_on=[CancelOn("cancelled.stop", match="data.order"), CancelOn("never.*", timeout="1h")]),
)
async def cancelled_by_events(ctx: Context[Any], step: Step) -> None:
    try:
        await step.sleep("long", "1h")
    finally:
        await step.run("clean up", lambda: "cleaned up")


@shop.workflow(id="cancelled")
async def cancelled(ctx: Context[Any], step: Step) -> None:
    """Is cancelled while it waits for everything, and cleans up by more than one step."""
    try:
        await asyncio.gather(
            step.sleep("sleep", "1h"),
            step.run("run", slow, 3600),
            step.ext.wait_for_event("event", event="cancelled.never", timeout="1h"),
            step.wait_for_signal("signal", signal="cancelled/never", timeout="1h"),
            step.invoke_workflow("child", workflow=child, data={"of": "cancelled", "sleep": "2s"}),
        )
    finally:
        await step.run("clean up", lambda: "cleaned up")
        await step.sleep("settle", 20)
        await step.ext.send_event("tell", {"name": "cleaned.up"})


# --- signals -------------------------------------------------------------------------------------------------------


@shop.workflow(id="waits-for-signal")
async def waits_for_signal(ctx: Context[Any], step: Step) -> Any:
    """Waits once; what for, and for how long, is its input."""
    wanted = ctx.input.data
    try:
        signal = await step.wait_for_signal(
            "wait",
            signal=wanted["signal"],
            timeout=wanted.get("timeout", "1h"),
            schema=Order if wanted.get("order") else None,
            on_conflict="replace" if wanted.get("replace") else "fail",
        )
    except steporal.SignalConflictError as err:
        return err.name
    return signal and signal.data


@shop.workflow(id="races-for-signal", max_attempts=2)
async def races_for_signal(ctx: Context[Any], step: Step) -> list[Any]:
    """A wait that loses, one for the same name, and one that the next attempt of the body joins."""
    name = ctx.input.data
    waiting = asyncio.create_task(step.wait_for_signal("wait", signal=name, timeout="1h"))
    lost = await race(step.wait_for_signal("lost", signal=f"{name}/lost", timeout="1h"), step.sleep("quick", 100))
    late = await step.wait_for_signal("late", signal=f"{name}/lost", timeout=100)
    if ctx.attempt == 0 and await step.run("once", lambda: True):
        raise ValueError("again")
    signal = await waiting
    return [lost, late, signal and signal.data]


@shop.workflow(id="leaves-a-signal")
async def leaves_a_signal(ctx: Context[Any], step: Step) -> str:
    """Ends while it waits and listens."""
    await step.ext.listen("listen", event="left.never", timeout="1h")
    waiting = asyncio.create_task(step.wait_for_signal("wait", signal=ctx.input.data, timeout="1h"))
    await step.sleep("a moment", 200)
    return "left" if not waiting.done() else "received"


@shop.workflow(id="sends-signals")
async def sends_signals(ctx: Context[Any], step: Step) -> list[bool]:
    received = await step.send_signal("received", signal=ctx.input.data, data={"order_id": "1"})
    nobody = await step.send_signal("nobody", signal=f"{ctx.input.data}/nobody")
    return [received.run_id is not None, nobody.run_id is not None]


# --- runs of several executions ------------------------------------------------------------------------------------


async def _waited(ctx: Context[Any], step: Step, kind: str) -> Any:
    name = f"parks/{ctx.input.id}"
    match kind:
        case "sleep":
            return await step.sleep("sleep", "5s")
        case "long sleep":
            return await step.sleep("long sleep", "1h")
        case "event":
            event = await step.ext.wait_for_event("event", event="parks.event", match="data.id", timeout="1h")
            return event and event.data
        case "no event":
            return await step.ext.wait_for_event("no event", event="parks.none", timeout="5s")
        case "signal":
            signal = await step.wait_for_signal("signal", signal=name, timeout="1h")
            return signal and signal.data
        case "no signal":
            return await step.wait_for_signal("no signal", signal=f"{name}/none", timeout="5s")
        case "child":
            return await step.invoke_workflow("child", workflow=child, data={"of": name, "sleep": "5s"})
        case "child fails":
            data = {"of": name, "sleep": "5s", "fails": True}
            return await error_of(step.invoke_workflow("child fails", workflow=child, data=data))
        case "child is late":
            data = {"of": name, "sleep": "8s"}
            return await error_of(step.invoke_workflow("late", workflow=child, data=data, timeout="4s"))
        case "child is gone":
            data = {"of": name, "sleep": "1h"}
            return await error_of(step.invoke_workflow("child", workflow=child, data=data))
        case "timer":
            return await asyncio.sleep(5, "slept")
        case "timeout":
            try:
                async with asyncio.timeout(2):
                    await step.sleep("too long", "1h")
            except TimeoutError:
                return "too long"
        case "backoff":
            failed = await error_of(step.run("broken", final))
            if ctx.attempt == 0:
                raise steporal.RetryAfterError("later", timedelta(seconds=5))
            return [failed, ctx.attempt]
    raise steporal.NonRetryableError(f"what is {kind!r}?")


@shop.workflow(
    id="parks",
    triggers=[event_trigger("parks.start")],
    ext=WorkflowExt(park_after=PARKED, cancel_on=[CancelOn("parks.stop", match="data.id")]),
)
async def parks(ctx: Context[Any], step: Step) -> list[Any]:
    """Parks while it waits for what its input says, and does something before and after."""
    before = await step.run("before", lambda: {"before": ctx.input.id})
    began = ctx.now()
    drawn = ctx.random.random()
    try:
        waited = await asyncio.gather(*(_waited(ctx, step, kind) for kind in ctx.input.data["for"]))
    finally:
        after = await step.run("after", lambda: "after")
    return [before, waited, after, drawn, ctx.now() > began]


@shop.workflow(id="parks-listening", ext=WorkflowExt(park_after=PARKED))
async def parks_listening(ctx: Context[Any], step: Step) -> list[Any]:
    """Parks twice, and is woken by an event for a listener each time; what comes meanwhile is carried."""
    heard: list[Any] = []
    async with await step.ext.listen("listen", event="parks.heard", timeout="1h") as listener:
        for _ in range(2):
            event = await listener.next("next")
            heard.append(event and event.data["n"])
        await step.sleep("a while", "2s")
        while (event := await listener.next("more", timeout=50)) is not None:
            heard.append(event.data["n"])
    return heard


@shop.workflow(id="is-recovered")
async def is_recovered(ctx: Context[Any], step: Step) -> list[Any]:
    """Has done one step and waits for more than one thing."""
    before = await step.run("before", lambda: ctx.run_id)
    event, signal, ended, _ = await asyncio.gather(
        step.ext.wait_for_event("event", event="recovered", timeout="1h"),
        step.wait_for_signal("signal", signal="recovered", timeout="1h"),
        step.invoke_workflow("child", workflow=child, data={"of": "recovered", "sleep": "5s"}),
        step.sleep("sleep", "4s"),
    )
    after = await step.run("after", lambda: "after")
    return [before == ctx.run_id, event and event.id, signal and signal.data, ended, after]


@shop.workflow(id="works")
async def works(ctx: Context[Any], step: Step) -> list[Any]:
    """Has steps one after the other, beside a wait: a checkpoint holds them."""

    async def worked() -> list[float]:
        return [await step.run("work", slow, 0.3) for _ in range(4)]

    return list(await asyncio.gather(worked(), step.sleep("meanwhile", "2s")))


@shop.workflow(id="loops")
async def loops(ctx: Context[Any], step: Step) -> list[Any]:
    """Grows long by steps one after the other."""
    drawn = ctx.random.random()
    failed = await error_of(step.run("broken", final))
    total = 0
    for number in range(15):
        total += await step.run("add", lambda: number)
        if number % 5 == 0:
            await step.sleep("nap", 5)
    return [failed, total, drawn == await step.run("draw", lambda: drawn)]


@shop.workflow(id="loops-listening")
async def loops_listening(ctx: Context[Any], step: Step) -> list[int]:
    """Grows long by what it hears, with a child and a signal that outlast an execution."""
    heard: list[int] = []

    async def hears() -> None:
        async with await step.ext.listen("listen", event="loops.heard", timeout="1h") as listener:
            while len(heard) < 30:
                event = await listener.next("next")
                assert event is not None
                heard.append(event.data["n"])

    _, signal, ended = await asyncio.gather(
        hears(),
        step.wait_for_signal("signal", signal="loops/done", timeout="1h"),
        step.invoke_workflow("child", workflow=child, data={"of": "loops", "sleep": "2s"}),
    )
    return [len(heard), signal and signal.data, ended]


@shop.workflow(id="outlasts", ext=WorkflowExt(heartbeat_timeout="1s"))
async def outlasts(ctx: Context[Any], step: Step) -> str:
    """Has a step whose heartbeats stop, while its function goes on."""
    return await step.run("holds", hold_the_lock, 3, max_attempts=1)
