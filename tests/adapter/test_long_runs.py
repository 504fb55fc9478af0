"""Runs of many steps continue as new by themselves, on a server that suggests it early."""

from __future__ import annotations

import asyncio
import json
import random
import re
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import Mock

import pytest
import temporalio.client
from recording import Workers
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.testing import TimeSkipper
from waiting import LONG, MEGABYTES, until_waiting

import steporal
from steporal import Context, PayloadTooLargeError, RunCancelledError, RunFailedError, Step
from steporal.events import new_ulid
from steporal.runtime import continuing, handover_size, journal
from steporal.runtime.handover_size import HandoverSize
from steporal.runtime.inbox import Inbox
from steporal.wire import run_state, waits
from steporal.wire.memo import Failure, Outcome
from steporal.wire.names import CHECKPOINT, DELIVER
from steporal_workers.devserver import dev_server

SUGGESTED_FROM = 75  # events

COMPRESS, COMPRESSOBJ = zlib.compress, zlib.compressobj


@pytest.fixture(scope="module")
async def hasty() -> AsyncIterator[temporalio.client.Client]:
    """A client of a server that suggests to continue as new early."""
    async with dev_server(dynamic_config=[f"limit.historyCount.suggestContinueAsNew={SUGGESTED_FROM}"]) as server:
        yield server.client


@pytest.fixture
async def workers(hasty: temporalio.client.Client, max_cached_workflows: int) -> AsyncIterator[Workers]:
    """As everywhere, on that server."""
    started = Workers(hasty, max_cached_workflows)
    yield started
    await started.replay()


@pytest.fixture
def temporal(hasty: temporalio.client.Client) -> temporalio.client.Client:
    """That server instead of the session's."""
    return hasty


async def lengths(run: steporal.Run[Any], client: temporalio.client.Client) -> list[int]:
    """How many events each execution of a run has."""
    return [len(events) for events in await histories(run, client)]


async def histories(run: steporal.Run[Any], client: temporalio.client.Client) -> list[list[HistoryEvent]]:
    """The events of each execution of a run."""
    latest = await run.temporal.describe()
    run_id: str | None = latest.raw_description.workflow_execution_info.first_run_id
    found = []
    while run_id:
        handle = client.get_workflow_handle(run.workflow_id, run_id=run_id)
        events = [event async for event in handle.fetch_history_events()]
        found.append(events)
        run_id = events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return found


@pytest.mark.parametrize("local", [False, True])
async def test_a_loop_of_many_steps_is_one_run(app: steporal.Client, workers: Workers, local: bool) -> None:
    ran: list[int] = []

    @app.workflow(id="loops")
    async def loops(ctx: Context[Any], step: Step) -> Any:
        total = 0
        drawn = ctx.random.random()
        first = await step.run("draw", lambda: drawn)
        for number in range(60):
            total += await step.run("add", lambda: ran.append(number) or number, local=local)  # type: ignore[func-returns-value]
        return [total, ctx.run_id, first == drawn]

    async with workers(app):
        run = await loops.start()
        assert await run.result() == [sum(range(60)), run.run_id, True]
        counts = await lengths(run, workers.temporal)
    assert ran == list(range(60))
    if not local:  # local steps are one workflow task, at whose end Temporal suggests to continue
        assert len(counts) > 1
        assert max(counts) < SUGGESTED_FROM * 2


@pytest.mark.needs_cache("as the loop of many steps, which runs without")
async def test_steps_side_by_side_are_held_when_the_history_is_very_long(
    monkeypatch: pytest.MonkeyPatch, app: steporal.Client, workers: Workers
) -> None:
    monkeypatch.setattr(continuing, "HARD_LENGTH", 2 * SUGGESTED_FROM)
    ran: list[str] = []

    @app.workflow(id="many")
    async def many(ctx: Context[Any], step: Step) -> Any:
        async def lane(name: str) -> int:
            for number in range(10):
                await step.run(f"{name}-{number}", lambda: ran.append(f"{name}-{number}"))
                if number % 5 == 0:
                    await step.sleep(f"{name}-{number}-pause", 20)
            return 10

        return sum(await asyncio.gather(*(lane(str(n)) for n in range(10))))

    async with workers(app):
        run = await many.start()
        assert await run.result() == 100
        assert len(await lengths(run, workers.temporal)) > 1
    assert sorted(ran) == sorted(f"{lane}-{number}" for lane in range(10) for number in range(10))


