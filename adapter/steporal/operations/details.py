"""Details of a run: its start and end, each of its steps, its current waits, and what keeps it from continuing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from temporalio.client import Client, WorkflowExecutionDescription

from ..errors import StepError
from ..history.story import Reader, Story, Wait
from ..history.timeline import StepEntry
from ..types import JSON
from ..wire.start import Origin
from .finding import Status, first_run_id, get_run, status_of
from .late_tasks import LateTask, late_task_of


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDetails:
    """Details of a run.

    Attributes:
        workflow: The id of its workflow.
        workflow_id: Temporal's workflow id of the run.
        run_id: The run's own id, ``ctx.run_id``, which is that of its first execution.
        last_run_id: Temporal's run id of its last execution.
        task_queue: Its task queue.
        status: Its status.
        is_open: Whether it has not ended.
        is_parked: Whether it is parked.
        started: The start of its first execution, or of the first whose history still exists.
        ended: The time of its end; None if it is open.
        origin: The event, schedule or call that started it.
        rerun_of: The run of which it is a rerun: its ``workflow_id`` and ``run_id``, and ``from``, the first step that
            ran again.
        input: Its input.
        result: Its result.
        error: The error with which it failed, or a description of its end.
        stack: The user's frames of the error's stack trace.
        failed_step: The step whose failure ended it; None if its body raised the error itself.
        executions: The number of executions that were read; more than one if it has continued as new.
        problem: The reason why it is stuck; None if it is not.
        late: Its next task, if no worker takes it.
        steps: Its steps, and what else it has done, in the order of their starts.
        waits: Its current waits.
    """

    workflow: str
    workflow_id: str
    run_id: str
    last_run_id: str
    task_queue: str
    status: Status
    is_open: bool
    is_parked: bool
    started: datetime
    ended: datetime | None
    origin: Origin
    rerun_of: Mapping[str, JSON] | None
    input: JSON
    result: JSON
    error: str | None
    stack: str
    failed_step: StepError | None
    executions: int
    problem: str | None
    late: LateTask | None
    steps: tuple[StepEntry, ...]
    waits: tuple[Wait, ...]


class DetailsReader:
    """Reader of a run, which can read it repeatedly; executions that have ended are read once.

    Args:
        temporal: The connection to the run's namespace.
    """

    def __init__(self, temporal: Client) -> None:
        self._temporal = temporal
        self._reader = Reader(temporal)

    async def read(self, id: str) -> RunDetails:
        """Return the details of a run, by Temporal's workflow id or by ``ctx.run_id``.

        Raises:
            NoSuchRunError: The run does not exist.
            OperationError: It is one of Steporal's own workflows.
            HistoryError: It is a native workflow, or its history contains something that no worker of Steporal writes.
        """
        return await self.details_of(await get_run(self._temporal, id))

    async def details_of(self, described: WorkflowExecutionDescription) -> RunDetails:
        """Return the details of a run.

        Args:
            described: Its last execution.

        Raises:
            HistoryError: It is a native workflow, or its history contains something that no worker of Steporal writes.
        """
        story = await self._reader.read(described)
        return _details(story, await late_task_of(self._temporal, story))


def _details(story: Story, late: LateTask | None) -> RunDetails:
    described, timeline = story.described, story.timeline
    return RunDetails(
        workflow=described.workflow_type,
        workflow_id=described.id,
        run_id=first_run_id(described),
        last_run_id=described.run_id,
        task_queue=described.task_queue,
        status=status_of(described.status),
        is_open=story.is_open,
        is_parked=story.is_open and story.is_parked,
        started=story.started,
        ended=timeline.end,
        origin=story.origin,
        rerun_of=story.rerun_of,
        input=story.data,
        result=timeline.result,
        error=timeline.error,
        stack=timeline.stack,
        failed_step=timeline.failed_step,
        executions=story.executions,
        problem=story.problem,
        late=late,
        steps=tuple(timeline.steps),
        waits=tuple(story.waits),
    )
