"""Tasks of runs that no worker takes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.enums.v1 import PendingActivityState, PendingWorkflowTaskState
from temporalio.client import Client

from ..history.story import Story
from .task_queues import state_of

_LATE = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class LateTask:
    """Task of a run that no worker has taken for two seconds.

    Attributes:
        task_queue: The task queue on which it waits.
        pollers: The identities of the workers that have polled the task queue lately.
    """

    task_queue: str
    pollers: frozenset[str]


async def late_task_of(temporal: Client, story: Story) -> LateTask | None:
    """Return the next task of a run if it is late; None if the run has ended, or nothing is late."""
    queue = _late_queue(story) if story.is_open else None
    if queue is None:
        return None
    return LateTask(queue, (await state_of(temporal, queue, "workflow")).pollers)


def _late_queue(story: Story) -> str | None:
    """Return the task queue on which a task of the run has waited for a worker for too long."""
    raw = story.described.raw_description
    task = raw.pending_workflow_task
    if task.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED and _is_late(task.scheduled_time):
        return story.described.task_queue
    for pending in raw.pending_activities:
        is_scheduled = pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
        if is_scheduled and _is_late(pending.scheduled_time):
            return pending.activity_options.task_queue.name or story.described.task_queue
    return None


def _is_late(scheduled: Timestamp) -> bool:
    return datetime.now(UTC) - scheduled.ToDatetime(tzinfo=UTC) > _LATE
