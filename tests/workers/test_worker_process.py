"""`steporal worker`: what it serves, and how it ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from datetime import timedelta

import pytest
from commands import Steporal

from steporal.history.recovery import rebuild
from steporal.wire.failures import LOST
from steporal.wire.run_state import read_outcome
from steporal_workers.devserver import DevServer

WriteApp = Callable[[str], str]

ECHO = """
    @client.workflow(id=f"echo-{APP}", triggers=[event_trigger(f"{APP}.said", if_exp="event.data.loud == true")])
    async def echo(ctx, step):
        return await step.run("echo", lambda: ctx.input.data)
    """

SLOW = """
    @client.workflow(id=f"slow-{APP}")
    async def slow(ctx, step):
        def work():
            Path("started").touch()
            while not Path("finish").exists():
                time.sleep(0.01)
            return "finished"

        return await step.run("work", work)
    """

REGISTRATIONS = """
    from steporal.routing.catalog.registering import Registrar

    register = Registrar._register

    async def counted(self, claim):
        with Path("registrations").open("a") as file:
            file.write("x")
        return await register(self, claim)

    Registrar._register = counted
    """

CLOCK = """
    @client.workflow(id=f"clock-{APP}")
    async def clock(ctx, step):
        return time.time()
    """


async def test_it_says_what_it_serves_and_where(run: Steporal, server: DevServer, write_app: WriteApp) -> None:
    app = write_app(ECHO)
    async with run.running("worker", "app:client") as worker:
        await worker.until("serving")
        worker.signal(signal.SIGTERM)
        ended = await worker.ended()
    assert ended.status == 0
    assert (
        f"serving app {app} on task queue {app}, namespace 'default' at {server.address}\n"
        f"  echo-{app} ← {app}.said if event.data.loud == true\n"
    ) in ended.err


async def test_it_registers_once_before_it_says_that_it_serves(run: Steporal, write_app: WriteApp) -> None:
    write_app(ECHO + REGISTRATIONS)
    async with run.running("worker", "app:client") as worker:
        await worker.until("serving")
        assert (run.folder / "registrations").read_text() == "x"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_running_step_finishes_before_the_worker_ends(
    run: Steporal, server: DevServer, write_app: WriteApp, number: signal.Signals
) -> None:
    app = write_app(SLOW)
    async with run.running("worker", "app") as worker:
        await worker.until("serving")
        started = await run("start", f"slow-{app}")
        await run.until_exists("started")
        worker.signal(number)
        await worker.until("stopping: running steps have 30s to finish")
        (run.folder / "finish").touch()
        assert (await worker.ended()).status == 0
    history = await server.client.get_workflow_handle(started.out.strip()).fetch_history()
    results = [event for event in history.events if event.HasField("activity_task_completed_event_attributes")]
    assert len(results) == 1


async def test_steps_that_do_not_finish_in_time_do_not_hold_the_worker(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(SLOW)
    async with run.running("worker", "app", "--graceful-timeout", "200ms") as worker:
        await worker.until("serving")
        await run("start", f"slow-{app}")
        await run.until_exists("started")
        worker.signal(signal.SIGTERM)
        assert (await worker.ended()).status == 0


async def test_a_second_signal_ends_the_worker_at_once(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(SLOW)
    async with run.running("worker", "app", "--graceful-timeout", "1h") as worker:
        await worker.until("serving")
        await run("start", f"slow-{app}")
        await run.until_exists("started")
        worker.signal(signal.SIGTERM)
        await worker.until("stopping")
        worker.signal(signal.SIGTERM)
        assert (await worker.ended()).status == 128 + signal.SIGTERM


async def test_a_body_that_is_not_deterministic_is_told_once_and_its_run_is_stuck(
    run: Steporal, server: DevServer, write_app: WriteApp
) -> None:
    app = write_app(CLOCK)
    async with run.worker("app") as worker:
        handle = await server.client.start_workflow(
            f"clock-{app}", id=f"clock-{app}", task_queue=app, task_timeout=timedelta(seconds=1)
        )
        while (await handle.describe()).raw_description.pending_workflow_task.attempt < 4:
            await asyncio.sleep(0.05)
        listed = await run("runs", "list", "--status", "stuck", "--app", app, "--json")
        assert [(found["workflow_id"], found["is_stuck"]) for found in listed.data] == [(f"clock-{app}", True)]
        doctor = await run("doctor", "app", "--json")
        [said] = [row for row in doctor.data if row["check"] == "runs"]
        assert (said["state"], said["said"].partition(":")[0]) == ("bad", "1 run is stuck")
        await handle.terminate()
    path = run.folder / "app.py"
    line = path.read_text().splitlines().index("    return time.time()") + 1
    assert worker.said.count(f"calls time.time ({path}:{line}), which gives another result") == 1
    for noise in ("Traceback", "Failed activation", "Failing workflow task"):
        assert noise not in worker.said


async def test_on_another_task_queue_it_runs_steps_only(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(ECHO)
    async with run.worker("app", "--task-queue", f"{app}-gpu") as worker:
        await worker.until(f"steps only; the app's workflows run on task queue {app}")


async def test_its_limits_are_taken(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(ECHO)
    limits = ["--max-concurrent-steps", "1", "--max-concurrent-workflow-tasks", "2", "--max-cached-workflows", "0"]
    async with run.worker("app", *limits):
        ended = await run("start", f"echo-{app}", "--input", '"hi"', "--wait", "--json")
        assert ended.data["result"] == "hi"


async def test_a_timeout_that_is_no_duration_is_a_mistake(run: Steporal, write_app: WriteApp) -> None:
    write_app(ECHO)
    ended = await run("worker", "app", "--graceful-timeout", "soon")
    assert ended.status == 2
    assert "'soon' is not a duration" in ended.err


async def test_a_versioned_worker_says_which_version_it_is_and_how_it_becomes_current(
    run: Steporal, write_app: WriteApp
) -> None:
    app = write_app(ECHO)
    async with run.running("worker", "app", "--build-id", "v1") as worker:
        await worker.until(f"as build v1 of deployment {app}")
        await worker.until(f"set-current-version --deployment-name {app} --build-id v1")


async def test_a_deployment_needs_a_build_and_a_name_that_temporal_takes(run: Steporal, write_app: WriteApp) -> None:
    write_app(ECHO)
    ended = await run("worker", "app", "--deployment", "shop")
    assert (ended.status, "--deployment needs --build-id" in ended.err) == (2, True)
    ended = await run("worker", "app", "--deployment", "shop.eu", "--build-id", "1")
    assert (ended.status, "has no '.', as 'shop.eu' has" in ended.err) == (2, True)


async def test_the_progress_of_runs_is_logged_once_at_level_debug(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(ECHO)
    arguments = ("--log-level", "debug", "--max-cached-workflows", "0")  # each workflow task replays the run
    async with run.worker("app", *arguments) as worker:
        await run("start", f"echo-{app}", "--id", f"echo-{app}", "--wait")
        await worker.until(f"steporal.progress: run 'echo-{app}': completed after")
        said = worker.said
    for text in (": started: directly", ", step 'echo': completed after", ": completed after"):
        assert said.count(f"steporal.progress: run 'echo-{app}'{text}") == 1


async def test_a_worker_with_fewer_workflows_says_what_it_takes_from_others(
    run: Steporal, server: DevServer, write_app: WriteApp
) -> None:
    app = write_app(ECHO)
    async with run.worker("app"):
        pass
    write_app(SLOW)
    async with run.worker("app") as worker:
        assert f"app {app!r}: workflow 'echo-{app}' is no longer registered" in worker.said
        await server.client.start_workflow(f"echo-{app}", id=f"echo-{app}", task_queue=app)
        await worker.until(f"this worker does not define workflow 'echo-{app}', but received a run of it")
        assert "Traceback" not in worker.said


KILLED = """
    @client.workflow(id=f"killed-{APP}", ext=steporal.WorkflowExt(heartbeat_timeout="1s"))
    async def killed(ctx, step):
        def work(name):
            with Path(name).open("a") as file:
                file.write(f"{ctx.attempt}")
            while not Path("finish").exists():
                time.sleep(0.01)
            return f"{name} by attempt {ctx.attempt}"

        async def once():
            try:
                return await step.run("once", work, "once", max_attempts=1)
            except steporal.StepError as err:
                return f"{err.message}, {err.attempts}"

        return await asyncio.gather(step.run("often", work, "often"), once())
    """


@pytest.mark.takes_long
async def test_a_step_of_a_killed_worker_begins_again_elsewhere_unless_it_has_one_attempt(
    run: Steporal, server: DevServer, write_app: WriteApp
) -> None:
    app = write_app(KILLED)
    async with run.running("worker", "app") as worker:
        await worker.until("serving")
        started = await run("start", f"killed-{app}")
        await run.until_exists("often")
        await run.until_exists("once")
        worker.signal(signal.SIGKILL)
        await worker.ended()
    async with run.running("worker", "app") as worker:
        await worker.until("serving")
        handle = server.client.get_workflow_handle(started.out.strip())
        while (run.folder / "often").read_text() != "01":
            await asyncio.sleep(0.05)
        (run.folder / "finish").touch()
        result = await handle.result()
        shown = await run("runs", "show", handle.id)
        worker.signal(signal.SIGTERM)
        await worker.ended()
    attempts = {
        line.split("│")[1].strip(): line.split("│")[5].strip() for line in shown.out.splitlines() if "│" in line
    }
    assert attempts == {"✓ often": "2", "✗ once": "1"}
    assert result == ["often by attempt 1", f"{LOST}, 1"]
    assert (run.folder / "once").read_text() == "0"
    rebuilt = await rebuild((await handle.fetch_history()).events, server.client.data_converter)
    outcomes = {key: read_outcome(outcome) for key, outcome in rebuilt.carried.memo.items()}
    assert outcomes["often"].value == "often by attempt 1"
    assert (failure := outcomes["once"].failure) and (failure.message, failure.attempts) == (LOST, 1)
    assert rebuilt.in_flight == ()
