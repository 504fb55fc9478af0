"""Activities of HTTP out that somebody who may write to the namespace puts on an app's task queue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from http_server import HttpServer, Reply, http_server
from recording import Workers
from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError
from temporalio.worker import Worker

import steporal
from steporal import Context, Step

KEYS = {
    "TEMPORAL_API_KEY": "of-temporal",
    "TEMPORAL_TLS_CLIENT_KEY_DATA": "of-tls",
    "STEPORAL_EVENT_KEYS": "of-events",
    "STEPORAL_API_KEYS": "of-the-api",
    "STEPORAL_CODEC_KEYS": "of-the-codec",
    "STEPORAL_ENCRYPTION_KEYS": "of-values",
    "STEPORAL_ENCRYPTION_OLD_KEYS": "of-old-values",
}


@workflow.defn(name="stranger", sandboxed=False)
class Stranger:
    """Puts activities on the task queue, one after the other; returns how each ended."""

    @workflow.run
    async def run(self, calls: list[tuple[str, Any]]) -> list[str]:
        said = []
        for name, call in calls:
            try:
                result = await workflow.execute_activity(
                    name,
                    call,
                    start_to_close_timeout=timedelta(seconds=10),
                    retry_policy=RetryPolicy(maximum_attempts=1),
                )
                said.append(f"returned {str(result)[:500]}")
            except ActivityError as err:
                said.append(f"{type(err.cause).__name__}: {err.cause}"[:5_000])
        return said


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with http_server() as running:
        yield running


async def put(app: steporal.Client, workers: Workers, *calls: tuple[str, Any]) -> list[str]:
    """What becomes of activities on an app's task queue, by a worker that serves its runs meanwhile and after."""

    @app.workflow(id="honest")
    async def honest(ctx: Context[Any], step: Step) -> str:
        return await step.run("work", lambda: "served")

    async with workers(app, workflows=[Stranger]):
        said: list[str] = await app.temporal.execute_workflow(
            Stranger.run, list(calls), id=f"stranger {app.id}", task_queue=app.task_queue
        )
        workers.drop(f"stranger {app.id}")
        assert await (await honest.start()).result() == "served", "the worker goes on"
    return said


def fetch(url: str, **options: Any) -> tuple[str, Any]:
    call = {
        "step": "x",
        "method": "GET",
        "url": url,
        "headers": {},
        "params": {},
        "timeout": 2,
        "max_response_bytes": 9,
    }
    return "steporal.fetch", {**call, **options}


async def test_no_key_of_the_worker_is_sent_anywhere(
    app: steporal.Client, workers: Workers, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    asked = [{"name": name, "prefix": ""} for name in (*KEYS, *map(str.lower, KEYS), " TEMPORAL_API_KEY")]
    calls = [fetch(server.url, **{part: {"x": key}}) for key in asked for part in ("headers", "params")]
    said = await put(app, workers, *calls)
    assert not server.asked
    assert all("SecretNotFoundError" in one or "never sent" in one or "does not have" in one for one in said), said
    assert not any(value in one for one in said for value in KEYS.values())


async def test_another_variable_of_the_worker_is_sent_where_a_stranger_wants_it(
    app: steporal.Client, workers: Workers, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAYMENT_KEY", "of-payments")
    [said] = await put(app, workers, fetch(server.url, headers={"x": {"name": "PAYMENT_KEY", "prefix": ""}}))
    assert said.startswith("returned")
    assert [asked.headers["x"] for asked in server.asked] == ["of-payments"]


async def test_a_stranger_may_play_a_worker_and_end_runs(app: steporal.Client, workers: Workers) -> None:
    elsewhere = f"another queue of {app.id}"

    @app.workflow(id="honest")
    async def honest(ctx: Context[Any], step: Step) -> Any:
        return await step.run("work", lambda: "done", task_queue=elsewhere)

    @activity.defn(name="steporal.run_step")
    async def feigned(argument: Any) -> str:
        return "feigned"

    async with workers(app), Worker(workers.temporal, task_queue=elsewhere, activities=[feigned]):
        assert await (await honest.start()).result() == "feigned"
    async with workers(app):
        run = await honest.start()
        await run.temporal.terminate("by a stranger")
        with pytest.raises(steporal.RunFailedError, match="terminated"):
            await run.result()


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://127.0.0.1/", "unix:///run/x", "http://a:b@127.0.0.1/", "x"]
)
async def test_a_request_of_another_scheme_or_with_a_password_is_refused(
    app: steporal.Client, workers: Workers, url: str
) -> None:
    [said] = await put(app, workers, fetch(url))
    assert "is not one of step.ext.fetch" in said
    assert "root:" not in said


async def test_nothing_is_put_into_a_request_by_line_breaks(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    calls = [
        fetch(server.url, method="GET / HTTP/1.1\r\nx: y\r\n\r\nGET"),
        fetch(f"{server.url}/\r\nx: y"),
        fetch(server.url, headers={"a": "b\r\nx: y"}),
        fetch(server.url, headers={"a\r\nx": "y"}),
        fetch(server.url, params={"a": "b\r\nx: y"}),
    ]
    said = await put(app, workers, *calls)
    assert [one.startswith("returned") for one in said] == [False, False, False, False, True]
    assert all("x" not in asked.headers for asked in server.asked)


async def test_an_answer_has_no_more_than_temporal_stores_whatever_a_call_says(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    server.default = Reply(200, b"x" * 65_536, endless=True)
    [said] = await put(app, workers, fetch(server.url, max_response_bytes=10**15, timeout=60))
    assert "ResponseTooLargeError" in said or "more than 2," in said, said
    assert server.sent < 64 * 1024 * 1024


MALFORMED: list[Any] = [
    *(None, 5, "x", [], [1], {}, {"step": 5}),
    fetch("http://127.0.0.1:9/", timeout="NaN")[1],
    fetch("http://127.0.0.1:9/", timeout=1e300)[1],
    fetch("http://127.0.0.1:9/", timeout=-1)[1],
    fetch("http://127.0.0.1:9/", body={"base64": "%"})[1],
    fetch("http://127.0.0.1:9/", body={"nothing": 1})[1],
    fetch("http://127.0.0.1:9/", headers={str(n): 5 for n in range(20_000)})[1],
    fetch("http://127.0.0.1:9/", headers={"x": {"name": "HOME", "prefix": "\r\n"}})[1],
    {"sink": "none", "event": {}},
    {"sink": None, "event": {"name": 5}},
]


async def test_a_malformed_call_is_an_error_of_its_activity_alone(app: steporal.Client, workers: Workers) -> None:
    calls = [(name, call) for call in MALFORMED for name in ("steporal.fetch", "steporal.post_event")]
    said = await put(app, workers, *calls)
    assert len(said) == len(calls)
    assert not any(one.startswith("returned") for one in said)
    assert max(map(len, said)) < 5_000


async def test_a_sink_that_the_app_does_not_have_is_not_posted_to(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    event = {"name": "order.placed", "data": {}, "id": "1", "ts": 1_700_000_000_000}
    [said] = await put(app, workers, ("steporal.post_event", {"sink": server.url, "event": event}))
    assert "has no sink" in said
    assert not server.asked
