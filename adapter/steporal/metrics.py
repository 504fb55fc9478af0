"""What Steporal counts and measures, on the meters of Temporal's SDK: the whole list.

The names are as Temporal's meters have them. An exporter adds the unit and ``_total`` if it is told to, as that of
``steporal worker --metrics-port`` is: :attr:`Metric.exposed`. No label has what data can say: ids of steps, runs and
events, and names of events that no trigger has, are anybody's.
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
"""The label of what has no name of its own: an event that no trigger names, a path that the gateway does not have."""

IN_WORKFLOWS = ("namespace", "task_queue", "workflow_type")
IN_ACTIVITIES = ("namespace", "task_queue", "activity_type")
IN_PROCESSES = ("namespace",)
"""What the meters add by themselves; a workflow's type is its id, and a sink's."""

_LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_STEPS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300, 1800, 3600, 21_600, 86_400)
_RUNS = (0.1, 0.5, 1, 5, 10, 60, 300, 1800, 3600, 21_600, 86_400, 604_800, 2_592_000)
_COUNTS = (1, 10, 100, 1_000, 10_000, 100_000)
_SIZES = (1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 2_097_152, 8_388_608, 33_554_432)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric.

    Attributes:
        name: Its name.
        help: What it says.
        labels: Its labels, those that the meter adds included.
    """

    name: str
    help: str
    labels: tuple[str, ...]

    @property
    def exposed(self) -> str:
        """Its name at ``/metrics``."""
        return self.name

    @property
    def kind(self) -> str:
        """What Prometheus calls its type."""
        return type(self).__name__.lower()


@dataclass(frozen=True, slots=True)
class Counter(Metric):
    """Counts up."""

    def add(self, meter: MetricMeter, value: int = 1, **labels: str) -> None:
        """Count more."""
        meter.create_counter(self.name, self.help).add(value, labels)

    @property
    def exposed(self) -> str:
        """See base class."""
        return f"{self.name}_total"


@dataclass(frozen=True, slots=True)
class Gauge(Metric):
    """What is so now. The exporter adds no unit, so that the name has it."""

    def set(self, meter: MetricMeter, value: float, **labels: str) -> None:
        """Say what is so."""
        meter.create_gauge_float(self.name, self.help).set(value, labels)


@dataclass(frozen=True, slots=True)
class Histogram(Metric):
    """How values are spread; as the exporter counts them in buckets.

    Attributes:
        buckets: Their upper ends.
        unit: The unit; none: numbers of things.
    """

    buckets: Sequence[float]
    unit: Literal["", "seconds", "bytes"]

    def record(self, meter: MetricMeter, value: float, **labels: str) -> None:
        """Add a value."""
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
    "Runs that have begun, by what has started them: event, cron or invoke.",
    (*IN_WORKFLOWS, "trigger"),
)
RUNS_ENDED = Counter(
    "steporal_runs_ended",
    "Runs that have ended: finished, failed or cancelled; those that were terminated, or that Temporal timed out, say "
    "nothing.",
    (*IN_WORKFLOWS, "outcome"),
)
RUN_DURATION = Histogram(
    "steporal_run_duration", "From a run's start to its end, over all its executions.", IN_WORKFLOWS, _RUNS, "seconds"
)
BODY_ATTEMPTS = Counter(
    "steporal_body_attempts",
    "Attempts of a body that have ended: returned or raised. One that raises is tried again, with a backoff.",
    (*IN_WORKFLOWS, "outcome"),
)
CHECKPOINTS = Counter(
    "steporal_checkpoints",
    "Runs that have continued as new: as their history grew (history), to park (park), or as they were asked to "
    "(checkpoint).",
    (*IN_WORKFLOWS, "reason"),
)
MEMO_SIZE = Histogram(
    "steporal_memo_size",
    "What the results of a run's steps have as JSON, or compressed where they are large; when it ends or continues as "
    "new.",
    IN_WORKFLOWS,
    _SIZES,
    "bytes",
)

# --- steps ---------------------------------------------------------------------------------------------------------

