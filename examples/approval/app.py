"""An expense that somebody has to approve: a run that waits for an answer, and does without one when none comes.

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
    """What somebody spent."""

    expense_id: str
    amount: float
    by: str


class Answer(BaseModel):
    """What the approver says."""

    approved: bool
    by: str
    note: str = ""


class Decision(BaseModel):
    """How it ended."""

    status: Literal["approved", "rejected", "expired"]
    by: str = ""


@client.workflow(id="expense", input_schema=Expense)
async def expense(ctx: Context[Expense], step: Step) -> Decision:
    """Ask, wait, and branch on the answer."""
    asked = ctx.input.data
    await step.run("ask", lambda: f"mail to the approver: {asked.by} spent {asked.amount}; approval/{asked.expense_id}")

    answer = await step.wait_for_signal(
        "wait-for-approval", signal=f"approval/{asked.expense_id}", timeout="3d", schema=Answer
    )
    if answer is None:
        await step.run("remind", lambda: f"mail to {asked.by}: nobody answered")
        return Decision(status="expired")
    if not answer.data.approved:
        await step.run("tell", lambda: f"mail to {asked.by}: rejected by {answer.data.by}: {answer.data.note}")
        return Decision(status="rejected", by=answer.data.by)
    await step.run("pay-back", lambda: f"{asked.amount} to {asked.by}")
    return Decision(status="approved", by=answer.data.by)
