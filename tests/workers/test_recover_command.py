"""`steporal recover`: the code was edited under runs, and their worker was restarted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from commands import Steporal
from waiting import until_waiting

import steporal
from steporal_workers.devserver import DevServer

WriteApp = Callable[[str], str]

CODE = """
    def note(text):
        with open("ran.txt", "a") as file:
            file.write(text + "\\n")

    @client.workflow(id=f"order-{APP}")
    async def order(ctx, step):
        await step.run("reserve", note, "reserve")
        await step.wait_for_signal("approval", signal=f"{APP}/{ctx.input.data}", timeout="1h")
        await step.run("ship", note, "ship")
        return "done"
    """
EDITED = CODE.replace(
    """        await step.run("reserve", note, "reserve")
""",
    """        await step.run("check", note, "check")
        await step.run("reserve", note, "reserve")
""",
)
BROKEN = EDITED.replace("async def order(ctx, step):\n", "async def order(ctx, step):\n        time.time()\n")


@pytest.mark.takes_long
async def test_runs_that_are_stuck_go_on_with_the_new_code(
    run: Steporal, write_app: WriteApp, server: DevServer
) -> None:
    app = write_app(CODE)
    async with run.running("worker", "app") as worker:
        await worker.until("serving")
        ids = [(await run("start", f"order-{app}", "--input", str(n))).out.strip() for n in (1, 2)]
        for id in ids:
            await until_waiting(await steporal.Client(app, temporal=server.client).get_run(id))

    ended = await run("recover", "app")
    assert (ended.status, "2 open runs" in ended.err, "nothing to recover" in ended.err) == (0, True, True)

    write_app(BROKEN)
    ended = await run("recover", "app", "--json")
    assert ended.status == 1
    assert [(found["state"], "correct the code" in found["advice"]) for found in ended.data["stuck"]] == [
        ("not recovered", True)
    ] * 2

    write_app(EDITED)
    ended = await run("recover", "app", "--dry-run", "--where", f"WorkflowId = '{ids[0]}'", "--json")
    assert (ended.status, ended.data["runs"]) == (0, 1)
    (found,) = ended.data["stuck"]
    assert (found["state"], found["finished_steps"], "'check'" in found["why"]) == ("recoverable", 1, True)

    client = steporal.Client(app, temporal=server.client)
    async with run.worker("app") as worker:
        for number in (1, 2):
            assert (await client.send_signal(f"{app}/{number}")).run_id is not None
        await worker.until("`steporal recover`", times=2)  # it says what is wrong, and what to do
        ended = await run("recover", "app", "--workflow", f"order-{app}")
        assert ended.status == 0
        assert "2 do not fit this code; 2 recovered, 0 not" in ended.err
        assert [await (await client.get_run(id)).result() for id in ids] == ["done", "done"]
    ran = (run.folder / "ran.txt").read_text().split()
    assert sorted(ran) == sorted(["reserve", "check", "ship"] * 2)


async def test_a_workflow_that_the_app_does_not_have(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(CODE)
    ended = await run("recover", "app", "--workflow", "orders")
    assert (ended.status, f"app {app!r} has no workflow 'orders'; it has 'order-{app}'" in ended.err) == (2, True)
