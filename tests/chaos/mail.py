"""The app that one worker process serves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import steporal
from steporal import Context, RetryPolicy, Step, event_trigger

from .doing import act

client = steporal.Client(
    "chaos-mail",
    max_attempts=100,
    retry=RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=2)),
    park_after="1s",
)


@client.workflow(id="invoked")
async def invoked(ctx: Context[Any], step: Step) -> int:
    number, by = ctx.input.data["number"], ctx.input.data["by"]
    return await step.run("count", act, number + 1, 0.2, by)


@client.workflow(id="heard-by-mail", triggers=[event_trigger("chaos.announced")])
async def heard_by_mail(ctx: Context[Any], step: Step) -> str:
    return await step.run("heard", act, ctx.input.id)


@client.workflow(id="leaf", triggers=[event_trigger("chaos.leaf")])
async def leaf(ctx: Context[Any], step: Step) -> int:
    """One of many."""
    return await step.run("leaf", act, ctx.input.data["number"], local=True)


@client.workflow(id="listener")
async def listener(ctx: Context[Any], step: Step) -> list[str]:
    """Keeps five events that come while it does something else."""
    heard: list[str] = []
    await step.run("about to listen", act, None, local=True)
    async with await step.ext.listen("listen", event="chaos.news", match="data.number", timeout="1h") as news:
        await step.run("listening", act, None)
        while len(heard) < 5:
            event = await news.next("next")
            assert event is not None
            heard.append(event.id)
            await step.run("heard", act, event.id, 0.1, event.id)
    return heard


# --- what runs tell when they end ------------------------------------------------------------------------------------


@client.workflow(
    id="on-finished", triggers=[event_trigger("inngest/function.finished", "event.data.workflow == 'slow'")]
)
async def on_finished(ctx: Context[Any], step: Step) -> str:
    ended = ctx.input.data["workflow_id"]
    return await step.run("noted", act, ended, 0.0, ended)


@client.workflow(id="on-cancelled", triggers=[event_trigger("inngest/function.cancelled")])
async def on_cancelled(ctx: Context[Any], step: Step) -> str:
    ended = ctx.input.data["workflow_id"]
    return await step.run("noted", act, ended, 0.0, ended)


@client.workflow(id="on-failed", triggers=[event_trigger("inngest/function.failed")])
async def on_failed(ctx: Context[Any], step: Step) -> str:
    ended = ctx.input.data["workflow_id"]
    return await step.run("noted", act, ended, 0.0, ended)
