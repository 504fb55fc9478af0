"""What an operator's commands make of runs that somebody has started, signalled or answered for by hand."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import temporalio.client
from apps import odd
from recording import Workers
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowFailureError
from temporalio.common import RawValue
from waiting import until_waiting

import steporal
from steporal import Context, Step
from steporal.history.errors import HistoryError
from steporal.operations.listing import row_of
from steporal.operations.recover import RecoverOptions, StuckRun, recover_run
from steporal.wire.names import DELIVER, ENDED, SIGNALLED
from steporal_workers.replay import ReplayOptions, run_replay
from steporal_workers.runs.showing import run_show

BROKEN = RawValue(Payload(metadata={"encoding": b"json/plain"}, data=b"{"))
UNKNOWN = RawValue(Payload(metadata={"encoding": b"what/ever"}, data=b"x"))
BYTES = RawValue(Payload(metadata={"encoding": b"binary/plain"}, data=b"\xff"))

STARTS: dict[str, list[Any]] = {
    "an input that is not JSON": [BROKEN],
    "an input of an unknown encoding": [UNKNOWN],
    "an input of bytes": [BYTES],
    "arguments that are not JSON": [{}, BROKEN, BROKEN],
    "a state of another program": [{}, {}, 5],
    "a state of odd boxes": [{}, {}, {"is_parked": False, "started": 1, "seed": "f", "boxes": {"wait": 1.5}}],
    "a state of odd waits": [
        {},
        {},
        {
            "is_parked": True,
            "started": 1,
            "seed": "f",
            "waits": {"x": [False, {"kind": "signal", "until": 1, "more": {}}]},
        },
    ],
    "an odd tag": [{"$": "model", "type": "os:system", "value": 1}],
}


async def shown(temporal: temporalio.client.Client, id: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, Any]:
    """What `steporal runs show` prints: for people, and as JSON."""
    await run_show(temporal, id, watch=False, stack=True, as_json=False)
    text = capsys.readouterr().out
    await run_show(temporal, id, watch=False, stack=True, as_json=True)
    return text, json.loads(capsys.readouterr().out)


async def test_no_signal_that_somebody_sends_by_hand_hides_a_run(
    app: steporal.Client, workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        signal = await step.wait_for_signal("go", signal=f"go/{app.id}", timeout="1h")
        return signal and signal.data

    async with workers(app):
        run = await waits.start(None)
        await until_waiting(run)
        handle = workers.temporal.get_workflow_handle(run.workflow_id)
        ours = {"run_id": run.run_id}
        messages: list[list[Any]] = [
            [],
            [5],
            [BROKEN],
            [UNKNOWN],
            [ours],
            [{**ours, "key": 5}],
            [{"key": "go", "data": 9}],
        ]
        messages += [[{**ours, "key": "other", "event": {}}], [{**ours, "child": "x", "outcome": 5}]]
        for name in (DELIVER, SIGNALLED, ENDED):
            for message in messages:
                await handle.signal(name, args=message)
        text, data = await shown(workers.temporal, run.workflow_id, capsys)
        assert "waits for signal" in text
        assert [wait["step"] for wait in data["waits"]] == ["go"]
        while (await app.send_signal(f"go/{app.id}", "now")).run_id is None:
            await asyncio.sleep(0.05)
        assert await run.result() == "now"
    _, data = await shown(workers.temporal, run.workflow_id, capsys)
    assert [(step["id"], step["result"]) for step in data["steps"] if step["kind"] == "signal"] == [("go", "now")]


async def test_a_run_that_a_plain_client_has_started_is_shown(
    app: steporal.Client, workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    @app.workflow(id="plain")
    async def plain(ctx: Context[Any], step: Step) -> Any:
        return await step.run("work", lambda: 1)

    async with workers(app):
        id = f"{app.id}/plain/1"
        assert await workers.temporal.execute_workflow("plain", None, id=id, task_queue=app.task_queue) == 1
    text, data = await shown(workers.temporal, id, capsys)
    assert "send inngest/function.finished" in text
    assert [step["kind"] for step in data["steps"]] == ["step", "tell"]


@pytest.mark.parametrize("what", STARTS)
async def test_a_run_that_was_started_with_anything_is_shown_or_refused_and_recovers_no_other(
    workers: Workers, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    async with workers(odd.client), asyncio.timeout(60):
        temporal, id = workers.temporal, f"odd/odd-echo/{what}"
        handle = await temporal.start_workflow("odd-echo", args=STARTS[what], id=id, task_queue=odd.client.task_queue)
        try:
            await handle.result()
        except WorkflowFailureError:
            pass
    described = await handle.describe()
    try:
        await shown(temporal, id, capsys)
    except HistoryError as error:
        assert repr(id) in str(error)
    assert (await row_of(temporal, described)).run_id == described.run_id
    stuck = StuckRun("odd-echo", id, described.run_id, "it was played by a stranger")
    outcome = await recover_run(temporal, stuck, RecoverOptions(dry_run=True))
    assert outcome.state in ("recoverable", "not recovered")


async def test_native_workflows_of_any_arguments_keep_no_run_from_being_replayed(
    app: steporal.Client, workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    @app.workflow(id="fits")
    async def fits(ctx: Context[Any], step: Step) -> None: ...

    temporal = workers.temporal
    for number, second in enumerate((BYTES, BROKEN, UNKNOWN)):
        await temporal.start_workflow(
            "native", args=[1, second], id=f"{app.id} {number}", task_queue=app.task_queue, result_type=type(None)
        )
    async with asyncio.timeout(30):
        while (await temporal.count_workflows(f"TaskQueue = '{app.task_queue}'")).count < 3:
            await asyncio.sleep(0.05)
    app.temporal = temporal
    assert await run_replay(app, temporal, temporal.data_converter, ReplayOptions(as_json=True)) == 0
    assert json.loads(capsys.readouterr().out) == {"replayed": 0, "misfits": []}
    for number in range(3):
        await temporal.get_workflow_handle(f"{app.id} {number}").terminate()
