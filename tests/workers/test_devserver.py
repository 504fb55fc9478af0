"""The dev server that `steporal dev`, the demo and the tests share."""

from __future__ import annotations

import asyncio
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
