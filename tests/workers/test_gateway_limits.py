"""What the gateway bears from strangers: the time that they take, their number, and what they send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest
import temporalio.client
from gateway import gateway_of
from starlette.types import Message, Receive, Scope, Send

import steporal
from steporal_workers.gateway import limits
from steporal_workers.gateway.answers import Problem
from steporal_workers.gateway.app import create_app
from steporal_workers.gateway.keys import Keys
from steporal_workers.gateway.limits import MAX_HEAD_BYTES, BodyMemory
from steporal_workers.gateway.server import serving

KEYS = Keys.of(["event-key"], ["api-key"])
SLOW_BODY = b"POST /e/%s HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"


@pytest.fixture
async def http(
    app: steporal.Client, temporal: temporalio.client.Client, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway that is not patient."""
    for name in ("HEAD_SECONDS", "BODY_SECONDS", "SEND_SECONDS"):
        monkeypatch.setattr(limits, name, 0.3)
    app.temporal = temporal
    async with gateway_of(app, KEYS) as client:
        yield client


@asynccontextmanager
async def connection(http: httpx.AsyncClient) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


@pytest.mark.parametrize("begun", [b"", b"G", b"POST /e/event-key HTTP/1.1\r\nHost: x\r\n"])
async def test_a_head_that_does_not_come_is_not_waited_for(http: httpx.AsyncClient, begun: bytes) -> None:
    async with connection(http) as (reader, writer):
        writer.write(begun)
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")


async def test_a_head_that_comes_byte_by_byte_is_not_waited_for(http: httpx.AsyncClient) -> None:
    async with connection(http) as (reader, writer):
        ended = asyncio.ensure_future(reader.read())
        while not ended.done():
            writer.write(b"X")
            await asyncio.sleep(0.05)
        await asyncio.gather(ended, return_exceptions=True)  # its answer may be lost, as more was sent


async def test_a_body_that_does_not_come_is_not_waited_for(http: httpx.AsyncClient) -> None:
    async with connection(http) as (reader, writer):
        writer.write(SLOW_BODY % b"event-key")
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")


async def test_nor_is_that_of_a_request_that_was_answered_before(http: httpx.AsyncClient) -> None:
    async with connection(http) as (reader, writer):
        writer.write(SLOW_BODY % b"wrong-key")
        answers = await reader.read()
        assert answers.startswith(b"HTTP/1.1 401 ")
        assert b"408" not in answers


