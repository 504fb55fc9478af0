"""Metrics of Steporal: the complete list of what it counts and measures, on the meters of Temporal's SDK.

Names are as in Temporal's meters. An exporter that is configured for it, such as that of
``steporal worker --metrics-port``, adds the unit and ``_total``: :attr:`Metric.exposed`. No label has a value that data
can choose without limit: ids of steps, runs and events, and names of events that no trigger has, are never labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from temporalio.common import MetricMeter

if TYPE_CHECKING:
    import temporalio.client

OTHER = "other"
"""Label for what has no label value: an event that no trigger names, or a path that the gateway does not serve."""

IN_WORKFLOWS = ("namespace", "task_queue", "workflow_type")
IN_ACTIVITIES = ("namespace", "task_queue", "activity_type")
IN_PROCESSES = ("namespace",)
"""Labels that the meters add; the type of a workflow is its id, and so is that of a sink."""

_LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_STEPS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300, 1800, 3600, 21_600, 86_400)
_RUNS = (0.1, 0.5, 1, 5, 10, 60, 300, 1800, 3600, 21_600, 86_400, 604_800, 2_592_000)
_COUNTS = (1, 10, 100, 1_000, 10_000, 100_000)
_SIZES = (1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 2_097_152, 8_388_608, 33_554_432)


@dataclass(frozen=True, slots=True)
class Metric:
    """Metric with a name, a help text and labels.

    Attributes:
        name: The metric's name.
        help: The help text.
        labels: The metric's labels, including those that the meter adds.
    """

    name: str
    help: str
    labels: tuple[str, ...]

    @property
    def exposed(self) -> str:
        """Name at ``/metrics``."""
        return self.name

    @property
    def kind(self) -> str:
        """Type in Prometheus."""
        return type(self).__name__.lower()


@dataclass(frozen=True, slots=True)
class Counter(Metric):
    """Metric that counts up."""

    def add(self, meter: MetricMeter, value: int = 1, **labels: str) -> None:
        """Add to the count."""
        meter.create_counter(self.name, self.help).add(value, labels)

    @property
    def exposed(self) -> str:
        """See base class."""
        return f"{self.name}_total"


@dataclass(frozen=True, slots=True)
class Gauge(Metric):
    """Metric with a current value. The exporter adds no unit, so the name contains it."""

    def set(self, meter: MetricMeter, value: float, **labels: str) -> None:
        """Set the current value."""
        meter.create_gauge_float(self.name, self.help).set(value, labels)


@dataclass(frozen=True, slots=True)
class Histogram(Metric):
    """Distribution of values, which the exporter counts in buckets.

    Attributes:
        buckets: The upper bounds of the buckets.
        unit: The unit; empty for numbers of things.
    """

    buckets: Sequence[float]
    unit: Literal["", "seconds", "bytes"]

    def record(self, meter: MetricMeter, value: float, **labels: str) -> None:
        """Record a value."""
        if self.unit == "seconds":
            spent = timedelta(seconds=max(value, 0))
            meter.create_histogram_timedelta(self.name, self.help, "duration").record(spent, labels)
        else:
            meter.create_histogram(self.name, self.help, self.unit or None).record(int(value), labels)

    @property
    def exposed(self) -> str:
        """See base class."""
        return f"{self.name}_{self.unit}" if self.unit else self.name


# --- runs ----------------------------------------------------------------------------------------------------------

RUNS_STARTED = Counter(
    "steporal_runs_started",
    "Runs that have started, by what started them: event, cron or invoke.",
    (*IN_WORKFLOWS, "trigger"),
)
RUNS_ENDED = Counter(
    "steporal_runs_ended",
    "Runs that have ended: finished, failed or cancelled. Runs that were terminated or that Temporal timed out are not "
    "counted.",
    (*IN_WORKFLOWS, "outcome"),
)
RUN_DURATION = Histogram(
    "steporal_run_duration", "Time from a run's start to its end, over all executions.", IN_WORKFLOWS, _RUNS, "seconds"
)
BODY_ATTEMPTS = Counter(
    "steporal_body_attempts",
    "Attempts of a body that have ended: returned or raised. An attempt that raises is retried with a backoff.",
    (*IN_WORKFLOWS, "outcome"),
)
CHECKPOINTS = Counter(
    "steporal_checkpoints",
    "Times that runs continued as new: because their history grew (history), to park (park), or on request "
    "(checkpoint).",
    (*IN_WORKFLOWS, "reason"),
)
MEMO_SIZE = Histogram(
    "steporal_memo_size",
    "Size of the results of a run's steps as JSON, compressed if large; recorded when the run ends or continues as "
    "new.",
    IN_WORKFLOWS,
    _SIZES,
    "bytes",
)

# --- steps ---------------------------------------------------------------------------------------------------------

STEPS_ENDED = Counter(
    "steporal_steps_ended",
    "Steps that have ended for good: finished, failed or cancelled. The kind is the method of `step`.",
    (*IN_WORKFLOWS, "kind", "outcome"),
)
STEP_DURATION = Histogram(
    "steporal_step_duration",
    "Time from the start of a step to its end, including all attempts and the time between them; not recorded for "
    "steps that span a continue-as-new.",
    (*IN_WORKFLOWS, "kind"),
    _STEPS,
    "seconds",
)
STEP_ATTEMPTS = Counter(
    "steporal_step_attempts",
    "Attempts of steps that run outside their run, on the worker that ran them: finished, failed (retried or not) or "
    "cancelled.",
    (*IN_ACTIVITIES, "workflow_type", "outcome"),
)
STEP_ATTEMPT_DURATION = Histogram(
    "steporal_step_attempt_duration",
    "Duration of one attempt of a step.",
    (*IN_ACTIVITIES, "workflow_type"),
    _STEPS,
    "seconds",
)
STEPS_STUCK = Gauge(
    "steporal_steps_stuck",
    "Step functions whose attempt was cancelled or timed out, but which still run in a thread of this worker and "
    "occupy its slot.",
    (*IN_PROCESSES, "task_queue"),
)
WAITS_OPENED = Counter(
    "steporal_waits_opened",
    "Waits of runs that have begun. The kind is the method that waits.",
    (*IN_WORKFLOWS, "kind"),
)
WAITS_ENDED = Counter(
    "steporal_waits_ended",
    "Waits of runs that have ended: woken, timed_out, cancelled or failed.",
    (*IN_WORKFLOWS, "kind", "outcome"),
)

# --- events --------------------------------------------------------------------------------------------------------

EVENTS_SENT = Counter(
    "steporal_events_sent",
    "Events that this process has sent, by the name or pattern of their trigger; other if there is no trigger.",
    (*IN_PROCESSES, "event"),
)
EVENTS_MATCHED = Counter(
    "steporal_events_matched",
    "Runs that events have started, including existing runs of events that were sent again.",
    (*IN_PROCESSES, "event", "workflow_type"),
)
EVENTS_UNMATCHED = Counter(
    "steporal_events_unmatched",
    "Events that started no run and whose name no run waits for, excluding the events that report the end of runs.",
    (*IN_PROCESSES, "event"),
)
EXPRESSIONS_OVER_BUDGET = Counter(
    "steporal_expressions_over_budget",
    "Evaluations that exceeded 100,000 units for an event, so that the expression counted as false; by the workflow of "
    "the trigger, or by the topic (steporal.topic) where a run waits.",
    IN_WORKFLOWS,
)
STARTS_REFUSED = Counter(
    "steporal_starts_refused",
    "Runs that an event was to start and that Temporal rejected for good; the other runs of the event start.",
    IN_WORKFLOWS,
)
TOPIC_EVENTS = Counter(
    "steporal_topic_events",
    "Events with a name that runs wait for: matched a wait or a cancel_on of a run, or unmatched.",
    (*IN_WORKFLOWS, "outcome"),
)
MESSAGES_DROPPED = Counter(
    "steporal_messages_dropped",
    "Messages to Steporal's own workflows that could not be read, such as those of a foreign client.",
    IN_WORKFLOWS,
)
TOPIC_BACKLOG = Histogram(
    "steporal_topic_backlog",
    "Events and deliveries that wait in a topic, recorded each time the topic takes some to deliver.",
    IN_WORKFLOWS,
    _COUNTS,
    "",
)
DELIVERIES = Counter(
    "steporal_deliveries",
    "Deliveries of events to waiting runs, by the kind of wait (once, each, cancel): delivered, gone (the run has "
    "ended) or later (the run currently accepts no more signals).",
    (*IN_ACTIVITIES, "kind", "outcome"),
)
DELIVERY_LATENCY = Histogram(
    "steporal_delivery_latency",
    "Time from when a topic receives an event until a run has received it.",
    IN_WORKFLOWS,
    _LATENCIES,
    "seconds",
)

# --- HTTP ----------------------------------------------------------------------------------------------------------

GATEWAY_REQUESTS = Counter(
    "steporal_gateway_requests",
    "Requests that the gateway has answered. The route is the path in the gateway's API description, or other.",
    (*IN_PROCESSES, "route", "method", "status"),
)
GATEWAY_REQUEST_DURATION = Histogram(
    "steporal_gateway_request_duration",
    "Time from a request's headers to the end of its response.",
    (*IN_PROCESSES, "route", "method"),
    _LATENCIES,
    "seconds",
)
SINK_DELIVERIES = Counter(
    "steporal_sink_deliveries",
    "Deliveries of events to sinks that have ended: delivered, failed for good, or cancelled.",
    (*IN_WORKFLOWS, "outcome"),
)
SINK_ATTEMPTS = Counter(
    "steporal_sink_attempts",
    "Attempts to deliver an event to a sink: delivered, refused (not retried), failed, or cancelled.",
    (*IN_ACTIVITIES, "workflow_type", "outcome"),
)

# --- processes -----------------------------------------------------------------------------------------------------

BUILD_INFO = Gauge(
    "steporal_build_info",
    "Always 1; one series for each part of this process (worker or gateway), with Steporal's version.",
    (*IN_PROCESSES, "app", "process", "version"),
)
LIST_IN_FORCE = Gauge(
    "steporal_list_in_force",
    "1 if the triggers and schedules of this worker are in force, 0 if another list of its app is.",
    (*IN_PROCESSES, "app"),
)
TASK_QUEUE_BACKLOG = Gauge(
    "steporal_task_queue_backlog",
    "Approximate number of tasks that wait for a worker, as reported by Temporal.",
    (*IN_PROCESSES, "task_queue", "task_type"),
)
TASK_QUEUE_BACKLOG_AGE = Gauge(
    "steporal_task_queue_backlog_age_seconds",
    "Time that the oldest task has waited for a worker, as reported by Temporal.",
    (*IN_PROCESSES, "task_queue", "task_type"),
)
TASK_QUEUE_POLLERS = Gauge(
    "steporal_task_queue_pollers",
    "Workers that polled a task queue in the last minute and a half, as reported by Temporal.",
    (*IN_PROCESSES, "task_queue", "task_type"),
)

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""All metrics."""


def buckets() -> Mapping[str, Sequence[float]]:
    """Return the buckets of the histograms, by name, as ``PrometheusConfig`` takes them."""
    return {metric.name: metric.buckets for metric in METRICS if isinstance(metric, Histogram)}


def meter_of(temporal: temporalio.client.Client) -> MetricMeter | None:
    """Return the meter of a process for the namespace of a connection; None if metrics are off."""
    from temporalio.runtime import Runtime

    meter = (temporal.service_client.config.runtime or Runtime.default()).metric_meter
    return None if meter is MetricMeter.noop else meter.with_additional_attributes({"namespace": temporal.namespace})


# --- as documentation ----------------------------------------------------------------------------------------------


def markdown_table() -> str:
    """Return the table of all metrics for ``docs/metrics.md``, whose text describes the labels that the meters add."""
    rows = []
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels if label != "namespace")
        rows.append(f"| `{metric.exposed}` | {metric.kind} | {labels} | {metric.help} |\n")
    return "".join(["| metric | type | labels, with `namespace` | |\n", "|---|---|---|---|\n", *rows])
