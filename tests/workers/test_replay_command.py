"""`steporal replay`: before a deploy, whether the code fits the runs."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from commands import Steporal
from waiting import until_waiting

import steporal
from steporal_workers.devserver import DevServer

WriteApp = Callable[[str], str]

CODE = """
    @client.workflow(id=f"order-{APP}")
    async def order(ctx, step):
        await step.run("reserve", lambda: 1)
        await step.sleep("a while", "1h")
        await step.run("ship", lambda: 1)

    @client.workflow(id=f"other-{APP}")
    async def other(ctx, step):
        await step.sleep("a while", "1h")
    """
EDITED = CODE.replace("reserve", "reserve goods")
SHORTENED = CODE[: CODE.index('    @client.workflow(id=f"other')]


@pytest.fixture
async def ids(run: Steporal, write_app: WriteApp, server: DevServer) -> list[str]:
    """Runs that sleep, and are not parked yet: two of ``order``, one of ``other``."""
    app = write_app(CODE)
    async with run.running("worker", "app") as worker:
        await worker.until("serving")
        ids = [(await run("start", f"{name}-{app}")).out.strip() for name in ("order", "order", "other")]
        for id in ids:
            await until_waiting(await steporal.Client(app, temporal=server.client).get_run(id))
    return ids


async def test_code_that_fits_and_code_that_does_not(
    run: Steporal, write_app: WriteApp, ids: list[str], server: DevServer
) -> None:
    app = write_app(CODE)
    ended = await run("replay", "app")
    assert (ended.status, ended.err) == (0, f"3 runs of app {app!r}: all fit this code\n")

    write_app(EDITED)
    ended = await run("replay", "app", "--json")
    assert ended.status == 1
    assert ended.data["replayed"] == 3
    assert {found["workflow_id"] for found in ended.data["misfits"]} == set(ids[:2])
    assert {found["workflow"] for found in ended.data["misfits"]} == {f"order-{app}"}
    assert all("reserve goods" in found["why"] for found in ended.data["misfits"])

    ended = await run("replay", "app", "--where", f"WorkflowId != '{ids[0]}'", "--workflow", f"order-{app}")
    assert ended.status == 1
    assert ids[1] in ended.out
    assert f"1 run of app {app!r}: 1 would be stuck with this code" in ended.err
    assert "`steporal checkpoint`" in ended.err

    history = await server.client.get_workflow_handle(ids[0]).fetch_history()
    run.write("history.json", history.to_json())
    offline = {"TEMPORAL_ADDRESS": "127.0.0.1:1"}
    ended = await run("replay", "app", "--history", "history.json", "--json", **offline)
    assert (ended.status, [found["workflow_id"] for found in ended.data["misfits"]]) == (1, [ids[0]])

    write_app(SHORTENED)
    ended = await run("replay", "app", "--json", "--limit", "2")
    assert (ended.status, ended.data["replayed"]) == (1, 2)
    (found,) = ended.data["misfits"]
    assert (found["workflow_id"], "no longer defines this workflow" in found["why"]) == (ids[2], True)


async def test_a_file_that_has_no_history(run: Steporal, write_app: WriteApp) -> None:
    write_app(CODE)
    run.write("history.json", json.dumps({"events": []}))
    ended = await run("replay", "app", "--history", "history.json")
    assert (ended.status, "'history.json' does not contain a history" in ended.err) == (2, True)
