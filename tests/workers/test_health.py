"""`/live` and `/ready` of a worker, and what it bears from strangers."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from commands import Process, Steporal
from gateway import Wire

from steporal_workers import health
from steporal_workers.devserver import DevServer
from steporal_workers.health import serving_health

WriteApp = Callable[[str], str]

SLOW = """
    @client.workflow(id=f"slow-{APP}")
    async def slow(ctx, step):
        def work():
            Path("started").touch()
            while not Path("finish").exists():
                time.sleep(0.01)

        return await step.run("work", work)
    """


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@asynccontextmanager
async def healthy(run: Steporal, **variables: str) -> AsyncIterator[tuple[Process, httpx.AsyncClient]]:
    port = free_port()
    async with (
        run.running("worker", "app", "--health-port", str(port), **variables) as worker,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        await worker.until("serving")
        yield worker, http


async def until(http: httpx.AsyncClient, status: int) -> dict[str, object]:
    async with asyncio.timeout(20):
        while (answered := await http.get("/ready")).status_code != status:
            await asyncio.sleep(0.05)
    data: dict[str, object] = answered.json()
    return data


async def test_a_worker_is_ready_when_it_is_connected_registered_and_polls(run: Steporal, write_app: WriteApp) -> None:
    write_app(SLOW)
    async with healthy(run) as (_, http):
        answered = await http.get("/ready")
        assert (answered.status_code, answered.json()["checks"]) == (
            200,
            {
                "connected": "ok",
                "registered": "ok",
                "polling": "ok",
                "able to run steps": "ok",
                "triggers in force": "ok",
            },
        )
        assert (await http.get("/live")).json() == {"status": 200, "message": "OK"}
        head = await http.head("/ready?x=1")
        assert (head.status_code, head.content) == (200, b"")
        assert (await http.get("/metrics")).status_code == 404
        assert (await http.post("/ready")).status_code == 405


async def test_while_it_drains_it_lives_and_is_not_ready(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(SLOW)
    async with healthy(run) as (worker, http):
        await run("start", f"slow-{app}")
        await run.until_exists("started")
        worker.signal(signal.SIGTERM)
        await worker.until("stopping")
        answered = await until(http, 503)
        assert answered["error"] == "not polling: the worker is stopping"
        assert (await http.get("/live")).status_code == 200
        (run.folder / "finish").touch()
        assert (await worker.ended()).status == 0


async def test_without_temporal_it_lives_and_is_not_ready(
    run: Steporal, server: DevServer, write_app: WriteApp
) -> None:
    write_app(SLOW)
    async with Wire(server.address) as wire, healthy(run, TEMPORAL_ADDRESS=wire.address) as (worker, http):
        wire.cut()
        answered = await until(http, 503)
        assert str(answered["error"]).startswith("not connected: Temporal did not answer")
        assert (await http.get("/live")).status_code == 200
        wire.mend()
        await until(http, 200)
        worker.signal(signal.SIGTERM)
        assert (await worker.ended()).status == 0


async def test_a_port_that_is_taken_is_named(run: Steporal, write_app: WriteApp) -> None:
    write_app(SLOW)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = await run("worker", "app", "--health-port", port)
    assert ended.status == 1
    assert f"the health server cannot listen on 127.0.0.1, port {port}: Address already in use" in ended.err


# --- strangers -----------------------------------------------------------------------------------------------------


async def fine() -> None:
    return None


async def said(url: str, text: bytes) -> bytes:
    parsed = httpx.URL(url)
    reader, writer = await asyncio.open_connection(parsed.host, parsed.port)
    writer.write(text)
    try:
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_what_is_no_request_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "REQUEST_SECONDS", 0.2)
    async with serving_health("127.0.0.1", 0, {"fine": fine}) as url:
        assert (await said(url, b"GET /ready HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        assert await said(url, b"GET /ready HTTP/1.1\r\nX: ") == b""  # and nothing more
        assert await said(url, b"x" * 2 * health.MAX_HEAD_BYTES) == b""
        assert (await said(url, b"\x00\xff\r\n\r\n")).startswith(b"HTTP/1.1 405")


async def test_those_who_send_nothing_keep_no_probe_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(health, "REQUEST_SECONDS", 60)
    async with serving_health("127.0.0.1", 0, {}) as url:
        waiting = [asyncio.create_task(said(url, b"GET")) for _ in range(10)]
        for hung_up_on in range(7, 17):
            async with asyncio.timeout(10):
                while sum(task.done() for task in waiting) < hung_up_on:  # the oldest
                    await asyncio.sleep(0.01)
            assert (await said(url, b"GET /live HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            waiting.append(asyncio.create_task(said(url, b"GET")))
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


HANGS = """
    @client.workflow(id=f"hangs-{APP}", ext=steporal.WorkflowExt(heartbeat_timeout="1s"))
    async def hangs(ctx, step):
        def work():
            Path("started").touch()
            while not Path("finish").exists():
                try:
                    time.sleep(0.01)
                except Exception:
                    pass

        await asyncio.wait_for(step.run("work", work), timeout=0.5)
    """


async def test_a_worker_whose_slots_are_all_kept_by_stuck_steps_is_not_ready(
    run: Steporal, write_app: WriteApp
) -> None:
    app = write_app(HANGS)
    async with healthy(run, STEPORAL_MAX_CONCURRENT_STEPS="1") as (_, http):
        await run("start", f"hangs-{app}")
        await run.until_exists("started")
        answered = await until(http, 503)
        assert str(answered["error"]).startswith(
            "not able to run steps: all 1 slots for steps are kept by step functions"
        )
        assert (await http.get("/live")).status_code == 200
        (run.folder / "finish").touch()
        await until(http, 200)
