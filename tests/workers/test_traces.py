"""Traces, as a collector receives them from real processes."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from commands import Process, Steporal
from http_server import HttpServer, Reply, http_server
from otlp import Collector, Received, collector
from temporalio.client import WorkflowHandle

import steporal
from steporal_workers.cli import cli
from steporal_workers.devserver import DevServer
from steporal_workers.problems import Mistake
from steporal_workers.traces import asked_for

WriteApp = Callable[[str], str]

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
async def collected() -> AsyncIterator[Collector]:
    """A collector."""
    async with collector() as running:
        yield running


@pytest.fixture
async def shop() -> AsyncIterator[HttpServer]:
    """What runs ask, and deliver to."""
    async with http_server() as running:
        running.default = Reply(body=b"12")
        yield running


async def until_parked(handle: WorkflowHandle[Any, Any]) -> None:
    """Wait until a run has continued as new."""
    async with asyncio.timeout(30):
        while True:
            described = await handle.describe()
            if described.run_id != described.raw_description.workflow_execution_info.first_run_id:
                return
            await asyncio.sleep(0.05)


async def until_waiting(handle: WorkflowHandle[Any, Any]) -> None:
    """Wait until a run waits, as its history has it."""
    async with asyncio.timeout(30):
        while not any(
            event.HasField("timer_started_event_attributes") for event in (await handle.fetch_history()).events
        ):
            await asyncio.sleep(0.05)


def url_of(gateway: Process) -> str:
    found = re.search(r"http://127\.0\.0\.1:\d+", gateway.said)
    assert found is not None
    return found[0]


# --- all of it -----------------------------------------------------------------------------------------------------

SHOP = """
    import os
    from datetime import timedelta

    SHOP = os.environ["SHOP"]
    soon = steporal.RetryPolicy(initial_interval=timedelta(milliseconds=1))

    @client.workflow(id=f"ship-{APP}")
    async def ship(ctx, step):
        await step.run("pack", lambda: None)

    parks = steporal.WorkflowExt(park_after="1s")

    @client.workflow(id=f"order-{APP}", triggers=[event_trigger(f"{APP}.placed")], ext=parks)
    async def order(ctx, step):
        ctx.logger.info("the order begins")

        def charge():
            ctx.logger.info("charging")
            if ctx.attempt == 0:
                raise ValueError(f"no money for {ctx.input.data}")
            return "confidential receipt"

        await step.run("charge card", charge, retry=soon)
        await step.ext.fetch("price", "GET", SHOP + "/price?key=confidential")
        await step.ext.wait_for_event("paid", event=f"{APP}.paid", timeout="1h")
        ctx.logger.info("the order is paid")
        await step.wait_for_signal("approval", signal=f"{APP}/approved", timeout="1h")
        await step.invoke_workflow("ship it", workflow=ship, data="confidential")
        await step.ext.send_event("tell", {"name": f"{APP}.shipped", "data": {"word": "confidential"}})

    @client.workflow(id=f"note-{APP}", triggers=[event_trigger(f"{APP}.shipped")], max_attempts=1)
    async def note(ctx, step):
        raise RuntimeError(f"cannot take {ctx.input.data}")

    client.event_sink(f"{APP}.shipped", SHOP + "/hook", id=f"hook-{APP}", allow_private=True)
    """


def _sent_with_trace(collected: Collector) -> list[Received]:
    """The spans of the requests that had a traceparent."""
    return [span for span in collected.named("POST /e/{key}") if span.trace == TRACE]


async def test_one_trace_from_a_request_to_the_last_request_out(
    run: Steporal, server: DevServer, write_app: WriteApp, collected: Collector, shop: HttpServer
) -> None:
    app = write_app(SHOP)
    traced = {**collected.variables, "SHOP": shop.url, "STEPORAL_LOG_FORMAT": "json"}
    keys = {"STEPORAL_EVENT_KEYS": "the-event-key-of-tests", "STEPORAL_API_KEYS": "the-api-key-of-tests"}
    async with (
        # Without a cache, each workflow task replays its run from the start.
        run.running("worker", "app", "--max-cached-workflows", "0", **traced) as worker,
        run.running("gateway", "app", "--port", "0", **traced, **keys) as gateway,
        httpx.AsyncClient(headers={"authorization": "Bearer the-api-key-of-tests"}) as http,
    ):
        await worker.until("serving")
        await gateway.until("gateway at http://127.0.0.1:")
        url = url_of(gateway)
        events = f"{url}/e/the-event-key-of-tests"
        placed = {"name": f"{app}.placed", "id": "o-1", "data": {"word": "confidential"}}
        w3c = {"traceparent": TRACEPARENT, "tracestate": "vendor=1", "baggage": "who=confidential"}
        assert (await http.post(events, json=placed, headers=w3c)).status_code == 200
        handle = server.client.get_workflow_handle(f"{app}/order-{app}/o-1")
        await until_parked(handle)
        paid = {"name": f"{app}.paid", "id": "p-1", "data": {"word": "confidential"}}
        assert (await http.post(events, json=paid)).status_code == 200
        approved = {"signal": f"{app}/approved", "data": "confidential"}
        async with asyncio.timeout(30):
            while (await http.post(f"{url}/v1/signals", json=approved)).status_code == 404:
                await asyncio.sleep(0.05)
        for of_run in (f"run order-{app}", f"run note-{app}", f"run hook-{app}"):
            await collected.until(of_run)
        await collected.until("send signal")
        await collected.until_true(lambda: _sent_with_trace(collected), "the request's span")
        for process in (worker, gateway):
            process.signal(signal.SIGTERM)
        logged = (await worker.ended()).err

    one = collected.one
    (request,) = _sent_with_trace(collected)
    assert (request.parent, request.kind, request.service) == (PARENT, "server", f"{app}-gateway")
    assert request.attributes["http.response.status_code"] == 200
    send, order = one(f"send {app}.placed"), one(f"run order-{app}")
    first, second = collected.named("step charge card")
    fetching, fetched = one("step price"), one("GET")
    tell, shipped = one("step tell"), one(f"send {app}.shipped")
    deliver, post = one(f"post hook-{app}"), one("POST")
    parents = {
        send: request,
        order: send,
        first: order,
        second: order,
        fetching: order,
        fetched: fetching,
        one("step paid"): order,
        one("step approval"): order,
        one("step ship it"): order,
        one(f"run ship-{app}"): one("step ship it"),
        one("step pack"): one(f"run ship-{app}"),
        tell: order,
        shipped: tell,
        one(f"run note-{app}"): shipped,
        one(f"run hook-{app}"): shipped,
        deliver: one(f"run hook-{app}"),
        post: deliver,
        one("send inngest/function.failed"): one(f"run note-{app}"),
    }
    for span, parent in parents.items():
        assert (span.trace, span.parent, span.state) == (TRACE, parent.id, "vendor=1"), span
    assert {s for s in collected.spans if s.trace == TRACE} == {request, *parents}
    assert [s.kind for s in (send, order, first, fetched, post)] == [
        "producer",
        "consumer",
        "internal",
        "client",
        "client",
    ]

    # What came by other traces ends there, and the waits point at it.
    paying, delivered = one(f"send {app}.paid"), one(f"deliver {app}.paid")
    assert delivered.parent == paying.id
    assert one("step paid").links == [(paying.trace, delivered.id)]
    assert delivered.attributes["steporal.step.id"] == "paid"
    signals = [(span.trace, span.id) for span in collected.named("send signal")]
    assert one("step approval").links[0] in signals
    assert one("step paid").seconds > 1, "it has begun before the run was parked"
    assert order.start <= first.start and order.end >= tell.end

    # What they say.
    assert [s.failed for s in (first, second, order, one(f"run note-{app}"))] == [True, False, False, True]
    assert first.attributes["error.type"] == "ValueError"
    described = {
        "steporal.app": app,
        "steporal.workflow": f"order-{app}",
        "steporal.event.id": "o-1",
        "temporal.workflow_id": f"{app}/order-{app}/o-1",
    }
    assert described.items() <= order.attributes.items()
    assert {**described, "steporal.step.id": "charge card", "steporal.attempt": 2}.items() <= second.attributes.items()
    assert order.attributes["messaging.destination.name"] == f"{app}.placed"
    assert fetched.attributes["http.response.status_code"] == 200
    assert not [body for body in collected.bodies if b"confidential" in body or b"event-key" in body]

    # What goes out carries the trace, and nothing else of it.
    asked = {request.path: request.headers for request in shop.asked}
    assert asked["/price"]["traceparent"] == f"00-{TRACE}-{fetched.id}-01"
    assert asked["/hook"]["traceparent"] == f"00-{TRACE}-{post.id}-01"
    assert {asked[path]["tracestate"] for path in asked} == {"vendor=1"}
    assert not any("baggage" in headers for headers in asked.values())

    # Lines of the log say it, too; and are there once, though the body has run from the top in each execution.
    lines = lines_of(logged)
    [begins] = [line for line in lines if line["message"] == "the order begins"]
    [is_paid] = [line for line in lines if line["message"] == "the order is paid"]
    assert begins["run_id"] != is_paid["run_id"]
    assert {(line["trace_id"], line["span_id"]) for line in (begins, is_paid)} == {(TRACE, order.id)}
    assert [line["span_id"] for line in lines if line["message"] == "charging"] == [first.id, second.id]


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# --- on and off ----------------------------------------------------------------------------------------------------

WAITING = """
    @client.workflow(id=f"wait-{APP}")
    async def wait(ctx, step):
        await step.run("before", lambda: None)
        await step.ext.wait_for_event("go", event=f"{APP}.{ctx.input.data}", timeout="1h")
        await step.run("after", lambda: None)
    """


async def test_a_run_goes_on_where_traces_are_turned_on_or_off(
    run: Steporal, server: DevServer, write_app: WriteApp, collected: Collector
) -> None:
    app = write_app(WAITING)
    on = {**collected.variables, "OTEL_BSP_SCHEDULE_DELAY": "60000"}  # what it has not exported, it does at its end
    off = {**on, "STEPORAL_TRACES": "none"}
    client = steporal.Client("sender", temporal=server.client)

    async def begin(name: str) -> WorkflowHandle[Any, Any]:
        started = await client.start_workflow(steporal.reference(app, f"wait-{app}"), name, id=f"{app} {name}")
        await until_waiting(started.temporal)
        return started.temporal

    async def end(handle: WorkflowHandle[Any, Any], name: str) -> None:
        assert (await run("send", f"{app}.{name}")).status == 0
        await asyncio.wait_for(handle.result(), 30)

    async with worker_of(run, off):
        begun_off = await begin("first")
    async with worker_of(run, on) as worker:
        await end(begun_off, "first")
        begun_on = await begin("second")
    spans = {(span.name, span.attributes.get("temporal.workflow_id")): span for span in collected.spans}
    assert spans.keys() == {
        *((f"{name}", f"{app} first") for name in ("step go", "step after", f"run wait-{app}")),
        ("step before", f"{app} second"),
    }, worker.said
    assert len(collected.spans) == len(spans)
    of_first = spans[f"run wait-{app}", f"{app} first"]
    assert of_first.parent == ""
    assert {s.parent for s in collected.spans if s.trace == of_first.trace} == {"", of_first.id}
    async with worker_of(run, off):
        await end(begun_on, "second")
    assert len(collected.spans) == len(spans)


def worker_of(run: Steporal, variables: dict[str, str]) -> Any:
    """A worker without a cache, so that it replays all that others have begun."""
    return Steporal(run.folder, {**run.environment, **variables}).worker("app", "--max-cached-workflows", "0")


# --- in a user's own process ---------------------------------------------------------------------------------------

OWN = """
    import asyncio, sys
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from temporalio.client import Client
    from temporalio.contrib.opentelemetry import OpenTelemetryPlugin, create_tracer_provider
    from temporalio.worker import Worker
    from steporal_workers.leaving import leave
    from app import APP, client, double

    async def main(address):
        provider = create_tracer_provider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
        client.temporal = await Client.connect(address, plugins=[OpenTelemetryPlugin()])
        ours = client.plugin()
        async with Worker(client.temporal, task_queue=client.task_queue, plugins=[ours]):
            await ours.registered.wait()
            with trace.get_tracer("mine").start_as_current_span("mine"):
                run = await client.start_workflow(double, 21)
                await client.send_event({"name": f"{APP}.said", "id": "e"})
            assert await run.result() == 42
            await (await client.get_run(f"{APP}/hear-{APP}/e")).result()
        provider.shutdown()

    asyncio.run(main(sys.argv[1]))
    leave(0)  # as `steporal worker` does
    """

DOUBLE = """
    from opentelemetry import trace

    @client.workflow(id=f"double-{APP}")
    async def double(ctx, step):
        return await step.run("double it", lambda: 2 * ctx.input.data)

    @client.workflow(id=f"hear-{APP}", triggers=[event_trigger(f"{APP}.said")])
    async def hear(ctx, step):
        def listen():
            with trace.get_tracer("mine").start_as_current_span("in a thread"):
                pass

        await step.run("listen", listen, local=True)
    """


async def test_temporals_own_plugin_beside_ours(
    run: Steporal, server: DevServer, write_app: WriteApp, collected: Collector
) -> None:
    app = write_app(DOUBLE)
    run.write("main.py", OWN)
    ended = await run.python("main.py", server.address, OTEL_SERVICE_NAME="mine", **collected.variables)
    assert ended.status == 0, ended.err

    def path(span: Received) -> list[str]:
        above = [other for other in collected.spans if other.id == span.parent]
        return [*path(above[0]), span.name] if above else [span.name]

    assert {span.service for span in collected.spans} == {"mine"}
    assert len({span.trace for span in collected.spans}) == 1
    assert sorted(map(path, collected.spans)) == sorted(
        [
            ["mine"],
            ["mine", f"start double-{app}"],
            ["mine", f"start double-{app}", f"run double-{app}"],
            ["mine", f"start double-{app}", f"run double-{app}", "step double it"],
            ["mine", f"send {app}.said"],
            ["mine", f"send {app}.said", f"run hear-{app}"],
            ["mine", f"send {app}.said", f"run hear-{app}", "step listen"],
            ["mine", f"send {app}.said", f"run hear-{app}", "step listen", "in a thread"],
        ]
    )


# --- the setting ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "variables", "exporter"),
    [
        (None, {}, "none"),
        (None, {"OTEL_SERVICE_NAME": "shop"}, "none"),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, "otlp"),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, "otlp"),
        (None, {"OTEL_TRACES_EXPORTER": "otlp"}, "otlp"),
        (None, {"OTEL_TRACES_EXPORTER": "console"}, "console"),
        (None, {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, "none"),
        (None, {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, "none"),
        ("none", {"OTEL_TRACES_EXPORTER": "otlp"}, "none"),
        ("otlp", {}, "otlp"),
        ("otlp", {"OTEL_SDK_DISABLED": "true"}, "none"),
    ],
)
def test_the_setting_and_opentelemetrys_variables(given: str | None, variables: dict[str, str], exporter: str) -> None:
    assert asked_for(given, variables)[0] == exporter


def test_an_exporter_that_is_not_known_is_a_mistake() -> None:
    with pytest.raises(Mistake, match="OTEL_TRACES_EXPORTER is 'zipkin'; it takes one of otlp, console, none"):
        asked_for(None, {"OTEL_TRACES_EXPORTER": "zipkin"})


def test_asked_for_and_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    ended = CliRunner().invoke(cli, ["worker", "no_such_module"])
    assert ended.exit_code == 2
    assert "traces are on (OTEL_EXPORTER_OTLP_ENDPOINT)" in ended.output
    assert ended.output.rstrip().endswith("pip install 'steporal[otel]', or set --traces none")
    assert len(ended.output.splitlines()) == 1


def test_grpc_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    ended = CliRunner().invoke(cli, ["worker", "no_such_module", "--traces", "otlp"])
    assert ended.exit_code == 2
    assert "pip install opentelemetry-exporter-otlp-proto-grpc" in ended.output


def test_an_endpoint_that_is_no_url_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")
    ended = CliRunner().invoke(cli, ["gateway", "no_such_module"])
    assert (ended.exit_code, len(ended.output.splitlines())) == (2, 1)
    assert "OTEL_EXPORTER_OTLP_ENDPOINT is 'collector:4318', which is not a URL" in ended.output


async def test_off_nothing_is_imported(run: Steporal) -> None:
    ended = await run.python(
        "-c",
        "import sys, steporal.worker.plugin, steporal.worker.activities\n"
        "import steporal_workers.cli, steporal_workers.worker, steporal_workers.gateway.command\n"
        "print([name for name in sys.modules if 'opentelemetry' in name])",
    )
    assert (ended.status, ended.out.strip()) == (0, "[]"), ended.err
