"""Spans, where something goes wrong. That they are there, and their parents, shows tests/workers/test_traces.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import opentelemetry.trace
import pytest
import temporalio.client
import temporalio.worker
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from recording import Workers
from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue, RetryPolicy
from temporalio.contrib.opentelemetry import OpenTelemetryPlugin, create_tracer_provider
from temporalio.exceptions import ActivityError
from temporalio.worker import Worker
from waiting import until_waiting

import steporal
from steporal import Context, Step
from steporal.values.converter import to_raw


@pytest.fixture
async def spans() -> AsyncIterator[InMemorySpanExporter]:
    """What this process records."""
    exporter, provider = InMemorySpanExporter(), create_tracer_provider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with patch.object(opentelemetry.trace, "_TRACER_PROVIDER", provider):
        yield exporter


@asynccontextmanager
async def traced_worker(app: steporal.Client, workers: Workers) -> AsyncIterator[None]:
    """A worker of an app, by a client that has Temporal's plugin."""
    plain, cached = workers.temporal, workers.max_cached_workflows
    traced = temporalio.client.Client(plain.service_client, namespace=plain.namespace, plugins=[OpenTelemetryPlugin()])
    app.temporal, plugin = traced, app.plugin()
    async with Worker(traced, task_queue=app.task_queue, plugins=[plugin], max_cached_workflows=cached):
        await asyncio.wait_for(plugin.registered.wait(), 60)
        yield


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


async def test_a_workflow_task_that_fails_again_and_again_records_nothing(
    app: steporal.Client, workers: Workers, spans: InMemorySpanExporter
) -> None:
    tries: list[None] = []

    @app.workflow(id=f"stuck {app.id}")
    async def stuck(ctx: Context[Any], step: Step) -> None:
        await step.sleep("nap", "1ms")
        tries.append(None)
        if len(tries) < 3:
            raise workflow.NondeterminismError("the code is wrong, until it is mended")

    async with traced_worker(app, workers):
        await (await stuck.start()).result()
    assert len(tries) == 3
    [nap], [ended] = named(spans, "step nap"), named(spans, f"run stuck {app.id}")
    assert nap.parent is not None and nap.parent.span_id == ended.context.span_id


async def test_a_run_that_is_cancelled_has_not_failed(
    app: steporal.Client, workers: Workers, spans: InMemorySpanExporter
) -> None:
    @app.workflow(id=f"sleeps {app.id}")
    async def sleeps(ctx: Context[Any], step: Step) -> None:
        await step.run("begin", lambda: None)
        await step.sleep("long", "1h")

    async with traced_worker(app, workers):
        run = await sleeps.start()
        async with asyncio.timeout(30):
            while not named(spans, "step begin"):
                await asyncio.sleep(0.02)
        await run.temporal.cancel()
        with pytest.raises(steporal.RunCancelledError):
            await run.result()
    [ended] = named(spans, f"run sleeps {app.id}")
    assert ended.status.is_unset
    assert ended.attributes is not None and ended.attributes["steporal.cancelled"] is True
    assert not named(spans, "step long"), "it never ended"


class OddHeaders(temporalio.client.Interceptor):
    """Starts workflows with a header that only Steporal writes."""

    def __init__(self, begun: Any) -> None:
        self.begun = begun

    def intercept_client(self, next: temporalio.client.OutboundInterceptor) -> temporalio.client.OutboundInterceptor:
        begun = self.begun

        class Starts(temporalio.client.OutboundInterceptor):
            async def start_workflow(
                self, input: temporalio.client.StartWorkflowInput
            ) -> temporalio.client.WorkflowHandle[Any, Any]:
                input.headers = {**input.headers, "steporal-begun": begun}
                return await super().start_workflow(input)

        return Starts(next)


