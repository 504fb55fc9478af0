"""What runs count, on the meter of a worker that somebody made himself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import temporalio.client
from temporalio import activity, workflow
from temporalio.exceptions import ApplicationError
from temporalio.runtime import MetricBuffer, MetricBufferDurationFormat, Runtime, TelemetryConfig
from temporalio.worker import Worker
from waiting import until_waiting

import steporal
from steporal import CancelOn, Context, Step, WorkflowExt, event_trigger
from steporal.metrics import METRICS, buckets
from steporal.observability.run_metrics import COUNT
from steporal.routing.catalog.arbiter import Order
from steporal.routing.catalog.listing import AppList, Entry, Listed
from steporal.routing.catalog.placing import Placing
from steporal.routing.catalog.reading import Snapshot
from steporal.routing.dispatch import CONCURRENCY, Dispatcher
from steporal_workers.devserver import dev_server

Labels = dict[str, str | int | float | bool]


@dataclass
class Measured:
    """A connection whose runtime keeps what it is told."""

    buffer: MetricBuffer
    temporal: temporalio.client.Client
    max_cached_workflows: int
    values: dict[str, list[tuple[Labels, float]]] = field(default_factory=dict)

    def drain(self) -> None:
        for update in self.buffer.retrieve_updates():
            of_metric = self.values.setdefault(update.metric.name, [])
            of_metric.append((dict(update.attributes), update.value))

    def counted(self, name: str, *by: str) -> dict[Any, float]:
        """The sums of a metric by the values of labels."""
        self.drain()
        found: Counter[Any] = Counter()
        for labels, value in self.values.get(name, ()):
            key = tuple(labels.get(label) for label in by)
            found[key[0] if len(by) == 1 else key] += value  # type: ignore[assignment]
        return dict(found)

    def reads(self, name: str) -> list[float]:
        """The values of a histogram."""
        self.drain()
        return [value for _, value in self.values.get(name, ())]

    @asynccontextmanager
    async def worker(self, client: steporal.Client) -> AsyncIterator[None]:
        """A worker as users make it."""
        client.temporal = self.temporal
        plugin = client.plugin()
        async with Worker(
            self.temporal,
            task_queue=client.task_queue,
            plugins=[plugin],
            max_cached_workflows=self.max_cached_workflows,
        ):
            await asyncio.wait_for(plugin.registered.wait(), 60)
            yield
            await steporal.Client(client.id, temporal=self.temporal, task_queue=client.task_queue).sync()


@pytest.fixture(scope="module")
def buffer() -> tuple[MetricBuffer, Runtime]:
    buffer = MetricBuffer(100_000, MetricBufferDurationFormat.SECONDS)
    return buffer, Runtime(telemetry=TelemetryConfig(logging=None, metrics=buffer))


@pytest.fixture(scope="module")
async def address(temporal: temporalio.client.Client) -> AsyncIterator[str]:
    """The address of a server where no other worker takes the tasks of topics, which would count them elsewhere."""
    async with dev_server(ui=False, dynamic_config=['history.defaultWorkflowTaskTimeout="3s"']) as server:
        yield server.address


@pytest.fixture
async def measured(address: str, buffer: tuple[MetricBuffer, Runtime], max_cached_workflows: int) -> Measured:
    buffer[0].retrieve_updates()
    connected = await temporalio.client.Client.connect(address, runtime=buffer[1])
    return Measured(buffer[0], connected, max_cached_workflows)


@pytest.fixture
async def measured_alone(buffer: tuple[MetricBuffer, Runtime], max_cached_workflows: int) -> AsyncIterator[Measured]:
    """A connection to a server whose system workflows no other worker has."""
    async with dev_server() as server:
        buffer[0].retrieve_updates()
        connected = await temporalio.client.Client.connect(server.address, runtime=buffer[1])
        yield Measured(buffer[0], connected, max_cached_workflows)


async def test_a_run_counts_once_however_often_it_is_replayed(app: steporal.Client, measured: Measured) -> None:
    def charge() -> str:
        if activity.info().attempt == 1:
            raise ConnectionError("again")
        return "charged"

    @app.workflow(id=f"order {app.id}")
    async def order(ctx: Context[Any], step: Step) -> str:
        charged = await step.run("charge", charge)
        if ctx.attempt == 0:
            raise ValueError("again")
        await step.ext.wait_for_event("paid", event=f"{app.id}.paid", timeout="1m")
        await step.wait_for_signal("approval", signal=app.id, timeout="10ms")
        await step.sleep("rest", "10ms")
        return charged

    async with measured.worker(app):
        run = await order.start()
        await until_waiting(run, timers=2)  # the body's backoff is the first
        await app.send_event({"name": f"{app.id}.paid"})
        assert await run.result() == "charged"
    assert measured.counted("steporal_runs_started", "workflow_type", "trigger") == {(order.id, "invoke"): 1}
    assert measured.counted("steporal_runs_ended", "outcome") == {"finished": 1}
    assert measured.counted("steporal_body_attempts", "outcome") == {"raised": 1, "returned": 1}
    assert measured.counted("steporal_step_attempts", "outcome") == {"failed": 1, "finished": 1}
    kinds = ("run", "wait_for_event", "wait_for_signal", "sleep")
    assert measured.counted("steporal_steps_ended", "kind", "outcome") == {(kind, "finished"): 1 for kind in kinds}
    assert measured.counted("steporal_waits_opened", "kind") == {"wait_for_event": 1, "wait_for_signal": 1}
    assert measured.counted("steporal_waits_ended", "kind", "outcome") == {
        ("wait_for_event", "woken"): 1,
        ("wait_for_signal", "timed_out"): 1,
    }
    [seconds], [size] = measured.reads("steporal_run_duration"), measured.reads("steporal_memo_size")
    assert 0.02 < seconds < 60
    assert 10 < size < 1000


async def test_a_workflow_task_that_fails_counts_nothing(app: steporal.Client, measured: Measured) -> None:
    failures: list[int] = []

    @app.workflow(id=f"edited {app.id}")
    async def edited(ctx: Context[Any], step: Step) -> None:
        await step.run("work", lambda: None)
        if not failures:
            failures.append(1)
            raise workflow.NondeterminismError("the code does not fit")

    async with measured.worker(app):
        await (await edited.start()).result()
    assert failures
    assert measured.counted("steporal_steps_ended", "outcome") == {"finished": 1}
    assert measured.counted("steporal_body_attempts", "outcome") == {"returned": 1}


async def test_failures_and_cancellations_are_told_apart(app: steporal.Client, measured: Measured) -> None:
    @app.workflow(id=f"failing {app.id}", max_attempts=1)
    async def failing(ctx: Context[Any], step: Step) -> None:
        def fail() -> None:
            raise ApplicationError("no", non_retryable=True)

        await step.run("fail", fail)

    cancelled_by = CancelOn(event=f"{app.id}.cancel")

    @app.workflow(id=f"waiting {app.id}", ext=WorkflowExt(cancel_on=[cancelled_by]))
    async def waiting(ctx: Context[Any], step: Step) -> None:
        await step.ext.wait_for_event("never", event=f"{app.id}.never", timeout="1h")

    @app.workflow(id=f"sleeping {app.id}")
    async def sleeping(ctx: Context[Any], step: Step) -> None:
        await step.sleep("long", "1s")

    @app.workflow(id=f"impatient {app.id}")
    async def impatient(ctx: Context[Any], step: Step) -> None:
        try:
            await step.invoke_workflow("wait", workflow=sleeping, data=None, timeout=timedelta(milliseconds=10))
        except steporal.InvokeTimeoutError:
            pass

    async with measured.worker(app):
        with pytest.raises(steporal.RunFailedError):
            await (await failing.start()).result()
        await (await impatient.start()).result()
        run = await waiting.start()
        await until_waiting(run)
        await app.send_event({"name": f"{app.id}.cancel"})
        with pytest.raises(steporal.RunFailedError):
            await run.result()
    ended = measured.counted("steporal_runs_ended", "workflow_type", "outcome")
    assert ended[failing.id, "failed"] == ended[waiting.id, "cancelled"] == ended[impatient.id, "finished"] == 1
    steps = measured.counted("steporal_steps_ended", "kind", "outcome")
    assert steps["run", "failed"] == 1
    assert steps["wait_for_event", "cancelled"] == 1
    waits = measured.counted("steporal_waits_ended", "kind", "outcome")
    assert waits == {("invoke_workflow", "timed_out"): 1, ("wait_for_event", "cancelled"): 1}


async def test_every_metric_has_the_labels_that_the_list_says(app: steporal.Client, measured: Measured) -> None:
    """And none whose values are an event's, or a step's."""

    @app.workflow(id=f"order {app.id}", triggers=[event_trigger(f"{app.id}.placed")])
    async def order(ctx: Context[Any], step: Step) -> None:
        await step.run(f"secret-{ctx.input.id}", lambda: None)
        await step.ext.wait_for_event("paid", event=f"secret-{ctx.input.id}", timeout="1m")

    async with measured.worker(app):
        await app.send_event({"name": f"{app.id}.placed", "id": app.id})
        run = await app.get_run(f"{app.id}/{order.id}/{app.id}")
        await until_waiting(run)
        await app.send_event({"name": f"secret-{app.id}"})
        await run.result()
    measured.drain()
    ours = {name: values for name, values in measured.values.items() if name.startswith("steporal_")}
    declared = {metric.name: set(metric.labels) for metric in METRICS}
    assert len(ours) > 12
    for name, values in ours.items():
        for labels, _ in values:
            assert labels.keys() - {"service_name"} == declared[name], name
            assert not any("secret" in str(value) for value in labels.values()), (name, labels)
    assert measured.counted("steporal_events_sent", "event") == {f"{app.id}.placed": 1, "other": 1}


async def test_expressions_over_their_budget_are_counted_and_block_no_other(
    app: steporal.Client, measured_alone: Measured, caplog: pytest.LogCaptureFixture
) -> None:
    """A hostile event, and a run that a hostile event has started, among those of others."""
    shares_a_tag = "event.data.tags.exists(t, async.data.tags.exists(u, t == u))"

    @app.workflow(id=f"subscriber {app.id}", triggers=[event_trigger(f"{app.id}.came")])
    async def subscriber(ctx: Context[Any], step: Step) -> Any:
        article = await step.ext.wait_for_event(
            "article", event=f"{app.id}.published", timeout="1m", if_exp=shares_a_tag
        )
        return article and article.data["title"]

    flagged = event_trigger(f"{app.id}.published", if_exp="event.data.words.exists(w, w in event.data.banned)")

    @app.workflow(id=f"moderation {app.id}", triggers=[flagged])
    async def moderation(ctx: Context[Any], step: Step) -> str:
        return "flagged"

    many = [0] * 20_000
    async with measured_alone.worker(app):
        sent = await app.send_event([{"name": f"{app.id}.came", "data": {"tags": tags}} for tags in (["python"], many)])
        honest, hostile = sent.runs
        for run in sent.runs:
            await until_waiting(await app.get_run(run.workflow_id))
        published = {"name": f"{app.id}.published"}
        attack = {**published, "data": {"tags": [1] * 20_000, "words": many, "banned": [1] * 20_000}}
        article = {**published, "data": {"tags": ["python"], "title": "A", "words": ["x"], "banned": ["x"]}}
        sent = await app.send_event([attack, attack, article])
        assert [(run.workflow, run.event_id) for run in sent.runs] == [(moderation.id, sent.ids[-1])]
        assert await (await app.get_run(honest.workflow_id)).result() == "A"
        await (await app.get_run(hostile.workflow_id)).cancel()
    over = measured_alone.counted("steporal_expressions_over_budget", "workflow_type")
    assert over[moderation.id] == 2
    assert over["steporal.topic"] >= 2
    warnings = [record.getMessage() for record in caplog.records if "units" in record.getMessage()]
    assert len(warnings) == 2, "one for each expression"
    assert any(f"workflow {moderation.id!r}" in warning for warning in warnings)


async def test_where_nobody_measures_runs_count_nothing(app: steporal.Client, workers: Any) -> None:
    @app.workflow(id=f"plain {app.id}")
    async def plain(ctx: Context[Any], step: Step) -> bool:
        return COUNT in workflow.extern_functions()

    async with workers(app):
        assert await (await plain.start()).result() is False


def test_events_are_known_by_the_closest_trigger() -> None:
    triggers = tuple(Entry(event=event) for event in ("order.placed", "order.*", "order.eu.*", "*"))
    app = AppList(id="shop", task_queue="shop", workflows=(Listed(id="all", triggers=triggers),))
    snapshot = Snapshot.of(app)
    known = [snapshot.trigger_for(n) for n in ("order.placed", "order.paid", "order.eu.paid", "any", "inngest/any")]
    assert known == ["order.placed", "order.*", "order.eu.*", "*", "other"]


def test_buckets_rise() -> None:
    assert all(list(ends) == sorted(set(ends)) for ends in buckets().values())
    assert buckets()


async def test_a_start_that_temporal_refuses_concerns_no_other_workflow_and_no_sender(
    app: steporal.Client, measured: Any, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"{app.id}.placed"

    @app.workflow(id=f"good {app.id}", triggers=[event_trigger(name)])
    async def good(ctx: Context[Any], step: Step) -> Any:
        return ctx.input.data["n"]

    listed = Listed(id="bad", triggers=(Entry(event=f"{app.id}.*"),))
    bad = AppList(id=f"bad {app.id}", task_queue="/_sys/not-for-users", workflows=(listed,))
    async with measured.worker(app):
        await Placing(app.temporal, Order(app=bad, generation=1)).run()
        await app.sending.dispatcher(app.temporal).catalog.read([name, f"{app.id}.other"], fresh=True)
        try:
            sent = await app.send_event([{"name": name, "data": {"n": n}} for n in range(3)])
            alone = await app.send_event({"name": f"{app.id}.other"})
        finally:
            gone = bad.model_copy(update={"workflows": ()})
            await Placing(app.temporal, Order(app=gone, generation=2)).run()
        assert [run.workflow for run in sent.runs] == [good.id] * 3
        assert alone.runs == []
        results = [await (await app.get_run(run.workflow_id)).result() for run in sent.runs]
        assert results == [0, 1, 2]
    assert measured.counted("steporal_starts_refused", "workflow_type") == {"bad": 4}
    said = [record.getMessage() for record in caplog.records if "does not start workflow 'bad'" in record.getMessage()]
    assert len(said) == 4 and all("because Temporal rejects the start" in line for line in said)


async def test_starting_many_runs_takes_a_bounded_number_of_tasks(
    app: steporal.Client, measured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{app.id}.placed"
    for number in range(3):

        @app.workflow(id=f"one {number} {app.id}", triggers=[event_trigger(name)])
        async def one(ctx: Context[Any], step: Step) -> None: ...

    start, most = Dispatcher._start, 0

    async def counted(self: Dispatcher, *arguments: Any) -> bool:
        nonlocal most
        most = max(most, len(asyncio.all_tasks()))
        return await start(self, *arguments)

    async with measured.worker(app):
        before = len(asyncio.all_tasks())
        monkeypatch.setattr(Dispatcher, "_start", counted)
        sent = await app.send_event([{"name": name}] * 40)
        for run in sent.runs:
            await (await app.get_run(run.workflow_id)).result()
    assert len(sent.runs) == len({run.workflow_id for run in sent.runs}) == 120
    assert before < most < before + CONCURRENCY + 20
