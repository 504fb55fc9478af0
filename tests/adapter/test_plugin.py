"""client.plugin(): what a worker does with it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import temporalio.client
from temporalio.client import CreateScheduleInput, Interceptor, OutboundInterceptor, ScheduleHandle
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

import steporal
from steporal import Context, DefinitionError, Step, cron_trigger

pytestmark = pytest.mark.outside_runs


class NoSchedules(Interceptor):
    """What a client meets that may not create schedules."""

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        return _Denied(next)


class _Denied(OutboundInterceptor):
    async def create_schedule(self, input: CreateScheduleInput) -> ScheduleHandle:
        raise RPCError("no permission to create schedules", RPCStatusCode.PERMISSION_DENIED, b"")


async def test_a_worker_that_cannot_register_its_app_ends_with_the_reason(
    app: steporal.Client, temporal: temporalio.client.Client
) -> None:
    @app.workflow(id="nightly", triggers=[cron_trigger("@daily")])
    async def nightly(ctx: Context[Any], step: Step) -> None: ...

    config = temporal.config()
    config["interceptors"] = [NoSchedules()]
    worker = Worker(temporalio.client.Client(**config), task_queue=app.task_queue, plugins=[app.plugin()])
    with pytest.raises(BaseException) as raised:
        async with asyncio.timeout(60):
            await worker.run()
    assert "no permission to create schedules" in repr(raised.value) + repr(getattr(raised.value, "exceptions", ""))


def test_a_worker_takes_the_plugin_of_one_client(
    app: steporal.Client, other_app: steporal.Client, temporal: temporalio.client.Client
) -> None:
    with pytest.raises(DefinitionError, match="the plugin of one steporal client"):
        Worker(temporal, task_queue=app.task_queue, plugins=[app.plugin(), other_app.plugin()])
