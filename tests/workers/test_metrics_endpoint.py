"""`/metrics` of a worker with a gateway, after runs that go well and runs that do not."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import click
import httpx
import pytest
import temporalio.client
from click.testing import CliRunner
from commands import Process, Steporal
from http_server import Reply, http_server
from promql import asked
from scraping import Scrape, scraped
from temporalio.runtime import LoggingConfig, PrometheusConfig, Runtime, TelemetryConfig
from test_gateway_process import url_of
from test_health import free_port

from steporal.metrics import METRICS, RUNS_STARTED, Histogram, markdown_table
from steporal.routing.catalog.arbiter import Order
from steporal.routing.catalog.listing import AppList, Entry, Listed
from steporal.routing.catalog.placing import Placing
from steporal.worker.serving import system_worker
from steporal_workers import telemetry
from steporal_workers.cli import cli
from steporal_workers.devserver import DevServer
from steporal_workers.problems import Mistake
from steporal_workers.telemetry import MetricsOptions, otlp_url

APP = """
    import os
    import time
    from datetime import timedelta
    from pathlib import Path

    import steporal
    from steporal import event_trigger

    client = steporal.Client("metered", retry=steporal.RetryPolicy(initial_interval=timedelta(milliseconds=10)))
    tries = []


    def charge():
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("the card network did not answer")
        return "charged"


    @client.workflow(id="order", triggers=[event_trigger("order.placed")])
    async def order(ctx, step):
        await step.run("charge", charge)
        if ctx.attempt == 0:
            raise ValueError("the body's first attempt")
        paid = await step.ext.wait_for_event("paid", event="order.paid", timeout="1m")
        await step.ext.wait_for_event("never", event="order.lost", timeout="100ms")
        await step.wait_for_signal("approval", signal="approved", timeout="100ms")
        await step.ext.send_event("ship", {"name": "order.shipped", "data": {"to": "ada"}})
        await step.sleep("rest", "10ms")
        return paid.data


    @client.workflow(id="patient", ext=steporal.WorkflowExt(park_after="1s"))
    async def patient(ctx, step):
        await step.ext.wait_for_event("paid", event="order.paid", timeout="1m")


    @client.workflow(id="doomed", triggers=[event_trigger("doom.*")])
    async def doomed(ctx, step):
        if ctx.input.data.get("step"):
            await step.run("fail", fail)
        raise steporal.NonRetryableError("no")


    def fail():
        raise steporal.NonRetryableError("no")


    @client.workflow(
        id="moderation", triggers=[event_trigger("post.*", if_exp="event.data.words.exists(w, w in event.data.banned)")]
    )
    async def moderation(ctx, step):
        pass


    @client.workflow(id="wedged")
    async def wedged(ctx, step):
        return time.time()


    client.event_sink("order.shipped", os.environ["SINK"], id="warehouse", allow_private=True)
    """

KEYS = {"STEPORAL_EVENT_KEYS": "event-key-of-tests", "STEPORAL_API_KEYS": "api-key-of-tests"}
API = {"authorization": "Bearer api-key-of-tests"}


@dataclass
class Scene:
    """A worker with a gateway, and what it says of itself in the end."""

    process: Process
    metrics: Scrape


@pytest.fixture(scope="module")
async def scene(server: DevServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("metered")
    (folder / "app.py").write_text(dedent(APP))
    port = free_port()
    run = Steporal(folder, {"TEMPORAL_ADDRESS": server.address, "STEPORAL_METRICS_PORT": str(port), **KEYS})
    async with http_server() as sink:
        sink.answers([Reply(503), Reply(204)])
        async with (
            refused_starts(server.client),
            run.running("worker", "app", "--with-gateway", "--gateway-port", "0", SINK=sink.url) as process,
        ):
            await process.until("serving")
            async with httpx.AsyncClient(base_url=await url_of(process), headers=API, timeout=30) as http:
                await play(http, port, server.client)
                yield Scene(process, await scraped(port, is_over))


@asynccontextmanager
async def refused_starts(temporal: temporalio.client.Client) -> AsyncIterator[None]:
    """An app in the catalog whose runs Temporal refuses to start."""
    listed = Listed(id="refused", triggers=(Entry(event="order.placed"),))
    app = AppList(id="refused", task_queue="/_sys/not-for-users", workflows=(listed,))
    async with system_worker(temporal):
        await Placing(temporal, Order(app=app, generation=1)).run()
    yield  # without a worker for topics here, which would count what the process is to count
    async with system_worker(temporal):
        await Placing(temporal, Order(app=app.model_copy(update={"workflows": ()}), generation=2)).run()


async def play(http: httpx.AsyncClient, port: int, temporal: temporalio.client.Client) -> None:
    await http.post("/invoke/patient", json={})
    await http.post("/invoke/wedged", json={})
    events = [
        {"name": "order.placed", "data": {}},
        {"name": "doom.now", "data": {"step": True}},
        {"name": "doom.later", "data": {}},
        {"name": "nobody.listens", "data": {}},
        {"name": "post.written", "data": {"words": [1] * 40_000, "banned": [2] * 40_000}},
    ]
    assert (await http.post("/e/event-key-of-tests", json=events)).status_code == 200
    await scraped(port, lambda it: it.value("steporal_waits_opened_total", kind="wait_for_event") >= 2)
    await scraped(port, lambda it: it.value("steporal_checkpoints_total") >= 1)
    await temporal.get_workflow_handle("steporal.topic/order.paid").signal("steporal.publish", "no list of events")
    await http.post("/e/event-key-of-tests", json={"name": "order.paid", "data": {}})
    for path in ("/ready", "/no/such/path", "/e/wrong-key"):
        await http.get(path)
    await http.request("BREW", "/ready")
    await http.post("/e/wrong-key", json=events)


def is_over(metrics: Scrape) -> bool:
    return (
        metrics.value("steporal_runs_ended_total") >= 4
        and metrics.value("steporal_messages_dropped_total") >= 1
        and metrics.value("steporal_sink_deliveries_total") >= 1
        and metrics.value("temporal_workflow_task_execution_failed_total") >= 1
    )


def test_runs_are_counted_by_workflow(scene: Scene) -> None:
    assert scene.metrics.by("steporal_runs_started_total", "workflow_type", "trigger") == {
        ("order", "event"): 1,
        ("doomed", "event"): 2,
        ("patient", "invoke"): 1,
    }
    assert scene.metrics.by("steporal_runs_ended_total", "workflow_type", "outcome") == {
        ("order", "finished"): 1,
        ("doomed", "failed"): 2,
        ("patient", "finished"): 1,
    }
    assert scene.metrics.value("steporal_run_duration_seconds_count", workflow_type="order") == 1
    # With the execution before.
    assert scene.metrics.value("steporal_run_duration_seconds_sum", workflow_type="patient") > 1
    assert scene.metrics.by("steporal_body_attempts_total", "workflow_type", "outcome") == {
        ("order", "raised"): 1,
        ("order", "returned"): 1,
        ("doomed", "raised"): 2,
        ("patient", "returned"): 1,
    }
    assert scene.metrics.by("steporal_checkpoints_total", "workflow_type", "reason") == {("patient", "park"): 1}
    assert scene.metrics.value("steporal_memo_size_bytes_count", workflow_type="patient") == 2
    assert scene.metrics.value("steporal_memo_size_bytes_sum", workflow_type="order") > 50


def test_steps_are_counted_by_kind_and_outcome_with_their_attempts(scene: Scene) -> None:
    assert scene.metrics.by("steporal_steps_ended_total", "kind", "outcome", workflow_type="order") == {
        ("run", "finished"): 1,
        ("wait_for_event", "finished"): 2,
        ("wait_for_signal", "finished"): 1,
        ("send_event", "finished"): 1,
        ("sleep", "finished"): 1,
    }
    assert scene.metrics.by("steporal_steps_ended_total", "outcome", workflow_type="doomed") == {"failed": 1}
    of_charge = {"workflow_type": "order", "activity_type": "steporal.run_step"}
    assert scene.metrics.by("steporal_step_attempts_total", "outcome", **of_charge) == {"failed": 1, "finished": 1}
    assert scene.metrics.value("steporal_step_attempt_duration_seconds_count", **of_charge) == 2
    assert scene.metrics.value("steporal_step_duration_seconds_sum", workflow_type="order", kind="run") > 0.01


def test_waits_are_opened_and_woken_or_timed_out(scene: Scene) -> None:
    assert scene.metrics.by("steporal_waits_opened_total", "workflow_type", "kind") == {
        ("order", "wait_for_event"): 2,
        ("order", "wait_for_signal"): 1,
        ("patient", "wait_for_event"): 1,  # though it was parked meanwhile
    }
    assert scene.metrics.by("steporal_waits_ended_total", "workflow_type", "kind", "outcome") == {
        ("order", "wait_for_event", "woken"): 1,
        ("order", "wait_for_event", "timed_out"): 1,
        ("order", "wait_for_signal", "timed_out"): 1,
        ("patient", "wait_for_event", "woken"): 1,
    }


def test_events_are_counted_by_the_triggers_that_they_have(scene: Scene) -> None:
    assert scene.metrics.by("steporal_events_sent_total", "event") == {
        "order.placed": 1,
        "doom.*": 2,
        "order.shipped": 1,
        "post.*": 1,
        "other": 4,  # order.paid, nobody.listens, and two of runs that have failed
    }
    assert scene.metrics.by("steporal_events_matched_total", "event", "workflow_type") == {
        ("order.placed", "order"): 1,
        ("doom.*", "doomed"): 2,
        ("order.shipped", "warehouse"): 1,
    }
    assert scene.metrics.by("steporal_events_unmatched_total", "event") == {"other": 1, "post.*": 1}
    assert scene.metrics.by("steporal_expressions_over_budget_total", "workflow_type") == {"moderation": 1}
    assert scene.metrics.by("steporal_topic_events_total", "outcome") == {"matched": 1}
    assert scene.metrics.by("steporal_deliveries_total", "kind", "outcome") == {("once", "delivered"): 2}
    assert scene.metrics.value("steporal_delivery_latency_seconds_count") == 2
    assert scene.metrics.value("steporal_topic_backlog_sum") >= 2


def test_requests_are_counted_by_route(scene: Scene) -> None:
    requests = scene.metrics.by("steporal_gateway_requests_total", "route", "method", "status")
    assert requests == {
        ("/invoke/{workflow}", "POST", "200"): 2,
        ("/e/{key}", "POST", "200"): 2,
        ("/e/{key}", "POST", "401"): 1,
        ("/e/{key}", "GET", "405"): 1,
        ("/ready", "GET", "200"): 1,
        ("/ready", "other", "405"): 1,
        ("other", "GET", "404"): 1,
    }
    assert scene.metrics.value("steporal_gateway_request_duration_seconds_count") == sum(requests.values())


def test_sinks_are_counted_by_outcome(scene: Scene) -> None:
    by_outcome = scene.metrics.by("steporal_sink_attempts_total", "outcome", workflow_type="warehouse")
    assert by_outcome == {"failed": 1, "delivered": 1}
    assert scene.metrics.by("steporal_sink_deliveries_total", "outcome", workflow_type="warehouse") == {"delivered": 1}


def test_task_queues_are_asked_for(scene: Scene) -> None:
    queues = {("metered", "workflow"), ("metered", "activity"), ("steporal", "workflow"), ("steporal", "activity")}
    for name in ("steporal_task_queue_pollers", "steporal_task_queue_backlog_age_seconds"):
        assert queues <= scene.metrics.by(name, "task_queue", "task_type").keys()
    assert scene.metrics.by("steporal_build_info", "app", "process") == {
        ("metered", "worker"): 1,
        ("metered", "gateway"): 1,
    }


def test_each_metric_of_the_list_is_exposed_as_the_list_says(scene: Scene) -> None:
    for metric in METRICS:
        assert scene.metrics.types.get(metric.exposed) == metric.kind, metric.name
        assert scene.metrics.helps[metric.exposed] == metric.help
        assert scene.metrics.labels(metric.exposed) == set(metric.labels), metric.name
        if isinstance(metric, Histogram):
            ends = {s.labels["le"] for s in scene.metrics.samples if s.name == f"{metric.exposed}_bucket"}
            assert {float(end) for end in ends} == {*metric.buckets, float("inf")}
    ours = {name for name in scene.metrics.types if name.startswith("steporal_")}
    assert ours == {metric.exposed for metric in METRICS}


OF_PROMETHEUS = ("instance", "job")
"""The labels that Prometheus itself adds to everything that it scrapes."""


def test_everything_that_the_dashboard_and_the_alerts_ask_for_is_exposed(scene: Scene) -> None:
    """Also the labels, or a rule would be silent for ever."""
    for asked_for in asked():
        there: set[str] = {"le", *OF_PROMETHEUS}
        for name, labels in asked_for.selectors:
            of_metric = scene.metrics.labels(re.sub(r"_bucket$", "", name))
            assert name in scene.metrics.names, (asked_for.where, name)
            assert labels <= of_metric, (asked_for.where, name, labels - of_metric)
            there |= of_metric
        assert asked_for.grouped <= there, (asked_for.where, asked_for.grouped - there)


async def test_a_gateway_alone_has_its_own(run: Steporal) -> None:
    client = "import steporal\nclient = steporal.Client('metered-gateway')\n"
    run.write("app.py", client)
    run.write("listed.py", f"{client}@client.workflow(id='asked-for')\nasync def handler(ctx, step): ...\n")
    assert (await run("sync", "listed")).status == 0  # the gateway asks for the task queues of the catalog's apps
    port = free_port()
    arguments = ["gateway", "app", "--port", "0", "--metrics-port", str(port)]
    async with run.running(*arguments, **KEYS) as process:
        async with httpx.AsyncClient(base_url=await url_of(process)) as http:
            await http.post("/e/event-key-of-tests", json={"name": "nobody.listens"})
        metrics = await scraped(port, lambda it: "steporal_task_queue_backlog" in it.names)
    assert metrics.value("steporal_events_unmatched_total", event="other") == 1
    assert metrics.value("steporal_gateway_requests_total", route="/e/{key}", status="200") == 1
    assert metrics.by("steporal_build_info", "process") == {"gateway": 1}
    assert (await run("sync", "app")).status == 0


def test_the_page_has_the_table_of_all_metrics() -> None:
    page = Path(__file__).parents[2] / "docs" / "metrics.md"
    assert markdown_table() in page.read_text(), "make docs writes it"


# --- settings ------------------------------------------------------------------------------------------------------


async def test_a_port_that_is_taken_is_named_before_anything_starts(offline: Steporal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = await offline("gateway", "no_such_app", "--metrics-port", port, "--insecure-any-key")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == (
        f"error: the metrics server cannot listen on 127.0.0.1, port {port}: Address already in use; "
        "stop what listens there, or choose another port\n"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"port": 9464, "host": "no such host"}, "--metrics-host 'no such host' is not an address"),
        ({"port": 9464, "otlp_url": "http://localhost:4317"}, "both --metrics-port 9464 and --metrics-otlp-url"),
    ],
)
def test_what_cannot_be_is_said(options: dict[str, Any], said: str) -> None:
    with pytest.raises(Mistake, match=re.escape(said)):
        MetricsOptions(**options).config()


@pytest.mark.parametrize(("value", "said"), [("99999", "takes a number from 0 to 65535"), ("x", "'x' is not valid")])
def test_a_port_out_of_range_is_a_mistake_of_one_line(monkeypatch: pytest.MonkeyPatch, value: str, said: str) -> None:
    monkeypatch.setenv("STEPORAL_METRICS_PORT", value)
    ended = CliRunner().invoke(cli, ["worker", "app"])
    assert ended.exit_code == 2
    assert "STEPORAL_METRICS_PORT: " in ended.output and said in ended.output


@pytest.mark.parametrize("url", ["localhost:4317", "http://", "http://[", "ftp://localhost"])
def test_what_is_no_url_of_a_collector_is_a_mistake(url: str) -> None:
    with pytest.raises(click.BadParameter, match="is not the URL of a collector"):
        otlp_url(url)


def test_names_are_resolved_for_the_core() -> None:
    for host in ("localhost", "127.0.0.1"):
        config = MetricsOptions(host=host, port=9464).config()
        assert isinstance(config, PrometheusConfig)
        assert config.bind_address in ("127.0.0.1:9464", "[::1]:9464")


async def test_a_collector_is_sent_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_EXPORTED_EVERY", timedelta(milliseconds=100))
    async with http_server() as collector:
        metrics = MetricsOptions(otlp_url=f"{collector.url}/v1/metrics").config()
        quiet = LoggingConfig(filter="off")  # it goes on after the collector's end
        runtime = Runtime(telemetry=TelemetryConfig(logging=quiet, metrics=metrics))
        RUNS_STARTED.add(runtime.metric_meter, workflow_type="order")
        async with asyncio.timeout(30):
            [asked_for, *_] = await collector.until_asked()
    assert (asked_for.path, asked_for.headers["content-type"]) == ("/v1/metrics", "application/x-protobuf")
    assert b"steporal_runs_started" in asked_for.body
