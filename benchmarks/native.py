"""The workflows that are measured, written by hand for Temporal."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from temporalio import activity, workflow
from temporalio.common import RetryPolicy

OPTIONS: dict[str, Any] = {
    "start_to_close_timeout": timedelta(days=1),
    "heartbeat_timeout": timedelta(seconds=30),
    "retry_policy": RetryPolicy(maximum_attempts=4),
}


class Order(BaseModel):
    order_id: str
    amount: int


@activity.defn
async def add(amount: int) -> int:
    return amount + 1


@workflow.defn(name="native-steps-1")
class Steps1:
    @workflow.run
    async def run(self, order: Order) -> int:
        return await workflow.execute_activity(add, order.amount, **OPTIONS)


@workflow.defn(name="native-steps-3")
class Steps3:
    @workflow.run
    async def run(self, order: Order) -> int:
        amount = order.amount
        for _ in range(3):
            amount = await workflow.execute_activity(add, amount, **OPTIONS)
        return amount


@workflow.defn(name="native-steps-10")
class Steps10:
    @workflow.run
    async def run(self, order: Order) -> int:
        amount = order.amount
        for _ in range(10):
            amount = await workflow.execute_activity(add, amount, **OPTIONS)
        return amount


@workflow.defn(name="native-steps-50")
class Steps50:
    @workflow.run
    async def run(self, order: Order) -> int:
        amount = order.amount
        for _ in range(50):
            amount = await workflow.execute_activity(add, amount, **OPTIONS)
        return amount


@workflow.defn(name="native-local-3")
class Local3:
    @workflow.run
    async def run(self, order: Order) -> int:
        amount = order.amount
        for _ in range(3):
            amount = await workflow.execute_local_activity(add, amount, start_to_close_timeout=timedelta(minutes=1))
        return amount


@workflow.defn(name="native-asleep")
class Asleep:
    @workflow.run
    async def run(self, order: Order) -> int:
        amount = await workflow.execute_activity(add, order.amount, **OPTIONS)
        await workflow.sleep(timedelta(hours=1))
        return amount


@workflow.defn(name="native-nothing")
class Nothing:
    @workflow.run
    async def run(self, data: dict[str, Any]) -> None:
        return None


WORKFLOWS = [Steps1, Steps3, Steps10, Steps50, Local3, Asleep, Nothing]
