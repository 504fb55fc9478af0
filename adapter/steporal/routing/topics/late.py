"""Late delivery of events to a topic that accepts no signals when they are sent.

Temporal accepts 10,000 signals per execution, and terminates a workflow with 50 MiB of history. A topic continues as
new before that, but not while no worker is up, or while it holds more events than its next execution can receive. The
sender then starts a workflow with the events, which retries until the topic has room, and ``send_event`` succeeds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, ClassVar

import temporalio.client
from pydantic import BaseModel, ConfigDict, Field
from temporalio import activity, workflow
from temporalio.client import WorkflowExecutionStatus
from temporalio.common import RawValue, RetryPolicy, WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.service import RPCError

from ...rpc import is_missing
from ...sdk.any_arguments import of_any_count
from ...types import JSON
from ...values.converter import dumps, from_raw, to_raw
from ...wire.names import LATE, PUBLISH_LATE, SYSTEM_TASK_QUEUE
from ...workflow_kinds import of_kind
from ..messages import message_json, read

FULL_BYTES = 16 * 1024 * 1024
"""Size of a topic's history from which it receives no more events. It may double while the topic delivers the rest."""

CHECKED_BYTES = 1024 * 1024
"""Number of bytes that a process sends to a topic between two checks of its history's size."""

_MAX_CHECKED = 1_000
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

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    receiver: str = Field(min_length=1, max_length=_MAX_RECEIVER)
    signal: str
    messages: list[Any]


@workflow.defn(name=LATE, sandboxed=False)
@of_kind("system")
class LateWorkflow:
    """Delivers events to a topic as soon as the topic accepts signals."""

    @workflow.run
    @of_any_count
    async def run(self, letter: RawValue) -> None:
        """Retry for a week.

        Args:
            letter: A :class:`Letter`.
        """
        events = read(Letter, message_json(letter), "events for a topic")
        if events is not None:
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
    if not await has_room(activity.client(), letter.receiver):
        raise ApplicationError(f"{letter.receiver} has no room yet", category=ApplicationErrorCategory.BENIGN)
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
        if is_missing(err):
            return False
        raise
    return True


async def has_room(temporal: temporalio.client.Client, receiver: str) -> bool:
    """Return whether the history of a topic is short enough for more events."""
    try:
        described = await temporal.get_workflow_handle(receiver).describe(rpc_timeout=_RPC_TIMEOUT)
    except RPCError as err:
        if is_missing(err):
            return True
        raise
    is_open = described.status == WorkflowExecutionStatus.RUNNING
    return not is_open or described.raw_description.workflow_execution_info.history_size_bytes < FULL_BYTES


class Room:
    """Room in topics, as this process last checked it."""

    def __init__(self) -> None:
        self._sent: dict[str, int] = {}  # bytes since the last check, of the topics used last
        self._forgotten = 0  # upper limit of the bytes sent to other topics since their last check

    async def is_left(self, temporal: temporalio.client.Client, receiver: str, size: int) -> bool:
        """Return whether a topic has room for events of a given size.

        Raises:
            RPCError: Temporal could not be reached, or refused.
        """
        sent = self._sent.pop(receiver, self._forgotten) + size
        is_left = True
        try:
            if sent >= CHECKED_BYTES and (is_left := await has_room(temporal, receiver)):
                sent = size
        finally:
            self._sent[receiver] = sent
            if len(self._sent) > _MAX_CHECKED:
                self._forgotten = max(self._forgotten, self._sent.pop(next(iter(self._sent))))
        return is_left


async def publish_later(temporal: temporalio.client.Client, letter: Letter) -> str:
    """Start a workflow that delivers events later, and return its workflow id. The same events start one workflow.

    Raises:
        RPCError: Temporal also rejects the start.
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
