"""`steporal checkpoint`: runs park before their workers are replaced."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import pytest
from commands import Steporal

from steporal_workers.devserver import DevServer

WriteApp = Callable[[str], str]

OLD = """
    from contextlib import suppress
    from datetime import timedelta

    from temporalio import workflow
    from temporalio.exceptions import ChildWorkflowError

    @client.workflow(id=f"order-{APP}")
    async def order(ctx, step):
        def note(what):
            with Path("notes").open("a") as file:
                file.write(what + "\\n")

        def charge():
            Path("started").touch()
            while not Path("finish").exists():
                time.sleep(0.01)
            note("charged")

        await step.run("reserve", note, "reserved")
        if ctx.input.data == "slow":
            await step.run("charge", charge)
        if ctx.input.data == "asyncio":
            await asyncio.sleep(3600)
        if ctx.input.data == "native":
            with suppress(ChildWorkflowError):  # nobody takes it, so it times out
                await workflow.execute_child_workflow(
                    "child", task_queue="nobody's", execution_timeout=timedelta(seconds=12)
                )
        await step.sleep("a while", "20s" if ctx.input.data == "short" else "1h")
        await step.run("ship", note, "shipped by the old code")
        return "old"
    """

NEW = """
    @client.workflow(id=f"order-{APP}")
    async def order(ctx, step):
        def note(what):
            with Path("notes").open("a") as file:
                file.write(what + "\\n")

        await step.run("check", note, "checked")
        await step.run("reserve", note, "reserved")
        await step.run("ship", note, "shipped by the new code")
        return "new"
    """


def notes(run: Steporal) -> list[str]:
    return sorted((run.folder / "notes").read_text().split("\n")[:-1])


async def until_listed(server: DevServer, app: str, count: int) -> None:
    """Wait until Temporal lists so many runs: it does a moment after they have started."""
    async with asyncio.timeout(60):
        while (await server.client.count_workflows(f"WorkflowType = 'order-{app}'")).count < count:
            await asyncio.sleep(0.05)


@pytest.mark.takes_long
async def test_code_is_edited_under_runs_that_it_has_parked(
    run: Steporal, server: DevServer, write_app: WriteApp
) -> None:
    app = write_app(OLD)
    async with run.running("worker", "app") as worker:
        await worker.until("serving")
        ids = [(await run("start", f"order-{app}", "--input", data)).out.strip() for data in ('"short"', '"slow"')]
        await run.until_exists("started")
        await until_listed(server, app, 2)
        asking = asyncio.create_task(run("checkpoint", "app", "--hold", "1h"))
        await asyncio.sleep(3)
        assert not asking.done()
        (run.folder / "finish").touch()
        asked = await asking
        assert asked.status == 0
        assert asked.err == (
            "2 runs: 2 parked, 0 ended meanwhile, 0 not parked\n"
            "they begin no step until `steporal checkpoint --release`, or for 1h: replace the workers now\n"
        )
        worker.signal(signal.SIGTERM)
        await worker.ended()
    assert notes(run) == ["charged", "reserved", "reserved"]
    write_app(NEW)
    async with run.running("worker", "app") as worker:
        await worker.until("serving")
        released = await run("checkpoint", "app", "--release")
        assert (released.status, released.err) == (0, "2 runs released\n")
        for id in ids:
            assert await server.client.get_workflow_handle(id).result() == "new"
    assert notes(run) == ["charged", *["checked"] * 2, *["reserved"] * 2, *["shipped by the new code"] * 2]


@pytest.mark.takes_long
async def test_it_says_which_runs_are_not_parked_in_time_and_why(
    run: Steporal, server: DevServer, write_app: WriteApp
) -> None:
    app = write_app(OLD)
    async with run.running("worker", "app") as worker:
        await worker.until("serving")
        slow, parked, _, native = [
            (await run("start", f"order-{app}", "--input", data)).out.strip()
            for data in ('"slow"', "1", '"asyncio"', '"native"')
        ]
        await run.until_exists("started")
        await until_listed(server, app, 4)
        options = ("checkpoint", "app", "--timeout", "2s", "--hold", "4s", "--json")
        asked = await run(*options, "--where", f"WorkflowId != '{parked}'")
        assert asked.status == 1
        assert {"parked": asked.data["parked"], "ended": asked.data["ended"]} == {"parked": 1, "ended": 0}
        assert {busy["workflow_id"]: busy["busy_with"] for busy in asked.data["busy"]} == {
            slow: "in flight: charge (attempt 1)",
            native: "waits for something that is neither a step nor a timer, such as a child workflow by "
            "Temporal's own API",
        }
        assert {busy["workflow"] for busy in asked.data["busy"]} == {f"order-{app}"}
        (run.folder / "finish").touch()
        asked = await run("checkpoint", "app", "--timeout", "45s", "--workflow", f"order-{app}")
        assert (asked.status, "4 runs: 4 parked" in asked.err) == (0, True)
        asked = await run(
            "checkpoint", "app", "--json", "--timeout", "20s"
        )  # they sleep: parked, or awake again for a moment
        assert (asked.status, asked.data) == (0, {"parked": 4, "ended": 0, "busy": []})


async def test_without_a_worker_nothing_parks(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(OLD)
    ended = await run("checkpoint", "app")
    assert ended.status == 1
    assert ended.err == (
        f"error: no worker polls task queue {app!r}; runs can park only while a worker with the code that "
        "they were started with serves them: run the checkpoint first, and then stop the worker\n"
    )


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--workflow", "other"), 2, "has no workflow 'other'; it has 'order-app"),
        (("--where", "Colour = 'red'"), 1, "Temporal does not accept --where \"Colour = 'red'\": "),
        (("--hold", "soon"), 2, "'soon' is not a duration"),
        (("--hold", "30s"), 2, "--hold 30s is not longer than --timeout 1m"),
    ],
    ids=["workflow", "where", "duration", "hold"],
)
async def test_a_question_that_cannot_be_asked(
    run: Steporal, write_app: WriteApp, arguments: tuple[str, ...], status: int, message: str
) -> None:
    write_app(OLD)
    async with run.running("worker", "app") as worker:
        await worker.until("serving")
        ended = await run("checkpoint", "app", *arguments)
    assert (ended.status, message in ended.err) == (status, True), ended.err
