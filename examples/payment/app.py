"""An order that waits for its payment: an event of another system, matched by a field, with a timeout.

Run it: ``steporal dev examples.payment.app:client``, and then, in another terminal,
``steporal send order.created --data '{"order_id": "A-1", "amount": 30}'`` and
``steporal send payment.received --data '{"order_id": "A-1", "amount": 30}'``.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

import steporal
from steporal import CancelOn, Context, Step, WorkflowExt, event_trigger

client = steporal.Client("payments")


class Order(BaseModel):
    """An order and its price."""

    order_id: str
    amount: float


class Outcome(BaseModel):
    """The outcome."""

    status: Literal["shipped", "underpaid", "unpaid"]


@client.workflow(
    id="await-payment",
    input_schema=Order,
    triggers=[event_trigger("order.created")],
    ext=WorkflowExt(cancel_on=[CancelOn("order.withdrawn", match="data.order_id")]),
)
async def await_payment(ctx: Context[Order], step: Step) -> Outcome:
    """Send the invoice, wait for the payment, and branch. Listen first, as some customers are quick."""
    order = ctx.input.data
    try:
        async with await step.ext.listen(
            "listen", event="payment.received", match="data.order_id", timeout="7d"
        ) as payments:
            await step.run("send-invoice", lambda: f"invoice for {order.order_id}: {order.amount}")
            payment = await payments.next("payment", timeout="1d")
            if payment is None:
                await step.run("send-reminder", lambda: f"reminder for {order.order_id}")
                payment = await payments.next("late-payment")
    finally:
        await step.run("close-invoice", lambda: f"invoice of {order.order_id} closed")
    if payment is None:
        return Outcome(status="unpaid")
    if payment.data["amount"] < order.amount:
        return Outcome(status="underpaid")
    await step.run("ship", lambda: f"parcel for {order.order_id}")
    return Outcome(status="shipped")