async def test_a_loop_that_hears_events_loses_none(app: steporal.Client, workers: Workers) -> None:
    name = f"tick.{new_ulid()}"

    @app.workflow(id="hears")
    async def hears(ctx: Context[Any], step: Step) -> Any:
        heard: list[int] = []
        async with await step.ext.listen("listen", event=name, timeout="1h") as listener:
            await step.run("listening", lambda: None)
            while len(heard) < 60:
                event = await listener.next("next")
                assert event is not None
                heard.append(event.data["n"])
        return heard

    async with workers(app):
        run = await hears.start()
        while not any("listening" in str(event) for event in (await run.temporal.fetch_history()).events):
            await asyncio.sleep(0.05)
        for n in range(60):
            await app.send_event({"name": name, "data": {"n": n}})
        assert sorted(await run.result()) == list(range(60))
        assert len(await lengths(run, workers.temporal)) > 1


@pytest.mark.needs_cache("as the loop of many steps, which runs without")
async def test_a_loop_that_waits_for_events_for_months_is_one_run(workers: Workers) -> None:
    app = steporal.Client(f"waits for months {new_ulid()}", park_after="never")
    name, days = (
        f"tick.{new_ulid()}",
        120,
    )  # more would reach the year 2262, as the server skips all again when a run goes on

    async def is_delivered(workflow_id: str) -> None:
        """Days go by much faster than an event comes."""
        latest = workers.temporal.get_workflow_handle(workflow_id)
        while DELIVER not in str((await latest.fetch_history()).events[-40:]):
            await asyncio.sleep(0.05)

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        heard: list[tuple[int, int]] = []
        began = ctx.now()
        async with await step.ext.listen("listen", event=name, timeout="365d") as listener:
            for day in range(days):
                if day % 60 == 30:
                    await step.ext.send_event("tick", {"name": name, "data": {"day": day}})
                    await step.run("is delivered", lambda: is_delivered(ctx.ext.workflow_id))
                if event := await listener.next("next", timeout="1d"):
                    heard.append((event.data["day"], day))
        return [heard, (ctx.now() - began).days, ctx.run_id]

    async with workers(app), asyncio.timeout(100):
        app.temporal = TimeSkipper(workers.temporal).client
        run = await waits.start()
        heard, lasted, run_id = await run.result()
        assert (heard, run_id) == ([(day, day) for day in range(30, days, 60)], run.run_id)
        assert lasted >= days - len(heard)
        assert len(await lengths(run, workers.temporal)) > 3


@pytest.mark.needs_cache("as the loop of many steps, which runs without")
async def test_a_failed_step_is_still_the_same_error(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="fails", max_attempts=2)
    async def fails(ctx: Context[Any], step: Step) -> Any:
        def broken() -> None:
            raise KeyError("out of order")

        try:
            await step.run("broken", broken)
        except steporal.StepError as err:
            caught = [err.step_id, err.name, err.message, err.attempts, "in broken" in err.stack, repr(err.__cause__)]
        for number in range(30):
            await step.run("more", lambda: number)
        return caught

    async with workers(app):
        run = await fails.start()
        step_id, name, message, attempts, has_stack, cause = await run.result()
        assert (step_id, name, message, attempts, has_stack) == ("broken", "KeyError", "'out of order'", 2, True)
        assert "out of order" in cause
        assert len(await lengths(run, workers.temporal)) > 1


