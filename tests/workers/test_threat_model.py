"""Sentences of docs/threat-model.md that no other test shows; and each sentence has a test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from gateway import gateway_of
from named_tests import TESTS, is_there, named
from recording import Workers

import steporal
from steporal import Context, Step, event_trigger
from steporal.errors import RunNotFoundError
from steporal_workers.gateway.keys import Keys
from steporal_workers.settings import SETTINGS

PAGE = (TESTS.parent / "docs" / "threat-model.md").read_text()
SENTENCES = [line for line in PAGE.splitlines() if line.startswith(("| can ", "| cannot ", "| does "))][0:]
EVENT_KEY, API_KEY = "event-key-of-tests", "api-key-of-tests"
API = {"authorization": f"Bearer {API_KEY}"}


@pytest.mark.parametrize("sentence", [line for line in SENTENCES if "or cannot" not in line])
def test_each_sentence_names_the_tests_that_show_it(sentence: str) -> None:
    assert named(sentence)


@pytest.mark.parametrize(("file", "function"), named(PAGE), ids=lambda name: name)
def test_a_test_that_is_named_is_there(file: str, function: str) -> None:
    assert is_there(file, function)


@pytest.fixture
async def waiting(app: steporal.Client, workers: Workers) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """A gateway with keys, and the name of an event that starts a workflow."""
    name = f"{app.id}.placed"

    @app.workflow(id=f"placed {app.id}", triggers=[event_trigger(name)])
    async def placed(ctx: Context[Any], step: Step) -> None: ...

    async with workers(app), gateway_of(app, Keys.of([EVENT_KEY], [API_KEY])) as http:
        yield http, name


async def answers(http: httpx.AsyncClient, workflow: str, key: str) -> list[int]:
    """The statuses of requests that need an API key, with another one."""
    headers = {"authorization": f"Bearer {key}"}
    made = [
        await http.post(f"/invoke/{workflow}", json={"data": {}}, headers=headers),
        await http.post("/v1/signals", json={"signal": "x", "data": 1}, headers=headers),
        await http.get("/v1/runs/x", headers=headers),
        await http.delete("/v1/runs/x", headers=headers),
        await http.get("/v1/events/x/runs", headers=headers),
    ]
    return [one.status_code for one in made]


async def test_without_a_key_nothing_reaches_temporal(
    app: steporal.Client, waiting: tuple[httpx.AsyncClient, str]
) -> None:
    http, name = waiting
    workflow = f"placed {app.id}"
    for key in ("x", API_KEY, f"{EVENT_KEY}x", f"%20{EVENT_KEY}"):
        refused = await http.post(f"/e/{key}", json={"name": name, "id": "refused"})
        assert refused.status_code == 401
    assert await answers(http, workflow, "wrong-key-of-tests") == [401] * 5
    with pytest.raises(RunNotFoundError):
        await (await app.get_run(f"{app.id}/{workflow}/refused")).result()
    sent = await http.post(f"/e/{EVENT_KEY}", json={"name": name, "id": "taken"})
    assert sent.status_code == 200, "and with a key it does"
    await (await app.get_run(f"{app.id}/{workflow}/taken")).result()


async def test_an_event_key_opens_nothing_but_events(
    app: steporal.Client, waiting: tuple[httpx.AsyncClient, str]
) -> None:
    http, name = waiting
    sent = await http.post(f"/e/{EVENT_KEY}", json={"name": name})
    assert sent.json() == {"ids": sent.json()["ids"], "status": 200}
    assert (await http.get(f"/e/{EVENT_KEY}")).status_code == 405
    assert await answers(http, f"placed {app.id}", EVENT_KEY) == [401] * 5


async def test_the_gateway_speaks_no_tls(waiting: tuple[httpx.AsyncClient, str]) -> None:
    http, _ = waiting
    with pytest.raises(httpx.ConnectError):
        async with httpx.AsyncClient(verify=False) as over_tls:
            await over_tls.get(str(http.base_url.copy_with(scheme="https")))
    assert (await http.get("/live")).status_code == 200


def test_processes_listen_on_this_machine_alone_by_default() -> None:
    hosts = {setting.name: setting.default for setting in SETTINGS if setting.name.endswith("_host")}
    assert hosts == dict.fromkeys(("health_host", "metrics_host", "gateway_host", "codec_host"), "127.0.0.1")


async def test_a_step_has_all_that_its_worker_has(
    app: steporal.Client, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPORAL_ENCRYPTION_KEYS", "of-values")

    @app.workflow(id="reads")
    async def reads(ctx: Context[Any], step: Step) -> Any:
        return await step.run("read", lambda: os.environ["STEPORAL_ENCRYPTION_KEYS"])

    async with workers(app), asyncio.timeout(60):
        assert await (await reads.start()).result() == "of-values"