async def test_a_request_of_a_connection_that_is_kept_has_its_own_time(http: httpx.AsyncClient) -> None:
    async with connection(http) as (reader, writer):
        for _ in range(3):
            writer.write(b"GET /live HTTP/1.1\r\nHost: x\r\n")
            await asyncio.sleep(0.15)
            writer.write(b"\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            await reader.readuntil(b'"OK"}')


async def test_a_request_whose_answer_takes_its_time_is_answered(
    app: steporal.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HEAD_SECONDS", 0.1)
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.1)

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await asyncio.sleep(0.5)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async with serving(slow, "127.0.0.1", 0) as url, httpx.AsyncClient(base_url=url) as http:
        assert (await http.post("/", content=b"x")).text == "done"


async def test_a_head_that_is_too_large_is_refused(http: httpx.AsyncClient) -> None:
    async with connection(http) as (reader, writer):
        writer.write(b"GET /live HTTP/1.1\r\nX: " + b"x" * 2 * MAX_HEAD_BYTES)
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")


async def test_there_are_so_many_connections_and_no_more(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 2)
    async with connection(http), connection(http), connection(http) as (reader, writer):
        with pytest.raises(ConnectionError):
            writer.write(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
            if not await reader.read():
                raise ConnectionResetError
    async with asyncio.timeout(10):
        while True:
            try:
                assert (await http.get("/live")).status_code == 200
                break
            except httpx.TransportError:
                await asyncio.sleep(0.05)


async def test_connections_that_are_only_kept_keep_nobody_out(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 3)
    async with AsyncExitStack() as stack:
        for _ in range(3):
            reader, writer = await stack.enter_async_context(connection(http))
            writer.write(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b'"OK"}')
        for _ in range(4):
            assert (await http.get("/live", headers={"Connection": "close"})).status_code == 200


async def test_bodies_have_so_much_memory_and_no_more() -> None:
    going_on, took = asyncio.Event(), asyncio.Event()

    async def holding(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        took.set()
        await going_on.wait()

    async def body() -> Message:
        return {"type": "http.request", "body": b"x" * 60, "more_body": False}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    memory = BodyMemory(holding, max_bytes=100)
    first = asyncio.create_task(memory({"type": "http"}, body, send))
    await took.wait()
    with pytest.raises(Problem, match="busy with other requests"):
        await memory({"type": "http"}, body, send)
    going_on.set()
    await first
    await memory({"type": "http"}, body, send)


async def test_a_gateway_without_memory_for_a_body_says_when_to_send_it_again(
    app: steporal.Client, temporal: temporalio.client.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.temporal = temporal
    monkeypatch.setattr(BodyMemory.__init__, "__defaults__", (10,))
    async with gateway_of(app, KEYS) as http:
        refused = await http.post("/e/event-key", json={"name": "nobody.cares"})
        assert (await http.get("/live")).status_code == 200
    assert (refused.status_code, refused.headers["retry-after"], refused.json()["ids"]) == (503, "1", [])


@pytest.mark.parametrize(
    "body", ["[" + "{}," * 500_000 + "{}]", '{"name": "a", "data": {"of": [' + "[]," * 500_000 + "[]]}}"]
)
async def test_a_body_of_more_values_than_there_is_memory_for_is_refused_before_it_is_read(
    http: httpx.AsyncClient, body: str
) -> None:
    answer = await http.post("/e/event-key", content=body)
    assert (answer.status_code, answer.json()["error"]) == (
        413,
        "the body has more than 500,000 values; send them in several requests",
    )


async def test_what_looks_like_values_in_texts_is_none(http: httpx.AsyncClient) -> None:
    events = [{"name": "nobody.cares", "data": {"text": '[{"\\,' * 60_000}} for _ in range(4)]
    assert (await http.post("/e/event-key", json=events)).status_code == 200


async def test_the_values_of_a_body_have_the_memory_of_bodies(
    app: steporal.Client, temporal: temporalio.client.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.temporal = temporal
    monkeypatch.setattr(BodyMemory.__init__, "__defaults__", (3_000,))
    async with gateway_of(app, KEYS) as http:
        few, many = ({"name": "nobody.cares", "data": {"of": [0] * count}} for count in (10, 100))
        answers = [await http.post("/e/event-key", json=body) for body in (few, many, few)]
    assert [answer.status_code for answer in answers] == [200, 503, 200]


async def test_a_message_has_not_all_of_a_request_that_is_wrong(http: httpx.AsyncClient) -> None:
    data = {"x" * 100_000: {"y": "\ud800"}}
    answer = await http.post("/e/event-key", content=json.dumps({"name": "a", "data": data}))
    assert answer.status_code == 400 and len(answer.content) < 5_000


@pytest.mark.parametrize("event", [{"name": "a\0b"}, {"name": "a", "id": "a\0b"}])
async def test_what_databases_do_not_take_in_an_id_is_refused(http: httpx.AsyncClient, event: dict[str, str]) -> None:
    answer = await http.post("/e/event-key", json=event)
    assert answer.status_code == 400 and "NUL" in answer.json()["error"]


async def test_a_gateway_that_stops_is_not_ready(app: steporal.Client, temporal: temporalio.client.Client) -> None:
    app.temporal = temporal
    stopping = False
    async with (
        serving(create_app(app, KEYS, is_stopping=lambda: stopping), "127.0.0.1", 0) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        assert (await http.get("/ready")).status_code == 200
        stopping = True
        assert (await http.get("/ready")).json() == {"error": "the gateway is stopping", "status": 503}
        assert (await http.get("/live")).status_code == 200