@pytest.mark.needs_cache("as the loop of many steps, which runs without")
async def test_a_body_comes_back_through_many_steps_in_parts(
    monkeypatch: pytest.MonkeyPatch, app: steporal.Client, workers: Workers
) -> None:
    """A workflow task that takes two seconds is ended by the SDK, which may lose the run."""
    monkeypatch.setattr(journal, "ENTRIES_PER_TASK", 10)

    @app.workflow(id="loops", max_attempts=2)
    async def loops(ctx: Context[Any], step: Step) -> Any:
        total = sum([await step.run("alone", lambda: number) for number in range(45)])
        for _ in range(2):
            total += sum(await asyncio.gather(*(step.run("together", lambda: number) for number in range(20))))
        if ctx.attempt == 0:
            raise RuntimeError("from the top")
        return total

    async with workers(app):
        run = await loops.start()
        assert await run.result() == sum(range(45)) + 2 * sum(range(20))
        pauses = [len(each) for each in await pauses_of(run, workers.temporal)]
    assert pauses[0] == 0
    assert sum(pauses[1:]) >= (45 + 40) // 10, "the second attempt passes all of them"


@pytest.mark.needs_cache("each workflow task has to be done before the next one, in a moment that the test waits for")
async def test_a_run_that_is_cancelled_while_its_body_comes_back_is_cancelled_where_it_waits(
    monkeypatch: pytest.MonkeyPatch, app: steporal.Client, workers: Workers
) -> None:
    monkeypatch.setattr(journal, "ENTRIES_PER_TASK", 4)
    monkeypatch.setattr(journal, "_MOMENT", timedelta(milliseconds=300))
    given_back: list[str] = []
    signal = f"go {new_ulid()}"

    @app.workflow(id="loops")
    async def loops(ctx: Context[Any], step: Step) -> Any:
        for number in range(7):  # so few that the run does not continue as new by itself
            await step.run("take", lambda: number)
        try:
            await step.wait_for_signal("go", signal=signal, timeout="1h")
            await step.sleep("for long", "1h")
        finally:
            await step.run("give back", lambda: given_back.append("given back"))

    async with workers(app), asyncio.timeout(60):
        run = await loops.start()
        latest = workers.temporal.get_workflow_handle(run.workflow_id)
        await until_waiting(run)
        await latest.signal(CHECKPOINT, {"hold": 3600})
        while (await latest.describe()).run_id == run.run_id:
            await asyncio.sleep(0.05)
        await latest.signal(CHECKPOINT, {"hold": 0})
        await app.send_signal(signal)
        while not (await pauses_of(run, workers.temporal))[-1]:
            await asyncio.sleep(0.05)
        await run.cancel()
        with pytest.raises(RunCancelledError):
            await run.result()
    assert given_back == ["given back"]


async def pauses_of(run: steporal.Run[Any], client: temporalio.client.Client) -> list[list[HistoryEvent]]:
    """The moments in which the body was held on its way back, in each execution of a run."""
    return [
        [event for event in events if waits.COMES_BACK.encode() in event.user_metadata.summary.data]
        for events in await histories(run, client)
    ]


def incompressible(number: int, kilobytes: int) -> str:
    """A text that compresses to three fifths."""
    return random.Random(number).randbytes(kilobytes * 512).hex()


async def details_of(run: steporal.Run[Any], run_id: str | None = None) -> str:
    """What Temporal's UI shows as the details of an execution of a run, the last one by default."""
    handle = run.temporal._client.get_workflow_handle(run.workflow_id, run_id=run_id)
    metadata = await handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
    return metadata.current_details


