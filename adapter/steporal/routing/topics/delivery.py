"""Delivery of events to waiting runs: the activity of topics, which any app's worker serves."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any

import temporalio.client
from temporalio import activity
from temporalio.common import RawValue
from temporalio.service import RPCError, RPCStatusCode

from ...activities.reporting import alive
from ...metrics import DELIVERIES
from ...observability.tracing import TRACE, delivering
from ...rpc import is_about_namespace
from ...types import JSON
from ...values.converter import from_raw, to_raw
from ...wire.names import DELIVER, DELIVER_EVENTS, LIST_TOPICS
from .directory import Wanted
from .directory_client import Directory
from .lanes import Batch, Delivery
from .late import publish_late

CONCURRENCY = 32
"""Number of runs that one activity delivers to concurrently."""

_RPC_TIMEOUT = timedelta(seconds=10)
_PAUSE_SECONDS = 5.0


@activity.defn(name=DELIVER_EVENTS)
async def deliver_events(argument: RawValue) -> RawValue:
    """Deliver events to runs, in the given order for each run.

    Returns:
        The ids of the subscriptions whose run no longer exists; or, if runs currently accept no signals,
        ``{"gone", "later"}`` with the positions of the deliveries to repeat.
    """
    batch = Batch.model_validate(from_raw(argument))
    traces = [event.pop(TRACE, None) for event in batch.events]
    temporal = activity.client()
    by_run: dict[str, list[Delivery]] = {}
    for delivery in batch.deliveries:
        by_run.setdefault(delivery.workflow_id, []).append(delivery)
    slots = asyncio.Semaphore(CONCURRENCY)
    gone: list[str] = []
    later: list[int] = []

    async def deliver(deliveries: list[Delivery]) -> None:
        async with slots:
            for number, delivery in enumerate(deliveries):
                event, trace = batch.events[delivery.event], traces[delivery.event]
                try:
                    with delivering(temporal, event, trace, delivery.workflow_id, delivery.key):
                        is_delivered = await _is_delivered(temporal, delivery, event)
                    if not is_delivered:
                        gone.append(delivery.subscription_id)
                except RPCError as err:
                    if not _is_full(err):
                        raise
                    later.extend(map(batch.deliveries.index, deliveries[number:]))
                    return

    async with alive():
        async with asyncio.TaskGroup() as group:
            for deliveries in by_run.values():
                group.create_task(deliver(deliveries))
        _count(batch, gone, later)
        if not later:
            return to_raw(gone)
        await asyncio.sleep(_PAUSE_SECONDS)
    return to_raw({"gone": gone, "later": sorted(later)})


def _count(batch: Batch, gone: Collection[str], later: Collection[int]) -> None:
    outcomes: Counter[tuple[str, str]] = Counter()
    for position, delivery in enumerate(batch.deliveries):
        outcome = "later" if position in later else "gone" if delivery.subscription_id in gone else "delivered"
        outcomes[delivery.kind, outcome] += 1
    for (kind, outcome), count in outcomes.items():
        DELIVERIES.add(activity.metric_meter(), count, kind=kind, outcome=outcome)


def _is_full(error: RPCError) -> bool:
    """Return whether a run has received all signals that Temporal allows it, until it continues as new."""
    return error.status == RPCStatusCode.INVALID_ARGUMENT and "exceeded workflow execution limit" in error.message


async def _is_delivered(temporal: temporalio.client.Client, delivery: Delivery, event: JSON) -> bool:
    try:
        if delivery.kind == "cancel":
            handle = temporal.get_workflow_handle(delivery.workflow_id, first_execution_run_id=delivery.run_id)
            await handle.cancel(rpc_timeout=_RPC_TIMEOUT)
        else:
            message = {"key": delivery.key, "run_id": delivery.run_id, "event": event}
            handle = temporal.get_workflow_handle(delivery.workflow_id)
            await handle.signal(DELIVER, to_raw(message), rpc_timeout=_RPC_TIMEOUT)
    except RPCError as err:
        # An invalid argument, such as an id that is too long, is rejected each time: a retry does not help.
        is_refused = err.status == RPCStatusCode.INVALID_ARGUMENT and not _is_full(err)
        if not is_refused and (err.status != RPCStatusCode.NOT_FOUND or is_about_namespace(err)):
            raise
        return False
    return True


@activity.defn(name=LIST_TOPICS)
async def list_topics(argument: RawValue) -> RawValue:
    """List topics of one shard of the directory; confirm those that are already listed."""
    wanted = [Wanted.model_validate(one) for one in from_raw(argument)]
    await Directory(activity.client()).list_topics(wanted)
    return to_raw(None)


SYSTEM_ACTIVITIES: list[Callable[..., Any]] = [deliver_events, list_topics, publish_late]
