"""A run in a worker's memory: what the SDK's core does between the server and the workflow instance.

From events it makes the jobs of activations, from commands it makes what the server is asked for, and it resolves
local activities within the workflow task. A history from before is replayed, and what the instance asks for then is
compared with what it asked for at first.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from typing import Any, Protocol

import temporalio.common
import temporalio.converter
import temporalio.workflow
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.bridge.proto.child_workflow import StartChildWorkflowExecutionFailedCause
from temporalio.bridge.proto.workflow_activation import (
    InitializeWorkflow,
    RemoveFromCache,
    WorkflowActivation,
    WorkflowActivationJob,
)
from temporalio.bridge.proto.workflow_commands import WorkflowCommand
from temporalio.common import MetricMeter
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner

from .history import LOCAL_ACTIVITY, PATCH, History, cancelled, kind_of, nanoseconds, timestamp, value_of

TERMINAL = (
    "complete_workflow_execution",
    "fail_workflow_execution",
    "cancel_workflow_execution",
    "continue_as_new_workflow_execution",
)


_EVICTION_ATTEMPTS = 10


class NotDeterministic(Exception):
    """A replay asked for something else than the history has."""


class TaskFailed(Exception):
    """The instance failed a workflow task, which a worker would try again for ever."""


@dataclass(slots=True)
class Command:
    """What an instance asks the server for.

    Attributes:
        kind: The name of the command, or ``local_activity`` for the marker of one that is done.
        command: As the instance has it.
        local: How the local activity ended.
    """

    kind: str
    command: WorkflowCommand
    local: LocalEnd | None = None

    @property
    def body(self) -> Any:
        return getattr(self.command, self.kind)


@dataclass(frozen=True, slots=True)
class LocalEnd:
    """How a local activity ended.

    Attributes:
        at: When, in nanoseconds since the epoch.
        index: The number of the activation, in its workflow task, that brought it.
        attempt: The last attempt.
        result: What it returned.
        failure: What it failed with.
    """

    at: int
    index: int
    attempt: int = 1
    result: Payload | None = None
    failure: Failure | None = None


class Locals(Protocol):
    """Performs local activities."""

    def duration(self, command: WorkflowCommand) -> int:
        """How long one takes, in nanoseconds."""

    def perform(self, command: WorkflowCommand, at: int) -> tuple[Payload | None, Failure | None, int]:
        """Perform one: its result, its failure, and how many attempts it took."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a worker gives to its instances.

    Attributes:
        runner: Makes them.
        definitions: The workflows, by type.
        task_queue: The worker's.
        loop: The event loop that is the running one while an instance is made.
    """

    runner: WorkflowRunner
    definitions: dict[str, temporalio.workflow._Definition]
    task_queue: str
    loop: asyncio.AbstractEventLoop


@dataclass(slots=True)
class _Local:
    command: WorkflowCommand
    due: int


@dataclass(slots=True)
class _Task:
    """One workflow task: what has led to it, and what came of it, if it is over."""

    jobs: list[WorkflowActivationJob] = field(default_factory=list)
    started: HistoryEvent | None = None
    commands: list[HistoryEvent] = field(default_factory=list)
    is_done: bool = False


class CachedRun:
    """One execution in a worker's memory."""

    def __init__(self, surroundings: Surroundings, locals: Locals, workflow_id: str, run_id: str) -> None:
        self._surroundings = surroundings
        self._locals = locals
        self._workflow_id = workflow_id
        self._run_id = run_id
        self.instance: WorkflowInstance | None = None
        self._read = 0
        self._activities: dict[int, int] = {}  # seq by the event that scheduled it
        self._open: set[int] = set()  # activities that the instance waits for
        self._timers: set[int] = set()
        self._children: dict[int, int] = {}
        self._open_children: dict[int, bool] = {}  # whether it has started
        self._signals: dict[int, int] = {}
        self._by_seq: dict[tuple[str, int], WorkflowCommand] = {}
        self._reset_children: set[int] = set()
        self.clock = 0
        self.activations = 0

    def evict(self) -> None:
        """Forget the run, in the way that a worker does."""
        if self.instance is None:
            return
        job = WorkflowActivationJob(remove_from_cache=RemoveFromCache(message="evicted"))
        for _ in range(_EVICTION_ATTEMPTS):  # a worker tries for ever, as a body may survive the first cancellation
            try:
                self.instance.activate(WorkflowActivation(run_id=self._run_id, jobs=[job]))
                break
            except RuntimeError:
                asyncio._set_running_loop(None)
        self.instance = None

    # --- tasks -----------------------------------------------------------------------------------------------------

    def process(self, history: History) -> list[Command]:
        """Perform the workflow task that has just started, after a replay of those before that are not known yet.

        Raises:
            NotDeterministic: A replay went another way.
            TaskFailed: The instance failed the task.
        """
        task = _Task()
        events = history.events
        while True:
            event = events[self._read]
            self._read += 1
            kind = kind_of(event)
            if kind == "workflow_task_started":
                task.started = event
                if self._read == len(events):
                    return self._perform(task, history)
            elif kind == "workflow_task_completed":
                task.is_done = True
                while self._read < len(events) and _is_command(events[self._read], event.event_id):
                    task.commands.append(events[self._read])
                    self._read += 1
                self._match(self._perform(task, history), task.commands)
                task = _Task()
            else:
                task.jobs.extend(self._jobs(kind, event))

    def scheduled_of(self, seq: int) -> int:
        """The event that scheduled an activity, by its number."""
        return next(event for event, of in self._activities.items() if of == seq)

    def recorded(self, commands: list[Command], events: list[HistoryEvent], read: int) -> None:
        """The server has recorded what a task asked for.

        Args:
            commands: What :meth:`process` has returned.
            events: What they have become.
            read: How many events of the history are known now.
        """
        self._match(commands, events)
        self._read = read

    def _perform(self, task: _Task, history: History) -> list[Command]:
        assert task.started is not None
        started = task.started.workflow_task_started_event_attributes
        self.clock = nanoseconds(task.started.event_time)
        if not task.jobs:
            return []
        markers = _markers(task.commands)
        patches = [
            value_of(e.marker_recorded_event_attributes.details["patch-data"].payloads[0])["id"]
            for e in task.commands
            if _is_marker(e, PATCH)
        ]
        out: list[Command] = []
        running: dict[int, _Local] = {}
        jobs = _in_order(task.jobs)
        for id in reversed(patches):
            job = WorkflowActivationJob()
            job.notify_has_patch.patch_id = id
            jobs.insert(0, job)
        index = 0
        while True:
            activation = WorkflowActivation(
                run_id=self._run_id,
                timestamp=timestamp(self.clock),
                is_replaying=task.is_done,
                history_length=task.started.event_id,
                history_size_bytes=started.history_size_bytes,
                continue_as_new_suggested=started.suggest_continue_as_new,
                jobs=jobs,
            )
            jobs = self._take(self._activate(activation), out, running, index)
            if any(command.kind in TERMINAL for command in out):
                return out
            index += 1
            if jobs:
                continue
            if not running:
                return out
            seq, end = self._next_end(running, markers if task.is_done else None, index)
            local = running.pop(seq)
            self.clock = max(self.clock, end.at)
            out.append(Command("local_activity", local.command, end))
            jobs = [_resolved_local(seq, end)]

    def _next_end(
        self, running: dict[int, _Local], markers: dict[int, LocalEnd] | None, index: int
    ) -> tuple[int, LocalEnd]:
        if markers is not None:
            known = [(markers[seq].index, seq) for seq in running if seq in markers]
            if not known:
                raise NotDeterministic(f"local activities {sorted(running)} have no markers")
            seq = min(known)[1]
            return seq, markers[seq]
        due, seq = min((local.due, seq) for seq, local in running.items())
        at = max(due, self.clock)
        result, failure, attempt = self._locals.perform(running[seq].command, at)
        return seq, LocalEnd(at, index, attempt, result, failure)

    def _activate(self, activation: WorkflowActivation) -> list[WorkflowCommand]:
        self.activations += 1
        if self.instance is None:
            self.instance = self._create(activation)
        try:
            completion = self.instance.activate(activation)
        finally:
            asyncio._set_running_loop(None)
        if completion.HasField("failed"):
            raise TaskFailed(_text(completion.failed.failure))
        return list(completion.successful.commands)

    def _create(self, activation: WorkflowActivation) -> WorkflowInstance:
        init = next(job.initialize_workflow for job in activation.jobs if job.HasField("initialize_workflow"))
        info = temporalio.workflow.Info(
            attempt=1,
            continued_run_id=init.continued_from_execution_run_id or None,
            cron_schedule=None,
            execution_timeout=None,
            first_execution_run_id=init.first_execution_run_id,
            headers={},
            namespace="default",
            original_execution_run_id=init.original_execution_run_id or self._run_id,
            parent=None,
            root=None,
            priority=temporalio.common.Priority.default,
            raw_memo={},
            retry_policy=None,
            run_id=self._run_id,
            run_timeout=None,
            search_attributes={},
            start_time=activation.timestamp.ToDatetime(tzinfo=UTC),
            task_queue=self._surroundings.task_queue,
            task_timeout=timedelta(seconds=10),
            typed_search_attributes=temporalio.common.TypedSearchAttributes.empty,
            workflow_id=self._workflow_id,
            workflow_start_time=init.start_time.ToDatetime(tzinfo=UTC),
            workflow_type=init.workflow_type,
        )
        converter = temporalio.converter.DataConverter.default
        details = WorkflowInstanceDetails(
            payload_converter_factory=converter._new_payload_converter,
            failure_converter_class=converter.failure_converter_class,
            interceptor_classes=[],
            defn=self._surroundings.definitions[init.workflow_type],
            info=info,
            randomness_seed=init.randomness_seed,
            extern_functions={
                "__temporal_get_metric_meter": lambda: MetricMeter.noop,
                "__temporal_assert_local_activity_valid": lambda name: None,
            },
            disable_eager_activity_execution=True,
            worker_level_failure_exception_types=[],
            patch_activation_callback=None,
            last_completion_result=Payloads(),
            last_failure=None,
        )
        asyncio._set_running_loop(self._surroundings.loop)
        try:
            return self._surroundings.runner.create_instance(details)
        finally:
            asyncio._set_running_loop(None)

    # --- from events to jobs ---------------------------------------------------------------------------------------

    def _jobs(self, kind: str, event: HistoryEvent) -> list[WorkflowActivationJob]:
        make: Callable[[WorkflowActivationJob, Any, HistoryEvent], bool] | None = getattr(self, f"_on_{kind}", None)
        if make is None:
            return []
        job = WorkflowActivationJob()
        attributes = getattr(event, f"{kind}_event_attributes")
        return [job] if make(job, attributes, event) else []

    def _on_workflow_execution_started(self, job: WorkflowActivationJob, it: Any, event: HistoryEvent) -> bool:
        job.initialize_workflow.CopyFrom(
            InitializeWorkflow(
                workflow_type=it.workflow_type.name,
                workflow_id=self._workflow_id,
                arguments=it.input.payloads,
                randomness_seed=seed_of(it.original_execution_run_id),
                continued_from_execution_run_id=it.continued_execution_run_id,
                first_execution_run_id=it.first_execution_run_id,
                original_execution_run_id=it.original_execution_run_id,
                attempt=1,
                start_time=event.event_time,
            )
        )
        return True

    def _on_workflow_task_failed(self, job: WorkflowActivationJob, it: Any, event: HistoryEvent) -> bool:
        if it.cause != WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW:
            return False
        job.update_random_seed.randomness_seed = seed_of(it.new_run_id)
        return True

    def _on_workflow_execution_signaled(self, job: WorkflowActivationJob, it: Any, event: HistoryEvent) -> bool:
        job.signal_workflow.signal_name = it.signal_name
        job.signal_workflow.input.extend(it.input.payloads)
        return True

    def _on_workflow_execution_cancel_requested(self, job: WorkflowActivationJob, it: Any, event: HistoryEvent) -> bool:
        job.cancel_workflow.reason = it.cause
        return True

    def _on_timer_fired(self, job: WorkflowActivationJob, it: Any, event: HistoryEvent) -> bool:
        job.fire_timer.seq = int(it.timer_id)
        self._timers.discard(int(it.timer_id))
        return True

    def _of_activity(self, job: WorkflowActivationJob, it: Any) -> WorkflowCommand | None:
        seq = self._activities[it.scheduled_event_id]
        if seq not in self._open:
            return None
        self._open.discard(seq)
        job.resolve_activity.seq = seq
        return self._by_seq["activity", seq]

    def _on_activity_task_completed(self, job: WorkflowActivationJob, it: Any, event: HistoryEvent) -> bool:
        if self._of_activity(job, it) is None:
            return False
        job.resolve_activity.result.completed.result.CopyFrom(it.result.payloads[0])
        return True

    def _on_activity_task_failed(self, job: WorkflowActivationJob, it: Any, event: HistoryEvent) -> bool:
        if (command := self._of_activity(job, it)) is None:
            return False
        job.resolve_activity.result.failed.failure.CopyFrom(_of_activity(command, "Activity task failed", it.failure))
        return True

    def _on_activity_task_timed_out(self, job: WorkflowActivationJob, it: Any, event: HistoryEvent) -> bool:
        if (command := self._of_activity(job, it)) is None:
            return False
        job.resolve_activity.result.failed.failure.CopyFrom(
            _of_activity(command, "Activity task timed out", it.failure)
        )
        return True

    def _on_child_workflow_execution_started(self, job: WorkflowActivationJob, it: Any, event: HistoryEvent) -> bool:
        seq = self._children[it.initiated_event_id]
        if seq not in self._open_children:
            return False
        self._open_children[seq] = True
        job.resolve_child_workflow_execution_start.seq = seq
        job.resolve_child_workflow_execution_start.succeeded.run_id = it.workflow_execution.run_id
        return True

    def _on_start_child_workflow_execution_failed(
        self, job: WorkflowActivationJob, it: Any, event: HistoryEvent
    ) -> bool:
        seq = self._children[it.initiated_event_id]
        if self._open_children.pop(seq, None) is None:
            return False
        start = job.resolve_child_workflow_execution_start
        start.seq = seq
        start.failed.workflow_id = it.workflow_id
        start.failed.workflow_type = it.workflow_type.name
        start.failed.cause = (
            StartChildWorkflowExecutionFailedCause.START_CHILD_WORKFLOW_EXECUTION_FAILED_CAUSE_WORKFLOW_ALREADY_EXISTS
        )
        return True

    def _on_child_workflow_execution_completed(self, job: WorkflowActivationJob, it: Any, event: HistoryEvent) -> bool:
        seq = self._children[it.initiated_event_id]
        if self._open_children.pop(seq, None) is None:
            return False
        job.resolve_child_workflow_execution.seq = seq
        job.resolve_child_workflow_execution.result.completed.result.CopyFrom(it.result.payloads[0])
        return True

    def _on_child_workflow_execution_failed(self, job: WorkflowActivationJob, it: Any, event: HistoryEvent) -> bool:
        seq = self._children[it.initiated_event_id]
        if self._open_children.pop(seq, None) is None:
            return False
        failure = Failure(message="Child Workflow execution failed", cause=it.failure)
        failure.child_workflow_execution_failure_info.workflow_type.name = it.workflow_type.name
        failure.child_workflow_execution_failure_info.workflow_execution.CopyFrom(it.workflow_execution)
        job.resolve_child_workflow_execution.seq = seq
        job.resolve_child_workflow_execution.result.failed.failure.CopyFrom(failure)
        return True

    def _on_external_workflow_execution_signaled(
        self, job: WorkflowActivationJob, it: Any, event: HistoryEvent
    ) -> bool:
        job.resolve_signal_external_workflow.seq = self._signals[it.initiated_event_id]
        return True

    def _on_signal_external_workflow_execution_failed(
        self, job: WorkflowActivationJob, it: Any, event: HistoryEvent
    ) -> bool:
        job.resolve_signal_external_workflow.seq = self._signals[it.initiated_event_id]
        failure = Failure(message="Unable to signal external workflow because it was not found", source="CoreSDK")
        failure.application_failure_info.SetInParent()
        job.resolve_signal_external_workflow.failure.CopyFrom(failure)
        return True

    # --- from what the instance asks for to commands ---------------------------------------------------------------

    def _take(
        self, commands: list[WorkflowCommand], out: list[Command], running: dict[int, _Local], index: int
    ) -> list[WorkflowActivationJob]:
        """Add to what the task asks the server for; returns what the instance hears of it at once."""
        jobs: list[WorkflowActivationJob] = []
        for command in commands:
            kind = command.WhichOneof("variant")
            assert kind is not None
            body = getattr(command, kind)
            if kind == "schedule_local_activity":
                running[body.seq] = _Local(command, self.clock + self._locals.duration(command))
            elif kind == "request_cancel_local_activity":
                if local := running.pop(body.seq, None):
                    end = LocalEnd(self.clock, index + 1, failure=cancelled("Local Activity cancelled"))
                    out.append(Command("local_activity", local.command, end))
                    jobs.append(_resolved_local(body.seq, end, is_cancelled=True))
            elif kind == "cancel_timer":
                if not _taken_back(out, "start_timer", body.seq) and body.seq in self._timers:
                    out.append(Command(kind, command))
                self._timers.discard(body.seq)
            elif kind == "start_timer":
                self._timers.add(body.seq)
                out.append(Command(kind, command))
            elif kind == "schedule_activity":
                self._open.add(body.seq)
                self._by_seq["activity", body.seq] = command
                out.append(Command(kind, command))
            elif kind == "request_cancel_activity":
                if body.seq in self._open:
                    self._open.discard(body.seq)
                    scheduled = self._by_seq["activity", body.seq]
                    if not _taken_back(out, "schedule_activity", body.seq):
                        out.append(Command(kind, command))
                    job = WorkflowActivationJob()
                    job.resolve_activity.seq = body.seq
                    why = _of_activity(scheduled, "Activity cancelled", cancelled("Activity cancelled"))
                    job.resolve_activity.result.cancelled.failure.CopyFrom(why)
                    jobs.append(job)
            elif kind == "start_child_workflow_execution":
                self._open_children[body.seq] = False
                self._by_seq["child", body.seq] = command
                out.append(Command(kind, command))
            elif kind == "cancel_child_workflow_execution":
                jobs.extend(self._abandon(body.child_workflow_seq, out))
            elif kind == "cancel_signal_workflow":
                pass  # it is on its way
            else:
                out.append(Command(kind, command))
        return jobs

    def _abandon(self, seq: int, out: list[Command]) -> list[WorkflowActivationJob]:
        """All children are abandoned when they are cancelled: they go on, and nobody waits for them."""
        has_started = self._open_children.pop(seq, None)
        if has_started is None:
            return []
        child = self._by_seq["child", seq].start_child_workflow_execution
        failure = Failure(message="Child Workflow execution cancelled", cause=cancelled("Child Workflow cancelled"))
        failure.child_workflow_execution_failure_info.workflow_type.name = child.workflow_type
        job = WorkflowActivationJob()
        if has_started:
            job.resolve_child_workflow_execution.seq = seq
            job.resolve_child_workflow_execution.result.cancelled.failure.CopyFrom(failure)
        else:
            _taken_back(out, "start_child_workflow_execution", seq)
            job.resolve_child_workflow_execution_start.seq = seq
            job.resolve_child_workflow_execution_start.cancelled.failure.CopyFrom(failure)
        return [job]

    def _match(self, commands: list[Command], events: list[HistoryEvent]) -> None:
        """Compare what a task asked for with what is recorded, and remember which event is whose."""
        events = [event for event in events if event.WhichOneof("attributes") != _SEARCH_ATTRIBUTES]
        commands = [c for c in commands if c.kind != "upsert_workflow_search_attributes"]
        for command, event in zip(commands, events, strict=False):
            if (asked := _asked(command)) != (known := _known(event, self._activities)):
                raise NotDeterministic(f"event {event.event_id} is {known}, and the replay asks for {asked}")
            if command.kind == "schedule_activity":
                self._activities[event.event_id] = command.body.seq
            elif command.kind == "start_child_workflow_execution":
                self._children[event.event_id] = command.body.seq
            elif command.kind == "signal_external_workflow_execution":
                self._signals[event.event_id] = command.body.seq
        if len(commands) > len(events):
            raise NotDeterministic(f"the replay asks for {_asked(commands[len(events)])} more than the history has")
        if len(events) > len(commands):
            raise NotDeterministic(f"the replay does not ask for event {_known(events[len(commands)], {})}")


