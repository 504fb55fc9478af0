"""What waits in task queues, and who takes it: asked of Temporal now and then, as no worker knows it of itself."""

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
"""The names of the task queues to ask for."""

TASK_TYPES = {
    "workflow": TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    "activity": TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
}

ASKED_EVERY_SECONDS = 30.0

_RPC_TIMEOUT = timedelta(seconds=5)

_GONE_AFTER = timedelta(seconds=90)
"""A worker polls again after at most a minute; Temporal lists it for five."""


Version = tuple[str, str]
"""A deployment of Worker Versioning, and a build of it."""


@dataclass(frozen=True, slots=True)
class State:
    """What Temporal says of a task queue and a type of tasks.

    Attributes:
        pollers: The identities of those who poll it.
        backlog: How many tasks wait.
        age: How long the oldest of them has waited.
        versions: Who polls it: a deployment and a build each; two empty ones for workers without versions.
        current: Of which version those are whom new runs are given to; None if Temporal does not say.
    """

    pollers: frozenset[str]
    backlog: int
    age: timedelta
    versions: frozenset[Version]
    current: Version | None


async def state_of(temporal: temporalio.client.Client, queue: str, task_type: str) -> State:
    """Ask for a task queue.

    Raises:
        RPCError: Temporal does not say.
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
    """Say what this process is, and keep the metrics of task queues up to date while the context lasts.

    Args:
        client: Whose it is.
        temporal: The connection.
        process: What it is.
        queues: Which task queues.
    """
    meter = meter_of(temporal)
    if meter is None:
        yield
        return
    BUILD_INFO.set(meter, 1, app=client.id, process=process, version=steporal.__version__)
    asking = asyncio.create_task(_measure(temporal, meter, queues))
    try:
        yield
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def _measure(temporal: temporalio.client.Client, meter: MetricMeter, queues: Queues) -> None:
    is_said = False
    while True:
        try:
            for queue in await queues():
                for task_type in TASK_TYPES:
                    _set(meter, queue, task_type, await state_of(temporal, queue, task_type))
            is_said = False
        except RPCError as err:
            if not is_said:
                logger.warning("Temporal does not report what waits in task queues: %s", err.message)
            is_said = True
        await asyncio.sleep(ASKED_EVERY_SECONDS)


def _set(meter: MetricMeter, queue: str, task_type: str, state: State) -> None:
    TASK_QUEUE_BACKLOG.set(meter, state.backlog, task_queue=queue, task_type=task_type)
    TASK_QUEUE_BACKLOG_AGE.set(meter, state.age.total_seconds(), task_queue=queue, task_type=task_type)
    TASK_QUEUE_POLLERS.set(meter, len(state.pollers), task_queue=queue, task_type=task_type)
