"""Late delivery of events to a topic that accepts no signals when they are sent.

Temporal accepts 10,000 signals per execution. A topic continues as new before that, but only a worker can do so: with
no worker, Temporal refuses further signals. The sender then starts a workflow with the events, which retries until the
topic accepts them, and ``send_event`` succeeds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import temporalio.client
from pydantic import BaseModel, ConfigDict, Field
from temporalio import activity, workflow
from temporalio.common import RawValue, RetryPolicy, WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.service import RPCError, RPCStatusCode

from ..converter import dumps, from_raw, to_raw
from ..types import JSON
from .calls import is_about_namespace
from .messages import SYSTEM_TASK_QUEUE, of_any_count, read, said

LATE = "steporal.late_events"
PUBLISH_LATE = "steporal.publish_late"

_PATIENCE = timedelta(days=7)
_RPC_TIMEOUT = timedelta(seconds=10)
_MAX_RECEIVER = 4096


class Letter(BaseModel):
    """Events for a topic.

    Attributes:
        receiver: The topic's Temporal workflow id.
        signal: The name of the signal.
        messages: The argument of the signal.
    """

    model_config = ConfigDict(frozen=True)

    receiver: str = Field(min_length=1, max_length=_MAX_RECEIVER)
    signal: str
    messages: list[Any]


@workflow.defn(name=LATE, sandboxed=False)
class LateWorkflow:
    """Delivers events to a topic as soon as the topic accepts signals."""

    @workflow.run
    @of_any_count
    async def run(self, letter: RawValue) -> None:
        """Retry for a week.

        Args:
            letter: A :class:`Letter`.
        """
        sent = read(Letter, said(letter), "events for a topic")
        if sent is not None:
            await workflow.execute_activity(
                PUBLISH_LATE,
                letter,
                result_type=RawValue,
                start_to_close_timeout=timedelta(minutes=1),
                schedule_to_close_timeout=_PATIENCE,
                retry_policy=RetryPolicy(maximum_interval=timedelta(seconds=10)),
            )


@activity.defn(name=PUBLISH_LATE)
async def publish_late(argument: RawValue) -> RawValue:
    """Signal a topic. If it has ended, no run waits, and the events are dropped."""
    letter = Letter.model_validate(from_raw(argument))
    try:
        return to_raw(await signalled(activity.client(), letter.receiver, letter.signal, letter.messages))
    except RPCError as err:  # expected while no worker is up, so it is not logged
        category = ApplicationErrorCategory.BENIGN
        raise ApplicationError(err.message, type=type(err).__name__, category=category) from None


async def signalled(temporal: temporalio.client.Client, receiver: str, signal: str, messages: Sequence[object]) -> bool:
    """Signal a topic; return whether it runs."""
    try:
        handle = temporal.get_workflow_handle(receiver)
        await handle.signal(signal, to_raw(messages), rpc_timeout=_RPC_TIMEOUT)
    except RPCError as err:
        if err.status == RPCStatusCode.NOT_FOUND and not is_about_namespace(err):
            return False
        raise
    return True


async def publish_later(temporal: temporalio.client.Client, letter: Letter) -> str:
    """Start a workflow that delivers events later; return its Temporal workflow id. The same events start one workflow.

    Raises:
        RPCError: Temporal refuses that, too.
    """
    data: JSON = letter.model_dump(mode="json")
    id = f"{LATE}/{hashlib.sha256(dumps(data)).hexdigest()}"
    await temporal.start_workflow(
        LATE,
        to_raw(data),
        id=id,
        task_queue=SYSTEM_TASK_QUEUE,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        static_summary=f"{len(letter.messages)} events for {letter.receiver}"[:200],
        rpc_timeout=_RPC_TIMEOUT,
    )
    return id
