"""The sandbox: ordinary Python works in a body, and what is not deterministic is caught."""

from __future__ import annotations

import asyncio
import logging
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from apps import clock, clock_broken, lost, ordinary, races
from recording import Workers
from temporalio.worker import (
    ExecuteWorkflowInput,
    Interceptor,
    Replayer,
    Worker,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

import steporal
from steporal import Context, Step
from steporal.events import new_ulid

TASK_FAILED: Literal["workflow_task_failed_event_attributes"] = "workflow_task_failed_event_attributes"


async def start(workers: Workers, workflow: steporal.Workflow[Any, Any], data: Any = None) -> steporal.Run[Any]:
    """Start a run whose failed workflow tasks are tried again after a second, where ten are the default."""
    handle = await workers.temporal.start_workflow(
        workflow.id,
        data,
        id=f"{workflow.id}/{new_ulid()}",
        task_queue=workflow.client.task_queue,
        task_timeout=timedelta(seconds=1),
    )
    return await workflow.client.get_run(handle.id, workflow)


class Attempts(Interceptor):
    """Counts how often runs are executed from the start; each raises ``error``, if there is one."""

    def __init__(self, error: Exception | None = None) -> None:
        self.count = 0
        self.error = error

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:
        """See base class."""
        attempts = self

        class Counted(WorkflowInboundInterceptor):
            async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:
                attempts.count += 1
                if attempts.error is not None:
                    raise attempts.error
                return await super().execute_workflow(input)

        return Counted

    async def until(self, count: int) -> None:
        """Wait for so many."""
        while self.count < count:
            await asyncio.sleep(0.01)


def said_of(run: steporal.Run[Any], caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What was logged of a run that needs attention."""
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    return [record for record in warnings if run.workflow_id in record.getMessage()]


async def first_said_of(run: steporal.Run[Any], caplog: pytest.LogCaptureFixture) -> str:
    """Wait for what is logged of a run that needs attention, at whichever attempt that is."""
    while not (said := said_of(run, caplog)):
        await asyncio.sleep(0.01)
    return said[0].getMessage()


async def task_failure(run: steporal.Run[Any]) -> str:
    """The message of a run's first failed workflow task."""
    while True:
        async for event in run.temporal.fetch_history_events():
            if event.HasField(TASK_FAILED):
                return event.workflow_task_failed_event_attributes.failure.message
        await asyncio.sleep(0.01)


async def test_the_clock_in_a_body_is_caught_and_the_run_goes_on_after_the_fix(workers: Workers) -> None:
    async with workers(clock_broken.client):
        run = await start(workers, clock_broken.now)
        message = await task_failure(run)
    assert re.search(
        r"the body of workflow 'now' calls datetime\.datetime\.now \(.*/apps/clock_broken\.py:22\), which gives "
        r"another result when Temporal replays the run; use ctx\.now\(\), or put it in a step\.run\(\.\.\.\)\.",
        message,
    )
    async with workers(clock.client):
        assert await run.result() == f"before {datetime.now(UTC):%Y}"


@pytest.mark.parametrize(
    ("workflow", "does", "instead"),
    [
        (clock_broken.random_number, "calls random.random", "ctx.random"),
        (clock_broken.uuid4, "calls uuid.uuid4", "ctx.uuid4()"),
        (clock_broken.sleep, "calls time.sleep", "step.sleep"),
        (clock_broken.open_file, "calls open", "step.run"),
        (clock_broken.environment, "reads os.environ", "step.run"),
        (clock_broken.thread, "calls asyncio.to_thread", "step.run"),
        (clock_broken.hidden, "calls time.time", "ctx.now()"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_else_is_not_deterministic_in_a_body_is_caught(
    workers: Workers, workflow: steporal.Workflow[Any, Any], does: str, instead: str
) -> None:
    async with workers(clock_broken.client):
        run = await start(workers, workflow)
        message = await task_failure(run)
    assert f"the body of workflow {workflow.id!r} {does}" in message
    assert instead in message
    async with workers(clock.client):
        await run.temporal.result()


async def test_what_a_function_does_that_the_body_calls_is_told_with_both_lines(workers: Workers) -> None:
    async with workers(clock_broken.client):
        run = await start(workers, clock_broken.helped)
        message = await task_failure(run)
    assert re.search(r"calls time\.monotonic \(.*clock_broken\.py:70, called from .*clock_broken\.py:66\)", message)
    async with workers(clock.client):
        await run.temporal.result()


async def test_a_body_that_is_caught_is_logged_once_and_not_at_each_attempt(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = Attempts()
    async with workers(clock_broken.client, interceptors=[attempts]):
        run = await start(workers, clock_broken.now)
        message = await task_failure(run)
        await attempts.until(4)
    [record] = said_of(run, caplog)
    assert record.name == "steporal"
    assert message in record.getMessage()
    assert record.exc_info is None
    failed = [event async for event in run.temporal.fetch_history_events() if event.HasField(TASK_FAILED)]
    assert len(failed) < 4, "Temporal's server keeps what the first attempts failed with"
    async with workers(clock.client):
        await run.result()


async def test_another_error_that_fails_the_task_is_logged_once_too(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = Attempts(RuntimeError("the interceptor is broken"))
    async with workers(clock.client, interceptors=[attempts]):
        run = await start(workers, clock.now)
        await attempts.until(4)
    [record] = said_of(run, caplog)
    assert record.name == "temporalio.worker._workflow_instance"
    assert record.exc_info is not None
    async with workers(clock.client):
        await run.result()


async def test_a_step_may_do_what_a_body_may_not(workers: Workers) -> None:
    async with workers(clock.client):
        year, zero, dash, module = await (await clock.allowed.start()).result()
    assert (year, zero, dash, module) == (f"{datetime.now(UTC):%Y}", "0", "-", "httpx")


async def test_a_module_is_executed_once_and_bodies_and_steps_see_the_same_of_it(workers: Workers) -> None:
    async with workers(ordinary.client):
        results = [await (await ordinary.top.start()).result() for _ in range(2)]
    here = [str(ordinary.STARTED), str(ordinary.BOOT), ordinary.SHARD, ordinary.LIMIT]
    assert results == [[here, here, ["apps.ordinary", "thread"]]] * 2


async def test_a_constant_that_a_test_replaces_is_seen_in_a_body(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordinary, "LIMIT", 7)
    async with workers(ordinary.client):
        in_body, in_step, _ = await (await ordinary.top.start()).result()
    assert in_body[3] == in_step[3] == 7


async def test_ordinary_python_works_in_a_body(workers: Workers) -> None:
    async with workers(ordinary.client):
        assert await (await ordinary.python.start()).result() == {
            "zone": "JST",
            "moment": "2026-03-28T09:00:00+01:00",
            "path": "a/b",
            "parent": "/srv/shop",
            "kind": ["datetime", "date", "other"],
            "type": True,
            "subclass": "!2026-01-01T00:00:00",
            "random": True,
            "drawn": 2,
            "local time": "1970",
            "enum": True,
            "basket": ["a"],
            "partial": 2,
            "decorated": 4,
            "numbers": [0, 1, 2],
            "helper": 3,
            "timestamp": 1970,
            "local class": 3,
        }


async def test_a_body_catches_an_error_by_the_class_that_a_helper_raises(workers: Workers) -> None:
    async with workers(ordinary.client):
        assert await (await ordinary.caught.start()).result() == "only three left"


@pytest.mark.parametrize("what", ordinary.FORBIDDEN)
async def test_what_is_forbidden_is_caught_wherever_the_app_calls_it_and_though_the_body_catches_all(
    workers: Workers, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    async with workers(ordinary.client):
        run = await start(workers, ordinary.forbidden, what)
        message = await first_said_of(run, caplog)
        await run.temporal.terminate()
    assert f"the body of workflow 'forbidden' {ordinary.FORBIDDEN[what][1]} (" in message
    workers.drop(run.workflow_id)


@pytest.mark.parametrize("what", ordinary.LATER)
async def test_what_is_forbidden_is_caught_in_what_the_event_loop_calls(
    workers: Workers, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    async with workers(ordinary.client):
        run = await start(workers, ordinary.forbidden_later, what)
        message = await first_said_of(run, caplog)
        await run.temporal.terminate()
    assert "the body of workflow 'forbidden-later' calls random.random (" in message
    workers.drop(run.workflow_id)


async def test_what_is_forbidden_is_caught_in_a_validator_of_the_input(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    async with workers(ordinary.client):
        run = await start(workers, ordinary.forbidden_input, {"days": 1})
        message = await first_said_of(run, caplog)
        await run.temporal.terminate()
    assert "the body of workflow 'forbidden-input' calls datetime.date.today (" in message
    workers.drop(run.workflow_id)


async def test_log_handlers_of_the_app_and_what_is_said_to_be_harmless_are_not_watched(workers: Workers) -> None:
    ordinary.stamped.clear()
    async with workers(ordinary.client):
        assert await (await ordinary.logs.start()).result() == f"{datetime.now(UTC):%Y}"
    assert ordinary.stamped[0] == f"packed at {datetime.now(UTC):%Y} True"


@pytest.mark.parametrize("workflow", [ordinary.counts, ordinary.counts_later], ids=lambda workflow: workflow.id)
async def test_a_body_that_changes_a_global_variable_is_caught(
    workers: Workers, caplog: pytest.LogCaptureFixture, workflow: steporal.Workflow[Any, Any]
) -> None:
    async with workers(ordinary.client):
        run = await start(workers, workflow)
        message = await first_said_of(run, caplog)
        await run.temporal.terminate()
    assert re.search(
        rf"the body of workflow '{workflow.id}' assigns the global variable 'counter' \(.*/apps/ordinary\.py:\d+\), "
        r"which all runs of the worker share; keep it in a local variable, and pass it on\.",
        message,
    )
    workers.drop(run.workflow_id)


async def test_a_body_may_fill_a_global_variable_that_has_no_value_yet(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordinary, "settings", None)
    async with workers(ordinary.client):
        assert await (await ordinary.lazy.start()).result() == "loaded"
    assert ordinary.settings == "loaded"


async def test_a_handler_inside_a_function_runs_unsandboxed(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="unsandboxed")
    async def handler(ctx: Context[Any], step: Step) -> int:
        return datetime.now(UTC).year

    async with workers(app):
        assert await (await handler.start()).result() == datetime.now(UTC).year


async def test_code_that_changed_under_a_run_in_flight_fails_the_task_and_not_the_run(
    app: steporal.Client, workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def answer() -> str:
        asked.set()
        await may_answer.wait()
        return "answer"

    changed = steporal.Client(app.id, retry=app.app.retry)

    @app.workflow(id="edited")
    async def first_version(ctx: Context[Any], step: Step) -> str:
        async def ask() -> str:
            return await answer()

        return await step.run("ask", ask)

    @changed.workflow(id="edited")
    async def second_version(ctx: Context[Any], step: Step) -> str:
        async def ask() -> str:
            return await answer()

        await step.sleep("new", 1)
        return await step.run("ask", ask)

    async with workers(app, max_cached_workflows=0):
        run = await start(workers, first_version)
        await asked.wait()
    may_answer.set()
    attempts = Attempts()
    async with workers(changed, max_cached_workflows=10, interceptors=[attempts]):  # 0: not told why
        message = await task_failure(run)
        await attempts.until(4)
    assert "Nondeterminism error" in message
    [record] = said_of(run, caplog)
    assert record.name == "steporal"
    assert record.getMessage().startswith("the code of workflow 'edited' does not fit the history of a run")
    assert "`steporal recover`" in record.getMessage()
    assert f"Temporal reports: {message}" in record.getMessage()
    async with workers(app):
        assert await run.result() == "answer"


RACES = [races.race, races.race_of_pairs, races.race_of_shields, races.race_of_activities, races.group]


@pytest.mark.parametrize("workflow", RACES, ids=[race.id for race in RACES])
async def test_what_is_cancelled_from_a_set_is_cancelled_in_the_same_order_in_each_replay(
    workers: Workers, workflow: steporal.Workflow[Any, Any]
) -> None:
    native = Worker(workers.temporal, task_queue=f"{races.client.task_queue} native", activities=[races.pause])
    async with native, workers(races.client):
        runs = [await workflow.start() for _ in range(2)]
        assert [await run.result() for run in runs] == [[races.RUNNERS - 1]] * 2
        replayer = Replayer(workflows=[], plugins=[races.client.plugin()])
        for run in runs:
            await replayer.replay_workflow(await run.temporal.fetch_history())


@pytest.mark.parametrize("workflow", [lost.lost.id, "lost native"])
async def test_a_run_of_which_a_task_was_lost_as_the_sdk_interrupted_it_is_forgotten_all_the_same(
    workers: Workers, workflow: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The SDK would try for ever, and neither would the run go on nor the worker end."""
    async with asyncio.timeout(30), workers(lost.client, workflows=[lost.Native], max_cached_workflows=1):
        id = f"{workflow} {new_ulid()}"
        run = await workers.temporal.start_workflow(workflow, id=id, task_queue=lost.client.task_queue)
        while caplog.text.count("Interrupted") < 3:
            await asyncio.sleep(0.02)
        await (await lost.next_one.start()).result()
        await run.terminate()
    assert "Failed running eviction job" not in caplog.text
    workers.drop(id)
