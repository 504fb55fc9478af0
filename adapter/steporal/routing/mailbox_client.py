"""What is done with mailboxes from outside: runs open and close them, and everybody sends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import temporalio.client
from temporalio.client import WorkflowFailureError, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.common import RawValue, WorkflowIDConflictPolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from ..errors import InvalidInputError
from ..rpc import is_missing
from ..values.converter import from_raw, to_raw
from ..values.encrypted import memo_of
from ..wire.limits import summary
from ..wire.mailbox_wait import Wait
from ..wire.names import CLOSE, MAILBOX, RELEASE, SEND, SYSTEM_TASK_QUEUE, TAKE, WAIT_KEY
from .mailbox import Answer, Claim, Ended, mailbox_id
from .messages import TASK_TIMEOUT

ANSWER_TIMEOUT = timedelta(seconds=30)
"""How long a mailbox may take to answer; it takes some milliseconds where any app's worker is up."""

_CONCURRENCY = 64
_TRIES = 5
_PAUSE = 0.5


@dataclass(frozen=True, slots=True)
class Held:
    """A mailbox that is open.

    Attributes:
        run_id: Temporal's run id of the mailbox itself.
        wait: Who waits.
    """

    run_id: str
    wait: Wait


class Mailboxes:
    """The mailboxes of a Temporal namespace."""

    def __init__(self, temporal: temporalio.client.Client) -> None:
        self._temporal = temporal

    # --- who waits -------------------------------------------------------------------------------------------------

    async def open(self, wait: Wait, *, replace: bool) -> Held:
        """Open a mailbox for a wait, unless another run waits already.

        Opening one again for the same wait changes nothing.

        Args:
            wait: The wait.
            replace: Whether to take the place of another run that waits.

        Returns:
            The mailbox; it has another wait where that one stays.
        """
        while True:
            try:
                return Held(await self._start(wait), wait)
            except WorkflowAlreadyStartedError as err:
                there = err.run_id
            held = await self.find(wait.signal)
            if held is None:
                await self._until_ended(wait.signal, there)
            elif held.wait.is_same(wait) or not (replace or await self._is_gone(held.wait)):
                return held
            elif await self._take(held, wait):
                return Held(held.run_id, wait)

    async def _start(self, wait: Wait) -> str:
        handle = await self._temporal.start_workflow(
            MAILBOX,
            wait.raw(),
            id=mailbox_id(wait.signal),
            task_queue=SYSTEM_TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            task_timeout=TASK_TIMEOUT,
            memo={WAIT_KEY: wait.model_dump(mode="json")},
            static_summary=summary(f"{wait.workflow_id} waits for {wait.signal}"),
        )
        return handle.first_execution_run_id or ""

    async def _until_ended(self, signal: str, run_id: str | None) -> Ended | None:
        """How a mailbox ended; None if Temporal does not know any more, or somebody has terminated it."""
        mailbox = self._temporal.get_workflow_handle(mailbox_id(signal), run_id=run_id, result_type=RawValue)
        try:
            return Ended.model_validate(from_raw(await mailbox.result()))
        except WorkflowFailureError:
            return None
        except RPCError as err:
            if is_missing(err):
                return None
            raise

    async def find(self, signal: str) -> Held | None:
        """The mailbox of a signal that some run waits for; asks Temporal alone, no worker."""
        description = await self._describe(mailbox_id(signal))
        if description is None or description.close_time is not None:
            return None
        try:
            wait = (await memo_of(description)).get(WAIT_KEY)
            return None if wait is None else Held(description.run_id, Wait.model_validate(wait))
        except ValueError:  # a workflow with the name of a mailbox, which somebody else has started
            return None

    async def _is_gone(self, wait: Wait) -> bool:
        """Whether the run that waits has ended without closing its mailbox, as one that was terminated has."""
        description = await self._describe(wait.workflow_id)
        if description is None or description.close_time is not None:
            return True
        first_run_id = description.raw_description.workflow_execution_info.first_run_id
        return bool(first_run_id) and first_run_id != wait.run_id

    async def _describe(self, workflow_id: str) -> temporalio.client.WorkflowExecutionDescription | None:
        try:
            return await self._temporal.get_workflow_handle(workflow_id).describe()
        except RPCError as err:
            if is_missing(err):
                return None
            raise

    async def _take(self, held: Held, wait: Wait) -> bool:
        claim = Claim(wait=wait, instead_of=held.wait)
        answer = await self._ask(held.wait.signal, held.run_id, TAKE, to_raw(claim.model_dump(mode="json")))
        return answer is not None and bool(from_raw(answer))

    async def close(self, wait: Wait, run_id: str) -> bool:
        """Close the mailbox of a wait that is over.

        Args:
            wait: The wait.
            run_id: Temporal's run id of the mailbox that :meth:`open` returned.

        Returns:
            Whether the wait has received the signal before; then it is in the run's history, or about to be.
        """
        answer = await self._ask(wait.signal, run_id, CLOSE, wait.raw())
        if answer is not None:
            return bool(from_raw(answer))
        ended = await self._until_ended(wait.signal, run_id)
        return ended is not None and ended.was_received_by(wait)

    async def release(self, waits: Sequence[Wait]) -> None:
        """Tell the mailboxes of waits that their run ends; nothing happens to those that are closed."""
        for start in range(0, len(waits), _CONCURRENCY):
            await asyncio.gather(*map(self._release, waits[start : start + _CONCURRENCY]))

    async def _release(self, wait: Wait) -> None:
        try:
            await self._temporal.get_workflow_handle(mailbox_id(wait.signal)).signal(RELEASE, wait.raw())
        except RPCError as err:
            if not is_missing(err):
                raise

    # --- sending ---------------------------------------------------------------------------------------------------

    async def send(self, signal: str, run_id: str, data: RawValue, *, id: str) -> str | None:
        """Send a signal to a mailbox.

        Args:
            signal: The signal's name.
            run_id: Temporal's run id of the mailbox, which :meth:`find` has found. It makes sure that sending again
                does not reach the next run that waits.
            data: The signal's data.
            id: Sending again with the same one returns the same, and delivers nothing twice.

        Returns:
            The id of the run that has received it, or None.

        Raises:
            InvalidInputError: The data does not fit the schema of the wait, which goes on.
            RPCError: Temporal refused, or could not be reached.
            WorkflowUpdateRPCTimeoutOrCancelledError: No worker answered.
        """
        raw = await self._ask(signal, run_id, SEND, data, id=id)
        if raw is None:
            return None
        answer = Answer.model_validate(from_raw(raw))
        if answer.issues is not None and answer.wait is not None:
            raise InvalidInputError(
                f"the data of signal {signal!r} does not fit the schema of step {answer.wait.key!r} of run "
                f"{answer.wait.workflow_id!r}, which has not received it and waits on: {answer.issues}"
            )
        return answer.run_id

    async def _ask(
        self, signal: str, run_id: str, update: str, argument: RawValue, *, id: str | None = None
    ) -> RawValue | None:
        """A mailbox's answer; None if it has ended. One that has answered this id before answers the same."""
        mailbox = self._temporal.get_workflow_handle(mailbox_id(signal), run_id=run_id)
        id = id or str(uuid4())
        for left in reversed(range(_TRIES)):
            try:
                answer: RawValue = await mailbox.execute_update(
                    update, argument, id=id, result_type=RawValue, rpc_timeout=ANSWER_TIMEOUT
                )
                return answer
            except WorkflowUpdateRPCTimeoutOrCancelledError as err:
                if isinstance(err.__cause__, asyncio.CancelledError):
                    raise asyncio.CancelledError from None
                raise
            except RPCError as err:
                if is_missing(err):
                    return None
                # Temporal aborts updates of a workflow whose task is lost.
                if err.status != RPCStatusCode.UNAVAILABLE or not left:
                    raise
            await asyncio.sleep(_PAUSE / (left + 1))
        raise AssertionError("the last try returns or raises")
