"""State of a task queue: its backlog, and the workers that poll it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import temporalio.client
from temporalio.api.deployment.v1 import WorkerDeploymentOptions
from temporalio.api.enums.v1 import TaskQueueType, WorkerVersioningMode
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest

TASK_TYPES = {
    "workflow": TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    "activity": TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
}

_RPC_TIMEOUT = timedelta(seconds=5)

_GONE_AFTER = timedelta(seconds=90)
"""Time after which a poller counts as gone. A worker polls again within a minute; Temporal lists it for five."""


Version = tuple[str, str]
"""Deployment of Worker Versioning, and a build of it."""


@dataclass(frozen=True, slots=True)
class State:
    """State of a task queue for one type of tasks.

    Attributes:
        pollers: The identities of the workers that poll it.
        backlog: The number of tasks that wait.
        age: The time that the oldest of them has waited.
        versions: The deployment and build of each poller; both are empty for workers without versions.
        current: The version that receives new runs; None if Temporal does not report it.
    """

    pollers: frozenset[str]
    backlog: int
    age: timedelta
    versions: frozenset[Version]
    current: Version | None


async def state_of(temporal: temporalio.client.Client, queue: str, task_type: str) -> State:
    """Describe a task queue.

    Raises:
        RPCError: Temporal refuses the call, or cannot be reached.
    """
    described = await temporal.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=temporal.namespace,
            task_queue=TaskQueue(name=queue),
            task_queue_type=TASK_TYPES[task_type],
            report_stats=True,
        ),
        timeout=_RPC_TIMEOUT,
    )
    oldest = datetime.now(UTC) - _GONE_AFTER
    pollers = [p for p in described.pollers if p.last_access_time.ToDatetime(tzinfo=UTC) > oldest]
    routed = described.versioning_info
    current = routed.current_deployment_version
    return State(
        frozenset(poller.identity for poller in pollers),
        described.stats.approximate_backlog_count,
        described.stats.approximate_backlog_age.ToTimedelta(),
        frozenset(_version_of(poller.deployment_options) for poller in pollers),
        (current.deployment_name, current.build_id) if routed.current_version else None,
    )


def _version_of(options: WorkerDeploymentOptions) -> Version:
    is_versioned = options.worker_versioning_mode == WorkerVersioningMode.WORKER_VERSIONING_MODE_VERSIONED
    return (options.deployment_name, options.build_id) if is_versioned else ("", "")
