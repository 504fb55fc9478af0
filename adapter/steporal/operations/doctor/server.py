"""Checks of the server and the namespace, independent of the app."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import temporalio.client
from temporalio.api.enums.v1 import NamespaceState, TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice import v1 as api
from temporalio.service import RPCError, RPCStatusCode, WorkflowService

from ...durations import format_duration
from ...observability.search_attributes import TYPES, registered
from ...wire.limits import MAX_PAYLOAD_BYTES
from .verdicts import Subject, Verdict, bad, good, warning

DEDUPE = timedelta(days=1)
"""Time for which Inngest deduplicates event ids; in Temporal it is the namespace's retention."""

MAX_SKEW, MUCH_SKEW = timedelta(seconds=2), timedelta(minutes=1)

_POLL_SECONDS = 5.0
_CALL = timedelta(seconds=10)

_UPGRADE = "upgrade Temporal to 1.28 or newer"


async def server(subject: Subject) -> Verdict:
    """Check the server's version and capabilities."""
    info = await subject.temporal.workflow_service.get_system_info(api.GetSystemInfoRequest(), timeout=_CALL)
    address = subject.temporal.service_client.config.target_host
    missing = [
        name
        for name, is_supported in {
            "schedules": info.capabilities.supports_schedules,
            "memos that change": info.capabilities.upsert_memo,
            **{name: not _lacks(await _refusal(subject, name)) for name in _CALLS},
        }.items()
        if not is_supported
    ]
    message = f"Temporal {info.server_version} at {address}"
    return bad(f"{message} does not support: {', '.join(missing)}", _UPGRADE) if missing else good(message)


async def namespace(subject: Subject) -> Verdict:
    """Check that the namespace accepts new runs."""
    name, state = subject.temporal.namespace, subject.namespace.namespace_info.state
    if state == NamespaceState.NAMESPACE_STATE_UNSPECIFIED:
        return warning(f"this key may not describe namespace {name!r}", "use a key that may read the namespace")
    if state != NamespaceState.NAMESPACE_STATE_REGISTERED:
        shown = NamespaceState.Name(state).removeprefix("NAMESPACE_STATE_").lower()
        return bad(f"namespace {name!r} is {shown}", "use another one: --namespace NAME or TEMPORAL_NAMESPACE")
    return good(f"namespace {name!r} is registered")


# --- permissions ---------------------------------------------------------------------------------------------------


_CALLS: Mapping[str, tuple[str, type[Any]]] = {
    "start runs": ("start_workflow_execution", api.StartWorkflowExecutionRequest),
    "start runs by events": ("signal_with_start_workflow_execution", api.SignalWithStartWorkflowExecutionRequest),
    "signal runs": ("signal_workflow_execution", api.SignalWorkflowExecutionRequest),
    "update workflows": ("update_workflow_execution", api.UpdateWorkflowExecutionRequest),
    "start workflows by updates": ("execute_multi_operation", api.ExecuteMultiOperationRequest),
    "cancel runs": ("request_cancel_workflow_execution", api.RequestCancelWorkflowExecutionRequest),
    "reset runs": ("reset_workflow_execution", api.ResetWorkflowExecutionRequest),
    "read histories": ("get_workflow_execution_history", api.GetWorkflowExecutionHistoryRequest),
    "create schedules": ("create_schedule", api.CreateScheduleRequest),
    "poll task queues": ("poll_workflow_task_queue", api.PollWorkflowTaskQueueRequest),
    "list runs": ("count_workflow_executions", api.CountWorkflowExecutionsRequest),
}
"""Calls that Steporal needs. Temporal checks the permission of a call before it rejects the empty request."""

_FORBIDDEN = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED)


async def permissions(subject: Subject) -> Verdict:
    """Check that the connection's key or certificate has all permissions."""
    refused = {name: await _refusal(subject, name) for name in _CALLS}
    forbidden = [name for name, error in refused.items() if error and error.status in _FORBIDDEN]
    if forbidden:
        why = next(error.message for name, error in refused.items() if error and name in forbidden)
        return bad(
            f"not allowed: {', '.join(forbidden)} ({why})",
            f"let the key or certificate write in namespace {subject.temporal.namespace!r}",
        )
    return good(f"{len(_CALLS)} kinds of calls are allowed")


async def _refusal(subject: Subject, name: str) -> RPCError | None:
    """Return the error with which Temporal refuses an empty request of this kind; None if the call is permitted."""
    method, request = _CALLS[name]
    call: Callable[..., Any] = getattr(subject.temporal.workflow_service, method)
    try:
        await call(request(namespace=subject.temporal.namespace), timeout=_CALL)
    except RPCError as err:
        return None if err.status == RPCStatusCode.INVALID_ARGUMENT else err
    return None