_SEARCH_ATTRIBUTES = "upsert_workflow_search_attributes_event_attributes"

EVENTS = {
    "schedule_activity": "activity_task_scheduled",
    "request_cancel_activity": "activity_task_cancel_requested",
    "start_timer": "timer_started",
    "cancel_timer": "timer_canceled",
    "start_child_workflow_execution": "start_child_workflow_execution_initiated",
    "signal_external_workflow_execution": "signal_external_workflow_execution_initiated",
    "upsert_workflow_search_attributes": "upsert_workflow_search_attributes",
    "modify_workflow_properties": "workflow_properties_modified",
    "complete_workflow_execution": "workflow_execution_completed",
    "fail_workflow_execution": "workflow_execution_failed",
    "cancel_workflow_execution": "workflow_execution_canceled",
    "continue_as_new_workflow_execution": "workflow_execution_continued_as_new",
    "local_activity": "marker_recorded",
    "set_patch_marker": "marker_recorded",
}
COMMAND_EVENTS = frozenset(f"{name}_event_attributes" for name in EVENTS.values())


def _is_command(event: HistoryEvent, completed: int) -> bool:
    kind = event.WhichOneof("attributes")
    return kind in COMMAND_EVENTS and getattr(event, kind).workflow_task_completed_event_id == completed


