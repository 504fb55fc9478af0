"""Values over Temporal's limit in external storage: what goes through, what waits when the storage does not answer."""

from __future__ import annotations

import asyncio
import random
import re
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import temporalio.client
from http_server import Reply, http_server
from recording import Workers
from storage import Folder, with_storage
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.converter import DataConverter, ExternalStorage, PayloadCodec
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer, Worker
from waiting import MEGABYTES, until_waiting

import steporal
from steporal import (
    Context,
    DefinitionError,
    PayloadTooLargeError,
    RunFailedError,
    SendEventError,
    Step,
    StepError,
    event_trigger,
)
from steporal.events import new_ulid
from steporal_workers.devserver import dev_server

LARGE = 3_000_000
TOO_LARGE = 8 * 1024 * 1024
SUGGESTED_FROM = 150  # events


@pytest.fixture(scope="module")
async def plain() -> AsyncIterator[temporalio.client.Client]:
    """A client without storage, of a server that suggests to continue as new early, and tries failed tasks soon."""
    config = [f"limit.historyCount.suggestContinueAsNew={SUGGESTED_FROM}", 'history.defaultWorkflowTaskTimeout="2s"']
    async with dev_server(ui=False, dynamic_config=config) as server:
        yield server.client


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """The storage."""
    path = tmp_path / "values"
    path.mkdir()
    return Folder(path)


@pytest.fixture
def temporal(plain: temporalio.client.Client, folder: Folder) -> temporalio.client.Client:
    """A client with that storage."""
    return with_storage(plain, folder)


@pytest.fixture
def without_storage(plain: temporalio.client.Client, max_cached_workflows: int) -> Workers:
    """Starts workers that have no storage; their runs are replayed with those of ``workers``, if they went on there."""
    return Workers(plain, max_cached_workflows)


def app_that_parks() -> steporal.Client:
    """An app whose runs are parked soon."""
    return steporal.Client(f"parks {new_ulid()}", park_after="1s")


