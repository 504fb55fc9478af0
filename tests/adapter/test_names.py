"""Emoji and punctuation in every id and name."""

from __future__ import annotations

from typing import Any

import pytest
from recording import Workers

import steporal
from steporal import Context, Step, cron_trigger, event_trigger
from steporal.wire.workflow_ids import workflow_id_of

pytestmark = pytest.mark.outside_runs

NAMES = [
    "smile 😀 family 👨‍👩‍👧",
    "a/b:c#d?e=f&g%20h",
    "'single' \"double\" `back` \\slash",
    "{curly} [square] <angle> $dollar *",
    "日本語 العربية ñ é",
    "line\nbreak\ttab",
    "..",
    "x" * 255,
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
async def test_any_text_is_an_id(workers: Workers, name: str) -> None:
    client = steporal.Client(name, task_queue=f"queue {name}"[:255])
    event = f"e {name}"[:200].strip().replace("*", "+")

    @client.workflow(id=name, triggers=[event_trigger(event), cron_trigger("@yearly")])
    async def handler(ctx: Context[Any], step: Step) -> Any:
        if ctx.input.type == "event":
            return ctx.input.data
        ran = await step.run(name, lambda: name)
        local = await step.run(f"local {name}"[:255], lambda: name, local=True)
        await step.sleep(f"sleep {name}"[:255], 1)
        sent = await step.ext.send_event(f"send {name}"[:255], {"name": event, "data": {name: name}})
        invoked = await step.invoke_workflow(f"invoke {name}"[:255], workflow=child, data={name: name})
        return [ran, local, invoked, sent.ids[0]]

    @client.workflow(id=f"child {name}"[:255])
    async def child(ctx: Context[Any], step: Step) -> Any:
        return ctx.input.data

    async with workers(client, is_listed=True):
        *results, event_id = await (await handler.start(id=f"run {name}"[:255])).result()
        assert results == [name, name, {name: name}]
        assert await (await client.get_run(workflow_id_of(client.id, name, event_id), handler)).result() == {name: name}
        by_reference = await client.start_workflow(steporal.reference(name, child.id), name)
        assert await by_reference.result() == name


async def test_an_event_id_is_any_text(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="any", triggers=[event_trigger(f"{app.id}/any")])
    async def handler(ctx: Context[Any], step: Step) -> str:
        return ctx.input.id

    ids = [f"{name}{number}" for number, name in enumerate(NAMES)]
    async with workers(app):
        sent = await app.send_event([{"name": f"{app.id}/any", "id": event_id} for event_id in ids])
        assert sent.ids == ids
        for event_id in ids:
            assert await (await app.get_run(f"{app.id}/any/{event_id}", handler)).result() == event_id