def _asked(command: Command) -> tuple[Any, ...]:
    kind, body = command.kind, None
    if kind == "local_activity":
        local = command.command.schedule_local_activity
        return ("marker", local.activity_id, local.activity_type)
    body = command.body
    if kind == "schedule_activity":
        return (EVENTS[kind], body.activity_id, body.activity_type)
    if kind == "request_cancel_activity":
        return (EVENTS[kind], body.seq)
    if kind in ("start_timer", "cancel_timer"):
        return (EVENTS[kind], str(body.seq))
    if kind == "start_child_workflow_execution":
        return (EVENTS[kind], body.workflow_id, body.workflow_type)
    if kind == "signal_external_workflow_execution":
        return (EVENTS[kind], body.workflow_execution.workflow_id, body.signal_name)
    if kind == "set_patch_marker":
        return ("patch", body.patch_id)
    return (EVENTS[kind],)


def _known(event: HistoryEvent, activities: dict[int, int]) -> tuple[Any, ...]:
    kind = kind_of(event)
    it = getattr(event, f"{kind}_event_attributes")
    if kind == "marker_recorded" and it.marker_name == LOCAL_ACTIVITY:
        data = value_of(it.details["data"].payloads[0])
        return ("marker", data["activity_id"], data["activity_type"])
    if kind == "marker_recorded":
        return ("patch", value_of(it.details["patch-data"].payloads[0])["id"])
    if kind == "activity_task_scheduled":
        return (kind, it.activity_id, it.activity_type.name)
    if kind == "activity_task_cancel_requested":
        return (kind, activities.get(it.scheduled_event_id))
    if kind in ("timer_started", "timer_canceled"):
        return (kind, it.timer_id)
    if kind == "start_child_workflow_execution_initiated":
        return (kind, it.workflow_id, it.workflow_type.name)
    if kind == "signal_external_workflow_execution_initiated":
        return (kind, it.workflow_execution.workflow_id, it.signal_name)
    return (kind,)


