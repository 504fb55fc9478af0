"""A command that waits for a run says why the run does not go on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from commands import Steporal

from steporal_workers.devserver import DevServer

WriteApp = Callable[[str], str]

WORK = """
    @client.workflow(id=f"work-{APP}")
    async def work(ctx, step):
        return await step.run("work", lambda: "done")
    """
CLOCK = """
    @client.workflow(id=f"clock-{APP}")
    async def clock(ctx, step):
        return time.time()
    """
FAILING = """
    from datetime import timedelta

    @client.workflow(id=f"failing-{APP}", retry=steporal.RetryPolicy(initial_interval=timedelta(hours=1)))
    async def failing(ctx, step):
        await step.run("charge", lambda: 1 // 0)
    """
SIGNAL = """
    @client.workflow(id=f"deal-{APP}")
    async def deal(ctx, step):
        answer = await step.wait_for_signal("approval", signal=APP, timeout="1h")
        return answer.data
    """


async def test_without_a_worker_it_says_so_and_goes_on_waiting(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(WORK)
    async with run.worker("app"):
        pass  # has registered the app
    async with run.running("start", f"work-{app}", "--wait") as waiting:
        await waiting.until(f"of task queue '{app}' takes the run's next task")
        await waiting.until("start one: steporal worker MODULE:CLIENT")
        listed = await run("runs", "list", "--workflow", f"work-{app}", "--json")
        shown = await run("runs", "show", listed.data[0]["workflow_id"])
        assert "start one: steporal worker MODULE:CLIENT" in shown.out
        async with run.worker("app"):
            ended = await waiting.ended()
    assert (ended.status, ended.data) == (0, "done")


async def test_a_task_queue_that_nobody_ever_polled_has_no_worker(
    run: Steporal, write_app: WriteApp, server: DevServer
) -> None:
    app = write_app("")
    await server.client.start_workflow(f"work-{app}", id=f"lost-{app}", task_queue=f"{app}-queue")
    async with run.running("runs", "result", f"lost-{app}", "--wait") as waiting:
        await waiting.until(f"no worker polls task queue '{app}-queue'; start one: steporal worker MODULE:CLIENT")


async def test_a_stuck_run_is_shown_with_its_reason_once(run: Steporal, write_app: WriteApp, server: DevServer) -> None:
    app = write_app(CLOCK)
    async with run.worker("app"), run.running("start", f"clock-{app}", "--wait") as waiting:
        await waiting.until(
            f"the run is stuck: its workflow task fails, and Temporal retries it: the body of workflow 'clock-{app}'"
        )
        await _until_attempt(server, f"clock-{app}", 4)
        listed = await run("runs", "list", "--workflow", f"clock-{app}", "--json")
        shown = await run("runs", "show", listed.data[0]["workflow_id"], "--json")
        assert (shown.data["is_stuck"], shown.data["status"]) == (True, "running")
        assert "time.time" in shown.data["problem"]
        waiting.signal(signal.SIGINT)
        ended = await waiting.ended()
        assert ended.status == 130
        assert ended.err.count("the run is stuck") == 1


async def _until_attempt(server: DevServer, workflow: str, attempt: int) -> None:
    """Wait until Temporal tries the workflow task of the only run of a workflow for this time, and is seen to."""
    runs = [run async for run in server.client.list_workflows(f"WorkflowType = '{workflow}'")]
    handle = server.client.get_workflow_handle(runs[0].id)
    while (await handle.describe()).raw_description.pending_workflow_task.attempt < attempt:
        await asyncio.sleep(0.1)


async def test_a_failing_step_and_a_wait_are_shown(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(FAILING + SIGNAL)
    async with run.worker("app"):
        async with run.running("start", f"failing-{app}", "--wait") as waiting:
            await waiting.until(
                "step 'charge' failed: ZeroDivisionError: integer division or modulo by zero; attempt 2"
            )
        async with run.running("start", f"deal-{app}", "--wait") as waiting:
            await waiting.until(f"step 'approval' waits for signal {app}, until ")
            assert (await run("signal", app, "--data", '"yes"')).status == 0
            ended = await waiting.ended()
            assert (ended.status, ended.data) == (0, "yes")
