"""Metrics of the backlog and pollers of task queues, which Temporal's SDK does not report to a worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Literal

import temporalio.client
from temporalio.common import MetricMeter
from temporalio.service import RPCError

import steporal
from steporal.metrics import BUILD_INFO, TASK_QUEUE_BACKLOG, TASK_QUEUE_BACKLOG_AGE, TASK_QUEUE_POLLERS, meter_of
from steporal.operations.task_queues import TASK_TYPES, State, state_of

logger = logging.getLogger("steporal")

Queues = Callable[[], Awaitable[Collection[str]]]
"""Returns the names of the task queues to describe."""

ASKED_EVERY_SECONDS = 30.0


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
