"""Telling runs of the events that they wait for: the activity of topics, which any app's worker serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import temporalio.client
from temporalio import activity
from temporalio.common import RawValue
from temporalio.service import RPCError, RPCStatusCode

from ..converter import from_raw, to_raw
from ..reporting import alive
from ..runtime.inbox import DELIVER
from .catalog import is_about_namespace
from .topic import DELIVER_EVENTS, Batch, Delivery

CONCURRENCY = 32
"""Runs that one activity tells at once."""

_RPC_TIMEOUT = timedelta(seconds=10)


@activity.defn(name=DELIVER_EVENTS)
async def deliver_events(argument: RawValue) -> RawValue:
    """Tell runs of events, each run in the order given; returns the ids of the subscriptions whose run is gone."""
    batch = Batch.model_validate(from_raw(argument))
    temporal = activity.client()
    by_run: dict[str, list[Delivery]] = {}
    for delivery in batch.deliveries:
        by_run.setdefault(delivery.workflow_id, []).append(delivery)
    slots = asyncio.Semaphore(CONCURRENCY)
    gone: list[str] = []

    async def tell(deliveries: list[Delivery]) -> None:
        async with slots:
            told = [(delivery, await _is_told(temporal, delivery, batch)) for delivery in deliveries]
            gone.extend(delivery.subscription_id for delivery, is_told in told if not is_told)

    async with alive(), asyncio.TaskGroup() as group:
        for deliveries in by_run.values():
            group.create_task(tell(deliveries))
    return to_raw(gone)


async def _is_told(temporal: temporalio.client.Client, delivery: Delivery, batch: Batch) -> bool:
    try:
        if delivery.kind == "cancel":
            handle = temporal.get_workflow_handle(delivery.workflow_id, first_execution_run_id=delivery.run_id)
            await handle.cancel(rpc_timeout=_RPC_TIMEOUT)
        else:
            message = {"key": delivery.key, "run_id": delivery.run_id, "event": batch.events[delivery.event]}
            handle = temporal.get_workflow_handle(delivery.workflow_id)
            await handle.signal(DELIVER, to_raw(message), rpc_timeout=_RPC_TIMEOUT)
    except RPCError as err:
        if err.status != RPCStatusCode.NOT_FOUND or is_about_namespace(err):
            raise
        return False
    return True


SYSTEM_ACTIVITIES: list[Callable[..., Any]] = [deliver_events]
