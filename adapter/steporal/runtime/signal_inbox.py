"""The signals that a run waits for, and those that have come."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import FailureError

from ..errors import SignalConflictError
from ..sdk.wait_until import wait_until
from ..types import JSON
from ..values.converter import from_raw, to_raw
from ..wire.failures import failure_of
from ..wire.limits import summary
from ..wire.mailbox_wait import Wait
from ..wire.memo import Failure, Outcome
from ..wire.names import CLOSE_MAILBOX, OPEN_MAILBOX, RELEASE_MAILBOXES
from ..wire.waits import SignalWait, Waits

T = TypeVar("T")

_TIMEOUT = timedelta(minutes=1)
_GIVE_UP = timedelta(minutes=10)
_RETRY = RetryPolicy(maximum_interval=timedelta(seconds=10))


def read_signal(delivery: JSON, run_id: str) -> tuple[str, JSON] | None:
    """The wait's key and the data that a mailbox delivers to a run: ``{"key", "run_id", "signal", "data"}``.

    None if it is for another run, or no such message: anybody can send a signal.
    """
    if not isinstance(delivery, dict) or delivery.get("run_id") != run_id:
        return None
    key = delivery.get("key")
    return (key, delivery.get("data")) if isinstance(key, str) else None


class SignalInbox:
    """The waits of a run for signals.

    A wait is over only when its mailbox has said whether it has given the signal to this run: what a sender is told and
    what the run sees never differ.
    """

    def __init__(self, waits: Waits) -> None:
        self._all = waits
        self._waits: dict[str, Wait] = {}  # those whose mailbox may be open
        self._active: set[str] = set()  # those that a step is in
        self._cancelled: set[str] = set()
        self._over: set[str] = set()
        self._received: dict[str, JSON] = {}
        self._opening: set[asyncio.Task[Any]] = set()

    def receive(self, delivery: JSON) -> None:
        """Take what a mailbox delivers.

        It may come before the run knows that the mailbox is open; and too late, when the run has asked the mailbox.
        """
        signal = read_signal(delivery, workflow.info().first_execution_run_id)
        if signal is not None and signal[0] not in self._over:
            self._received.setdefault(*signal)

    @property
    def is_busy(self) -> bool:
        """True while a mailbox is being opened or closed."""
        return bool(self._opening)

    def has(self, key: str) -> bool:
        """Return whether the signal of a wait has arrived."""
        return key in self._received

    def state(self) -> dict[str, JSON]:
        """Return the state to hand over."""
        return {
            "waits": [wait.model_dump(mode="json") for wait in self._waits.values()],
            "cancelled": sorted(self._cancelled),
            "over": sorted(self._over),
            "received": self._received,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with what the execution before had."""
        for data in state.get("waits", ()):
            wait = Wait.model_validate(data)
            self._waits[wait.key] = wait
        self._cancelled |= set(state.get("cancelled", ()))
        self._over |= set(state.get("over", ()))
        self._received |= state.get("received", {})

    async def wait(
        self,
        step: str,
        wait: Wait,
        *,
        replace: bool,
        carried: SignalWait | None = None,
        shortest: timedelta = timedelta(0),
    ) -> Outcome:
        """Wait until the signal comes or the wait's time is over; cancelled too late, it returns what has come.

        Args:
            step: The step's key.
            wait: The wait; its key is new in the run.
            replace: Whether to take the place of another run that waits.
            carried: The same wait in the execution before, which has opened the mailbox.
            shortest: How long its timer is at least.
        """
        self._waits[wait.key] = wait
        self._active.add(wait.key)
        try:
            return await self._wait(step, wait, replace, carried, shortest)
        except FailureError as err:  # its mailbox may be open, so it stays in the list until the run ends
            return Outcome(failure=failure_of(err))
        finally:
            self._active.discard(wait.key)
            self._over.add(wait.key)
            self._received.pop(wait.key, None)

    async def _wait(
        self, step: str, wait: Wait, replace: bool, carried: SignalWait | None, shortest: timedelta
    ) -> Outcome:
        if wait.key not in self._received:
            opening = self._in_background(_known(carried) if carried else self._open(step, wait, replace))
            closing: asyncio.Task[bool] | None = None
            try:
                mailbox = await asyncio.shield(opening)
                if isinstance(mailbox, Wait):
                    del self._waits[wait.key]
                    return Outcome(failure=conflict(wait, mailbox))
                waiting = SignalWait(wait.until, wait, mailbox)
                with self._all.during(step, waiting):
                    is_received = await self._until_received(wait, shortest)
                if not is_received:
                    closing = self._in_background(self._close(wait, mailbox))
                    is_received = await asyncio.shield(closing)
            except asyncio.CancelledError:
                self._cancelled.add(wait.key)
                is_received = await self._close_cancelled(wait, opening, closing)
                if not is_received:
                    raise
            if is_received and wait.key not in self._received:  # it may be in the history after the mailbox's answer
                await _to_its_end(self._in_background(workflow.wait_condition(lambda: wait.key in self._received)))
        elif carried is None:
            await self._take_early(step, wait)
        del self._waits[wait.key]
        if wait.key not in self._received:
            return Outcome()
        return Outcome({"signal": wait.signal, "data": self._received[wait.key]})

    async def _take_early(self, step: str, wait: Wait) -> None:
        """Write into the history that the body has come to a wait whose signal was there before it.

        A workflow task that was lost had opened the mailbox, and took the way back to it later. A recovery has to know
        what had reached the body by then.
        """
        argument = {"wait": wait.model_dump(mode="json"), "step": step, "is_received": True}
        noting = self._in_background(_update_mailbox(OPEN_MAILBOX, argument, summary_of_open(wait)))
        await _to_its_end(noting)  # a cancellation is too late: its sender was told that it was received

    def _in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Open or close a mailbox in a task that a cancellation of the wait leaves alone."""
        task = asyncio.create_task(work)
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return task

    async def _close_cancelled(
        self, wait: Wait, opening: asyncio.Task[Wait | str], closing: asyncio.Task[bool] | None
    ) -> bool:
        try:
            mailbox = await _to_its_end(opening)
            if closing is None and isinstance(mailbox, str):
                closing = self._in_background(self._close(wait, mailbox))
            is_received = closing is not None and await _to_its_end(closing)
        except FailureError:
            return False
        if not is_received:
            del self._waits[wait.key]
        return is_received

    async def _until_received(self, wait: Wait, shortest: timedelta) -> bool:
        left = wait.until - workflow.time()
        try:
            await wait_until(
                lambda: wait.key in self._received,
                timeout=max(timedelta(seconds=left), shortest),
                summary=summary(wait.key),
            )
        except TimeoutError:
            return False
        return True

    async def _open(self, step: str, wait: Wait, replace: bool) -> Wait | str:
        """Temporal's run id of the mailbox; another wait if that one has it."""
        while True:
            held = await _update_mailbox(
                OPEN_MAILBOX,
                {"wait": wait.model_dump(mode="json"), "replace": replace, "step": step},
                summary_of_open(wait),
            )
            other = Wait.model_validate(held["wait"])
            if other.is_same(wait):
                return str(held["run_id"])
            if replace or other.run_id != wait.run_id or other.key in self._active - self._cancelled:
                return other
            # An earlier wait of this run, which was cancelled; perhaps before it was resumed in this execution.
            replace = True

    async def _close(self, wait: Wait, mailbox: str) -> bool:
        """Close a mailbox; whether it has given its signal to this run."""
        argument = {"wait": wait.model_dump(mode="json"), "run_id": mailbox}
        return bool(await _update_mailbox(CLOSE_MAILBOX, argument, summary_of_close(wait)))

    async def end(self) -> None:
        """Close all mailboxes that are open, as the run ends."""
        if self._opening:
            await asyncio.wait(self._opening)
        if not self._waits:
            return
        waits = [wait.model_dump(mode="json") for wait in self._waits.values()]
        try:
            await _update_mailbox(RELEASE_MAILBOXES, {"waits": waits}, "the run ends, and waits for no signal any more")
        except FailureError:
            workflow.logger.warning("could not close the mailboxes of %s; they find out by themselves", [*self._waits])


