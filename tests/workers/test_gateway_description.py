"""The OpenAPI description is true: schemathesis asks all that it allows, and what it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jsonschema
import pytest
import schemathesis
import temporalio.client
from gateway import gateway_of, greeting
from hypothesis import HealthCheck, Phase, given, settings
from recording import Workers
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.routing import Mount, Route

import steporal
from steporal import event_trigger
from steporal_workers.gateway.app import create_app
from steporal_workers.gateway.keys import Keys
from steporal_workers.gateway.openapi import DESCRIPTION

ALL = [(method, path) for path, methods in DESCRIPTION["paths"].items() for method in methods]
WITH_INPUT = [(method, path) for method, path in ALL if "{" in path or method == "post"]
EXAMPLES = 20


@pytest.fixture
async def gateway(app: steporal.Client, workers: Workers) -> AsyncIterator[httpx.AsyncClient]:
    greeting(app)
    async with workers(app), gateway_of(app) as http:
        yield http


async def is_written(client: steporal.Client) -> bool:
    try:
        await client.send_signal("nobody waits")
    except NotImplementedError:
        return False
    return True


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        *(pytest.param(*each, GenerationMode.POSITIVE, id=f"valid {' '.join(each)}") for each in ALL),
        *(pytest.param(*each, GenerationMode.NEGATIVE, id=f"invalid {' '.join(each)}") for each in WITH_INPUT),
    ],
)
async def test_every_answer_is_as_the_description_says_and_none_is_a_failure(
    gateway: httpx.AsyncClient, app: steporal.Client, method: str, path: str, mode: GenerationMode
) -> None:
    if path == "/v1/signals" and not await is_written(app):
        pytest.skip("client.send_signal is not written yet")
    await asyncio.to_thread(_ask, str(gateway.base_url), method, path, mode)


def _ask(url: str, method: str, path: str, mode: GenerationMode) -> None:
    operation = schemathesis.openapi.from_url(f"{url}/openapi.json")[path][method.upper()]
    cases = operation.as_strategy(generation_mode=mode)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def ask(case: Any) -> None:
        answered = case.call(base_url=url, timeout=20)
        assert answered.status_code < 500, answered.text
        case.validate_response(
            answered,
            checks=[status_code_conformance, content_type_conformance, response_schema_conformance],
        )

    ask()


@pytest.mark.parametrize("ts", [None, 0, 1, -1, 315_532_799_999, 315_532_800_000, 4_102_444_800_000, 4_102_444_800_001])
async def test_a_time_is_taken_if_the_description_has_it(
    app: steporal.Client, temporal: temporalio.client.Client, ts: int | None
) -> None:
    described = jsonschema.Draft202012Validator(DESCRIPTION["components"]["schemas"]["Event"]["properties"]["ts"])
    app.temporal = temporal
    async with gateway_of(app) as http:
        answered = await http.post("/e/any", json={"name": f"nothing.{app.id}", "ts": ts})
    assert (answered.status_code == 200) is described.is_valid(ts), answered.text


async def test_what_succeeds_is_answered_as_the_description_says(app: steporal.Client, workers: Workers) -> None:
    workflow_id, name = greeting(app)

    @app.workflow(id=f"waits {app.id}", triggers=[event_trigger(name)])
    async def waits(ctx: steporal.Context[Any], step: steporal.Step) -> None:
        await step.sleep("for ever", "365d")

    async with workers(app), gateway_of(app) as http:
        described = schemathesis.openapi.from_dict(DESCRIPTION)

        async def ask(method: str, path: str, filled: str, status: int, json: object = None) -> Any:
            answered = await http.request(method, filled, json=json)
            assert answered.status_code == status
            described[path][method].validate_response(answered)
            return answered.json() if answered.content else None

        [event_id] = (await ask("POST", "/e/{key}", "/e/any", 200, {"name": name, "data": {"a": 1}}))["ids"]
        greeted = (await ask("POST", "/invoke/{workflow}", f"/invoke/{workflow_id}", 200, {"data": 5}))["id"]
        await app.temporal.get_workflow_handle(f"{app.id}/{workflow_id}/{event_id}").result()
        listed = await ask("GET", "/v1/events/{id}/runs", f"/v1/events/{event_id}/runs", 200)
        assert {run["status"] for run in listed["data"]} == {"Completed", "Running"}
        await ask("GET", "/v1/runs/{id}", f"/v1/runs/{greeted}", 200)
        await ask("DELETE", "/v1/runs/{id}", f"/v1/runs/{app.id}/waits {app.id}/{event_id}", 204)
        await ask("DELETE", "/v1/runs/{id}", f"/v1/runs/{app.id}/{workflow_id}/{event_id}", 409)


def test_every_path_is_described_and_every_described_path_is_there(
    temporal: temporalio.client.Client,
) -> None:
    routes = create_app(steporal.Client("described", temporal=temporal), Keys.any()).routes
    served = {
        (method.lower(), (mount + route.path).replace(":text", ""))
        for mount, route in _flat(routes)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert served == set(ALL)


def _flat(routes: Any) -> list[tuple[str, Route]]:
    return [
        (outer.path if isinstance(outer, Mount) else "", route)
        for outer in routes
        for route in (outer.routes if isinstance(outer, Mount) else [outer])
    ]