@pytest.mark.needs_cache(MEGABYTES)
async def test_a_memo_that_grows_warns_in_the_log_and_in_the_ui_before_anything_fails(
    monkeypatch: pytest.MonkeyPatch, app: steporal.Client, workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(continuing, "LAST_LENGTH", 2 * SUGGESTED_FROM)
    go_on = asyncio.Event()

    @app.workflow(id="hoards")
    async def hoards(ctx: Context[Any], step: Step) -> Any:
        for number in range(5):
            await step.run("item", lambda: incompressible(number, 400))
        await step.run("pause", lambda: go_on.wait(), timeout="1m")
        for number in range(3):
            await step.run("more", lambda: incompressible(number, 400))
        for number in range(30):
            await step.run("count", lambda: number)

    async with workers(app):
        run = await hoards.start()
        while "**Warning**" not in (details := await details_of(run)):
            await asyncio.sleep(0.1)
        assert len(await lengths(run, workers.temporal)) == 1, "before it continues as new for the first time"
        size = r"its \d steps have 1,[\d,]+ bytes compressed, of 2,080,768 that a run can take along"
        for said in (details, caplog.text):
            assert re.search(size, said)
            assert "give the client external storage" in said
            assert "docs/long-runs.md" in said
        go_on.set()
        with pytest.raises(RunFailedError, match=r"cannot continue as new: .* have [23],[\d,]+ bytes") as caught:
            await run.result()
        assert caught.value.name == PayloadTooLargeError.__name__
        assert "docs/long-runs.md" in caught.value.message
        assert len(await lengths(run, workers.temporal)) == 1


@pytest.mark.needs_cache(MEGABYTES)
@pytest.mark.parametrize(
    ("steps", "kilobytes"),
    [
        pytest.param(8, 400, id="found out by building it"),
        pytest.param(20, 450, id="found out by an estimate"),  # over 8 MiB
    ],
)
async def test_a_run_that_is_too_large_to_continue_as_new_goes_on_to_its_end(
    app: steporal.Client, workers: Workers, caplog: pytest.LogCaptureFixture, steps: int, kilobytes: int
) -> None:
    @app.workflow(id="hoards")
    async def hoards(ctx: Context[Any], step: Step) -> Any:
        sizes = [len(await step.run("item", lambda: incompressible(number, kilobytes))) for number in range(steps)]
        return sum(sizes) + sum([await step.run("count", lambda: number) for number in range(30)])

    async with workers(app):
        run = await hoards.start()
        assert await run.result() == steps * kilobytes * 1024 + sum(range(30))
        (length,) = await lengths(run, workers.temporal)
        assert length > 2 * SUGGESTED_FROM
    assert "of 2,080,768 that a run can take along" in caplog.text


@pytest.mark.needs_cache(MEGABYTES)
@pytest.mark.parametrize("is_too_large", [True, False])
@pytest.mark.parametrize(
    ("steps", "kilobytes"),
    [
        pytest.param(8, 400, id="found out by building it"),
        pytest.param(20, 450, id="found out by an estimate"),
    ],
)
async def test_a_worker_whose_zlib_compresses_better_or_worse_replays_a_run(
    monkeypatch: pytest.MonkeyPatch,
    app: steporal.Client,
    workers: Workers,
    steps: int,
    kilobytes: int,
    is_too_large: bool,
) -> None:
    @app.workflow(id="hoards")
    async def hoards(ctx: Context[Any], step: Step) -> Any:
        sizes = [len(await step.run("item", lambda: f"{number}" * kilobytes * 1024)) for number in range(steps)]
        return sum(sizes) + sum([await step.run("count", lambda: number) for number in range(30)])

    compress_with_zlib_level(monkeypatch, 0 if is_too_large else 9)
    async with workers(app):
        run = await hoards.start()
        await run.result()
    assert (len(await lengths(run, workers.temporal)) == 1) == is_too_large
    compress_with_zlib_level(monkeypatch, 9 if is_too_large else 0)
    await workers.replay()


@dataclass
class Page:
    """A value that plain JSON does not say everything of."""

    text: str
    made: datetime


@pytest.mark.needs_cache(MEGABYTES)
@pytest.mark.parametrize("is_too_large", [True, False])
async def test_a_worker_whose_zlib_compresses_better_or_worse_replays_a_large_result(
    monkeypatch: pytest.MonkeyPatch, app: steporal.Client, workers: Workers, is_too_large: bool
) -> None:
    @app.workflow(id="returns")
    async def returns(ctx: Context[Any], step: Step):  # type: ignore[no-untyped-def]
        return Page("x" * 1_500_000, ctx.now())

    compress_with_zlib_level(monkeypatch, 0 if is_too_large else 9)
    async with workers(app):
        run = await returns.start()
        if is_too_large:
            with pytest.raises(RunFailedError, match=r"the result of workflow 'returns' has 1,5\d\d,\d\d\d bytes"):
                await run.result()
        else:
            assert (await run.result()).text == "x" * 1_500_000
    compress_with_zlib_level(monkeypatch, 9 if is_too_large else 0)
    await workers.replay()


def compress_with_zlib_level(monkeypatch: pytest.MonkeyPatch, level: int) -> None:
    """Compress values as another version of zlib might."""
    monkeypatch.setattr(zlib, "compress", lambda data: COMPRESS(data, level))
    monkeypatch.setattr(zlib, "compressobj", lambda: COMPRESSOBJ(level))


@pytest.mark.needs_cache(MEGABYTES)
async def test_a_listener_with_too_many_events_is_named_before_anything_fails(
    monkeypatch: pytest.MonkeyPatch, app: steporal.Client, workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(continuing, "LAST_LENGTH", 2 * SUGGESTED_FROM)
    name, stop = f"rows.{new_ulid()}", asyncio.Event()

    @app.workflow(id="listens")
    async def listens(ctx: Context[Any], step: Step) -> Any:
        await step.ext.listen("rows", event=name, timeout="1h")
        await step.ext.listen("others", event=name, if_exp="async.data.n == 0", timeout="1h")
        await step.run("pause", lambda: stop.wait(), timeout="1m")
        for number in range(30):
            await step.run("count", lambda: number)

    async def send(numbers: range) -> None:
        for n in numbers:
            await app.send_event({"name": name, "data": {"n": n, "rows": incompressible(n, 200)}})

    async with workers(app), asyncio.timeout(60):
        run = await listens.start()
        while not (await run.temporal.describe()).raw_description.pending_activities:
            await asyncio.sleep(0.05)
        await send(range(8))
        while "**Warning**" not in (details := await details_of(run)) or "bytes compressed" not in caplog.text:
            await asyncio.sleep(0.1)
        named = (
            r"the \d events of listener 'rows' that nobody has taken \(and 1 of other listeners\) and the results of"
        )
        for said in (details, caplog.text):
            assert re.search(named + r" its 2 steps have 1,[\d,]+ bytes compressed, of 2,080,768 that a run can", said)
            assert (
                "take them sooner, listen for less (match, if_exp), give the client external storage, or close" in said
            )
        await send(range(8, 14))
        stop.set()
        with pytest.raises(RunFailedError, match=rf"cannot continue as new: {named.replace('d', 'd+', 1)}") as caught:
            await run.result()
        assert caught.value.name == PayloadTooLargeError.__name__


@pytest.mark.needs_cache(MEGABYTES)
@pytest.mark.parametrize("what", ["waits", "is parked", "has a step in flight"])
async def test_a_run_that_events_bring_to_its_end_fails_before_temporal_terminates_it(
    monkeypatch: pytest.MonkeyPatch, workers: Workers, what: str
) -> None:
    monkeypatch.setattr(continuing, "LAST_LENGTH", 2 * SUGGESTED_FROM)
    monkeypatch.setattr(continuing, "_LAST_STEP_LENGTH", 10)
    app = steporal.Client(f"floods {new_ulid()}", park_after="1s" if what == "is parked" else "1m")
    name, never = f"rows.{new_ulid()}", asyncio.Event()

    @app.workflow(id="floods")
    async def floods(ctx: Context[Any], step: Step) -> Any:
        await step.ext.listen("rows", event=name, timeout="1h")
        if what == "has a step in flight":
            await step.run("pause", lambda: never.wait(), timeout="1m")
        await step.ext.wait_for_event("stop", event=f"{name}/stop", timeout="1h")

    async with workers(app), asyncio.timeout(LONG):
        run = await floods.start()
        if what == "has a step in flight":
            while not (await run.temporal.describe()).raw_description.pending_activities:
                await asyncio.sleep(0.05)
        else:
            await until_waiting(run)
        while what == "is parked" and "Parked" not in await details_of(run):
            await asyncio.sleep(0.1)
        ended = asyncio.create_task(run.result())
        for n in range(200):
            await app.send_event({"name": name, "data": {"rows": incompressible(n, 200 if n < 20 else 1)}})
            await asyncio.sleep(0)
            if ended.done():
                break
        with pytest.raises(RunFailedError, match="cannot continue as new") as caught:
            await ended
        assert caught.value.name == PayloadTooLargeError.__name__


def test_events_that_nobody_takes_are_hardly_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many may come in one workflow task, which has two seconds."""
    compressed = 0

    class Counted:
        def __init__(self, packer: Any) -> None:
            self._packer = packer

        def compress(self, data: bytes) -> bytes:
            nonlocal compressed
            compressed += len(data)
            found: bytes = self._packer.compress(data)
            return found

        def flush(self) -> bytes:
            found: bytes = self._packer.flush()
            return found

    compressobj = zlib.compressobj
    monkeypatch.setattr(handover_size.zlib, "compressobj", lambda: Counted(compressobj()))  # type: ignore[attr-defined]
    monkeypatch.setattr(handover_size, "workflow", Mock())
    storage, inbox = Mock(), Inbox()
    storage.is_available.return_value = False
    size = HandoverSize({}, inbox, storage)
    inbox.open("rows", ("row",), 1e9)
    for number in range(100):
        inbox.deliver(
            "rows", {"id": str(number), "name": "row", "data": incompressible(number, 300), "ts": 0, "v": None}
        )
        size.event_arrived()
        size.step_finished(f"step-{number}", Outcome(number))
    assert inbox.size > 30_000_000
    assert "the 100 events of listener 'rows'" in size.warning_of_events()
    assert 0 < compressed < 1024 * 1024


@pytest.mark.needs_cache(MEGABYTES)
async def test_the_next_execution_and_a_parked_run_show_the_warning_too(workers: Workers) -> None:
    app = steporal.Client(f"warns {new_ulid()}", park_after="1s")

    @app.workflow(id="warns")
    async def warns(ctx: Context[Any], step: Step) -> Any:
        for number in range(5):
            await step.run("item", lambda: incompressible(number, 400))
        await step.sleep("pause", "6s")
        await step.run("look", lambda: looked.wait(), timeout="1m")

    looked = asyncio.Event()
    async with workers(app):
        run = await warns.start()
        while "Parked" not in (details := await details_of(run)):
            await asyncio.sleep(0.1)
        assert "**Warning**: the results of its 5 steps" in details
        while "Parked" in (details := await details_of(run)):
            await asyncio.sleep(0.1)
        assert "**Warning**: the results of its" in details
        looked.set()
        await run.result()


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(None),
        Outcome({"a": [1, "ü", None]}),
        Outcome(failure=Failure("ValueError", "no", "  File x", 3)),
        Outcome(failure=Failure("ValueError", "no", cause=ValueError("no"))),
    ],
)
def test_an_outcome_comes_back(outcome: Outcome) -> None:
    again = run_state.read_outcome(run_state.outcome_json(outcome))
    assert again.value == outcome.value
    assert (again.failure is None) == (outcome.failure is None)
    if outcome.failure and again.failure:
        assert (again.failure.name, again.failure.message, again.failure.stack, again.failure.attempts) == (
            outcome.failure.name,
            outcome.failure.message,
            outcome.failure.stack,
            outcome.failure.attempts,
        )
        assert (again.failure.cause is None) == (outcome.failure.cause is None)


def test_a_large_state_is_compressed() -> None:
    state = run_state.RunState(is_parked=False, started=1, seed="ff", memo={f"s{n}": ["x" * 50] for n in range(5000)})
    raw = state.raw(lambda: False)
    assert len(raw.payload.data) < 200_000
    assert run_state.read_run_state(json.loads(raw.payload.data)) == state