async def _to_its_end(task: asyncio.Task[T]) -> T:
    """Return the result of a task, however often who waits for it is cancelled meanwhile."""
    while True:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise


async def _known(carried: SignalWait) -> Wait | str:
    return carried.mailbox


def summary_of_open(wait: Wait) -> str:
    """Return the summary of opening a mailbox, for Temporal's UI; a recovery reads it."""
    return summary(f"wait for signal {wait.signal} in {wait.key}")


def summary_of_close(wait: Wait) -> str:
    """Return the summary of closing a mailbox, for Temporal's UI; a recovery reads it."""
    return summary(f"wait no longer for signal {wait.signal} in {wait.key}")


def conflict(wait: Wait, other: Wait) -> Failure:
    """Return the failure of a step whose signal another run waits for."""
    until = datetime.fromtimestamp(other.until, UTC).isoformat(timespec="seconds")
    return Failure(
        SignalConflictError.__name__,
        f"run {wait.workflow_id!r} ({wait.run_id}) cannot wait for signal {wait.signal!r}, as run "
        f"{other.workflow_id!r} ({other.run_id}) waits for it in step {other.key!r} until {until}; "
        "give each run's signal its own name, or take its place by on_conflict='replace'",
    )


async def _update_mailbox(activity: str, argument: JSON, what: str) -> JSON:
    answer = await workflow.execute_local_activity(
        activity,
        to_raw(argument),
        result_type=RawValue,
        schedule_to_close_timeout=_GIVE_UP,
        start_to_close_timeout=_TIMEOUT,
        retry_policy=_RETRY,
        summary=summary(what),
    )
    return from_raw(answer)