@pytest.mark.parametrize("begun", [b"{", b"5", b'{"nap": "x"}', b'{"nap": -1}', b'{"nap": 1e300}', b'{"nap": [5]}'])
async def test_a_run_whose_starter_made_up_when_its_waits_began_ends(
    app: steporal.Client, workers: Workers, spans: InMemorySpanExporter, begun: bytes
) -> None:
    @app.workflow(id=f"naps {app.id}")
    async def naps(ctx: Context[Any], step: Step) -> None:
        await step.sleep("nap", "1ms")

    header = Payload(metadata={"encoding": b"json/plain"}, data=begun)
    stranger = temporalio.client.Client(
        workers.temporal.service_client, namespace=workers.temporal.namespace, interceptors=[OddHeaders(header)]
    )
    async with traced_worker(app, workers):
        handle = await stranger.start_workflow(f"naps {app.id}", id=f"odd {app.id}", task_queue=app.task_queue)
        await asyncio.wait_for(handle.result(), 30)
    assert len(named(spans, "step nap")) == 1


async def test_a_delivery_that_is_started_with_anything_ends(
    app: steporal.Client, workers: Workers, spans: InMemorySpanExporter
) -> None:
    sink = app.event_sink("odd.sunk", "http://127.0.0.1:9/", allow_private=True)
    odd = RawValue(Payload(metadata={"encoding": b"json/plain"}, data=b"{"))
    async with traced_worker(app, workers):
        handle = await workers.temporal.start_workflow(
            sink.id, args=[{}, odd], id=f"odd {app.id}", task_queue=app.task_queue
        )
        with pytest.raises(temporalio.client.WorkflowFailureError) as failed:
            await asyncio.wait_for(handle.result(), 30)
    assert "the second argument of the run cannot be read" in str(failed.value.cause)
    [ended] = named(spans, f"run {sink.id}")
    assert not ended.status.is_ok


class _Header(temporalio.client.Interceptor):
    """Sends a header with whatever a client sends."""

    def __init__(self, header: Payload) -> None:
        self._header = header

    def intercept_client(self, next: temporalio.client.OutboundInterceptor) -> temporalio.client.OutboundInterceptor:
        header = self._header

        class Outbound(temporalio.client.OutboundInterceptor):
            async def start_workflow(self, input: Any) -> Any:
                input.headers = {"_tracer-data": header}
                return await super().start_workflow(input)

            async def signal_workflow(self, input: Any) -> None:
                input.headers = {"_tracer-data": header}
                await super().signal_workflow(input)

            async def query_workflow(self, input: Any) -> Any:
                input.headers = {"_tracer-data": header}
                return await super().query_workflow(input)

            async def start_workflow_update(self, input: Any) -> Any:
                input.headers = {"_tracer-data": header}
                return await super().start_workflow_update(input)

        return Outbound(next)


@pytest.mark.parametrize(
    "header",
    [
        Payload(metadata={"encoding": b"what/ever"}, data=b"x"),
        Payload(metadata={"encoding": b"json/plain"}, data=b"{"),
        to_raw(["x"]).payload,
        to_raw("x").payload,
        to_raw({"traceparent": 5}).payload,
        to_raw({"baggage": [1]}).payload,
        to_raw({"traceparent": "00-" + "f" * 32, "tracestate": "=,=," * 3000, "baggage": "%%=;=," * 3000}).payload,
    ],
    ids=range(7),
)
async def test_no_header_that_somebody_has_made_up_stops_a_run_or_a_topic(
    app: steporal.Client, workers: Workers, spans: InMemorySpanExporter, header: Payload
) -> None:
    name = f"paid.{app.id}"

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event("paid", event=name, timeout="1h")
        signal = await step.wait_for_signal("go", signal=name, timeout="1h")
        return [event and event.data["n"], signal and signal.data]

    plain = workers.temporal
    stranger = temporalio.client.Client(plain.service_client, namespace=plain.namespace, interceptors=[_Header(header)])
    async with traced_worker(app, workers), asyncio.timeout(60):
        handle = await stranger.start_workflow("waits", None, id=f"{app.id}/waits/1", task_queue=app.task_queue)
        await until_waiting(await app.get_run(handle.id))
        await handle.signal("whatever", 1)
        topic = stranger.get_workflow_handle(f"steporal.topic/{name}")
        await topic.signal("steporal.publish", to_raw([]))
        with pytest.raises(temporalio.client.WorkflowUpdateFailedError):
            await stranger.get_workflow_handle(f"steporal.app/{app.id}").execute_update("steporal.register", 1)
        await app.send_event({"name": name, "data": {"n": 2}})
        while (await app.send_signal(name, "now")).run_id is None:
            await asyncio.sleep(0.05)
        assert await handle.result() == [2, "now"]


