"""Heartbeats that name the worker of a step.

A run that receives no heartbeats of a step asks the worker that the last heartbeat named. Temporal keeps the details of
the last heartbeat across attempts, so a later attempt replaces them at once. A first attempt waits until its first
heartbeat is due, because most steps end before that.

Before the last attempt of a step, the worker waits until the server has recorded its heartbeat. If the heartbeat
is missing, the run knows that no worker has begun the attempt (``runtime/steps/activity.py``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from temporalio import activity
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.workflowservice.v1 import RecordActivityTaskHeartbeatRequest
from temporalio.converter import ActivitySerializationContext
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from ..sdk.heartbeats import Pulse, beating
from ..wire.names import STEP_NOT_BEGUN
from .reporting import attempt_number

_CALL_TIMEOUT = timedelta(seconds=3)
_PAUSE_SECONDS = 0.2
_TRANSIENT = frozenset(
    {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.CANCELLED,
        RPCStatusCode.UNKNOWN,
        RPCStatusCode.INTERNAL,
        RPCStatusCode.ABORTED,
    }
)
"""Errors after which the same call may succeed."""


@asynccontextmanager
async def announced(task_queue: str, *, is_last: bool) -> AsyncIterator[None]:
    """Send heartbeats while the current activity runs a step's function; before a last attempt, one that is recorded.

    Args:
        task_queue: The task queue of this worker alone.
        is_last: Whether the run says that the step has one attempt left.

    Raises:
        ApplicationError: The function must not begin.
    """
    if not is_last:
        async with naming_worker(task_queue, at_once=activity.info().attempt > 1):
            yield
        return
    # Each heartbeat replaces the details of the one before, so all of them must name the worker.
    with beating(await _recorded(task_queue)):
        yield


@asynccontextmanager
async def naming_worker(task_queue: str, *, at_once: bool) -> AsyncIterator[None]:
    """Send heartbeats that name this worker.

    Args:
        task_queue: The task queue of this worker alone.
        at_once: Whether to send the first heartbeat at once.
    """
    tasks: set[asyncio.Future[None]] = set()  # asyncio keeps only weak references to tasks
    with beating(await _details_or_none(task_queue) if at_once else (), at_once=at_once) as pulse:

        async def name_worker(pulse: Pulse) -> None:
            pulse.details = await _details_or_none(task_queue)

        naming = None
        if pulse is not None and not at_once:
            soon = max(pulse.due - time.monotonic(), 0) / 2
            naming = asyncio.get_running_loop().call_later(
                soon, lambda: tasks.add(asyncio.ensure_future(name_worker(pulse)))
            )
        try:
            yield
        finally:
            if naming is not None:
                naming.cancel()


async def _recorded(task_queue: str) -> list[Payload]:
    """Wait until the server has recorded a heartbeat that names this worker, and return the heartbeat's details.

    Raises:
        ApplicationError: The server did not record it, or the step was cancelled.
    """
    client, info = activity.client(), activity.info()
    try:
        details = await _details(task_queue)
        heartbeat = RecordActivityTaskHeartbeatRequest(
            namespace=info.namespace,
            task_token=info.task_token,
            details=Payloads(payloads=details),
            identity=client.identity,
        )
        while True:  # until the server no longer knows the attempt, at the latest, once its heartbeat timeout is over
            try:
                recorded = await client.workflow_service.record_activity_task_heartbeat(
                    heartbeat, retry=True, timeout=_CALL_TIMEOUT
                )
            except RPCError as err:
                if err.status not in _TRANSIENT:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                break
    except (Exception, asyncio.CancelledError) as err:
        # A cancelled attempt, as of a worker in shutdown, has run nothing of the function either: it does not count.
        raise _not_begun(f"the server did not record the start of the step: {str(err) or type(err).__name__}") from None
    if recorded.cancel_requested:
        raise _not_begun("the step was cancelled")
    return details


def _not_begun(message: str) -> ApplicationError:
    return ApplicationError(message, {"attempts": attempt_number()}, type=STEP_NOT_BEGUN, non_retryable=True)


async def _details_or_none(task_queue: str) -> Sequence[Payload]:
    """Return the details of a heartbeat; none if the codec fails, as that is better than no heartbeat."""
    try:
        return await _details(task_queue)
    except Exception:
        return []


async def _details(task_queue: str) -> list[Payload]:
    """Return the details of a heartbeat: the worker that runs the step's function, and the number of the attempt."""
    info = activity.info()
    converter = activity.client().data_converter.with_context(
        ActivitySerializationContext(
            namespace=info.namespace,
            workflow_id=info.workflow_id,
            workflow_type=info.workflow_type,
            activity_type=info.activity_type,
            activity_id=info.activity_id,
            activity_task_queue=info.task_queue,
            is_local=False,
        )
    )
    return await converter.encode([{"worker": task_queue, "attempt": attempt_number()}])