def text(size: int = LARGE, seed: int = 0) -> str:
    """A text that compresses to about a half."""
    return random.Random(seed).randbytes(size // 2).hex()


async def executions(run: steporal.Run[Any], client: temporalio.client.Client) -> int:
    """How many executions a run has had."""
    latest = await run.temporal.describe()
    run_id: str | None = latest.raw_description.workflow_execution_info.first_run_id
    count = 0
    while run_id:
        count += 1
        handle = client.get_workflow_handle(run.workflow_id, run_id=run_id)
        last = [event async for event in handle.fetch_history_events()][-1]
        run_id = last.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return count


async def failed_task(run: steporal.Run[Any]) -> str:
    """What Temporal's history says of the first workflow task that fails; waits for it."""
    async with asyncio.timeout(30):
        while True:
            async for event in run.temporal.fetch_history_events():
                if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED:
                    return event.workflow_task_failed_event_attributes.failure.message
            await asyncio.sleep(0.05)


# --- what goes through ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("local", [False, True])
async def test_what_a_step_captures_and_returns(
    app: steporal.Client, workers: Workers, folder: Folder, local: bool
) -> None:
    @app.workflow(id="large")
    async def large(ctx: Context[Any], step: Step) -> Any:
        data = ctx.input.data
        turned = await step.run("turn", lambda: data[::-1], local=local)
        await step.sleep("pause", "10ms")
        assert turned[::-1] == data
        return turned

    async with workers(app):
        given = text()
        assert await (await large.start(given)).result() == given[::-1]
    assert max(folder.sizes()) > LARGE


async def test_what_an_invoked_run_is_given_and_returns(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="child")
    async def child(ctx: Context[Any], step: Step) -> Any:
        return ctx.input.data[::-1]

    @app.workflow(id="parent")
    async def parent(ctx: Context[Any], step: Step) -> Any:
        given = text()
        returned = await step.invoke_workflow("invoke", workflow=child, data=given)
        return returned == given[::-1]

    async with workers(app):
        assert await (await parent.start()).result() is True


@pytest.mark.parametrize("from_a_step", [False, True])
async def test_the_data_of_a_signal(app: steporal.Client, workers: Workers, from_a_step: bool) -> None:
    signal = f"approval/{new_ulid()}"

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        received = await step.wait_for_signal("wait", signal=signal, timeout="1h")
        return received.data == text() if received else None

    @app.workflow(id="sends")
    async def sends(ctx: Context[Any], step: Step) -> Any:
        return (await step.send_signal("send", signal=signal, data=text())).run_id

    async with workers(app):
        run = await waits.start()
        await until_waiting(run)
        sent = await (await sends.start()).result() if from_a_step else (await app.send_signal(signal, text())).run_id
        assert sent == run.run_id
        assert await run.result() is True


async def test_an_event_over_the_threshold(app: steporal.Client, workers: Workers, folder: Folder) -> None:
    name = f"large.{new_ulid()}"
    data = {"text": text(400_000)}

    @app.workflow(id="waits", triggers=[event_trigger(f"{name}.first")])
    async def waits(ctx: Context[Any], step: Step) -> Any:
        second = await step.ext.wait_for_event("wait", event=name, timeout="1h")
        return ctx.input.data == data and second is not None and second.data == data

    @app.workflow(id="sends")
    async def sends(ctx: Context[Any], step: Step) -> Any:
        await step.ext.send_event("send", {"name": name, "data": ctx.input.data})

    async with workers(app):
        sent = await app.send_event({"name": f"{name}.first", "data": data})
        run = await app.get_run(f"{app.id}/waits/{sent.ids[0]}")
        await until_waiting(run)
        await sends.start(data)
        assert await run.result() is True
    assert len(folder.sizes()) > 2


@pytest.mark.needs_cache(MEGABYTES)
async def test_a_long_run_with_more_results_than_temporal_takes(
    app: steporal.Client, workers: Workers, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    @app.workflow(id="hoards")
    async def hoards(ctx: Context[Any], step: Step) -> Any:
        sizes = [len(await step.run("item", lambda: text(600_000, number))) for number in range(10)]
        for number in range(30):
            await step.run("count", lambda: number)
        first = await step.run("large", lambda: text(LARGE))
        second = await step.run("large", lambda: text(LARGE, 1))
        return sum(sizes) == 10 * 600_000 and first == text(LARGE) and second == text(LARGE, 1)

    async with workers(app):
        run = await hoards.start()
        assert await run.result() is True
        assert await executions(run, workers.temporal) > 1
    assert max(folder.sizes()) > 3_300_000
    assert "bytes, of 8,388,608 that a run can take along" in caplog.text, "nearly so much is carried at the end"
    assert "of 2,080,768" not in caplog.text


@pytest.mark.needs_cache(MEGABYTES)
async def test_a_run_with_more_results_than_the_storage_takes_along_goes_on_in_one_execution(
    app: steporal.Client, workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    @app.workflow(id="hoards")
    async def hoards(ctx: Context[Any], step: Step) -> Any:
        got = [await step.run("item", lambda: text(600_000, number)) for number in range(16)]
        for number in range(30):
            await step.run("more", lambda: number)
        return len(set(got))

    async with workers(app):
        run = await hoards.start()
        assert await run.result() == 16
        assert await executions(run, workers.temporal) == 1
    assert "of 8,388,608 that a run can take along" in caplog.text


@pytest.mark.needs_cache(MEGABYTES)
async def test_a_run_parks_with_results_over_the_limit(workers: Workers) -> None:
    app = app_that_parks()
    name = f"paid.{new_ulid()}"

    @app.workflow(id="parks")
    async def parks(ctx: Context[Any], step: Step) -> Any:
        large = [await step.run("large", lambda: text(LARGE, number)) for number in range(2)]
        event = await step.ext.wait_for_event("paid", event=name, timeout="1h")
        await step.sleep("pause", "10ms")
        return large == [text(LARGE, 0), text(LARGE, 1)] and event is not None

    async with workers(app):
        run = await parks.start()
        async with asyncio.timeout(30):
            while await executions(run, workers.temporal) < 2:
                await asyncio.sleep(0.05)
        await app.send_event({"name": name})
        assert await run.result() is True


async def test_a_response_over_the_limit(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="fetches")
    async def fetches(ctx: Context[Any], step: Step) -> Any:
        return len((await step.ext.fetch("get", "GET", ctx.input.data, max_response_bytes=LARGE)).body)

    async with http_server() as server, workers(app):
        server.default = Reply(200, b"x" * LARGE)
        assert await (await fetches.start(server.url)).result() == LARGE


async def test_values_of_all_sizes_where_everything_is_stored(
    app: steporal.Client, plain: temporalio.client.Client, folder: Folder
) -> None:
    async with dev_server(ui=False) as server:  # of its own: the catalog, too, is stored
        workers = Workers(with_storage(server.client, folder, payload_size_threshold=0), 1000)

        @app.workflow(id="child")
        async def child(ctx: Context[Any], step: Step) -> Any:
            return ctx.input.data

        @app.workflow(id="all", triggers=[event_trigger("all")])
        async def everything(ctx: Context[Any], step: Step) -> Any:
            async with await step.ext.listen("listen", event="heard", timeout="1h") as listener:
                await step.ext.send_event("send", {"name": "heard", "data": {"n": 1}})
                heard = await listener.next("next")
                invoked = await step.invoke_workflow("invoke", workflow=child, data=2)
                local = await step.run("local", lambda: 3, local=True)
                signal = await step.wait_for_signal("wait", signal="signal", timeout="1h")
                try:
                    await step.run("fail", lambda: 1 / 0, max_attempts=1)
                except StepError as err:
                    return [heard.data["n"] if heard else None, invoked, local, signal and signal.data, err.name]

        async with workers(app):
            sent = await app.send_event({"name": "all"})
            run = await app.get_run(f"{app.id}/all/{sent.ids[0]}")
            async with asyncio.timeout(30):
                while (await app.send_signal("signal", 4)).run_id is None:
                    await asyncio.sleep(0.05)
            assert await run.result() == [1, 2, 3, 4, "ZeroDivisionError"]
        await workers.replay()


class Sealed(PayloadCodec):
    """Stands for encryption: what it makes is larger, or smaller, than what it was given."""

    def __init__(self, change: Callable[[bytes], bytes], back: Callable[[bytes], bytes]) -> None:
        self._change = change
        self._back = back

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """See base class."""
        return [Payload(metadata={"encoding": b"sealed"}, data=self._change(p.SerializeToString())) for p in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """See base class."""
        sealed = (p.metadata["encoding"] == b"sealed" for p in payloads)
        return [Payload.FromString(self._back(p.data)) if s else p for p, s in zip(payloads, sealed, strict=True)]


@pytest.mark.needs_cache(MEGABYTES)
@pytest.mark.parametrize(
    "codec",
    [
        Sealed(lambda data: data.hex().encode(), lambda data: bytes.fromhex(data.decode())),
        Sealed(lambda data: zlib.compress(data, 1), zlib.decompress),
    ],
    ids=["larger", "smaller"],
)
async def test_a_codec_comes_before_the_storage(
    app: steporal.Client, folder: Folder, codec: PayloadCodec, max_cached_workflows: int
) -> None:
    @app.workflow(id="sealed")
    async def sealed(ctx: Context[Any], step: Step) -> Any:
        data = ctx.input.data
        return await step.run("turn", lambda: data[::-1])

    async with dev_server(ui=False) as server:  # of its own: the catalog, too, is sealed
        temporal = with_storage(server.client, folder, converter=DataConverter(payload_codec=codec))
        workers = Workers(temporal, max_cached_workflows)
        async with workers(app):
            for given in (text(1_500_000), text(LARGE)):
                assert await (await sealed.start(given)).result() == given[::-1]
        await workers.replay()
    assert len(folder.sizes()) >= 4
    assert not any(b"json/plain" in file.read_bytes() for file in folder.path.iterdir())


# --- what does not -------------------------------------------------------------------------------------------------


async def test_more_than_the_storage_takes_is_refused_with_the_size(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="too large")
    async def too_large(ctx: Context[Any], step: Step) -> Any:
        try:
            await step.run("download", lambda: "x" * TOO_LARGE)
        except StepError as err:
            return [err.name, err.message]

    async with workers(app):
        with pytest.raises(PayloadTooLargeError, match="input of workflow 'too large' has 8,388,610 bytes"):
            await too_large.start("x" * TOO_LARGE)
        name, message = await (await too_large.start()).result()
    assert name == "PayloadTooLargeError"
    assert re.search(r"step 'download' has 8,388,610 bytes of JSON; at most 8,388,5\d\d go into external", message)


def test_a_threshold_over_the_limit_is_refused_at_definition(folder: Folder) -> None:
    storage = ExternalStorage([folder], payload_size_threshold=3_000_000)
    with pytest.raises(DefinitionError, match="client 'a' has payload_size_threshold=3000000"):
        steporal.Client("a", data_converter=DataConverter(external_storage=storage))


async def test_a_threshold_over_the_limit_of_a_connection_is_refused_by_the_worker(
    plain: temporalio.client.Client, folder: Folder, app: steporal.Client
) -> None:
    temporal = with_storage(plain, folder, payload_size_threshold=3_000_000)
    with pytest.raises(DefinitionError, match="the worker has payload_size_threshold=3000000"):
        Worker(temporal, task_queue=app.task_queue, plugins=[app.plugin()])


# --- with and without, and on replay -------------------------------------------------------------------------------


def careful(app: steporal.Client, signal: str) -> steporal.Workflow[Any, Any]:
    """A workflow that notes whether a large value was taken, twice, with a signal between."""

    @app.workflow(id="careful")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        async def taken(id: str) -> Any:
            data = text()
            try:
                return await step.run(id, lambda: len(data))
            except PayloadTooLargeError as err:
                return str(err).partition(";")[2][:16]

        first = await taken("first")
        await step.wait_for_signal("go on", signal=signal, timeout="1h")
        return [first, await taken("second")]

    return handler


REFUSED = " Temporal stores"


async def test_a_run_that_was_refused_a_value_is_refused_it_on_replay_with_a_storage(
    app: steporal.Client, workers: Workers, without_storage: Workers
) -> None:
    handler = careful(app, signal := f"go/{new_ulid()}")
    async with without_storage(app):
        run = await handler.start()
        await until_waiting(run)
    async with workers(app):
        await app.send_signal(signal)
        assert await (await app.get_run(run.workflow_id)).result() == [REFUSED, REFUSED]
        run = await handler.start()
        await until_waiting(run)
        await app.send_signal(signal)
        assert await run.result() == [LARGE, LARGE], "a run that was started with it"


@pytest.mark.needs_cache(MEGABYTES)
async def test_a_run_that_was_too_large_to_continue_as_new_is_so_on_replay_with_a_storage(
    app: steporal.Client, workers: Workers, without_storage: Workers
) -> None:
    signal = f"go/{new_ulid()}"

    @app.workflow(id="hoards")
    async def hoards(ctx: Context[Any], step: Step) -> Any:
        got = [await step.run("item", lambda: text(600_000, number)) for number in range(16)]
        for number in range(30):
            await step.run("more", lambda: number)
        await step.wait_for_signal("go on", signal=signal, timeout="1h")
        return len(set(got))

    async with without_storage(app):
        run = await hoards.start()
        await until_waiting(run)
        assert await executions(run, workers.temporal) == 1
    async with workers(app):
        await app.send_signal(signal)
        assert await (await app.get_run(run.workflow_id)).result() == 16
        assert await executions(run, workers.temporal) == 1


async def test_a_run_that_has_used_the_storage_waits_for_a_worker_that_has_it(
    app: steporal.Client, workers: Workers, without_storage: Workers
) -> None:
    handler = careful(app, signal := f"go/{new_ulid()}")
    async with workers(app):
        run = await handler.start()
        await until_waiting(run)
    async with without_storage(app):
        await app.send_signal(signal)
        assert "size" in await failed_task(run)
    async with workers(app):
        assert await run.result() == [LARGE, LARGE]


async def test_a_replay_reads_and_stores_nothing(app: steporal.Client, workers: Workers, folder: Folder) -> None:
    @app.workflow(id="turns")
    async def turns(ctx: Context[Any], step: Step) -> Any:
        data = ctx.input.data
        return await step.run("turn", lambda: data[::-1])

    async with workers(app):
        run = await turns.start(text())
        await run.result()
    history = await run.temporal.fetch_history()
    folder.is_full = True
    await Replayer(workflows=[], plugins=[app.plugin()]).replay_workflow(history)
    folder.path = folder.path.parent
    with pytest.raises(RuntimeError, match="No such file"):
        await Replayer(workflows=[], plugins=[app.plugin()]).replay_workflow(history)
    workers.drop(run.workflow_id)


async def test_a_replayer_without_the_storage_takes_the_same_way(app: steporal.Client, workers: Workers) -> None:
    handler = careful(app, signal := f"go/{new_ulid()}")
    async with workers(app):
        run = await handler.start()
        await until_waiting(run)
        await app.send_signal(signal)
        assert await run.result() == [LARGE, LARGE]
    other = steporal.Client(app.id)
    careful(other, signal)
    await Replayer(workflows=[], plugins=[other.plugin()]).replay_workflow(await run.temporal.fetch_history())


# --- the storage does not answer -----------------------------------------------------------------------------------


async def test_a_run_waits_while_what_it_sends_cannot_be_stored(
    app: steporal.Client, workers: Workers, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[int] = []

    @app.workflow(id="sends")
    async def sends(ctx: Context[Any], step: Step) -> Any:
        data = text()
        return await step.run("size", lambda: ran.append(1) or len(data))  # type: ignore[func-returns-value]

    async with workers(app):
        folder.trouble = ConnectionError("no route to the storage")
        run = await sends.start()
        assert "no route to the storage" in await failed_task(run)
        async with asyncio.timeout(30):
            while folder.refused < 2:
                await asyncio.sleep(0.05)
        folder.trouble = None
        assert await run.result() == LARGE
    assert ran == [1]
    said = [record for record in caplog.records if record.getMessage().startswith("Failed encoding completion")]
    assert len(said) == 1, "once, however often it is tried"


async def test_a_run_waits_while_what_it_is_sent_is_gone(
    app: steporal.Client, workers: Workers, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    @app.workflow(id="reads")
    async def reads(ctx: Context[Any], step: Step) -> Any:
        return len(ctx.input.data)

    async with workers(app):
        folder.gone = FileNotFoundError("the value is gone")
        run = await reads.start(text())
        assert "the value is gone" in await failed_task(run)
        folder.gone = None
        assert await run.result() == LARGE
    said = [record for record in caplog.records if record.getMessage().startswith("Failed handling activation")]
    assert len(said) == 1, "once, however often it is tried"


async def test_a_driver_may_fail_a_run_whose_value_is_gone(
    app: steporal.Client, workers: Workers, folder: Folder
) -> None:
    @app.workflow(id="reads")
    async def reads(ctx: Context[Any], step: Step) -> Any:
        return len(await step.run("load", lambda: text()))

    async with workers(app):
        folder.gone = ApplicationError("the value is gone", type="ValueGone", non_retryable=True)
        run = await reads.start()
        with pytest.raises(RunFailedError, match="ValueGone: the value is gone"):
            await run.result()
    workers.drop(run.workflow_id)


async def test_a_captured_value_that_cannot_be_read_is_an_attempt_that_failed(
    app: steporal.Client, workers: Workers, folder: Folder
) -> None:
    ran: list[int] = []

    @app.workflow(id="captures", max_attempts=3)
    async def captures(ctx: Context[Any], step: Step) -> Any:
        data = text()
        try:
            return await step.run("size", lambda: ran.append(1) or len(data))  # type: ignore[func-returns-value]
        except StepError as err:
            return [err.message, str(err.cause.__cause__) if err.cause else ""]

    async with workers(app):
        folder.gone = RuntimeError("no route to the storage")
        run = await captures.start()
        message, cause = await run.result()
    assert message == "Failed decoding arguments"
    assert "no route to the storage" in cause
    assert not ran


async def test_a_result_that_cannot_be_stored_is_an_attempt_that_failed(
    app: steporal.Client, workers: Workers, folder: Folder
) -> None:
    ran: list[int] = []

    @app.workflow(id="returns", max_attempts=3)
    async def returns(ctx: Context[Any], step: Step) -> Any:
        try:
            return len(await step.run("load", lambda: ran.append(1) or text()))  # type: ignore[func-returns-value]
        except StepError as err:
            return [err.name, err.message]

    async with workers(app):
        folder.trouble = ConnectionError("no route to the storage")
        run = await returns.start()
        assert await run.result() == ["ConnectionError", "no route to the storage"]
        assert len(ran) == 1, "the attempts after the first have its result, and try to store that"
        run = await returns.start()
        async with asyncio.timeout(30):
            while len(ran) < 2:
                await asyncio.sleep(0)
        folder.trouble = None
        assert await run.result() == LARGE
    assert len(ran) == 2


async def test_senders_get_the_error_of_the_driver(app: steporal.Client, workers: Workers, folder: Folder) -> None:
    @app.workflow(id="reads", triggers=[event_trigger("read")])
    async def reads(ctx: Context[Any], step: Step) -> Any:
        return None

    async with workers(app):
        folder.trouble = RuntimeError("no route to the storage")
        with pytest.raises(RuntimeError, match="no route to the storage"):
            await reads.start(text())
        with pytest.raises(SendEventError, match="no route to the storage"):
            await app.send_event({"name": "read", "data": {"text": text(400_000)}})


async def test_a_selector_that_leaves_a_large_value_inline_makes_the_run_wait(
    plain: temporalio.client.Client, folder: Folder, app: steporal.Client, without_storage: Workers
) -> None:
    chosen: list[Folder | None] = [None]
    temporal = with_storage(plain, folder, driver_selector=lambda context, payload: chosen[0])
    workers = Workers(temporal, without_storage.max_cached_workflows)

    @app.workflow(id="inline")
    async def inline(ctx: Context[Any], step: Step) -> Any:
        data = text()
        return await step.run("size", lambda: len(data))

    async with workers(app):
        run = await inline.start()
        assert "size" in await failed_task(run)
        chosen[0] = folder
        assert await run.result() == LARGE