@workflow.defn(name="stranger", sandboxed=False)
class Stranger:
    """Has activities performed by the workers of an app."""

    @workflow.run
    async def run(self, queue: str) -> list[str]:
        said = []
        for name in ("steporal.run_step", "steporal.send_event", "steporal.join_step"):
            try:
                await workflow.execute_activity(
                    name,
                    {"step": "x", "events": [], "activity_id": "x"},
                    task_queue=queue,
                    start_to_close_timeout=timedelta(seconds=20),
                    retry_policy=RetryPolicy(maximum_attempts=1),
                )
                said.append("returned")
            except ActivityError as err:
                said.append(type(err.cause).__name__)
        return said


class _HeadersOfActivities(temporalio.worker.Interceptor):
    """Puts headers on the activities that a workflow schedules."""

    def __init__(self, headers: dict[str, Payload]) -> None:
        self._headers = headers

    def workflow_interceptor_class(
        self, input: temporalio.worker.WorkflowInterceptorClassInput
    ) -> type[temporalio.worker.WorkflowInboundInterceptor]:
        headers = self._headers

        class Outbound(temporalio.worker.WorkflowOutboundInterceptor):
            def start_activity(self, input: temporalio.worker.StartActivityInput) -> workflow.ActivityHandle[Any]:
                input.headers = headers
                return super().start_activity(input)

        class Inbound(temporalio.worker.WorkflowInboundInterceptor):
            def init(self, outbound: temporalio.worker.WorkflowOutboundInterceptor) -> None:
                super().init(Outbound(outbound))

        return Inbound


@pytest.mark.parametrize(
    "header",
    [
        Payload(metadata={"encoding": b"what/ever"}, data=b"x"),
        Payload(metadata={"encoding": b"json/plain"}, data=b"{"),
        to_raw([1]).payload,
        to_raw({"traceparent": 5}).payload,
        to_raw("x" * 1_000_000).payload,
    ],
    ids=range(5),
)
async def test_no_header_of_an_activity_that_somebody_has_made_up_stops_a_worker_or_names_a_span(
    app: steporal.Client, workers: Workers, spans: InMemorySpanExporter, header: Payload
) -> None:
    @app.workflow(id="honest")
    async def honest(ctx: Context[Any], step: Step) -> Any:
        return await step.run("work", lambda: "served")

    plain, queue = workers.temporal, f"strangers of {app.id}"
    async with traced_worker(app, workers), asyncio.timeout(60):
        for name in ("_tracer-data", "steporal-step"):
            interceptors = [_HeadersOfActivities({name: header})]
            async with Worker(plain, task_queue=queue, workflows=[Stranger], interceptors=interceptors):
                said = await plain.execute_workflow(
                    Stranger.run, app.task_queue, id=f"{name} {app.id}", task_queue=queue
                )
            assert set(said) <= {"ApplicationError", "returned"}
        assert await (await honest.start()).result() == "served"
    assert all(len(span.name) < 1_500 for span in spans.get_finished_spans())


@pytest.mark.parametrize("trace", [{"traceparent": 5}, {"traceparent": ["x"], "tracestate": {}}, [1], "x"])
async def test_no_trace_of_an_event_that_somebody_has_made_up_stops_deliveries(
    app: steporal.Client, workers: Workers, spans: InMemorySpanExporter, trace: Any
) -> None:
    name = f"paid.{app.id}"

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event("paid", event=name, timeout="1h")
        return event and event.data["n"]

    async with traced_worker(app, workers), asyncio.timeout(60):
        run = await waits.start(None)
        await until_waiting(run)
        event = {"id": "1", "name": name, "data": {"n": 2}, "ts": 1, "v": None, "trace": trace}
        await workers.temporal.get_workflow_handle(f"steporal.topic/{name}").signal("steporal.publish", to_raw([event]))
        assert await run.result() == 2
