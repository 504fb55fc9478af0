"""``steporal recover`` of a run in memory: the command's own code, with a client of the simulated server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from temporalio.api.enums.v1 import PendingActivityState, WorkflowTaskFailedCause
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.client import WorkflowExecutionStatus, WorkflowHistory
from temporalio.common import RawValue
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode

from steporal.operations.recover import RecoverOptions, StuckRun, recover_run
from steporal.wire.names import REPORT

from .history import payload, value_of
from .service import Activity, Service, at_once, number_of


class NotRecovered(Exception):
    """The command has not recovered the run."""


def recover(service: Service, *, interrupt: bool = True) -> None:
    """Recover the run; steps that are in flight begin again."""
    if service.ended is not None:
        return
    in_flight = [activity.label for activity in service.execution.activities.values() if activity.attempt]
    service.recorder.excused.update(in_flight)
    service.recorder.interrupted("a recovery")
    stuck = StuckRun("simulation", service.workflow_id, service.execution.run_id, "it is told so")
    temporal: Any = FakeTemporal(service)
    outcome = at_once(recover_run(temporal, stuck, RecoverOptions(interrupt=interrupt)))
    if outcome.state != "recovered":
        raise NotRecovered(f"{outcome.state}: {outcome.advice} {outcome.running}")


class FakeTemporal:
    """What the commands use of Temporal's client."""

    namespace = "default"
    data_converter = DataConverter.default

    def __init__(self, service: Service) -> None:
        self._service = service
        self.workflow_service = _WorkflowService(service)

    def get_workflow_handle(self, workflow_id: str, **of_execution: Any) -> Any:
        if workflow_id == self._service.workflow_id:
            return _Handle(self._service, of_execution.get("run_id"))
        return _ChildHandle(self._service, workflow_id)


@dataclass(frozen=True, slots=True)
class _Description:
    run_id: str
    status: WorkflowExecutionStatus
    raw_description: DescribeWorkflowExecutionResponse


class _Handle:
    """The run."""

    def __init__(self, service: Service, run_id: str | None) -> None:
        self._service = service
        self._execution = service.executions[number_of(run_id)] if run_id else service.execution

    async def describe(self) -> _Description:
        execution = self._execution
        pending = [_pending(activity) for activity in execution.activities.values()]
        description = DescribeWorkflowExecutionResponse(pending_activities=pending)
        return _Description(execution.run_id, WorkflowExecutionStatus.RUNNING, description)

    async def fetch_history(self) -> WorkflowHistory:
        return WorkflowHistory(self._service.workflow_id, list(self._execution.history.events))

    async def fetch_history_events(self) -> AsyncIterator[HistoryEvent]:
        for event in self._execution.history.events:
            yield event

    async def cancel(self) -> None:
        self._service.cancel()

    async def signal(self, name: str, argument: RawValue) -> None:
        self._service.signal(name, value_of(argument.payload))


class _ChildHandle:
    """An invoked run."""

    def __init__(self, service: Service, workflow_id: str) -> None:
        self._world = service.world
        self._id = workflow_id

    async def signal(self, name: str, argument: RawValue) -> None:
        if name != REPORT or not self._world.report(self._id, value_of(argument.payload)):
            raise RPCError("no such run", RPCStatusCode.NOT_FOUND, b"")

    async def describe(self) -> _Description:
        child = self._world.children.get(self._id)
        if child is None:
            raise RPCError("no such run", RPCStatusCode.NOT_FOUND, b"")
        is_open = child.outcome is None
        status = WorkflowExecutionStatus.RUNNING if is_open else WorkflowExecutionStatus.COMPLETED
        return _Description(child.run_id, status, DescribeWorkflowExecutionResponse())

    async def result(self) -> RawValue:
        from temporalio.client import WorkflowFailureError
        from temporalio.exceptions import ApplicationError

        child = self._world.children[self._id]
        if child.data["fails"]:
            message = child.outcome["message"]
            raise WorkflowFailureError(cause=ApplicationError(message, {"attempts": 1}, type="Declined"))
        return RawValue(payload(child.result))


class _WorkflowService:
    """The calls of Temporal's API."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def pause_activity(self, request: Any) -> None:
        raise RPCError("there are no paused activities here", RPCStatusCode.UNIMPLEMENTED, b"")

    async def unpause_activity(self, request: Any) -> None:
        raise AssertionError("none was paused")

    async def reset_workflow_execution(self, request: Any) -> None:
        reset(self._service, request.workflow_task_finish_event_id)


def reset(service: Service, finish_event_id: int) -> None:
    """Reset the run to before the end of a workflow task; the signals since then are repeated."""
    old = service.execution
    old.is_open = False
    execution = service.new_execution(old.first_run_id)
    history = execution.history
    for event in old.history.events[: finish_event_id - 1]:
        history.append(event)
    cause = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW
    started = history.events[-1]
    history.add(
        service.now,
        "workflow_task_failed",
        scheduled_event_id=started.workflow_task_started_event_attributes.scheduled_event_id,
        started_event_id=started.event_id,
        cause=cause,
        base_run_id=old.run_id,
        new_run_id=service.run_id_of(execution.number),
    )
    for event in old.history.events[finish_event_id - 1 :]:
        if event.HasField("workflow_execution_signaled_event_attributes"):
            signal = event.workflow_execution_signaled_event_attributes
            history.add(service.now, "workflow_execution_signaled", signal_name=signal.signal_name, input=signal.input)
    execution.needs_task = True


def _pending(activity: Activity) -> PendingActivityInfo:
    begun = activity.is_running
    state = (
        PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
        if begun
        else PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
    )
    return PendingActivityInfo(activity_id=activity.command.schedule_activity.activity_id, state=state)