def _lacks(refused: RPCError | None) -> bool:
    return refused is not None and refused.status == RPCStatusCode.UNIMPLEMENTED


# --- the namespace's settings --------------------------------------------------------------------------------------


async def search_attributes(subject: Subject) -> Verdict:
    """Check that runs can be found by app, workflow and event."""
    existing = await registered(subject.temporal)
    missing = [name for name, kind in TYPES.items() if existing.get(name) != kind]
    if missing:
        return warning(f"not registered: {', '.join(missing)}", "`steporal setup` registers them")
    return good(f"{len(TYPES)} are registered")


async def retention(subject: Subject) -> Verdict:
    """Check how long an event id is deduplicated, which is the namespace's retention."""
    kept = subject.namespace.config.workflow_execution_retention_ttl.ToTimedelta()
    message = f"runs are kept for {format_duration(kept)} after their end; until then an event id starts nothing twice"
    if not kept:
        return warning("the server does not report its retention", f"set it to {format_duration(DEDUPE)} or more")
    if kept < DEDUPE:
        return warning(
            f"{message}; in Inngest it is {format_duration(DEDUPE)}",
            f"temporal operator namespace update --namespace {subject.temporal.namespace} --retention 24h",
        )
    return good(message)


async def payload_limits(subject: Subject) -> Verdict:
    """Check that the server accepts values of the sizes that Steporal allows."""
    limits = subject.namespace.namespace_info.limits
    blob, memo = limits.blob_size_limit_error, limits.memo_size_limit_error
    if not blob:
        return warning(
            "this server does not report its limits", f"limit.blobSize.error should be {MAX_PAYLOAD_BYTES:,}"
        )
    if blob < MAX_PAYLOAD_BYTES:
        return warning(
            f"values over {blob:,} bytes fail runs; Steporal allows {MAX_PAYLOAD_BYTES:,}",
            "raise limit.blobSize.error in Temporal's dynamic configuration to 2097152",
        )
    if memo < MAX_PAYLOAD_BYTES:
        return warning(
            f"the server's limit for a shard of the catalog is {memo:,} bytes; Steporal stores up to 1,800,000",
            "raise limit.memoSize.error in Temporal's dynamic configuration to 2097152",
        )
    return good(f"{blob:,} bytes per value, {memo:,} for a shard of the catalog")


# --- the clock -----------------------------------------------------------------------------------------------------


async def clock(subject: Subject) -> Verdict:
    """Compare this machine's clock with the server's."""
    skew = await _skew(subject.temporal)
    if skew is None:
        return warning("the server's time could not be determined", "set the clocks by NTP")
    if abs(skew) <= MAX_SKEW:
        return good("within 2 s of the server's")
    shown = format_duration(timedelta(seconds=round(abs(skew).total_seconds())))
    message = f"this machine's clock is {shown} {'ahead' if skew > timedelta(0) else 'behind'}"
    remedy = "set it by NTP: events that are sent from here without a ts get this clock's time"
    return bad(message, remedy) if abs(skew) > MUCH_SKEW else warning(message, remedy)


async def _skew(temporal: temporalio.client.Client) -> timedelta | None:
    """Return how far this machine's clock is ahead; None if the server's time is unknown.

    No call returns the server's time. But the server records when a task queue was last polled, and returns that time.
    So this polls a task queue, and reads the time of the poll.
    """
    identity, service, before = f"steporal doctor {uuid4()}", temporal.workflow_service, datetime.now(UTC)
    queue = TaskQueue(name=f"steporal.doctor/{uuid4()}")
    request = api.PollActivityTaskQueueRequest(namespace=temporal.namespace, task_queue=queue, identity=identity)
    polling = asyncio.ensure_future(service.poll_activity_task_queue(request))
    try:
        async with asyncio.timeout(_POLL_SECONDS):
            seen = await _seen(service, temporal.namespace, queue, identity)
    except TimeoutError:
        return None
    finally:
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
    after = datetime.now(UTC)
    if before <= seen <= after:
        return timedelta(0)
    return before - seen if seen < before else after - seen


async def _seen(service: WorkflowService, namespace: str, queue: TaskQueue, identity: str) -> datetime:
    request = api.DescribeTaskQueueRequest(
        namespace=namespace, task_queue=queue, task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
    )
    while True:
        described = await service.describe_task_queue(request)
        for poller in described.pollers:
            if poller.identity == identity:
                return poller.last_access_time.ToDatetime(tzinfo=UTC)
        await asyncio.sleep(0.05)
