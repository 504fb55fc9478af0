"""Temporal's server, a worker, and the time, for one run and its executions: in memory, in the calling thread."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

from temporalio.api.common.v1 import ActivityType, Payload, WorkflowExecution, WorkflowType
from temporalio.api.enums.v1 import SignalExternalWorkflowExecutionFailedCause, TimeoutType, WorkflowTaskFailedCause
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.bridge.proto.workflow_commands import WorkflowCommand
from temporalio.common import RawValue
from temporalio.converter import DataConverter

from steporal.closures.calls import call_metadata
from steporal.closures.references import AppCode, Resolver
from steporal.values.converter import from_raw
from steporal.wire.failures import application_error, is_final
from steporal.wire.names import REPORT, RUN_STEP

from .core import EVENTS, TERMINAL, CachedRun, Command, Surroundings, TaskFailed
from .effects import Recorder, use
from .history import LOCAL_ACTIVITY, PATCH, History, kind_of, nanoseconds, payload, payloads, value_of
from .world import Child, World, label_of

T = TypeVar("T")

SECOND = 10**9
MILLISECOND = 10**6
START = 1_767_225_600 * SECOND  # a Thursday

_MOST_TASKS = 1_000
_TIMERS_ARE_LATE = MILLISECOND  # as a server's are: a deadline is never met to the nanosecond


_NOT_FOUND = SignalExternalWorkflowExecutionFailedCause.Value(
    "SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_FAILED_CAUSE_EXTERNAL_WORKFLOW_EXECUTION_NOT_FOUND"
)


class Stuck(Exception):
    """The run does not end: nothing happens any more, or too much."""


class Interruptions(Protocol):
    """What is done to a run."""

    def before_task(self, service: Service) -> None:
        """Before each workflow task."""

    def suggests(self, service: Service) -> bool:
        """Whether Temporal suggests that the execution continues as new, in the workflow task that begins."""

    def loses(self, service: Service) -> bool:
        """Whether the worker is lost in the workflow task that it has just performed, and nobody hears of that."""

    def between(self, service: Service) -> None:
        """When all of a moment is over, before the time goes on."""


class Uninterrupted:
    """Nothing is done to a run."""

    def before_task(self, service: Service) -> None:
        pass

    def suggests(self, service: Service) -> bool:
        return False

    def loses(self, service: Service) -> bool:
        return False

    def between(self, service: Service) -> None:
        pass


@dataclass(slots=True, eq=False)
class Activity:
    """An activity that the server has open."""

    scheduled: int
    command: WorkflowCommand
    label: str = ""
    attempt: int = 0
    is_running: bool = False
    is_cancelled: bool = False
    is_over: bool = False
    last_failure: Failure | None = None

    @property
    def id(self) -> str:
        return self.command.schedule_activity.activity_id


@dataclass(slots=True, eq=False)
class Execution:
    """One execution of the run."""

    number: int
    run_id: str
    first_run_id: str
    history: History
    cached: CachedRun
    is_open: bool = True
    is_in_task: bool = False
    needs_task: bool = True
    activities: dict[int, Activity] = field(default_factory=dict)
    timers: dict[str, HistoryEvent] = field(default_factory=dict)
    buffered: list[Callable[[], object]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run has ended.

    Attributes:
        kind: ``completed``, ``failed`` or ``cancelled``.
        value: Its result, or the error's type and message.
        at: When, in seconds since its start.
    """

    kind: str
    value: Any
    at: float


def number_of(run_id: str) -> int:
    """The inverse of :meth:`Service.run_id_of`."""
    return int(run_id.rpartition("-")[2])


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return cast(T, stop.value)
    coroutine.close()
    raise RuntimeError("the coroutine waits for something")


