"""Mailboxes: one Temporal workflow for each signal that a run waits for.

A mailbox gives the first signal that it receives to the waiting run, and ends; it ends without a signal when the wait
does. Only the mailbox decides whether a wait has received a signal: senders learn it from their update, and a run whose
wait is over asks the mailbox before it continues. So the two always agree.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict
from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ApplicationError, FailureError

from ..sdk.any_arguments import of_any_count
from ..sdk.wait_until import wait_until
from ..types import JSON
from ..values.converter import to_raw
from ..wire.mailbox_wait import Wait
from ..wire.names import CHECK_SIGNAL, CLOSE, MAILBOX, RELEASE, SEND, SIGNALLED, TAKE, WAIT_KEY
from ..workflow_kinds import of_kind
from .messages import message_json, read, refuse

_TAKES_PER_MAILBOX = 500
"""Limit of takeovers of one mailbox: Temporal accepts 2,000 updates in one execution of a workflow.

A live mailbox replays with this number: another one needs ``workflow.patched``.
"""

_IS_FULL = "SignalCountLimitExceeded"
"""SDK's error type when a run has received all signals that Temporal allows it, until it continues as new."""


_CHECK_TIMEOUT = timedelta(minutes=1)
_CHECK_RETRY = RetryPolicy(maximum_interval=timedelta(seconds=10))

_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0

End = Literal["received", "closed", "timeout", "gone"]


def mailbox_id(signal: str) -> str:
    """Return the Temporal workflow id of the mailbox of a signal."""
    return f"{MAILBOX}/{signal}"


class Claim(BaseModel):
    """Request to a mailbox to replace its wait by another."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    wait: Wait
    instead_of: Wait


class Answer(BaseModel):
    """Response to a sender.

    Attributes:
        run_id: The id of the run that has received the signal; None if no run has.
        issues: The issues of the data; None if it is valid. With issues, the wait continues.
        wait: The wait whose type the data does not fit.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    run_id: str | None = None
    issues: str | None = None
    wait: Wait | None = None

    def raw(self) -> RawValue:
        """Return the response as a payload."""
        return to_raw(self.model_dump(mode="json"))


