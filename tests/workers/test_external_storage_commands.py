"""The commands with an app whose client has external storage."""

from __future__ import annotations

import inspect
import os
import random

import pytest
import storage
from commands import Steporal
from waiting import until_waiting

import steporal
from steporal_workers.devserver import DevServer

STORED = """
    from pathlib import Path

    from folder import Folder
    from temporalio.converter import DataConverter, ExternalStorage

    kept = Path(__file__).parent / "kept"
    kept.mkdir(exist_ok=True)
    converter = DataConverter(external_storage=ExternalStorage(drivers=[Folder(kept)]))
    """

APP = """
    import steporal
    from stored import converter

    client = steporal.Client({app_id!r}, data_converter=converter)

    @client.workflow(id="turns-{app_id}")
    async def turns(ctx, step):
        text = ctx.input.data
        turned = await step.run("turn", lambda: text[::-1])
        if text.startswith("nap"):
            await step.wait_for_signal("nap", signal="{app_id}", timeout="1h")
        return len(turned)
    """

EDITED = APP.replace("        turned", '        await step.run("look", lambda: len(text))\n        turned')

LARGE = random.Random(1).randbytes(1_500_000).hex()


@pytest.mark.takes_long
async def test_an_app_with_external_storage(run: Steporal, app_id: str, server: DevServer) -> None:
    run.write("folder.py", inspect.getsource(storage))
    run.write("stored.py", STORED)
    run.write("app.py", APP.format(app_id=app_id))
    run.write("large.json", f'"{LARGE}"')
    run.write("nap.json", f'"nap{LARGE}"')
    start = ("start", f"turns-{app_id}", "--input")
    async with run.running("worker", "app") as worker:
        await worker.until("serving")
        ended = await run(*start, "@large.json")
        assert ended.status == 1
        assert "external storage (docs/long-runs.md)" in ended.err
        ended = await run(*start, "@large.json", "--client", "app", "--wait", "--json")
        assert ended.data["result"] == len(LARGE)
        sleeping = (await run(*start, "@nap.json", "--client", "app")).out.strip()
        ended = await run("checkpoint", "app", "--json")
        assert ended.data == {"parked": 1, "ended": 0, "busy": []}
        ended = await run("replay", "app", "--closed", "--json")
        assert (ended.status, ended.data["misfits"]) == (0, [])
        assert ended.data["replayed"] >= 2

        await server.client.get_workflow_handle(sleeping).terminate()
        other = (await run(*start, "@nap.json", "--client", "app")).out.strip()
        await until_waiting(await steporal.Client(app_id, temporal=server.client).get_run(other))

    run.write("app.py", EDITED.format(app_id=app_id))
    ended = await run("recover", "app", "--where", f"WorkflowId = '{other}'", "--json")
    assert [found["state"] for found in ended.data["stuck"]] == ["recovered"], ended.err
    async with run.running("worker", "app") as worker:
        await worker.until("serving")
        assert (await run("signal", app_id, "--client", "app")).status == 0
        recovered = await steporal.Client(app_id, temporal=server.client).get_run(other)
        assert await recovered.result() == len(LARGE) + 3
    assert len(os.listdir(run.folder / "kept")) >= 3
