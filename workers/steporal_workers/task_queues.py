"""Backlog and pollers of task queues, read from Temporal at intervals, as the SDK does not report them to a worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import temporalio.client
from temporalio.api.deployment.v1 import WorkerDeploymentOptions
from temporalio.api.enums.v1 import TaskQueueType, WorkerVersioningMode
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.common import MetricMeter
from temporalio.service import RPCError

import steporal
from steporal.metrics import BUILD_INFO, TASK_QUEUE_BACKLOG, TASK_QUEUE_BACKLOG_AGE, TASK_QUEUE_POLLERS, meter_of

logger = logging.getLogger("steporal")

Queues = Callable[[], Awaitable[Collection[str]]]
"""Returns the names of the task queues to describe."""

TASK_TYPES = {
    "workflow": TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    "activity": TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
}

ASKED_EVERY_SECONDS = 30.0

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


@asynccontextmanager
async def measured(
    client: steporal.Client, temporal: temporalio.client.Client, process: Literal["worker", "gateway"], queues: Queues
) -> AsyncIterator[None]:
    """Record this process's build, and keep the metrics of task queues up to date while the context lasts.

    Args:
        client: The app.
        temporal: The connection.
        process: The kind of this process.
        queues: Returns the task queues.
    """
    meter = meter_of(temporal)
    if meter is None:
        yield
        return
    BUILD_INFO.set(meter, 1, app=client.id, process=process, version=steporal.__version__)
    measuring = asyncio.create_task(_measure(temporal, meter, queues))
    try:
        yield
    finally:
        measuring.cancel()
        await asyncio.gather(measuring, return_exceptions=True)


async def _measure(temporal: temporalio.client.Client, meter: MetricMeter, queues: Queues) -> None:
    is_logged = False
    while True:
        try:
            for queue in await queues():
                for task_type in TASK_TYPES:
                    _set(meter, queue, task_type, await state_of(temporal, queue, task_type))
            is_logged = False
        except RPCError as err:
            if not is_logged:
                logger.warning("Temporal does not report the backlog of task queues: %s", err.message)
            is_logged = True
        await asyncio.sleep(ASKED_EVERY_SECONDS)


def _set(meter: MetricMeter, queue: str, task_type: str, state: State) -> None:
    TASK_QUEUE_BACKLOG.set(meter, state.backlog, task_queue=queue, task_type=task_type)
    TASK_QUEUE_BACKLOG_AGE.set(meter, state.age.total_seconds(), task_queue=queue, task_type=task_type)
    TASK_QUEUE_POLLERS.set(meter, len(state.pollers), task_queue=queue, task_type=task_type)
