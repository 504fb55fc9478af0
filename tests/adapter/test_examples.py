"""The examples that wait: what they do when the answer comes, and when it does not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import temporalio.client
from recording import Workers
from waiting import until_waiting

import steporal
from examples.approval import app as approval
from examples.payment import app as payment
from steporal import RunCancelledError
from steporal.events import new_ulid

pytestmark = pytest.mark.outside_runs


async def signalled(client: steporal.Client, signal: str, data: Any) -> None:
    """Send a signal as soon as a run waits for it."""
    async with asyncio.timeout(60):
        while (await client.send_signal(signal, data)).run_id is None:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("approved", "status"), [(True, "approved"), (False, "rejected")])
async def test_an_expense_follows_the_answer(workers: Workers, approved: bool, status: str) -> None:
    expense = approval.Expense(expense_id=new_ulid(), amount=1200, by="ada@example.com")
    async with workers(approval.client):
        run = await approval.expense.start(expense)
        answer = {"approved": approved, "by": "grace@example.com"}
        await signalled(approval.client, f"approval/{expense.expense_id}", answer)
        assert await run.result() == approval.Decision(status=status, by="grace@example.com")  # type: ignore[arg-type]


async def test_an_expense_without_an_answer_expires(workers: Workers, skipping: temporalio.client.Client) -> None:
    async with workers(approval.client):
        approval.client.temporal = skipping
        run = await approval.expense.start(approval.Expense(expense_id=new_ulid(), amount=1, by="ada@example.com"))
        assert await run.result() == approval.Decision(status="expired")


async def start_order(order_id: str) -> steporal.Run[payment.Outcome]:
    sent = await payment.client.send_event(
        {"name": "order.created", "data": {"order_id": order_id, "amount": 30}},
    )
    run = await payment.client.get_run(f"{payment.client.id}/await-payment/{sent.ids[0]}", payment.await_payment)
    await until_waiting(run)
    return run


@pytest.mark.parametrize(("amount", "status"), [(30, "shipped"), (29, "underpaid")])
async def test_an_order_follows_its_payment(workers: Workers, amount: float, status: str) -> None:
    order_id = new_ulid()
    async with workers(payment.client):
        run = await start_order(order_id)
        await payment.client.send_event(
            [
                {"name": "payment.received", "data": {"order_id": new_ulid(), "amount": 1}},
                {"name": "payment.received", "data": {"order_id": order_id, "amount": amount}},
            ]
        )
        assert (await run.result()).status == status


async def test_an_order_that_is_withdrawn_closes_its_invoice(workers: Workers) -> None:
    order_id = new_ulid()
    async with workers(payment.client):
        run = await start_order(order_id)
        await payment.client.send_event({"name": "order.withdrawn", "data": {"order_id": order_id}})
        with pytest.raises(RunCancelledError):
            await run.result()
        history = await run.temporal.fetch_history()
    ids = [event.activity_task_scheduled_event_attributes.activity_id for event in history.events]
    assert "close-invoice" in ids


async def test_an_order_that_nobody_pays_ends_after_a_reminder(
    workers: Workers, skipping: temporalio.client.Client
) -> None:
    async with workers(payment.client):
        payment.client.temporal = skipping
        run = await payment.await_payment.start(payment.Order(order_id=new_ulid(), amount=30))
        assert (await run.result()).status == "unpaid"
