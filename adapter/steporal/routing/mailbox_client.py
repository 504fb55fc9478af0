"""Client of mailboxes: opens and closes them for runs, and sends signals to them."""

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
"""Time that a mailbox may take to respond; with a worker of any app running, it takes a few milliseconds."""

_CONCURRENCY = 64
_TRIES = 5
_PAUSE = 0.5


@dataclass(frozen=True, slots=True)
class OpenMailbox:
    """An open mailbox.

    Attributes:
        run_id: The Temporal run id of the mailbox.
        wait: The wait in it.
    """

    run_id: str
    wait: Wait


class Mailboxes:
    """Mailboxes of a Temporal namespace."""

    def __init__(self, temporal: temporalio.client.Client) -> None:
        self._temporal = temporal

    # --- waits -----------------------------------------------------------------------------------------------------

    async def open(self, wait: Wait, *, replace: bool) -> OpenMailbox:
        """Open a mailbox for a wait, unless another run already waits.

        Opening a mailbox again for the same wait changes nothing.

        Args:
            wait: The wait.
            replace: Whether to replace another run that waits.

        Returns:
            The mailbox; it contains the other wait if that one stays.
        """
        while True:
            try:
                return OpenMailbox(await self._start(wait), wait)
            except WorkflowAlreadyStartedError as err:
                existing_run_id = err.run_id
            held = await self.find(wait.signal)
            if held is None:
                await self._until_ended(wait.signal, existing_run_id)
            elif held.wait.is_same(wait) or not (replace or await self._is_gone(held.wait)):
                return held
            elif await self._take(held, wait):
                return OpenMailbox(held.run_id, wait)

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
        """Return how a mailbox ended; None if Temporal no longer knows it, or if it was terminated."""
        mailbox = self._temporal.get_workflow_handle(mailbox_id(signal), run_id=run_id, result_type=RawValue)
        try:
            return Ended.model_validate(from_raw(await mailbox.result()))
        except WorkflowFailureError:
            return None
        except RPCError as err:
            if is_missing(err):
                return None
            raise

    async def find(self, signal: str) -> OpenMailbox | None:
        """Return the mailbox of a signal that a run waits for; this needs only Temporal, no worker."""
        description = await self._describe(mailbox_id(signal))
        if description is None or description.close_time is not None:
            return None
        try:
            wait = (await memo_of(description)).get(WAIT_KEY)
            return None if wait is None else OpenMailbox(description.run_id, Wait.model_validate(wait))
        except ValueError:  # a foreign workflow with the id of a mailbox
            return None

    async def _is_gone(self, wait: Wait) -> bool:
        """Return whether the waiting run has ended without closing its mailbox, for example by termination."""
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

    async def _take(self, held: OpenMailbox, wait: Wait) -> bool:
        claim = Claim(wait=wait, instead_of=held.wait)
        answer = await self._update(held.wait.signal, held.run_id, TAKE, to_raw(claim.model_dump(mode="json")))
        return answer is not None and bool(from_raw(answer))

    async def close(self, wait: Wait, run_id: str) -> bool:
        """Close the mailbox of a wait that is over.

        Args:
            wait: The wait.
            run_id: The mailbox's Temporal run id, as returned by :meth:`open`.

        Returns:
            Whether the wait had received the signal; in that case the signal is in the run's history, or about to be.
        """
        answer = await self._update(wait.signal, run_id, CLOSE, wait.raw())
        if answer is not None:
            return bool(from_raw(answer))
        ended = await self._until_ended(wait.signal, run_id)
        return ended is not None and ended.was_received_by(wait)

    async def release(self, waits: Sequence[Wait]) -> None:
        """Notify the mailboxes of waits that their run ends; closed mailboxes are ignored."""
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
            run_id: The mailbox's Temporal run id, as returned by :meth:`find`. With it, sending again does not reach
                the next waiting run.
            data: The signal's data.
            id: An idempotency key: sending again with the same id returns the same, and delivers nothing twice.

        Returns:
            The id of the run that received the signal, or None.

        Raises:
            InvalidInputError: The data does not fit the schema of the wait, which continues.
            RPCError: Temporal returned an error, or could not be reached.
            WorkflowUpdateRPCTimeoutOrCancelledError: No worker responded.
        """
        raw = await self._update(signal, run_id, SEND, data, id=id)
        if raw is None:
            return None
        answer = Answer.model_validate(from_raw(raw))
        if answer.issues is not None and answer.wait is not None:
            raise InvalidInputError(
                f"the data of signal {signal!r} does not fit the schema of step {answer.wait.key!r} of run "
                f"{answer.wait.workflow_id!r}, which has not received it and continues to wait: {answer.issues}"
            )
        return answer.run_id

    async def _update(
        self, signal: str, run_id: str, update: str, argument: RawValue, *, id: str | None = None
    ) -> RawValue | None:
        """Return a mailbox's response; None if it has ended. The same id gets the same response again."""
        mailbox = self._temporal.get_workflow_handle(mailbox_id(signal), run_id=run_id)
        id = id or str(uuid4())
        for remaining in reversed(range(_TRIES)):
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
                # Temporal aborts updates of a workflow whose workflow task is lost.
                if err.status != RPCStatusCode.UNAVAILABLE or not remaining:
                    raise
            await asyncio.sleep(_PAUSE / (remaining + 1))
        raise AssertionError("the last try returns or raises")