class Ended(BaseModel):
    """Result of a mailbox.

    Attributes:
        why: The reason for its end: its wait received a signal, was closed by its run, or timed out; or the waiting
            run no longer existed.
        wait: The last wait.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    why: End
    wait: Wait

    def was_received_by(self, wait: Wait) -> bool:
        """Return whether a wait has received the signal."""
        return self.why == "received" and self.wait.is_same(wait)


_NOBODY = Wait(signal="", workflow_id="", run_id="", key="", until=0)


@workflow.defn(name=MAILBOX, sandboxed=False)
@of_kind("system")
class MailboxWorkflow:
    """Gives a signal to the run that waits for it."""

    @workflow.init
    def __init__(self, wait: RawValue) -> None:
        first = read(Wait, message_json(wait), "wait for a signal")
        self._wait = first or _NOBODY
        self._end: End | None = None if first else "gone"
        self._is_delivering = False
        self._is_awaited = False
        self._takes = 0

    @workflow.run
    async def run(self, wait: RawValue) -> RawValue:
        """Run until the wait is over."""
        while self._end is None:
            waited = self._wait
            try:
                await self._until_changed(waited)
            except TimeoutError:
                await self._until_delivered()
                if self._wait is waited:
                    self._end = self._end or "timeout"
            except asyncio.CancelledError:
                await self._until_delivered()
                self._end = self._end or "closed"
        await workflow.wait_condition(workflow.all_handlers_finished)
        return to_raw(Ended(why=self._end, wait=self._wait).model_dump(mode="json"))

    async def _until_changed(self, wait: Wait) -> None:
        await wait_until(
            lambda: self._end is not None or self._wait is not wait,
            timeout=timedelta(seconds=max(wait.until - workflow.time(), 0.001)),
            summary="the wait's timeout",
        )

    async def _until_delivered(self) -> None:
        """Wait for the end of a delivery, which makes no further attempt in the meantime."""
        self._is_awaited = True
        await workflow.wait_condition(lambda: not self._is_delivering)
        self._is_awaited = False

    @workflow.update(name=SEND, description="A signal was sent.")
    @of_any_count
    async def send(self, data: RawValue) -> RawValue:
        """Give a signal's data to the waiting run, and return an :class:`Answer`."""
        while True:
            wait = self._wait
            issues = await self._issues(wait, data)
            if self._end is not None or self._is_delivering:
                return Answer().raw()
            if self._wait is wait:
                break
        if issues is not None:
            return Answer(issues=issues, wait=wait).raw()
        self._is_delivering = True
        workflow.upsert_memo({WAIT_KEY: None})
        try:
            await self._deliver(message_json(data))
            self._end = "received"
        except FailureError:
            self._end = "gone"
        finally:
            self._is_delivering = False
        return Answer(run_id=self._wait.run_id if self._end == "received" else None).raw()

    async def _issues(self, wait: Wait, data: RawValue) -> str | None:
        """Let a worker of the waiting run's app check a signal's data, and return the issues.

        The app's code contains the type, which this workflow cannot import. If the check itself fails, the run checks
        the data when it receives it.
        """
        if wait.data_type is None:
            return None
        checking = workflow.start_activity(
            CHECK_SIGNAL,
            to_raw({"type": wait.data_type, "data": message_json(data)}),
            task_queue=wait.task_queue,
            result_type=RawValue,
            start_to_close_timeout=_CHECK_TIMEOUT,
            retry_policy=_CHECK_RETRY,
            summary=f"check the data for {wait.workflow_id}"[:200],
        )
        await workflow.wait_condition(lambda: checking.done() or self._end is not None or self._wait is not wait)
        if not checking.done():
            checking.cancel()
            return None
        try:
            issues = message_json(await checking)
        except FailureError:
            return None
        return issues if isinstance(issues, str) else None

    async def _deliver(self, data: JSON) -> None:
        wait = self._wait
        delivery = {"key": wait.key, "run_id": wait.run_id, "signal": wait.signal, "data": data}
        # Without a run id, so that a run that has continued as new receives it, too.
        to = workflow.get_external_workflow_handle(wait.workflow_id)
        pause = _PAUSE_SECONDS
        while True:
            try:
                return await to.signal(SIGNALLED, to_raw(delivery))
            except ApplicationError as err:
                if err.type != _IS_FULL or self._is_awaited:
                    raise
            with suppress(TimeoutError):
                limit = timedelta(seconds=pause)
                await wait_until(lambda: self._is_awaited, timeout=limit, summary="until the run takes signals again")
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    @workflow.update(name=TAKE, description="Another run waits instead.")
    @of_any_count
    async def take(self, claim: RawValue) -> RawValue:
        """Replace the wait if it is still the expected one; return whether it was replaced."""
        request = read(Claim, message_json(claim), "claim to a mailbox")
        if request is None:
            raise refuse("claim to a mailbox")
        await self._until_delivered()
        if self._end is not None or not self._wait.is_same(request.instead_of):
            return to_raw(False)
        self._takes += 1
        if self._takes > _TAKES_PER_MAILBOX:
            self._end = "closed"  # the next waiting run starts a new mailbox
            return to_raw(False)
        self._wait = request.wait
        workflow.upsert_memo({WAIT_KEY: request.wait.model_dump(mode="json")})
        return to_raw(True)

    @workflow.update(name=CLOSE, description="A run no longer waits; returns whether it has received the signal.")
    @of_any_count
    async def close(self, wait: RawValue) -> RawValue:
        """End if this is still the wait; return whether it has received the signal."""
        closed = read(Wait, message_json(wait), "wait for a signal")
        if closed is None:
            raise refuse("wait for a signal")
        await self._until_delivered()
        if not self._wait.is_same(closed):
            return to_raw(False)
        self._end = self._end or "closed"
        return to_raw(self._end == "received")

    @workflow.signal(name=RELEASE, description="The run that waits has ended.")
    @of_any_count
    def release(self, wait: RawValue) -> None:
        """End if this is still the wait."""
        released = read(Wait, message_json(wait), "wait for a signal")
        if released is not None and self._wait.is_same(released) and not self._is_delivering:
            self._end = self._end or "closed"
