"""What the gateway bears from strangers: the time that they take, their number, and what they send."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import temporalio.client
from gateway import gateway_of
from recording import Workers
from starlette.types import Receive, Scope, Send

import steporal
from steporal import Context, Step, event_trigger
from steporal.errors import InvalidEventError
from steporal.events import check_json
from steporal_workers.gateway import bodies, limits, memory, server
from steporal_workers.gateway.answers import Problem
from steporal_workers.gateway.app import create_app
from steporal_workers.gateway.bodies import BYTES_OF_VALUE
from steporal_workers.gateway.keys import Keys
from steporal_workers.gateway.limits import MAX_HEAD_BYTES
from steporal_workers.gateway.memory import MEMORY_BYTES, SHARED_BYTES, SMALL_BYTES, Body, Memory
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


async def test_there_are_so_many_connections_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 2)
    going_on = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await going_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async with (
        serving(slow, "127.0.0.1", 0) as url,
        httpx.AsyncClient(base_url=url) as http,
        connection(http) as (reader, writer),
        connection(http) as (_, other),
    ):
        for stream in (writer, other):
            stream.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(httpx.TransportError):
            while True:  # until both are being answered
                await http.get("/", headers={"Connection": "close"})
        going_on.set()
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        async with asyncio.timeout(10):
            while True:
                try:
                    assert (await http.get("/")).status_code == 200
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.01)


async def test_the_oldest_connection_without_a_head_gives_way(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(limits, "HEAD_SECONDS", 60)
    async with AsyncExitStack() as stack:
        waiting = [await stack.enter_async_context(connection(http)) for _ in range(3)]
        for _, writer in waiting:
            writer.write(b"GET /live HTTP/1.1\r\n")
        for number, (reader, _) in enumerate(waiting[:3]):
            assert (await http.get("/live", headers={"Connection": "close"})).status_code == 200
            with suppress(ConnectionError):
                assert await reader.read() == b""
            if number < 2:  # as many as at first
                await stack.enter_async_context(connection(http))
        assert (await http.get("/live")).status_code == 200


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


# --- what is sent, and not taken -----------------------------------------------------------------------------------


@asynccontextmanager
async def unread(http: httpx.AsyncClient, sent: bytes) -> AsyncIterator[socket.socket]:
    """A connection that sends, and reads nothing."""
    loop = asyncio.get_running_loop()
    with socket.socket() as connected:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connected.setblocking(False)
        await loop.sock_connect(connected, (http.base_url.host, http.base_url.port))
        async with asyncio.timeout(10):
            await loop.sock_sendall(connected, sent)
        yield connected


async def until_reset(connected: socket.socket) -> None:
    """Wait until the other side has given a connection up; what it has sent is not read."""
    async with asyncio.timeout(10):
        while not connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            await asyncio.sleep(0.05)


DESCRIBE = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("more", [b"", b"no HTTP\r\n\r\n", DESCRIBE[:-2] + b"Connection: close\r\n\r\n"])
async def test_an_answer_that_is_not_taken_is_not_waited_for(http: httpx.AsyncClient, more: bytes) -> None:
    async with unread(http, DESCRIBE * 400 + more) as connected:
        await until_reset(connected)


async def test_nor_is_one_after_whose_request_nothing_more_is_sent(http: httpx.AsyncClient) -> None:
    async with unread(http, DESCRIBE * 400) as connected:
        connected.shutdown(socket.SHUT_WR)
        await until_reset(connected)


async def test_a_body_in_a_pipeline_is_not_waited_for(http: httpx.AsyncClient) -> None:
    async with connection(http) as (reader, writer):
        writer.write(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n" + SLOW_BODY % b"event-key")
        answers = await reader.read()
        assert answers.startswith(b"HTTP/1.1 200 ") and b"HTTP/1.1 408 " in answers


async def test_a_body_has_a_pace(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_SECONDS", 60)
    monkeypatch.setattr(limits, "BODY_PACE_SECONDS", 0.3)
    monkeypatch.setattr(limits, "MIN_BODY_BYTES", 100)
    head = b"POST /e/event-key HTTP/1.1\r\nHost: x\r\nContent-Length: 1500\r\n\r\n"
    event = b'{"name": "nobody.cares"}'.ljust(1500)
    async with connection(http) as (reader, writer), connection(http) as (answer, slow):
        writer.write(head)
        slow.write(head + event[:1400])
        ended = asyncio.create_task(answer.read())
        for at in range(0, 1500, 100):
            writer.write(event[at : at + 100])
            if not ended.done():
                slow.write(event[1400:1401])
            await asyncio.sleep(0.1)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        assert (await ended).startswith(b"HTTP/1.1 408 ")


async def test_a_request_whose_body_has_two_ends_is_refused(http: httpx.AsyncClient) -> None:
    async with connection(http) as (reader, writer):
        head = b"POST /e/event-key HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head + b"0\r\n\r\nGET /live HTTP/1.1\r\nHost: x\r\n\r\n")
        answers = await reader.read()
        assert answers.startswith(b"HTTP/1.1 400 ") and answers.count(b"HTTP/1.1") == 1
        assert b"must not have both" in answers


async def test_what_anybody_can_cause_is_logged_once_a_minute(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server._seldom, "_logged", {})
    for _ in range(5):
        async with connection(http) as (reader, writer):
            writer.write(b"no HTTP\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    assert (await http.get("/live", headers=upgrade)).status_code == 200
    assert [record.message for record in caplog.records if record.name == "uvicorn.error"] == [
        "Invalid HTTP request received."
    ]


# --- memory --------------------------------------------------------------------------------------------------------


def body_of(memory: Memory, sender: str = "a") -> Body:
    body = Body(memory)
    body.sender = sender
    return body


async def test_bodies_have_so_much_memory_and_no_more() -> None:
    memory = Memory(4_000_000)
    for sender in "abcd":
        body_of(memory, sender).take(1_000_000)
    last = body_of(memory, "e")
    with pytest.raises(Problem, match="busy with other requests"):
        last.take(200_000)
    assert memory.remaining == 0


async def test_a_small_body_is_let_in_whatever_there_is() -> None:
    assert MEMORY_BYTES - SHARED_BYTES == limits.MAX_CONNECTIONS * SMALL_BYTES
    memory = Memory(4_000_000)
    body_of(memory).take(4_000_000)
    body_of(memory).take(SMALL_BYTES)
    with pytest.raises(Problem) as refused:
        body_of(memory).take(SMALL_BYTES + 1)
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})


async def test_a_sender_has_half_unless_it_sends_one_body_alone() -> None:
    memory = Memory(4_000_000)
    first = body_of(memory, "a")
    first.take(3_000_000)
    with pytest.raises(Problem, match="busy"):
        body_of(memory, "a").take(200_000)
    body_of(memory, "b").take(900_000)
    first.end()
    again = body_of(memory, "a")
    again.take(1_000_000)
    body_of(memory, "a").take(1_000_000)
    again.give_back(400_000)
    body_of(memory, "a").take(400_000)
    with pytest.raises(Problem, match="busy"):
        body_of(memory, "a").take(200_000)


async def test_a_body_that_does_not_fit_at_all_is_not_to_be_sent_again() -> None:
    with pytest.raises(Problem, match="takes too much memory; send it in several") as refused:
        body_of(Memory(1_000_000)).take(1_000_001)
    assert refused.value.status == 413


async def test_a_body_that_has_come_for_long_gives_way(
    app: steporal.Client, temporal: temporalio.client.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.temporal = temporal
    monkeypatch.setattr(memory, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(Memory.__init__, "__defaults__", (1_000_000,))
    size = 500_000
    event = json.dumps({"name": "nobody.cares", "data": {"text": "x" * 200_000}}).encode()
    head = b"POST /e/event-key HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    async with gateway_of(app, KEYS) as http, connection(http) as (reader, writer):
        writer.write(head + b" " * (size - 1))
        await writer.drain()
        async with asyncio.timeout(10):
            while (await http.post("/e/event-key", content=event)).status_code != 200:
                pass
        assert (await reader.readline()).startswith(b"HTTP/1.1 503 ")


async def test_a_gateway_without_memory_for_a_body_says_when_to_send_it_again(
    app: steporal.Client, temporal: temporalio.client.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.temporal = temporal
    monkeypatch.setattr(Memory, "make_room", lambda *_: False)
    async with gateway_of(app, KEYS) as http:
        large = {"name": "nobody.cares", "data": {"text": "x" * SMALL_BYTES}}
        refused = await http.post("/e/event-key", json=large)
        assert (await http.get("/live")).status_code == 200
        assert (await http.post("/e/event-key", json={"name": "nobody.cares"})).status_code == 200
    assert (refused.status_code, refused.headers["retry-after"], refused.json()["ids"]) == (503, "1", [])


async def test_all_memory_is_given_back(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Memory] = []
    monkeypatch.setattr(memory, "Memory", lambda: made.append(Memory()) or made[0])
    large = {"name": "nobody.cares", "data": {"text": "x" * SMALL_BYTES}}
    for key in ("event-key", "wrong-key"):
        for body in (large, [large] * 20, {"name": 5}, {"name": "a", "data": {"text": "x" * 600_000}}):
            await http.post(f"/e/{key}", json=body)
        async with connection(http) as (reader, writer):
            writer.write(b"POST /e/%s HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n" % key.encode())
            writer.write(b" " * 400_000)
            assert await reader.read()
    assert not made or (made[0].remaining, made[0].of_sender, made[0].coming) == (SHARED_BYTES, {}, {})


async def test_what_runs_returned_is_answered_within_the_memory(
    app: steporal.Client, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Memory.__init__, "__defaults__", (3 * 1024 * 1024,))
    name = f"{app.id}.asked"
    for number in range(4):

        @app.workflow(id=f"answers {number} {app.id}", triggers=[event_trigger(name)])
        async def answers(ctx: Context[Any], step: Step) -> Any:
            return "x" * 200_000

    @app.workflow(id=f"lists {app.id}")
    async def lists(ctx: Context[Any], step: Step) -> Any:
        return [[]] * 20_000

    api = {"Authorization": "Bearer api-key"}
    async with workers(app), gateway_of(app, KEYS) as http:
        sent = await app.send_event({"name": name})
        for run in sent.runs:
            await (await app.get_run(run.workflow_id)).result()
        together = await http.get(f"/v1/events/{sent.ids[0]}/runs", headers=api)
        each = [await http.get(f"/v1/runs/{quote(run.workflow_id, safe='')}", headers=api) for run in sent.runs]
        many = await lists.start()
        await many.result()
        alone = await http.get(f"/v1/runs/{many.run_id}", headers=api)
    assert [(one.status_code, len(one.json()["data"]["output"])) for one in each] == [(200, 200_000)] * 4
    for refused in (together, alone):
        assert refused.status_code == 413
        assert "too much memory for one response; get each with /v1/runs/{id}" in refused.json()["error"]


async def test_a_request_that_has_ended_takes_no_memory_for_what_still_comes() -> None:
    memory = Memory(max_bytes=1_000_000)
    body = Body(memory)
    body.take(500_000)
    body.end()
    with pytest.raises(Problem, match="busy with other requests"):
        body.take(400_000)
    body.give_back(500_000)
    body.end()
    assert memory.remaining == 1_000_000 and not memory.of_sender


@pytest.mark.parametrize(
    "value",
    ["x" * 50_000, "é" * 50_000, "\U0001f600" * 50_000, [[]] * 50_000, [{}] * 50_000, [1.5] * 50_000, "[," * 400_000],
)
@pytest.mark.parametrize("ascii", [True, False])
def test_a_part_of_an_answer_takes_what_it_is_counted_for(value: Any, ascii: bool) -> None:
    data = json.dumps(value, ensure_ascii=ascii).encode()
    tracemalloc.start()
    try:
        read = json.loads(data)
        answered = json.dumps(read, separators=(",", ":"))
        sent = answered.encode()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(sent) > 0 and bodies.weight_of_answer(data) >= 0.9 * peak


@pytest.mark.parametrize(
    ("text", "width"), [("x", 1), ("é", 2), ("\u4e2d", 2), ("\U0001f600", 4), ("\\ud83d\\ude00", 4), ("\\u4e2d", 2)]
)
def test_texts_are_counted_as_python_keeps_them(text: str, width: int) -> None:
    body = bytearray(f'["{"x" * 10_000}{text}"]'.encode())
    kept = json.loads(body)[0]
    weight = bodies._weighed(body)
    assert weight.text >= sys.getsizeof(body.decode()) - 100
    assert weight.values >= sys.getsizeof(kept) - 100
    assert weight.values == len(body) * width + BYTES_OF_VALUE


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


def test_values_are_counted_outside_of_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a scanner counts that looks at one character after the other."""
    monkeypatch.setattr(bodies, "MAX_VALUES", 0)
    chance = random.Random(1)
    for _ in range(5_000):
        body = bytes(chance.choice(b'",\\x[{\n') for _ in range(chance.randrange(40)))
        count, in_text, escaped = 0, False, False
        for char in body.decode():
            if in_text:
                escaped, in_text = not escaped and char == "\\", escaped or char != '"'
            elif char == '"':
                in_text = True
            else:
                count += {",": 1, "[": 1, "{": 2}.get(char, 0)
        with pytest.raises(Problem) if count else nullcontext():
            bodies._weighed(bytearray(body))