STEPS_ENDED = Counter(
    "steporal_steps_ended",
    "Steps that have ended for good: finished, failed or cancelled; the kind is the method of `step`.",
    (*IN_WORKFLOWS, "kind", "outcome"),
)
STEP_DURATION = Histogram(
    "steporal_step_duration",
    "From a step's begin to its end, with all attempts and the time between; not of one that has gone over a "
    "continue-as-new.",
    (*IN_WORKFLOWS, "kind"),
    _STEPS,
    "seconds",
)
STEP_ATTEMPTS = Counter(
    "steporal_step_attempts",
    "Attempts of steps that run outside their run, on the worker that ran them: finished, failed (tried again or not) "
    "or cancelled.",
    (*IN_ACTIVITIES, "workflow_type", "outcome"),
)
STEP_ATTEMPT_DURATION = Histogram(
    "steporal_step_attempt_duration",
    "How long one attempt of a step ran.",
    (*IN_ACTIVITIES, "workflow_type"),
    _STEPS,
    "seconds",
)
STEPS_STUCK = Gauge(
    "steporal_steps_stuck",
    "Step functions whose attempt was cancelled or timed out, but which still run in a thread of this worker and keep "
    "its slot.",
    (*IN_PROCESSES, "task_queue"),
)
WAITS_OPENED = Counter(
    "steporal_waits_opened",
    "Waits of runs that have begun; the kind is the method that waits.",
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
    "Events that this process has sent, by the name or pattern that a trigger has for them, else other.",
    (*IN_PROCESSES, "event"),
)
EVENTS_MATCHED = Counter(
    "steporal_events_matched",
    "Runs that events have started; also those that were there, where an event was sent again.",
    (*IN_PROCESSES, "event", "workflow_type"),
)
EVENTS_UNMATCHED = Counter(
    "steporal_events_unmatched",
    "Events that have started nothing, and whose name no run waits for; but those by which runs tell their end.",
    (*IN_PROCESSES, "event"),
)
EXPRESSIONS_OVER_BUDGET = Counter(
    "steporal_expressions_over_budget",
    "Evaluations that took more than 100,000 units for an event, so that the expression counted as false; by the "
    "workflow whose trigger has it, or the topic (steporal.topic) where a run waits.",
    IN_WORKFLOWS,
)
STARTS_REFUSED = Counter(
    "steporal_starts_refused",
    "Runs that an event was to start, and that Temporal has refused for good; the other runs of the event start.",
    IN_WORKFLOWS,
)
TOPIC_EVENTS = Counter(
    "steporal_topic_events",
    "Events of a name that runs wait for: matched a wait or a cancel_on of some run, or unmatched.",
    (*IN_WORKFLOWS, "outcome"),
)
MESSAGES_DROPPED = Counter(
    "steporal_messages_dropped",
    "Messages to Steporal's own workflows that could not be read, such as those of a client that is not Steporal's.",
    IN_WORKFLOWS,
)
TOPIC_BACKLOG = Histogram(
    "steporal_topic_backlog",
    "How many events and deliveries wait in a topic, each time it takes some to deliver.",
    IN_WORKFLOWS,
    _COUNTS,
    "",
)
DELIVERIES = Counter(
    "steporal_deliveries",
    "Events told to runs that wait, by the kind of wait (once, each, cancel): delivered, gone (the run has ended) or "
    "later (it takes no more signals now).",
    (*IN_ACTIVITIES, "kind", "outcome"),
)
DELIVERY_LATENCY = Histogram(
    "steporal_delivery_latency",
    "From a topic's taking of an event to the moment in which a run has been told.",
    IN_WORKFLOWS,
    _LATENCIES,
    "seconds",
)

# --- HTTP ----------------------------------------------------------------------------------------------------------

GATEWAY_REQUESTS = Counter(
    "steporal_gateway_requests",
    "Requests that the gateway has answered; the route is the path as the gateway's description has it, else other.",
    (*IN_PROCESSES, "route", "method", "status"),
)
GATEWAY_REQUEST_DURATION = Histogram(
    "steporal_gateway_request_duration",
    "From a request's headers to the end of its answer.",
    (*IN_PROCESSES, "route", "method"),
    _LATENCIES,
    "seconds",
)
SINK_DELIVERIES = Counter(
    "steporal_sink_deliveries",
    "Events that sinks have delivered, failed to deliver for good, or were cancelled with.",
    (*IN_WORKFLOWS, "outcome"),
)
SINK_ATTEMPTS = Counter(
    "steporal_sink_attempts",
    "Attempts to deliver an event to a sink: delivered, refused (not tried again), failed, or cancelled.",
    (*IN_ACTIVITIES, "workflow_type", "outcome"),
)

# --- processes -----------------------------------------------------------------------------------------------------

BUILD_INFO = Gauge(
    "steporal_build_info",
    "1, for each part of this process: worker or gateway, and Steporal's version.",
    (*IN_PROCESSES, "app", "process", "version"),
)
LIST_IN_FORCE = Gauge(
    "steporal_list_in_force",
    "1 if the triggers and schedules of this worker are those in force, 0 if another list of its app is.",
    (*IN_PROCESSES, "app"),
)
TASK_QUEUE_BACKLOG = Gauge(
    "steporal_task_queue_backlog",
    "Tasks that wait for a worker, about; asked of Temporal.",
    (*IN_PROCESSES, "task_queue", "task_type"),
)
TASK_QUEUE_BACKLOG_AGE = Gauge(
    "steporal_task_queue_backlog_age_seconds",
    "How long the oldest task has waited for a worker; asked of Temporal.",
    (*IN_PROCESSES, "task_queue", "task_type"),
)
TASK_QUEUE_POLLERS = Gauge(
    "steporal_task_queue_pollers",
    "Workers that have polled a task queue in the last minute and a half; asked of Temporal.",
    (*IN_PROCESSES, "task_queue", "task_type"),
)

METRICS: tuple[Metric, ...] = tuple(found for found in list(globals().values()) if isinstance(found, Metric))
"""All of them."""


def buckets() -> Mapping[str, Sequence[float]]:
    """The buckets of the histograms, by name, as ``PrometheusConfig`` takes them."""
    return {metric.name: metric.buckets for metric in METRICS if isinstance(metric, Histogram)}


def meter_of(temporal: temporalio.client.Client) -> MetricMeter | None:
    """The meter of a process, for what concerns the namespace of a connection; None if nobody measures."""
    from temporalio.runtime import Runtime

    meter = (temporal.service_client.config.runtime or Runtime.default()).metric_meter
    return None if meter is MetricMeter.noop else meter.with_additional_attributes({"namespace": temporal.namespace})


# --- as documentation ----------------------------------------------------------------------------------------------


def markdown_table() -> str:
    """All metrics, for ``docs/metrics.md``; the labels that the meters add are in the text before it."""
    rows = []
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels if label != "namespace")
        rows.append(f"| `{metric.exposed}` | {metric.kind} | {labels} | {metric.help} |\n")
    return "".join(["| metric | type | labels, with `namespace` | |\n", "|---|---|---|---|\n", *rows])
