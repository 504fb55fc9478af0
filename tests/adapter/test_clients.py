"""One client in many threads, event loops and processes, and what its calls raise."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import re
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
import temporalio.client
import temporalio.service
from recording import Workers
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.converter import DataConverter, PayloadCodec
from waiting import until_waiting

import steporal
from steporal import Context, DefinitionError, InvalidArgumentError, InvalidEventError, Step, event_trigger

pytestmark = pytest.mark.outside_runs

NOWHERE = "127.0.0.1:1"
"""An address at which no server listens."""


@pytest.fixture
def address(temporal: temporalio.client.Client, monkeypatch: pytest.MonkeyPatch) -> str:
    """The dev server's address, where clients connect that were given no connection."""
    address = temporal.service_client.config.target_host
    monkeypatch.setenv("TEMPORAL_ADDRESS", address)
    return address


def run_of(temporal: temporalio.client.Client, workflow_id: str) -> steporal.Run[Any]:
    """A run by its id, whether it exists or not."""
    return steporal.Run(temporal, temporal.get_workflow_handle(workflow_id, result_type=RawValue), "", None)


async def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Do some work in threads, all at once; each is given its number."""
    together = threading.Barrier(count)

    def begin(number: int) -> Any:
        together.wait()
        return work(number)

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(count) as threads:
        return list(await asyncio.gather(*(loop.run_in_executor(threads, begin, n) for n in range(count))))


def abandoned(*coroutines: Coroutine[Any, Any, Any], until: Callable[[], bool]) -> None:
    """Run coroutines in an event loop that is closed while they are under way."""

    async def begin() -> list[asyncio.Task[Any]]:
        tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
        while not until():
            await asyncio.sleep(0.001)
        return tasks

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # which would tell of the tasks that are destroyed
    loop.run_until_complete(begin())
    loop.close()


# --- threads and event loops ---------------------------------------------------------------------------------------


async def test_fifty_threads_send_through_several_clients_each_time_in_a_new_loop(
    app: steporal.Client, other_app: steporal.Client, workers: Workers, address: str
) -> None:
    name = f"{app.id}/viewed"

    @app.workflow(id="count", triggers=[event_trigger(name)])
    async def count(ctx: Context[Any], step: Step) -> int:
        return int(ctx.input.data["n"])

    clients = [app, other_app, steporal.Client("first that connects itself"), steporal.Client("second")]

    def send(thread: int) -> list[str]:
        sent = []
        for turn in range(2):
            event = {"name": name, "data": {"n": thread}}
            for client in (clients[thread % 4], clients[(thread + turn) % 4]):
                sent += asyncio.run(asyncio.wait_for(client.send_event(event), 60)).ids
        return sent

    async with workers(app), workers(other_app):
        by_thread = await in_threads(50, send)
        ids = [event_id for sent in by_thread for event_id in sent]
        assert len(set(ids)) == 200
        some = [(thread, sent[thread % 4]) for thread, sent in enumerate(by_thread)]
        runs = [await app.get_run(f"{app.id}/count/{event_id}", count) for _, event_id in some]
        assert await asyncio.gather(*(run.result() for run in runs)) == [thread for thread, _ in some]


async def test_threads_connect_once(address: str) -> None:
    client = steporal.Client("cold")
    found = await in_threads(20, lambda thread: asyncio.run(client.connect()))
    assert len(set(map(id, found))) == 1


async def test_a_lazy_connection_works_in_many_threads(address: str) -> None:
    lazy = await temporalio.client.Client.connect(address, lazy=True)
    client = steporal.Client("lazy", temporal=lazy)
    sent = await in_threads(20, lambda thread: asyncio.run(client.send_event({"name": "nobody.cares"})))
    assert len({one.ids[0] for one in sent}) == 20


async def test_a_loop_that_closes_while_it_connects_leaves_nobody_waiting(address: str) -> None:
    client = steporal.Client("cold")

    def closes() -> None:
        abandoned(client.connect(), until=lambda: True)

    await asyncio.to_thread(closes)
    connected = await asyncio.to_thread(lambda: asyncio.run(asyncio.wait_for(client.connect(), 60)))
    assert connected is await client.connect()


class HoldsUp(PayloadCodec):
    """Never decodes in one of the event loops."""

    def __init__(self) -> None:
        self.held: asyncio.AbstractEventLoop | None = None
        self.is_holding = False

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return list(payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        if asyncio.get_running_loop() is self.held:
            self.is_holding = True
            await asyncio.Event().wait()
        return list(payloads)


async def test_a_loop_that_closes_while_it_reads_the_catalog_leaves_nobody_waiting(
    app: steporal.Client, workers: Workers, address: str
) -> None:
    name, codec = f"{app.id}/viewed", HoldsUp()
    converter = DataConverter(payload_codec=codec)

    @app.workflow(id="view", triggers=[event_trigger(name)])
    async def view(ctx: Context[Any], step: Step) -> str:
        return "viewed"

    sender = steporal.Client("sender", data_converter=converter)
    async with workers(app):
        await sender.connect()

        async def held() -> None:
            codec.held = asyncio.get_running_loop()
            await sender.send_event({"name": name})

        await asyncio.to_thread(lambda: abandoned(held(), until=lambda: codec.is_holding))
        sent = await asyncio.to_thread(lambda: asyncio.run(asyncio.wait_for(sender.send_event({"name": name}), 60)))
        assert await (await app.get_run(sent.runs[0].workflow_id)).result() == "viewed"


async def test_a_run_is_awaited_in_another_loop_than_it_was_started_in(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="answer")
    async def answer(ctx: Context[Any], step: Step) -> int:
        return 42

    async with workers(app):
        run = await asyncio.to_thread(lambda: asyncio.run(answer.start()))
        assert await run.result() == 42
        assert await asyncio.to_thread(lambda: asyncio.run(run.result())) == 42


def test_workers_run_in_one_loop_after_another(address_of_a_server: str) -> None:
    client = steporal.Client("one loop after another")

    @client.workflow(id="answer")
    async def answer(ctx: Context[Any], step: Step) -> int:
        return await step.run("answer", lambda: 42)

    async def serve() -> int:
        from temporalio.worker import Worker

        temporal = await client.connect()
        async with Worker(temporal, task_queue=client.task_queue, plugins=[client.plugin()]):
            return await (await answer.start()).result()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEMPORAL_ADDRESS", address_of_a_server)
        assert [asyncio.run(serve()), asyncio.run(serve())] == [42, 42]


@pytest.fixture
def address_of_a_server() -> Iterable[str]:
    """The address of a dev server whose event loop runs in another thread."""
    from steporal_workers.devserver import dev_server

    addresses: list[str] = []
    ready, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with dev_server(ui=False) as server:
            addresses.append(server.address)
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(60)
    yield addresses[0]
    stop.set()
    thread.join()


# --- without an event loop -----------------------------------------------------------------------------------------


async def test_code_without_an_event_loop_has_blocking_methods(
    app: steporal.Client, workers: Workers, address: str
) -> None:
    name = f"{app.id}/placed"

    @app.workflow(id="order", triggers=[event_trigger(name)])
    async def order(ctx: Context[Any], step: Step) -> list[Any]:
        approval = await step.wait_for_signal("approval", signal=f"{app.id} {ctx.input.data['n']}", timeout="1h")
        return [ctx.input.data["n"], approval and approval.data]

    def web_request(n: int) -> list[Any]:
        if n % 2:
            workflow_id = app.send_event_sync({"name": name, "data": {"n": n}}).runs[0].workflow_id
            run = app.get_run_sync(workflow_id, order)
        else:
            run = order.start_sync({"n": n}) if n % 4 else app.start_workflow_sync(order, {"n": n})
        while app.send_signal_sync(f"{app.id} {n}", {"by": "ada"}).run_id is None:
            pass
        return run.result_sync()

    async with workers(app):
        results = await in_threads(8, web_request)
    assert results == [[n, {"by": "ada"}] for n in range(8)]


async def test_a_blocking_method_cancels_a_run(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="sleeper")
    async def sleeper(ctx: Context[Any], step: Step) -> None:
        await step.sleep("long", "1d")

    async with workers(app):
        run = await sleeper.start()
        await until_waiting(run)
        await asyncio.to_thread(run.cancel_sync)
        with pytest.raises(steporal.RunCancelledError):
            await asyncio.to_thread(run.result_sync)


async def test_a_blocking_method_in_an_event_loop_names_the_one_to_await(
    app: steporal.Client, workers: Workers
) -> None:
    @app.workflow(id="answer")
    async def answer(ctx: Context[Any], step: Step) -> int:
        return 42

    run = run_of(workers.temporal, "answer/1")
    calls: dict[str, Callable[[], Any]] = {
        "client.send_event": lambda: app.send_event_sync({"name": "a"}),
        "client.send_signal": lambda: app.send_signal_sync("a"),
        "client.start_workflow": lambda: app.start_workflow_sync(answer),
        "client.get_run": lambda: app.get_run_sync("a"),
        "workflow.start": lambda: answer.start_sync(),
        "run.result": lambda: run.result_sync(),
        "run.cancel": lambda: run.cancel_sync(),
    }
    for name, call in calls.items():
        with pytest.raises(steporal.EventLoopError) as raised:
            call()
        assert f"write `await {name}(...)`" in str(raised.value)


async def test_a_blocking_method_in_a_body_says_to_call_it_in_a_step(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="order")
    async def order(ctx: Context[Any], step: Step) -> None:
        app.send_event_sync({"name": "order.placed"})

    async with workers(app):
        with pytest.raises(steporal.RunFailedError, match=r"in the body of a workflow.*call it in a step") as failed:
            await (await order.start()).result()
    assert failed.value.name == "EventLoopError"


async def test_a_step_calls_a_blocking_method(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="order")
    async def order(ctx: Context[Any], step: Step) -> int:
        def send() -> int:
            return len(app.send_event_sync({"name": "nobody.cares"}).ids)

        return await step.run("send", send)

    async with workers(app):
        assert await (await order.start()).result() == 1


# --- forks ---------------------------------------------------------------------------------------------------------

FORKS = """
    import asyncio, os, sys, uuid
    import steporal

    def in_child(work):
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            try:
                print(work(), flush=True)
            except BaseException as err:
                print(type(err).__name__, err, flush=True)
            os._exit(0)
        os.waitpid(child, 0)

    event = {"name": "nobody.cares"}
    before, other = steporal.Client("before"), steporal.Client("other")
    in_child(lambda: len(steporal.Client("in a child").send_event_sync(event).ids))
    async def start(id):
        temporal = await before.connect()
        await temporal.start_workflow("nobody", id=id, task_queue="nobody")

    name = f"nobody/{uuid.uuid4()}"
    asyncio.run(start(name))
    run = before.get_run_sync(name)
    before.send_event_sync(event)
    in_child(lambda: before.send_event_sync(event))
    in_child(lambda: asyncio.run(before.send_event(event)))
    in_child(lambda: run.result_sync())
    in_child(lambda: other.send_event_sync(event))
    print(len(before.send_event_sync(event).ids), flush=True)
    os._exit(0)
    """


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
async def test_a_connection_of_the_parent_is_an_error_in_a_forked_child(address: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(FORKS)]
    environment = {**os.environ, "TEMPORAL_ADDRESS": address}
    ended = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    connected_in_child, sync, in_a_loop, of_run, unconnected, in_parent = ended.stdout.splitlines()
    assert connected_in_child == in_parent == "1"
    for said in (sync, in_a_loop):
        assert said.startswith("ForkError client 'before' was connected in process ")
        assert "Connect after the fork" in said
    for said in (of_run, unconnected):
        assert said.startswith("ForkError ")
        assert "connect only after the fork" in said


@pytest.mark.parametrize("wrong", ["process-order", 3])
async def test_what_is_not_a_workflow_is_refused_by_name(temporal: temporalio.client.Client, wrong: Any) -> None:
    client = steporal.Client("shop", temporal=temporal)
    message = re.escape(f"workflow is {wrong!r}; pass what client.workflow returned")
    with pytest.raises(InvalidArgumentError, match=message):
        await client.start_workflow(wrong)
    with pytest.raises(InvalidArgumentError, match=message):
        await client.get_run("process-order/1", wrong)


class Unprintable:
    def __repr__(self) -> str:
        raise ValueError("no repr")


async def test_what_cannot_be_printed_is_refused_by_its_class() -> None:
    client = steporal.Client("shop")
    with pytest.raises(InvalidArgumentError, match=r"workflow is <.*Unprintable>; pass"):
        await client.start_workflow(cast(Any, Unprintable()))
    with pytest.raises(InvalidArgumentError, match=r"signal is <.*Unprintable> \("):
        await client.send_signal(cast(Any, Unprintable()))
    for event in ({"name": Unprintable()}, {Unprintable(): 1}, {"name": "a", "data": {Unprintable(): 1}}):
        with pytest.raises(InvalidEventError, match="Unprintable>"):
            await client.send_event(cast(Any, event))


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("temporal", "localhost:7233"),
        ("data_converter", 5),
        ("step_packages", "billing"),
        ("step_packages", 5),
        ("step_packages", ["billing.invoices"]),
        ("task_queue", "a\0b"),
    ],
)
def test_an_option_of_a_client_that_cannot_be_is_named(option: str, wrong: Any) -> None:
    with pytest.raises(DefinitionError, match=rf"{option} of client 'shop' is {re.escape(repr(wrong))}"):
        steporal.Client("shop", **{option: wrong})


@pytest.mark.parametrize(("app", "id"), [("", "a"), (5, "a"), ("a", ""), ("a", None), ([], "a")])
def test_a_reference_that_cannot_be_is_refused(app: Any, id: Any) -> None:
    with pytest.raises(DefinitionError, match="of a reference is "):
        steporal.reference(app, id)
    with pytest.raises(DefinitionError, match="of a reference is "):
        steporal.WorkflowReference(app, id)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
async def test_a_client_and_a_run_say_what_to_do_instead_of_copying_them(
    temporal: temporalio.client.Client, duplicate: Callable[[Any], Any]
) -> None:
    offline, client = steporal.Client("shop"), steporal.Client("shop", temporal=temporal)

    @client.workflow(id="copied")
    async def copied(ctx: Context[Any], step: Step) -> None: ...

    for each in (offline, client):
        with pytest.raises(InvalidArgumentError, match=r"client 'shop' cannot be .*; import it from its module"):
            duplicate(each)
    run = await client.start_workflow(copied)
    try:
        with pytest.raises(InvalidArgumentError, match=rf"run '{run.workflow_id}' cannot .*get_run\('shop/copied"):
            duplicate(run)
    finally:
        await run.temporal.terminate()


# --- the end of a process ------------------------------------------------------------------------------------------

GIVES_UP = """
    import asyncio
    import steporal

    client = steporal.Client("impatient")

    @client.workflow(id="unserved")
    async def unserved(ctx, step): ...

    async def main():
        run = await unserved.start()
        try:
            await asyncio.wait_for(run.result(), 0.3)
        except TimeoutError:
            print("gave up", flush=True)

    asyncio.run(main())
    """


async def test_a_process_ends_although_a_call_is_in_flight(address: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(GIVES_UP)]
    environment = {**os.environ, "TEMPORAL_ADDRESS": address}
    for _ in range(3):  # a thread that blocks at the end is a race, which most but not all processes lose
        ended = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert (ended.stdout, ended.returncode) == ("gave up\n", 0)


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> steporal.Client:
    """A client that no server answers."""
    monkeypatch.setenv("TEMPORAL_ADDRESS", NOWHERE)
    return steporal.Client("lost")


async def test_without_a_server_each_method_raises_an_error_of_ours(lost: steporal.Client) -> None:
    @lost.workflow(id="order")
    async def order(ctx: Context[Any], step: Step) -> None: ...

    for call in (lost.connect, lost.sync, order.start, lambda: lost.get_run("order/1")):
        with pytest.raises(steporal.ConnectError, match="client 'lost' could not connect to Temporal") as raised:
            await call()
        assert isinstance(raised.value.__cause__, RuntimeError)
    with pytest.raises(steporal.SendEventError, match="could not connect to Temporal") as unsent:
        await lost.send_event([{"name": "a", "id": "1"}, {"name": "a", "id": "2"}])
    assert unsent.value.ids == ("1", "2")
    with pytest.raises(steporal.SendSignalError, match="could not connect to Temporal"):
        await lost.send_signal("approval")


async def test_a_configuration_that_cannot_be_read_is_an_error_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "temporal.toml").write_text("[profile.default\n")
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "temporal.toml"))
    with pytest.raises(steporal.ConnectError):
        await steporal.Client("misconfigured").connect()


async def test_what_temporal_refuses_is_an_error_of_ours_with_its_cause(
    app: steporal.Client, temporal: temporalio.client.Client
) -> None:
    config = temporal.config()
    config["namespace"] = "nowhere"
    client = steporal.Client(app.id, temporal=temporalio.client.Client(**config))

    @client.workflow(id="order")
    async def order(ctx: Context[Any], step: Step) -> None: ...

    run = run_of(client.temporal, "order/1")
    calls: Iterable[tuple[type[Exception], Callable[[], Coroutine[Any, Any, Any]]]] = (
        (steporal.TemporalCallError, order.start),
        (steporal.TemporalCallError, run.result),
        (steporal.TemporalCallError, run.cancel),
        (steporal.TemporalCallError, client.sync),
        (steporal.SendEventError, lambda: client.send_event({"name": "a"})),
        (steporal.SendSignalError, lambda: client.send_signal("approval")),
    )
    for kind, call in calls:
        with pytest.raises(kind, match="nowhere") as raised:
            await call()
        assert isinstance(raised.value.__cause__, temporalio.service.RPCError)


async def test_a_run_that_does_not_exist_is_an_error_that_names_it(temporal: temporalio.client.Client) -> None:
    run = run_of(temporal, "order/none")
    for call in (run.result, run.cancel):
        with pytest.raises(steporal.RunNotFoundError, match="'order/none'"):
            await call()


async def test_cancelling_a_run_that_has_ended_changes_nothing(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="answer")
    async def answer(ctx: Context[Any], step: Step) -> int:
        return 42

    async with workers(app):
        run = await answer.start()
        assert await run.result() == 42
        await run.cancel()
        assert await run.result() == 42


async def test_cancelling_a_call_cancels_it_and_nothing_else(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="sleeper")
    async def sleeper(ctx: Context[Any], step: Step) -> None:
        await step.sleep("long", "1d")

    async with workers(app):
        run = await sleeper.start()
        waiting = asyncio.create_task(run.result())
        await until_waiting(run)
        waiting.cancel()
        ended = Counter(type(one) for one in await asyncio.gather(waiting, return_exceptions=True))
        assert ended == {asyncio.CancelledError: 1}
        await run.cancel()