@pytest.mark.parametrize("unit", [b'\\"', b'"', b"\\", b'"\\', b'""', b'"[', b"'\""])
def test_each_character_is_looked_at_once_where_they_are_counted(unit: bytes) -> None:
    """Hours, longer than tests may take, where the work grows with the square of the body."""
    with suppress(Problem):
        bodies._weighed(bytearray(b"," * 400_000 + b'"' + unit * 2_000_000))


def test_a_long_key_costs_what_it_has() -> None:
    """And not that as often as there are values in it, which would take longer than tests may."""
    check_json({"k" * 2_000_000: {"l" * 2_000_000: [0] * 100_000}}, "data", "the body")
    with pytest.raises(InvalidEventError, match=r"data\.k{59}….l{59}…\[1\] contains a lone surrogate"):
        check_json({"k" * 2_000_000: {"l" * 2_000_000: [0, "\ud800"]}}, "data", "the body")


async def test_while_a_large_body_is_read_others_are_answered(http: httpx.AsyncClient) -> None:
    events = [{"name": "nobody.cares", "data": {"items": [{"n": n} for n in range(30)]}} for _ in range(4_000)]
    body = json.dumps(events).encode()
    reading = asyncio.create_task(http.post("/e/event-key", content=body, timeout=60))
    answered = 0
    while not reading.done():
        assert (await http.get("/live")).status_code == 200
        answered += 1
    assert (await reading).status_code == 200
    assert answered > 10


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


