"""An expense that somebody must approve: its run waits for an answer, and continues without one after a timeout.

Run it: ``steporal dev examples.approval.app:client``, and then, in another terminal,
``steporal start expense --input '{"expense_id": "E-1", "amount": 1200, "by": "ada@example.com"}' --wait`` and
``steporal signal approval/E-1 --data '{"approved": true, "by": "grace@example.com"}'``.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

import steporal
from steporal import Context, Step

client = steporal.Client("approvals")


class Expense(BaseModel):
    """An amount that somebody spent."""

    expense_id: str
    amount: float
    by: str


class Answer(BaseModel):
    """The answer of the approver."""

    approved: bool
    by: str
    note: str = ""


class Decision(BaseModel):
    """The outcome."""

    status: Literal["approved", "rejected", "expired"]
    by: str = ""


@client.workflow(id="expense", input_schema=Expense)
async def expense(ctx: Context[Expense], step: Step) -> Decision:
    """Ask for approval, wait, and branch on the answer."""
    request = ctx.input.data
    await step.run(
        "ask", lambda: f"mail to the approver: {request.by} spent {request.amount}; approval/{request.expense_id}"
    )

    answer = await step.wait_for_signal(
        "wait-for-approval", signal=f"approval/{request.expense_id}", timeout="3d", schema=Answer
    )
    if answer is None:
        await step.run("remind", lambda: f"mail to {request.by}: nobody answered")
        return Decision(status="expired")
    if not answer.data.approved:
        await step.run("tell", lambda: f"mail to {request.by}: rejected by {answer.data.by}: {answer.data.note}")
        return Decision(status="rejected", by=answer.data.by)
    await step.run("pay-back", lambda: f"{request.amount} to {request.by}")
    return Decision(status="approved", by=answer.data.by)