class Service:
    """One run, from its start to its end.

    Args:
        surroundings: The worker's.
        client: The app's steporal client.
        interruptions: What is done to the run.
        began: When it starts, in nanoseconds since the epoch.
    """

    def __init__(
        self, surroundings: Surroundings, client: Any, interruptions: Interruptions, began: int = START
    ) -> None:
        self._surroundings = surroundings
        self._client = client
        self._interruptions = interruptions
        self._agenda: list[tuple[int, int, Callable[[], object]]] = []
        self._entries = 0
        self._app = AppCode({w.id: w.handler for w in client.workflows}, client.step_packages)
        self.now = self.began = began
        self.tasks = 0
        self.moments: list[int] = []
        self.recorder = Recorder()
        self.world = World(self.signal)
        self.executions: list[Execution] = []
        self.workflow_id = ""
        self.is_rerun = False
        self.ended: Ended | None = None

    @property
    def execution(self) -> Execution:
        return self.executions[-1]

    @property
    def elapsed(self) -> float:
        """How long it is since the run's start, in seconds."""
        return (self.now - self.began) / SECOND

    # --- a run -----------------------------------------------------------------------------------------------------

    def run_id_of(self, number: int) -> str:
        """Temporal's run id of the execution with this number; a rerun has other ones than the run before it."""
        return f"{'3d6e1f5b' if self.is_rerun else '00000000'}-0000-4000-8000-{number:012d}"

    def start(self, workflow: str, id: str, arguments: list[Any], *, is_rerun: bool = False) -> None:
        """Start the run."""
        self.is_rerun = is_rerun
        self.workflow_id = f"{workflow}/{id}"
        self._execute(workflow, [payload(value) for value in arguments])

    def _execute(self, workflow: str, arguments: list[Payload]) -> None:
        before = self.executions[-1] if self.executions else None
        execution = self.new_execution(before.first_run_id if before else None)
        execution.history.add(
            self.now,
            "workflow_execution_started",
            workflow_type=WorkflowType(name=workflow),
            workflow_id=self.workflow_id,
            task_queue=TaskQueue(name=self._surroundings.task_queue),
            input=payloads(arguments),
            original_execution_run_id=execution.run_id,
            first_execution_run_id=execution.first_run_id,
            continued_execution_run_id=before.run_id if before else "",
            attempt=1,
        )

    def new_execution(self, first_run_id: str | None) -> Execution:
        """One more execution of the run, without a history."""
        number = len(self.executions)
        run_id = self.run_id_of(number)
        cached = CachedRun(self._surroundings, self, self.workflow_id, run_id)
        execution = Execution(number, run_id, first_run_id or run_id, History(), cached)
        self.executions.append(execution)
        return execution

    def forget(self, execution: Execution) -> None:
        """The worker has lost the run."""
        self.recorder.interrupted("a worker's loss")
        self._forget(execution)

    def _forget(self, execution: Execution) -> None:
        execution.cached.evict()
        self.recorder.forget()
        execution.cached = CachedRun(self._surroundings, self, self.workflow_id, execution.run_id)

    def run(self) -> Ended:
        """Go on until the run has ended.

        Raises:
            Stuck: It does not.
        """
        use(self.recorder)
        try:
            while (ended := self.ended) is None:
                if self.execution.needs_task:
                    self._interruptions.before_task(self)
                    self._task(self.execution)
                else:
                    self._interruptions.between(self)
                    self._next_moment()
        finally:
            for execution in self.executions:
                execution.cached.evict()
        return ended

    def at(self, moment: int, action: Callable[[], object]) -> None:
        """Do something at a moment, in nanoseconds since the epoch."""
        self._entries += 1
        heapq.heappush(self._agenda, (moment, self._entries, action))

    def after(self, nanoseconds: int, action: Callable[[], object]) -> None:
        """Do something after a while."""
        self.at(self.now + nanoseconds, action)

    def wait(self, nanoseconds: int) -> None:
        """Let time pass, and happen what happens meanwhile, without a workflow task."""
        self._until(self.now + nanoseconds)

    def next_at(self) -> int | None:
        """When the next thing happens."""
        return self._agenda[0][0] if self._agenda else None

    def _next_moment(self) -> None:
        if not self._agenda:
            raise Stuck("nothing happens any more")
        self.now = max(self.now, self._agenda[0][0])
        self._until(self.now)

    def _until(self, moment: int) -> None:
        """All that happens until a moment, that included."""
        while self._agenda and self._agenda[0][0] <= moment:
            at, _, action = heapq.heappop(self._agenda)
            self.now = max(self.now, at)
            action()
        self.now = max(self.now, moment)

    # --- workflow tasks --------------------------------------------------------------------------------------------

    def _task(self, execution: Execution) -> None:
        self.tasks += 1
        if self.tasks > _MOST_TASKS:
            raise Stuck(f"more than {_MOST_TASKS} workflow tasks")
        history = execution.history
        execution.needs_task = False
        self.moments.append(self.now)
        scheduled = history.add(self.now, "workflow_task_scheduled", attempt=1)
        started = history.add(
            self.now,
            "workflow_task_started",
            scheduled_event_id=scheduled.event_id,
            history_size_bytes=history.size,
            suggest_continue_as_new=self._interruptions.suggests(self),
        )
        ids = {"scheduled_event_id": scheduled.event_id, "started_event_id": started.event_id}
        execution.is_in_task = True
        begun = len(self.recorder.order)
        commands = execution.cached.process(history)
        in_task = self.recorder.order[begun:]
        self._until(max(self.now, execution.cached.clock))
        execution.is_in_task = False
        if is_lost := self._interruptions.loses(self):
            history.add(self.now, "workflow_task_timed_out", **ids)
        elif is_lost := bool(execution.buffered) and any(command.kind in TERMINAL for command in commands):
            # Temporal lets no run end that has not seen everything.
            cause = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND
            history.add(self.now, "workflow_task_failed", cause=cause, **ids)
        if is_lost:
            self.recorder.excused.update(in_task)  # local steps
            self._forget(execution)
            self._flush(execution)
            execution.needs_task = True
            return
        completed = history.add(self.now, "workflow_task_completed", **ids)
        written = [(command, self._write(execution, command, completed.event_id)) for command in commands]
        execution.cached.recorded(commands, [event for _, event in written], len(history))
        self._flush(execution)
        for command, event in written:
            self._begin(execution, command, event)

    def _flush(self, execution: Execution) -> None:
        buffered, execution.buffered = execution.buffered, []
        for write in buffered:
            write()
            execution.needs_task = True

    def _event(self, execution: Execution, kind: str, **attributes: Any) -> None:
        """Write an event that leads to a workflow task."""
        now = self.now
        self._tell(execution, lambda: execution.history.add(now, kind, **attributes))

    def _tell(self, execution: Execution, write: Callable[[], object]) -> None:
        """Write events, which lead to a workflow task; those that come during one are written after it."""
        if execution.is_in_task:
            execution.buffered.append(write)
        else:
            write()
            execution.needs_task = True

    def signal(self, name: str, value: Any) -> bool:
        """Send a signal to the run; False if it has ended."""
        if self.ended is not None or not self.execution.is_open:
            return False
        self._event(self.execution, "workflow_execution_signaled", signal_name=name, input=payloads([payload(value)]))
        return True

    def cancel(self) -> None:
        """Cancel the run."""
        is_cancelled = any(kind_of(e) == "workflow_execution_cancel_requested" for e in self.execution.history.events)
        if self.ended is None and not is_cancelled:
            self._event(self.execution, "workflow_execution_cancel_requested")

    # --- what a task asks for --------------------------------------------------------------------------------------

    def _write(self, execution: Execution, command: Command, completed: int) -> HistoryEvent:
        attributes = getattr(self, f"_{command.kind}")(execution, command)
        kind = EVENTS[command.kind]
        event = execution.history.add(self.now, kind, workflow_task_completed_event_id=completed, **attributes)
        if command.command.HasField("user_metadata"):
            event.user_metadata.CopyFrom(command.command.user_metadata)
        return event

    def _schedule_activity(self, execution: Execution, command: Command) -> dict[str, Any]:
        body = command.body
        pending = {activity.id for activity in execution.activities.values() if not activity.is_over}
        if body.activity_id in pending:
            raise TaskFailed(f"Temporal refuses a second pending activity with id {body.activity_id!r}")
        return {
            "activity_id": body.activity_id,
            "activity_type": ActivityType(name=body.activity_type),
            "task_queue": TaskQueue(name=body.task_queue),
            "input": payloads(body.arguments),
            "start_to_close_timeout": body.start_to_close_timeout,
            "heartbeat_timeout": body.heartbeat_timeout,
            "retry_policy": body.retry_policy,
        }

    def _request_cancel_activity(self, execution: Execution, command: Command) -> dict[str, Any]:
        found = (a for a in execution.activities.values() if a.command.schedule_activity.seq == command.body.seq)
        activity = next(found, None)
        return {
            "scheduled_event_id": execution.cached.scheduled_of(command.body.seq)
            if activity is None
            else activity.scheduled
        }

    def _start_timer(self, execution: Execution, command: Command) -> dict[str, Any]:
        return {"timer_id": str(command.body.seq), "start_to_fire_timeout": command.body.start_to_fire_timeout}

    def _cancel_timer(self, execution: Execution, command: Command) -> dict[str, Any]:
        id = str(command.body.seq)
        started = execution.timers.pop(id, None)
        return {"timer_id": id, "started_event_id": started.event_id if started else 0}

    def _start_child_workflow_execution(self, execution: Execution, command: Command) -> dict[str, Any]:
        body = command.body
        return {
            "workflow_id": body.workflow_id,
            "workflow_type": WorkflowType(name=body.workflow_type),
            "input": payloads(body.input),
            "task_queue": TaskQueue(name=body.task_queue),
            "parent_close_policy": body.parent_close_policy,
            "workflow_id_reuse_policy": body.workflow_id_reuse_policy,
        }

    def _signal_external_workflow_execution(self, execution: Execution, command: Command) -> dict[str, Any]:
        body = command.body
        to = body.workflow_execution
        return {
            "workflow_execution": WorkflowExecution(workflow_id=to.workflow_id, run_id=to.run_id),
            "signal_name": body.signal_name,
            "input": payloads(body.args),
        }

    def _set_patch_marker(self, execution: Execution, command: Command) -> dict[str, Any]:
        data = payload({"id": command.body.patch_id, "deprecated": False})
        return {"marker_name": PATCH, "details": {"patch-data": payloads([data])}}

    def _local_activity(self, execution: Execution, command: Command) -> dict[str, Any]:
        body, end = command.command.schedule_local_activity, command.local
        assert end is not None
        data = {
            "seq": body.seq,
            "attempt": end.attempt,
            "activity_id": body.activity_id,
            "activity_type": body.activity_type,
            "complete_time": {"seconds": end.at // SECOND, "nanos": end.at % SECOND},
            "backoff": None,
            "original_schedule_time": {"seconds": end.at // SECOND, "nanos": end.at % SECOND},
            "activation_index": end.index,
        }
        details = {"data": payloads([payload(data)])}
        if end.failure is not None:
            return {"marker_name": LOCAL_ACTIVITY, "details": details, "failure": end.failure}
        assert end.result is not None
        return {"marker_name": LOCAL_ACTIVITY, "details": {**details, "result": payloads([end.result])}}

    def _upsert_workflow_search_attributes(self, execution: Execution, command: Command) -> dict[str, Any]:
        return {"search_attributes": command.body.search_attributes}

    def _modify_workflow_properties(self, execution: Execution, command: Command) -> dict[str, Any]:
        return {"upserted_memo": command.body.upserted_memo}

    def _complete_workflow_execution(self, execution: Execution, command: Command) -> dict[str, Any]:
        return {"result": payloads([command.body.result])}

    def _fail_workflow_execution(self, execution: Execution, command: Command) -> dict[str, Any]:
        return {"failure": command.body.failure}

    def _cancel_workflow_execution(self, execution: Execution, command: Command) -> dict[str, Any]:
        return {}

    def _continue_as_new_workflow_execution(self, execution: Execution, command: Command) -> dict[str, Any]:
        body = command.body
        return {
            "new_execution_run_id": self.run_id_of(len(self.executions)),
            "workflow_type": WorkflowType(name=body.workflow_type),
            "input": payloads(body.arguments),
        }

    # --- what comes of it ------------------------------------------------------------------------------------------

    def _begin(self, execution: Execution, command: Command, event: HistoryEvent) -> None:
        body: Any = None if command.kind == "local_activity" else command.body
        if command.kind == "schedule_activity":
            activity = Activity(event.event_id, command.command)
            execution.activities[event.event_id] = activity
            self.after(0, lambda: self._attempt(execution, activity))
        elif command.kind == "request_cancel_activity":
            self._cancel_activity(execution, event)
        elif command.kind == "start_timer":
            execution.timers[str(body.seq)] = event
            lasts = nanoseconds(body.start_to_fire_timeout) + _TIMERS_ARE_LATE
            self.after(lasts, lambda: self._fire(execution, event))
        elif command.kind == "start_child_workflow_execution":
            self.after(MILLISECOND, lambda: self._start_child(execution, event))
        elif command.kind == "signal_external_workflow_execution":
            self.after(MILLISECOND, lambda: self._signal_external(execution, event))
        elif command.kind in TERMINAL:
            self._close(execution, command)

    def _close(self, execution: Execution, command: Command) -> None:
        execution.is_open = False
        body = command.body
        if command.kind == "continue_as_new_workflow_execution":
            self.recorder.interrupted("continue-as-new")
            started = execution.history.events[0].workflow_execution_started_event_attributes
            self._execute(body.workflow_type or started.workflow_type.name, list(body.arguments))
        elif command.kind == "complete_workflow_execution":
            self.ended = Ended("completed", value_of(body.result), self.elapsed)
        elif command.kind == "fail_workflow_execution":
            failure = body.failure
            self.ended = Ended("failed", [failure.application_failure_info.type, failure.message], self.elapsed)
        else:
            self.ended = Ended("cancelled", None, self.elapsed)

    def _fire(self, execution: Execution, started: HistoryEvent) -> None:
        id = started.timer_started_event_attributes.timer_id
        if not execution.is_open or execution.timers.get(id) is not started:
            return
        now = self.now

        def write() -> None:
            if execution.timers.pop(id, None) is not None:
                execution.history.add(now, "timer_fired", timer_id=id, started_event_id=started.event_id)

        self._tell(execution, write)

    # --- activities ------------------------------------------------------------------------------------------------

    def _attempt(self, execution: Execution, activity: Activity) -> None:
        if not execution.is_open or activity.is_over or activity.is_cancelled:
            return
        activity.attempt += 1
        activity.is_running = True
        command = activity.command.schedule_activity
        seconds, label, result, failure = self._performed(command, activity.attempt)
        activity.label = label
        limit = nanoseconds(command.start_to_close_timeout) / SECOND
        if limit < seconds:  # its function goes on, and nobody waits for it
            seconds, result, failure = limit, None, _too_late()
            self.recorder.most[label] = command.retry_policy.maximum_attempts
        self.after(int(seconds * SECOND), lambda: self._attempt_ends(execution, activity, result, failure))

    def _performed(self, command: Any, attempt: int) -> tuple[float, str, Payload | None, Failure | None]:
        """Perform an attempt of an activity; its effects are there at once, its end comes later."""
        self.recorder.attempt = attempt
        kind, asked = command.activity_type, from_raw(RawValue(command.arguments[0]))
        try:
            if kind == RUN_STEP:
                result = self._run_step(asked)
                return self.recorder.seconds, self.recorder.order[-1], result, None
            label, seconds = label_of(kind, asked)
            self.recorder.begin(label, seconds)
            return seconds, label, payload(self.world.perform(kind, asked), call_metadata(asked.get("call"))), None
        except Exception as err:
            return (
                self.recorder.seconds,
                self.recorder.order[-1] if self.recorder.order else "",
                None,
                _failure_of(err, attempt, asked.get("call")),
            )

    def _run_step(self, call: Any) -> Payload:
        """As ``Activities.run_step`` does, without what it needs of a worker."""
        before = len(self.recorder.order)
        function, arguments = Resolver(self._app, _captured).call(call)
        result = function(*arguments)
        if isinstance(result, Coroutine):
            result = at_once(result)
        assert len(self.recorder.order) == before + 1, "a step function says what it does"
        return payload(result, call_metadata(call["call"]))  # step functions here return text

    def _attempt_ends(
        self, execution: Execution, activity: Activity, result: Payload | None, failure: Failure | None
    ) -> None:
        activity.is_running = False
        if not execution.is_open or activity.is_over:
            return
        policy = activity.command.schedule_activity.retry_policy
        if failure is not None and not activity.is_cancelled and _is_tried_again(policy, failure, activity.attempt):
            activity.last_failure = failure
            interval = nanoseconds(policy.initial_interval) * policy.backoff_coefficient ** (activity.attempt - 1)
            if policy.HasField("maximum_interval") and (longest := nanoseconds(policy.maximum_interval)):
                interval = min(interval, longest)
            self.after(int(interval), lambda: self._attempt(execution, activity))
            return
        self._end_activity(execution, activity, result, failure)

    def _end_activity(
        self, execution: Execution, activity: Activity, result: Payload | None, failure: Failure | None
    ) -> None:
        activity.is_over = True
        now = self.now

        def write() -> None:
            execution.activities.pop(activity.scheduled, None)
            history = execution.history
            started = history.add(
                now, "activity_task_started", scheduled_event_id=activity.scheduled, attempt=max(activity.attempt, 1)
            )
            ids = {"scheduled_event_id": activity.scheduled, "started_event_id": started.event_id}
            if result is not None:
                history.add(now, "activity_task_completed", result=payloads([result]), **ids)
            elif activity.is_cancelled:
                history.add(now, "activity_task_canceled", **ids)
            elif failure is not None and failure.HasField("timeout_failure_info"):
                history.add(now, "activity_task_timed_out", failure=failure, **ids)
            else:
                history.add(now, "activity_task_failed", failure=failure, **ids)

        self._tell(execution, write)

    def _cancel_activity(self, execution: Execution, event: HistoryEvent) -> None:
        scheduled = event.activity_task_cancel_requested_event_attributes.scheduled_event_id
        activity = execution.activities.get(scheduled)
        if activity is None or activity.is_over:
            return
        activity.is_cancelled = True
        if not activity.is_running:
            self._end_activity(execution, activity, None, None)

    # --- local activities ------------------------------------------------------------------------------------------

    def duration(self, command: WorkflowCommand) -> int:
        """See :class:`~.core.Locals`."""
        return 2 * MILLISECOND

    def perform(self, command: WorkflowCommand, at: int) -> tuple[Payload | None, Failure | None, int]:
        """See :class:`~.core.Locals`."""
        self._until(at)
        body = command.schedule_local_activity
        if body.activity_type != RUN_STEP:
            asked = from_raw(RawValue(body.arguments[0]))
            return payload(self.world.perform(body.activity_type, asked), call_metadata(asked.get("call"))), None, 1
        attempt = 1
        while True:
            _, _, result, failure = self._performed(body, attempt)
            if failure is None or not _is_tried_again(body.retry_policy, failure, attempt):
                return result, failure, attempt
            attempt += 1

    # --- other runs ------------------------------------------------------------------------------------------------

    def _start_child(self, execution: Execution, event: HistoryEvent) -> None:
        asked = event.start_child_workflow_execution_initiated_event_attributes
        of_child = {"initiated_event_id": event.event_id, "workflow_type": asked.workflow_type}
        if asked.workflow_id in self.world.children:
            if execution.is_open:
                self._event(
                    execution,
                    "start_child_workflow_execution_failed",
                    workflow_id=asked.workflow_id,
                    cause=1,
                    **of_child,
                )
            return
        child = Child(asked.workflow_id, f"run of {asked.workflow_id}", value_of(asked.input.payloads[0]))
        self.world.children[child.id] = child
        self.recorder.begin(f"invoked {child.data['label']}", 0)
        whole = WorkflowExecution(workflow_id=child.id, run_id=child.run_id)
        if execution.is_open:
            self._event(execution, "child_workflow_execution_started", workflow_execution=whole, **of_child)
        self.after(int(child.data["seconds"] * SECOND), lambda: self._end_child(execution, child, whole, of_child))

    def _end_child(
        self, execution: Execution, child: Child, whole: WorkflowExecution, of_child: dict[str, Any]
    ) -> None:
        self.world.end_child(child)
        if not execution.is_open:
            return
        end: dict[str, Any]
        if child.data["fails"]:
            failure = Failure(message=f"{child.data['label']} failed", source="PythonSDK")
            failure.application_failure_info.type = "Declined"
            failure.application_failure_info.details.CopyFrom(payloads([payload({"attempts": 1})]))
            kind, end = "child_workflow_execution_failed", {"failure": failure}
        else:
            kind, end = "child_workflow_execution_completed", {"result": payloads([payload(child.result)])}
        self._event(execution, kind, workflow_execution=whole, **end, **of_child)

    def _signal_external(self, execution: Execution, event: HistoryEvent) -> None:
        asked = event.signal_external_workflow_execution_initiated_event_attributes
        to = asked.workflow_execution
        is_told = asked.signal_name == REPORT and self.world.report(to.workflow_id, value_of(asked.input.payloads[0]))
        if not execution.is_open:
            return
        ids = {"initiated_event_id": event.event_id, "workflow_execution": to}
        if is_told:
            self._event(execution, "external_workflow_execution_signaled", **ids)
            return
        self._event(execution, "signal_external_workflow_execution_failed", cause=_NOT_FOUND, **ids)


def _captured(data: Any) -> Any:
    raise AssertionError(f"no program captures {data!r}")


def _too_late() -> Failure:
    failure = Failure(message="activity StartToClose timeout", source="Server")
    failure.timeout_failure_info.timeout_type = TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE
    return failure


def _failure_of(error: Exception, attempt: int, call: Any) -> Failure:
    converter = DataConverter.default
    converted = application_error(error, attempt=attempt, non_retryable=is_final(error), call=call)
    failure = Failure()
    converter.failure_converter.to_failure(converted, converter.payload_converter, failure)
    return failure


def _is_tried_again(policy: Any, failure: Failure, attempt: int) -> bool:
    info = failure.application_failure_info
    if info.non_retryable or info.type in policy.non_retryable_error_types:
        return False
    return not policy.maximum_attempts or attempt < policy.maximum_attempts
