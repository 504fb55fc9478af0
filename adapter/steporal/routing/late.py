"""Events that a topic could not be told of when they were sent: a Temporal workflow holds them, and tells it later.

Temporal refuses a signal to a workflow that has had 10,000, which continues as new as soon as a worker is up. Whoever
sends events then goes on: no topic is in the way of the runs that an event starts.
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
from .catalog import SYSTEM_TASK_QUEUE, is_about_namespace
from .messages import of_any_count, read, said

LATE = "steporal.late_events"
TELL_TOPIC = "steporal.tell_topic"

_PATIENCE = timedelta(days=7)
_RPC_TIMEOUT = timedelta(seconds=10)
_MAX_RECEIVER = 4096


class Letter(BaseModel):
    """Messages for a topic.

    Attributes:
        receiver: Its Temporal workflow id.
        signal: The signal.
        messages: What the signal brings.
    """

    model_config = ConfigDict(frozen=True)

    receiver: str = Field(min_length=1, max_length=_MAX_RECEIVER)
    signal: str
    messages: list[Any]


@workflow.defn(name=LATE, sandboxed=False)
class LateWorkflow:
    """Tells a topic of events, as soon as that takes them."""

    @workflow.run
    @of_any_count
    async def run(self, letter: RawValue) -> None:
        """Try for a week.

        Args:
            letter: A :class:`Letter`.
        """
        sent = read(Letter, said(letter), "letter to a topic")
        if sent is not None:
            await workflow.execute_activity(
                TELL_TOPIC,
                letter,
                result_type=RawValue,
                start_to_close_timeout=timedelta(minutes=1),
                schedule_to_close_timeout=_PATIENCE,
                retry_policy=RetryPolicy(maximum_interval=timedelta(seconds=10)),
            )


@activity.defn(name=TELL_TOPIC)
async def tell_topic(argument: RawValue) -> RawValue:
    """Tell a topic; one that has ended has nobody who waits."""
    letter = Letter.model_validate(from_raw(argument))
    try:
        return to_raw(await signalled(activity.client(), letter.receiver, letter.signal, letter.messages))
    except RPCError as err:  # expected for a while, so nothing to log
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


async def tell_later(temporal: temporalio.client.Client, letter: Letter) -> str:
    """Hand over what a topic cannot be told of now; return the Temporal workflow id of who tells it.

    The same letter is one workflow.

    Raises:
        RPCError: Temporal does not take that either.
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
