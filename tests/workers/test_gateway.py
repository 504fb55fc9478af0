"""The gateway's event API: what starts runs, what is refused."""

from __future__ import annotations

import pytest
import temporalio.client
from gateway import gateway_of
from recording import Workers

import steporal
from steporal import event_trigger

pytestmark = pytest.mark.integration


def greeting(app: steporal.Client) -> str:
    name = f"{app.id.replace(' ', '-')}.came"

    @app.workflow(id=f"greet {app.id}", triggers=[event_trigger(name)])
    async def greet(ctx: steporal.Context, step: steporal.Step) -> object:
        return ctx.input.data

    return name


async def test_an_event_starts_the_runs_that_it_triggers(
    app: steporal.Client, workers: Workers, temporal: temporalio.client.Client
) -> None:
    name = greeting(app)
    async with workers(app), gateway_of(app) as http:
        sent = await http.post("/e/any", json={"name": name, "data": {"who": "Ada"}})
        assert sent.status_code == 200
        [event_id] = sent.json()["ids"]
        result = await temporal.get_workflow_handle(f"greet {app.id}/{event_id}").result()
        assert result == {"who": "Ada"}
        print((await http.get(f"/v1/events/{event_id}/runs")).json())
