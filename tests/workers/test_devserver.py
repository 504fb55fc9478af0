"""The dev server that `steporal dev`, the demo and the tests share."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import httpx
import pytest
from temporalio.client import Client

from steporal_workers import devserver
from steporal_workers.devserver import DevServerError, dev_server


async def test_two_servers_run_side_by_side() -> None:
    async with dev_server() as one, dev_server() as two:
        assert one.address != two.address
        assert (await one.client.count_workflows()).count == (await two.client.count_workflows()).count == 0


async def test_its_file_keeps_what_it_knew(tmp_path: Path) -> None:
    async with dev_server(db_file=tmp_path / "data.db") as server:
        run = await server.client.start_workflow("any", id="kept", task_queue="none")
    async with dev_server(db_file=tmp_path / "data.db") as server:
        assert (await server.client.get_workflow_handle("kept").describe()).run_id == run.first_execution_run_id


async def test_what_it_has_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    async with dev_server(db_file=tmp_path / "data.db") as server:
        runs = [await server.client.start_workflow("any", id=f"kept {n}", task_queue="none") for n in range(20)]
        os.kill(server.pid, signal.SIGKILL)
    async with dev_server(db_file=tmp_path / "data.db") as server:
        for run in runs:
            assert (await server.client.get_workflow_handle(run.id).describe()).run_id == run.first_execution_run_id


async def test_its_ui_is_served_where_it_says() -> None:
    async with dev_server(ui=True) as server:
        assert server.ui_url
        async with httpx.AsyncClient(follow_redirects=True) as http:
            assert (await http.get(server.ui_url)).status_code == 200


@pytest.mark.parametrize("host", [None, "evil.example", "localhost"])
async def test_no_web_page_starts_or_reads_anything_by_its_http_api(host: str | None) -> None:
    (port,) = devserver._free_ports(1)
    async with (
        dev_server(http_port=port) as server,
        httpx.AsyncClient(base_url=f"http://{devserver.HOST}:{port}") as page,
    ):
        headers = {"content-type": "text/plain", "origin": "http://evil.example"}  # what a form may send
        headers |= {"host": host} if host else {}
        start = {"workflowType": {"name": "order"}, "taskQueue": {"name": "shop"}}
        answers = [
            await page.post("/api/v1/namespaces/default/workflows/1", content=json.dumps(start), headers=headers),
            await page.get("/api/v1/namespaces/default/workflows", headers=headers),
            await page.get("/namespaces/default/workflows", headers=headers),
        ]
        assert [answer.status_code for answer in answers] == [403, 403, 403]
        assert [run async for run in server.client.list_workflows()] == []


async def test_its_ui_answers_to_any_name() -> None:
    async with dev_server(ui=True) as server, asyncio.timeout(30), httpx.AsyncClient() as page:
        assert server.ui_url is not None
        url, headers = f"{server.ui_url}/api/v1/namespaces", {"host": "evil.example"}
        while (answer := await page.get(url, headers=headers)).status_code == 503:  # it is up before the server
            await asyncio.sleep(0.1)
        assert answer.status_code == 200
        forged = await page.post(f"{url}/default/workflows/1", content="{}", headers={"origin": "http://evil.example"})
        assert (forged.status_code, "csrf" in forged.text) == (400, True)


async def test_it_is_gone_after_an_error_in_the_block() -> None:
    with pytest.raises(ZeroDivisionError):
        async with dev_server() as server:
            raise ZeroDivisionError
    with pytest.raises(RuntimeError):
        await Client.connect(server.address)


async def test_it_is_gone_after_a_cancellation() -> None:
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def serve() -> None:
        async with dev_server() as server:
            ready.set_result(server.address)
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    address = await ready
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(RuntimeError):
        await Client.connect(address)


async def test_a_file_that_cannot_be_made_is_told_by_the_server(tmp_path: Path) -> None:
    with pytest.raises(DevServerError, match=r"did not start: it ended with status 1: .*no such file or directory"):
        async with dev_server(db_file=tmp_path / "nowhere" / "data.db"):
            pass


async def test_a_server_that_does_not_answer_in_time_is_said_to_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devserver, "_START_SECONDS", 0.001)
    with pytest.raises(DevServerError, match=r"did not start: it did not answer within 0\.001s, and logged nothing"):
        async with dev_server():
            pass