def _is_marker(event: HistoryEvent, name: str) -> bool:
    return (
        event.WhichOneof("attributes") == "marker_recorded_event_attributes"
        and event.marker_recorded_event_attributes.marker_name == name
    )


def _markers(events: list[HistoryEvent]) -> dict[int, LocalEnd]:
    """How local activities ended, by seq, as a history has it."""
    found = {}
    for event in events:
        if _is_marker(event, LOCAL_ACTIVITY):
            marker = event.marker_recorded_event_attributes
            data = value_of(marker.details["data"].payloads[0])
            at = data["complete_time"]["seconds"] * 10**9 + data["complete_time"]["nanos"]
            failure = marker.failure if marker.HasField("failure") else None
            result = None if failure else marker.details["result"].payloads[0]
            found[data["seq"]] = LocalEnd(at, data["activation_index"], data["attempt"], result, failure)
    return found


def _in_order(jobs: list[WorkflowActivationJob]) -> list[WorkflowActivationJob]:
    """The start first, then the seed, then signals, then the rest, as the SDK's core has them."""
    order = {"initialize_workflow": 0, "update_random_seed": 1, "signal_workflow": 2}
    return sorted(jobs, key=lambda job: order.get(str(job.WhichOneof("variant")), 3))


def _resolved_local(seq: int, end: LocalEnd, *, is_cancelled: bool = False) -> WorkflowActivationJob:
    job = WorkflowActivationJob()
    job.resolve_activity.seq = seq
    job.resolve_activity.is_local = True
    if end.failure is None:
        assert end.result is not None
        job.resolve_activity.result.completed.result.CopyFrom(end.result)
    elif is_cancelled:
        job.resolve_activity.result.cancelled.failure.CopyFrom(end.failure)
    else:
        job.resolve_activity.result.failed.failure.CopyFrom(end.failure)
    return job


def _taken_back(out: list[Command], kind: str, seq: int) -> bool:
    """Take a command back that the same task has issued; whether there is one."""
    for position, command in enumerate(out):
        if command.kind == kind and command.body.seq == seq:
            del out[position]
            return True
    return False


def _of_activity(command: WorkflowCommand, message: str, cause: Failure) -> Failure:
    scheduled = command.schedule_activity
    failure = Failure(message=message, cause=cause)
    failure.activity_failure_info.activity_id = scheduled.activity_id
    failure.activity_failure_info.activity_type.name = scheduled.activity_type
    return failure


def _text(failure: Failure) -> str:
    text = f"{failure.application_failure_info.type}: {failure.message}\n{failure.stack_trace}"
    return f"{text}\ncaused by {_text(failure.cause)}" if failure.HasField("cause") else text


def seed_of(run_id: str) -> int:
    """The seed of an execution's randomness."""
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:8], "big")


def definition_of(workflow_class: type) -> temporalio.workflow._Definition:
    """The SDK's definition of a workflow class."""
    return temporalio.workflow._Definition.must_from_class(workflow_class)
