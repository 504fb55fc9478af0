"""Checks of the server and the namespace, whatever app is in it."""

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

from steporal.durations import format_duration
from steporal.observability.search_attributes import TYPES, registered
from steporal.wire.limits import MAX_PAYLOAD_BYTES

from .verdicts import Subject, Verdict, bad, good, warning

DEDUPE = timedelta(days=1)
"""How long Inngest knows an event's id; here Temporal's retention is that time."""

MAX_SKEW, MUCH_SKEW = timedelta(seconds=2), timedelta(minutes=1)

_POLL_SECONDS = 5.0
_CALL = timedelta(seconds=10)

_UPGRADE = "upgrade Temporal: 1.28 and newer have all that is needed"


async def server(subject: Subject) -> Verdict:
    """Its version, and what it can do."""
    info = await subject.temporal.workflow_service.get_system_info(api.GetSystemInfoRequest(), timeout=_CALL)
    address = subject.temporal.service_client.config.target_host
    missing = [
        name
        for name, has in {
            "schedules": info.capabilities.supports_schedules,
            "memos that change": info.capabilities.upsert_memo,
            **{name: not _lacks(await _refusal(subject, name)) for name in _CALLS},
        }.items()
        if not has
    ]
    said = f"Temporal {info.server_version} at {address}"
    return bad(f"{said} does not support: {', '.join(missing)}", _UPGRADE) if missing else good(said)


async def namespace(subject: Subject) -> Verdict:
    """Whether runs can be started in it."""
    name, state = subject.temporal.namespace, subject.namespace.namespace_info.state
    if state == NamespaceState.NAMESPACE_STATE_UNSPECIFIED:
        return warning(f"namespace {name!r} may not be described with this key", "give one that may read it")
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
"""Calls that are needed. Asked for nothing, Temporal says first whether one may ask at all."""

_FORBIDDEN = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED)


async def permissions(subject: Subject) -> Verdict:
    """What the connection's key or certificate allows."""
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
    """Why a call is refused that asks for nothing."""
    method, request = _CALLS[name]
    call: Callable[..., Any] = getattr(subject.temporal.workflow_service, method)
    try:
        await call(request(namespace=subject.temporal.namespace), timeout=_CALL)
    except RPCError as err:
        return None if err.status == RPCStatusCode.INVALID_ARGUMENT else err
    return None


def _lacks(refused: RPCError | None) -> bool:
    return refused is not None and refused.status == RPCStatusCode.UNIMPLEMENTED


# --- what the namespace is set to ----------------------------------------------------------------------------------


async def search_attributes(subject: Subject) -> Verdict:
    """Whether runs can be found by app, workflow and event."""
    existing = await registered(subject.temporal)
    missing = [name for name, kind in TYPES.items() if existing.get(name) != kind]
    if missing:
        return warning(f"not registered: {', '.join(missing)}", "`steporal setup` registers them")
    return good(f"{len(TYPES)} are registered")


async def retention(subject: Subject) -> Verdict:
    """How long an event's id starts nothing twice."""
    kept = subject.namespace.config.workflow_execution_retention_ttl.ToTimedelta()
    said = f"runs are kept for {format_duration(kept)} after their end, and so long an event id starts nothing twice"
    if not kept:
        return warning("the server does not say how long it keeps runs", f"keep them for {format_duration(DEDUPE)}")
    if kept < DEDUPE:
        return warning(
            f"{said}; in Inngest it is {format_duration(DEDUPE)}",
            f"temporal operator namespace update --namespace {subject.temporal.namespace} --retention 24h",
        )
    return good(said)


async def payload_limits(subject: Subject) -> Verdict:
    """Whether values have the size that Steporal lets through."""
    limits = subject.namespace.namespace_info.limits
    blob, memo = limits.blob_size_limit_error, limits.memo_size_limit_error
    if not blob:
        return warning(
            "this server does not report its limits", f"limit.blobSize.error should be {MAX_PAYLOAD_BYTES:,}"
        )
    if blob < MAX_PAYLOAD_BYTES:
        return warning(
            f"values over {blob:,} bytes fail runs; Steporal lets {MAX_PAYLOAD_BYTES:,} through",
            "raise limit.blobSize.error in Temporal's dynamic configuration to 2097152",
        )
    if memo < MAX_PAYLOAD_BYTES:
        return warning(
            f"a shard of the catalog has {memo:,} bytes, and Steporal puts up to 1,800,000 there",
            "raise limit.memoSize.error in Temporal's dynamic configuration to 2097152",
        )
    return good(f"{blob:,} bytes a value, {memo:,} for a shard of the catalog")


# --- the clock -----------------------------------------------------------------------------------------------------


async def clock(subject: Subject) -> Verdict:
    """Whether this machine's clock is the server's."""
    skew = await _skew(subject.temporal)
    if skew is None:
        return warning("the server's time was not found out", "let clocks be set by NTP")
    if abs(skew) <= MAX_SKEW:
        return good("within 2 s of the server's")
    shown = format_duration(timedelta(seconds=round(abs(skew).total_seconds())))
    said = f"this machine's is {shown} {'ahead' if skew > timedelta(0) else 'behind'}"
    remedy = "set it by NTP: events that are sent here without a ts have this clock's"
    return bad(said, remedy) if abs(skew) > MUCH_SKEW else warning(said, remedy)


async def _skew(temporal: temporalio.client.Client) -> timedelta | None:
    """How far this clock is ahead.

    No call tells the server's time. But it notes when somebody has polled a task queue, and tells that; so we do.
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