@pytest.mark.parametrize("size", [0, 1, memory.PIECE_BYTES, memory.PIECE_BYTES + 1, 3 * memory.PIECE_BYTES, 1_000_000])
async def test_an_answer_has_its_memory_until_it_is_taken(size: int) -> None:
    answer, sent, is_taken = random.Random(1).randbytes(size), list[Any](), asyncio.Event()

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        scope[memory._KEY].take(2_000_000)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": answer})

    async def receive() -> Any:
        raise AssertionError("there is no body")

    async def send(message: Any) -> None:
        if len(sent) == 3:  # what the system takes by itself
            await is_taken.wait()
        sent.append(message)

    counted = memory.BodyMemory(answering)
    answered = asyncio.ensure_future(counted({"type": "http"}, receive, send))
    while not answered.done() and len(sent) < 3:
        await asyncio.sleep(0)
    assert answered.done() == (size <= 2 * memory.PIECE_BYTES)
    assert (counted._memory.remaining < SHARED_BYTES) == (not answered.done())
    is_taken.set()
    await answered
    assert counted._memory.remaining == SHARED_BYTES
    pieces = sent[1:]
    assert b"".join(piece["body"] for piece in pieces) == answer
    assert all(len(piece["body"]) <= memory.PIECE_BYTES for piece in pieces)
    assert [bool(piece.get("more_body")) for piece in pieces] == [True] * (len(pieces) - 1) + [False]
