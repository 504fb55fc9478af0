"""`/v1`, `/invoke` and the probes: what became of runs, and how they are started and cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest
import temporalio.client
from gateway import Wire, gateway_of, greeting
from pydantic import BaseModel
from recording import Workers
from temporalio.service import RetryConfig

import steporal
from steporal import event_trigger
from steporal.wire.limits import MAX_PAYLOAD_BYTES


class Person(BaseModel):
    name: str


def kinds(app: steporal.Client) -> str:
    """Define workflows that complete, fail, and wait for ever, on one event; returns its name."""
    name = f"{app.id}.came"

    @app.workflow(id=f"a completes {app.id}", triggers=[event_trigger(name)])
    async def completes(ctx: steporal.Context[Any], step: steporal.Step) -> dict[str, int]:
        return {"answer": 42}

    @app.workflow(id=f"b fails {app.id}", triggers=[event_trigger(name)])
    async def fails(ctx: steporal.Context[Any], step: steporal.Step) -> None:
        raise steporal.NonRetryableError("out of order")

    @app.workflow(id=f"c waits {app.id}", triggers=[event_trigger(name)])
    async def waits(ctx: steporal.Context[Any], step: steporal.Step) -> None:
        await step.sleep("for ever", "365d")

    @app.workflow(id=f"d greets {app.id}", input_schema=Person)
    async def greets(ctx: steporal.Context[Person], step: steporal.Step) -> str:
        return f"hello {ctx.input.data.name}"

    return name


@asynccontextmanager
async def serving_kinds(app: steporal.Client, workers: Workers) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """The gateway, and the id of an event that has started the three runs."""
    name = kinds(app)
    async with workers(app, is_listed=True), gateway_of(app) as http:
        [event_id] = (await http.post("/e/any", json={"name": name})).json()["ids"]
        yield http, event_id
        await http.delete(f"/v1/runs/{app.id}/c waits {app.id}/{event_id}")


async def until(http: httpx.AsyncClient, run: str, status: str) -> dict[str, Any]:
    """The run, when it has a status."""
    async with asyncio.timeout(60):
        while True:
            found: dict[str, Any] = (await http.get(f"/v1/runs/{run}")).json()["data"]
            if found["status"] == status:
                return found
            await asyncio.sleep(0.02)


async def test_the_runs_that_an_event_started_are_listed(app: steporal.Client, workers: Workers) -> None:
    async with serving_kinds(app, workers) as (http, event_id):
        await until(http, f"{app.id}/a completes {app.id}/{event_id}", "Completed")
        await until(http, f"{app.id}/b fails {app.id}/{event_id}", "Failed")
        answered = (await http.get(f"/v1/events/{event_id}/runs")).json()
    completed, failed, running = sorted(answered["data"], key=lambda run: run["function_id"])
    assert {run["event_id"] for run in answered["data"]} == {event_id}
    assert (completed["status"], completed["output"]) == ("Completed", {"answer": 42})
    assert (running["status"], running["output"], running["ended_at"]) == ("Running", None, None)
    assert failed["status"] == "Failed"
    assert (failed["output"]["name"], failed["output"]["message"]) == ("NonRetryableError", "out of order")
    assert datetime.fromisoformat(completed["run_started_at"]) <= datetime.fromisoformat(completed["ended_at"])
    assert set(answered["metadata"]) == {"fetched_at", "cached_until"}


async def test_an_event_that_started_nothing_has_no_runs(
    app: steporal.Client, temporal: temporalio.client.Client
) -> None:
    app.temporal = temporal
    async with gateway_of(app) as http:
        answered = await http.get("/v1/events/unheard of/runs")
    assert (answered.status_code, answered.json()["data"]) == (200, [])


async def test_a_run_is_found_by_its_run_id_and_by_its_workflow_id(app: steporal.Client, workers: Workers) -> None:
    async with serving_kinds(app, workers) as (http, event_id):
        workflow_id = f"{app.id}/a completes {app.id}/{event_id}"
        run = await until(http, workflow_id, "Completed")
        by_run_id = await http.get(f"/v1/runs/{run['run_id']}")
        encoded = await http.get(f"/v1/runs/{quote(workflow_id, safe='')}")
    assert run["workflow_id"] == workflow_id
    assert by_run_id.json()["data"] == encoded.json()["data"] == run


async def test_a_run_that_was_just_started_is_found_at_once(app: steporal.Client, workers: Workers) -> None:
    kinds(app)
    async with workers(app, is_listed=True), gateway_of(app) as http:
        for _ in range(5):
            run_id = (await http.post(f"/invoke/a completes {app.id}", json={})).json()["id"]
            assert (await http.get(f"/v1/runs/{run_id}")).json()["data"]["run_id"] == run_id


@pytest.mark.parametrize(
    "id",
    ["nothing", "a/b", str(uuid4()), "steporal.catalog/0", "%00", "%FF", "' OR RunId != '", "x" * 5000],
    ids=range(8),
)
async def test_what_is_no_run_is_not_found(app: steporal.Client, workers: Workers, id: str) -> None:
    async with workers(app, is_listed=True), gateway_of(app) as http:
        for found in (await http.get(f"/v1/runs/{id}"), await http.delete(f"/v1/runs/{id}")):
            assert found.status_code == 404
            assert "there is no run" in found.json()["error"]


async def test_an_id_that_temporal_does_not_take_is_a_mistake(app: steporal.Client, workers: Workers) -> None:
    async with workers(app, is_listed=True), gateway_of(app) as http:
        assert (await http.get("/v1/runs/")).status_code == 400


async def test_a_run_is_cancelled(app: steporal.Client, workers: Workers) -> None:
    async with serving_kinds(app, workers) as (http, event_id):
        run = await until(http, f"{app.id}/c waits {app.id}/{event_id}", "Running")
        assert (await http.delete(f"/v1/runs/{run['run_id']}")).status_code == 204
        cancelled = await until(http, run["run_id"], "Cancelled")
        again = await http.delete(f"/v1/runs/{run['run_id']}")
    assert cancelled["output"] is None
    assert cancelled["ended_at"]
    assert again.status_code == 204


async def test_a_run_that_has_ended_cannot_be_cancelled(app: steporal.Client, workers: Workers) -> None:
    async with serving_kinds(app, workers) as (http, event_id):
        run = await until(http, f"{app.id}/b fails {app.id}/{event_id}", "Failed")
        refused = await http.delete(f"/v1/runs/{run['run_id']}")
    assert refused.status_code == 409
    assert "has ended: Failed" in refused.json()["error"]


async def test_runs_that_share_a_workflow_id_are_told_apart(
    app: steporal.Client, temporal: temporalio.client.Client, workers: Workers
) -> None:
    kinds(app)
    async with workers(app, is_listed=True) as worker, gateway_of(app) as http:
        native = f"d greets {app.id}"  # started from outside with an id that Temporal may give to a further run
        first = await temporal.start_workflow(native, {"name": "Ada"}, id=f"{native}/1", task_queue=worker.task_queue)
        await first.result()
        second = await temporal.start_workflow(native, {"name": "Bo"}, id=f"{native}/1", task_queue=worker.task_queue)
        await second.result()
        assert first.first_execution_run_id and second.first_execution_run_id
        found = [
            (await http.get(f"/v1/runs/{id}")).json()["data"]
            for id in (first.first_execution_run_id, second.first_execution_run_id, f"{native}/1")
        ]
    assert [run["output"] for run in found] == ["hello Ada", "hello Bo", "hello Bo"]


# --- invoke --------------------------------------------------------------------------------------------------------


async def test_a_workflow_is_started_with_its_input(app: steporal.Client, workers: Workers) -> None:
    kinds(app)
    async with workers(app, is_listed=True), gateway_of(app) as http:
        started = await http.post(f"/invoke/d greets {app.id}", json={"data": {"name": "Ada"}})
        assert (started.status_code, started.json()["status"]) == (200, 200)
        assert (await until(http, started.json()["id"], "Completed"))["output"] == "hello Ada"


@pytest.mark.parametrize(
    ("data", "issue"),
    [
        (None, "value: Input should be an object"),
        ({"nam": "Ada"}, "name: Field required"),
        ({"name": 5}, "name: Input should be a valid string"),
    ],
    ids=["null", "missing", "wrong"],
)
async def test_input_that_does_not_fit_is_answered_with_pydantics_issues(
    app: steporal.Client, workers: Workers, data: object, issue: str
) -> None:
    kinds(app)
    async with workers(app, is_listed=True), gateway_of(app) as http:
        refused = await http.post(f"/invoke/d greets {app.id}", json={"data": data})
    assert (refused.status_code, refused.json()["status"]) == (400, 400)
    assert refused.json()["error"].endswith(f"does not fit its input_schema: {issue}")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("", 400, "the body is empty"),
        ("[]", 400, "the body is a JSON array; it must be an object"),
        ('{"data": "\\ud800"}', 400, "lone surrogate"),
        ('{"data": {"\\ud800": 1}}', 400, "has the key"),
        (f'{{"data": {"[" * 300 + "]" * 300}}}', 400, "more than 100 deep"),
        (f'{{"data": "{"x" * MAX_PAYLOAD_BYTES}"}}', 413, "Temporal stores at most"),
    ],
    ids=["empty", "array", "surrogate", "surrogate as a key", "deep", "large"],
)
async def test_a_body_that_cannot_be_input_is_refused(
    app: steporal.Client, workers: Workers, body: str, status: int, said: str
) -> None:
    kinds(app)
    async with workers(app, is_listed=True), gateway_of(app) as http:
        refused = await http.post(f"/invoke/a completes {app.id}", content=body)
    assert refused.status_code == status
    assert said in refused.json()["error"]


async def test_a_workflow_that_is_unknown_is_answered_with_near_ones(app: steporal.Client, workers: Workers) -> None:
    kinds(app)
    async with workers(app, is_listed=True), gateway_of(app) as http:
        unknown = await http.post(f"/invoke/d greet {app.id}", json={})
    assert unknown.status_code == 404
    assert f"did you mean 'd greets {app.id}'" in unknown.json()["error"]


async def test_workflows_of_other_apps_are_started_too(
    app: steporal.Client, other_app: steporal.Client, workers: Workers, temporal: temporalio.client.Client
) -> None:
    workflow_id, _ = greeting(app)
    gateways = steporal.Client("gateway", temporal=temporal)
    async with workers(app, is_listed=True), gateway_of(gateways) as http:
        for name in (workflow_id, f"{app.id}-{workflow_id}"):
            started = await http.post(f"/invoke/{name}", json={"data": [1]})
            assert (await until(http, started.json()["id"], "Completed"))["output"] == [1]


async def test_a_workflow_that_several_apps_have_needs_the_app(
    app: steporal.Client, other_app: steporal.Client, workers: Workers, temporal: temporalio.client.Client
) -> None:
    workflow_id, _ = greeting(app)

    @other_app.workflow(id=workflow_id)
    async def twin(ctx: steporal.Context[Any], step: steporal.Step) -> str:
        return "the twin"

    gateways = steporal.Client("gateway", temporal=temporal)
    async with workers(app, is_listed=True), workers(other_app, is_listed=True), gateway_of(gateways) as http:
        refused = await http.post(f"/invoke/{workflow_id}", json={})
        chosen = await http.post(f"/invoke/{other_app.id}-{workflow_id}", json={})
        assert (await until(http, chosen.json()["id"], "Completed"))["output"] == "the twin"
    assert refused.status_code == 400
    assert f"/invoke/{app.id}-{workflow_id}" in refused.json()["error"]


# --- signals -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def signals(app: steporal.Client, temporal: temporalio.client.Client) -> None:
    app.temporal = temporal
    try:
        await app.send_signal("nobody waits")
    except NotImplementedError:
        pytest.skip("client.send_signal is not written yet")


@pytest.mark.usefixtures("signals")
async def test_a_signal_reaches_the_run_that_waits_for_it(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id=f"waits {app.id}")
    async def waits(ctx: steporal.Context[Any], step: steporal.Step) -> Any:
        received = await step.wait_for_signal("wait", signal=f"approve {app.id}", timeout="1m")
        return received.data if received else None

    async with workers(app, is_listed=True), gateway_of(app) as http:
        run_id = (await http.post(f"/invoke/waits {app.id}", json={})).json()["id"]
        async with asyncio.timeout(60):
            while True:
                sent = await http.post("/v1/signals", json={"signal": f"approve {app.id}", "data": {"by": "Ada"}})
                if sent.status_code != 404:
                    break
                await asyncio.sleep(0.05)
        assert (sent.status_code, sent.json()["data"]) == (200, {"run_id": run_id})
        assert (await until(http, run_id, "Completed"))["output"] == {"by": "Ada"}


@pytest.mark.usefixtures("signals")
async def test_a_signal_whose_data_does_not_fit_the_waiting_step_is_refused(
    app: steporal.Client, workers: Workers
) -> None:
    @app.workflow(id=f"waits {app.id}")
    async def waits(ctx: steporal.Context[Any], step: steporal.Step) -> Any:
        received = await step.wait_for_signal("wait", signal=f"count {app.id}", timeout="1m", schema=int)
        return received and received.data

    async with workers(app, is_listed=True), gateway_of(app) as http:
        run_id = (await http.post(f"/invoke/waits {app.id}", json={})).json()["id"]
        async with asyncio.timeout(60):
            while True:
                sent = await http.post("/v1/signals", json={"signal": f"count {app.id}", "data": "many"})
                if sent.status_code != 404:
                    break
                await asyncio.sleep(0.05)
        assert sent.status_code == 400
        assert "does not fit the schema of step 'wait'" in sent.json()["error"]
        assert (await http.post("/v1/signals", json={"signal": f"count {app.id}", "data": 3})).status_code == 200
        assert (await until(http, run_id, "Completed"))["output"] == 3


@pytest.mark.usefixtures("signals")
async def test_a_signal_that_nobody_waits_for_is_not_found(app: steporal.Client, workers: Workers) -> None:
    async with workers(app, is_listed=True), gateway_of(app) as http:
        lost = await http.post("/v1/signals", json={"signal": f"approve {app.id}"})
    assert lost.status_code == 404
    assert "no run waits for the signal" in lost.json()["error"]


@pytest.mark.parametrize(
    "body",
    ["", "5", "{}", '{"signal": ""}', '{"signal": 5}', '{"signal": "\\ud800"}', '{"signal": "a", "data": "\\ud800"}'],
)
async def test_a_signal_that_cannot_be_sent_is_refused(
    app: steporal.Client, temporal: temporalio.client.Client, body: str
) -> None:
    app.temporal = temporal
    async with gateway_of(app) as http:
        assert (await http.post("/v1/signals", content=body)).status_code == 400


# --- probes, and what is not there ---------------------------------------------------------------------------------


async def test_the_probes_say_whether_temporal_answers(temporal: temporalio.client.Client) -> None:
    impatient = RetryConfig(max_elapsed_time_millis=300, max_retries=2)
    async with Wire(temporal.service_client.config.target_host) as wire:
        through = await temporalio.client.Client.connect(wire.address, retry_config=impatient)
        async with gateway_of(steporal.Client("probed", temporal=through)) as http:
            assert (await http.get("/health")).json() == {"status": 200, "message": "OK"}
            assert (await http.get("/ready")).status_code == 200
            wire.cut()
            async with asyncio.timeout(60):
                while (ready := await http.get("/ready")).status_code == 200:  # as of two seconds ago
                    await asyncio.sleep(0.1)
            assert (ready.status_code, ready.json()["status"]) == (503, 503)
            assert (await http.get("/health")).status_code == 200
            for path in ("/v1/runs/x", "/v1/events/x/runs"):
                assert (await http.get(path)).status_code == 503
            assert (await http.post("/invoke/x", json={})).status_code == 503


async def test_what_is_not_there_says_so_in_json(app: steporal.Client, temporal: temporalio.client.Client) -> None:
    app.temporal = temporal
    async with gateway_of(app) as http:
        nowhere, wrong = await http.get("/nowhere"), await http.get("/e/any")
    assert (nowhere.status_code, nowhere.json()["status"]) == (404, 404)
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
