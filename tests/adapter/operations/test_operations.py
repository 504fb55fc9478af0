"""What operations return to whoever shows it: a command, or a page."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from datetime import timedelta
from typing import Any

import pytest
import temporalio.client
from recording import Workers
from waiting import until_waiting

import steporal
from steporal import Context, Step
from steporal.operations.checkpoint import CheckpointOptions, park_runs
from steporal.operations.details import DetailsReader
from steporal.operations.doctor.checks import CHECKS, examine
from steporal.operations.ending import end_run, end_runs
from steporal.operations.errors import (
    HoldTooShortError,
    NoSuchRunError,
    OperationError,
    QueryRefusedError,
    RequestError,
)
from steporal.operations.listing import ListedRun, list_runs
from steporal.operations.queries import Filters, Query, query_of
from steporal.operations.recover import RecoverOptions, recover_runs
from steporal.operations.replay import histories_of, replay
from steporal.operations.rerun import rerun


@pytest.fixture(autouse=True)
def prints_nothing(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No operation prints."""
    yield
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def waits(app: steporal.Client) -> steporal.Workflow[Any, Any]:
    """A workflow that works, and waits for a signal."""

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        paid = await step.run("pay", lambda: 42)
        await step.wait_for_signal("go", signal=f"go/{ctx.run_id}", timeout="1h")
        return paid

    return waits


async def rows_of(temporal: temporalio.client.Client, run: steporal.Run[Any], rows: int = 1) -> list[ListedRun]:
    """The rows of a run, when visibility knows it."""
    query = Query(f"WorkflowId = '{run.workflow_id}'")
    async with asyncio.timeout(30):
        while len(found := await list_runs(temporal, query, limit=10)) < rows:
            await asyncio.sleep(0.05)
    return found


async def test_a_run_is_a_row_and_has_details(waits: steporal.Workflow[Any, Any], workers: Workers) -> None:
    temporal = workers.temporal
    async with workers(waits.client):
        run = await waits.start({"n": 1})
        await until_waiting(run)
        (row,) = await rows_of(temporal, run)
        details = await DetailsReader(temporal).read(run.workflow_id)
    assert (row.workflow, row.run_id, row.status, row.ended) == ("waits", run.run_id, "running", None)
    assert (details.workflow, details.run_id, details.status, details.input) == (
        "waits",
        run.run_id,
        "running",
        {"n": 1},
    )
    assert [(step.id, step.kind, step.state, step.result) for step in details.steps] == [
        ("pay", "step", "completed", 42),
        ("go", "signal", "running", None),
    ]
    assert [(wait.awaited.step, wait.awaited.kind) for wait in details.waits] == [("go", "signal")]
    with pytest.raises(FrozenInstanceError):
        row.status = "failed"  # type: ignore[misc]


async def test_a_run_is_ended_once(waits: steporal.Workflow[Any, Any], workers: Workers) -> None:
    temporal = workers.temporal
    async with workers(waits.client):
        run = await waits.start(None)
        await until_waiting(run)
        ended = await end_run(temporal, "terminate", run.workflow_id, reason="a test")
        assert (ended.workflow_id, ended.run_id) == (run.workflow_id, run.run_id)
        with pytest.raises(OperationError, match="has already ended: terminated"):
            await end_run(temporal, "cancel", run.workflow_id, reason="a test")
    with pytest.raises(NoSuchRunError, match="there is no run 'nowhere'"):
        await end_run(temporal, "cancel", "nowhere", reason="a test")
    nobody = Query("WorkflowId = 'nowhere'")
    assert await end_runs(temporal, "terminate", nobody, reason="a test") is None


async def test_a_rerun_names_both_runs_and_what_it_keeps(waits: steporal.Workflow[Any, Any], workers: Workers) -> None:
    temporal = workers.temporal
    async with workers(waits.client):
        run = await waits.start(None)
        await until_waiting(run)
        again = await rerun(temporal, run.workflow_id, from_step="go")
        with pytest.raises(RequestError, match="has no step 'gone'; did you mean 'go'"):
            await rerun(temporal, run.workflow_id, from_step="gone")
        for id in (run.workflow_id, again.workflow_id):
            await end_run(temporal, "terminate", id, reason="a test")
    assert (again.original_workflow_id, again.original_run_id) == (run.workflow_id, run.run_id)
    assert (again.from_step, again.kept_steps) == ("go", ("pay",))


async def test_runs_that_fit_the_code_are_counted_and_left_alone(
    waits: steporal.Workflow[Any, Any], workers: Workers
) -> None:
    temporal, app = workers.temporal, waits.client
    app.temporal = temporal
    async with workers(app):
        run = await waits.start(None)
        await until_waiting(run)
        await rows_of(temporal, run)
        where = f"WorkflowId = '{run.workflow_id}'"
        recovered = await recover_runs(app, temporal, RecoverOptions(where=where))
        histories = histories_of(app, temporal, where=where)
        replayed = [each async for each in replay(app, histories, temporal.data_converter)]
        parked = await park_runs(app, temporal, CheckpointOptions(where=where, timeout=timedelta(seconds=30)))
        await end_run(temporal, "terminate", run.workflow_id, reason="a test")
    assert (recovered.count, recovered.stuck) == (1, ())
    assert [(each.workflow_id, each.misfit) for each in replayed] == [(run.workflow_id, None)]
    assert [(each.workflow_id, each.state) for each in parked] == [(run.workflow_id, "parked")]


async def test_arguments_that_are_not_valid_are_refused_with_their_facts(
    waits: steporal.Workflow[Any, Any], workers: Workers
) -> None:
    temporal, app = workers.temporal, waits.client
    with pytest.raises(QueryRefusedError) as refused:
        await recover_runs(app, temporal, RecoverOptions(where="not a query"))
    assert refused.value.where == "not a query"
    with pytest.raises(RequestError, match="has no workflow 'nothing'; it has 'waits'"):
        await recover_runs(app, temporal, RecoverOptions(workflow="nothing"))
    minute = timedelta(minutes=1)
    with pytest.raises(HoldTooShortError) as short:
        await park_runs(app, temporal, CheckpointOptions(hold=minute, timeout=minute))
    assert (short.value.hold, short.value.timeout) == (minute, minute)
    with pytest.raises(RequestError, match="no app 'nobody' is registered"):
        await query_of(temporal, Filters(app="nobody"))


async def test_every_check_of_an_installation_has_a_verdict(
    waits: steporal.Workflow[Any, Any], workers: Workers
) -> None:
    async with workers(waits.client):
        findings = {each.check: each.verdict async for each in examine(waits.client, workers.temporal, target="app")}
    assert list(findings) == list(CHECKS)
    assert findings["workers"].state == "good"
