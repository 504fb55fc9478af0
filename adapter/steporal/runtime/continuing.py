"""Decision of when a run parks or continues as new.

A run does so in three cases, and only at a *quiet* moment: when everything in flight is a wait that another execution
can continue.

- Temporal suggests it, because the history is long. Steps that have not begun are held, and the next execution runs the
  handler from the top, with the results of the finished steps.
- The run has only waited for ``park_after``. The next execution waits without the handler: it is *parked*. The history
  of a parked run contains nothing of the user's code, so the code may be edited meanwhile.
- A checkpoint was requested. Steps that have not begun are held, and the next execution is parked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal, Protocol

from temporalio import workflow
from temporalio.common import TypedSearchAttributes
from temporalio.workflow import ContinueAsNewVersioningBehavior

from ..errors import PayloadTooLargeError
from ..observability.run_metrics import count_checkpoint
from ..observability.search_attributes import waiting_for
from ..sdk.pending import are_only
from ..sdk.wait_until import wait_until
from ..types import JSON
from ..wire.limits import PAGE
from ..wire.memo import Memo
from ..wire.names import PARKS
from ..wire.run_state import RunState
from ..wire.start import Origin
from ..wire.storage import StorageOfRun
from ..wire.waits import InvokeWait, Waits, timers_of
from ..workflow import Workflow
from .awaited import Awaited
from .branches import RunLoop
from .children import Children
from .deadlock import deadlock
from .handover_size import HandoverSize
from .inbox import Inbox
from .journal import Journal
from .signal_inbox import SignalInbox
from .subscriptions import Subscriptions

HARD_LENGTH = 20_000
"""Number of events from which a run holds its steps even if others are in flight. Temporal suggests continue-as-new
from 4,096 events on, and ends a run at 51,200. Live runs replay with this number."""

HARD_BYTES = 20 * 1024 * 1024
"""The same in bytes."""

LAST_LENGTH = 50_000
"""Number of events from which a run that cannot continue as new fails, before Temporal terminates it in silence."""

LAST_BYTES = 46 * 1024 * 1024
"""The same in bytes. Temporal ends a run at 50 MiB."""

_LAST_STEP_LENGTH = 500
"""Further events that a run which only waits may have before it fails: a step in flight may be its last one."""

_LAST_STEP_BYTES = 1024 * 1024
"""The same in bytes. One event may have half of it."""

_LONGEST_HOLD = timedelta(days=365).total_seconds()


class ContinuingRun(Protocol):
    """Parts of a run that its continuing depends on; see :class:`.run.Run`."""

    workflow: Workflow[Any, Any]
    origin: Origin
    data: JSON
    memo: Memo
    waits: Waits
    inbox: Inbox
    subscriptions: Subscriptions
    signals: SignalInbox
    children: Children
    journal: Journal
    loop: RunLoop
    storage: StorageOfRun

    def state(self, *, is_parked: bool) -> RunState:
        """Return the state to hand over."""

    def awaited(self) -> list[Awaited]:
        """Return descriptions of the present waits."""

    def busy_steps(self) -> int:
        """Return the number of steps in flight that another execution could not continue."""

    def cannot_wake(self, body: asyncio.Task[Any]) -> bool:
        """Return whether nothing is in flight that could wake the body."""


class Continuing:
    """Decides when a run continues as new.

    Attributes:
        held: The steps that have not begun, and wait for the next execution.
        held_until: The time until which a checkpoint holds the run, in seconds since the epoch.
        size: Size of the state that the next execution would receive.
    """

    def __init__(self, run: ContinuingRun, held_until: float | None = None) -> None:
        self._run = run
        self._is_parking = False
        self._too_large = ""
        self.held: dict[str, None] = {}
        self.held_until = held_until
        self.size: HandoverSize = HandoverSize(run.memo, run.inbox, run.storage)

    def checkpoint(self, message: JSON) -> None:
        """Park as soon as possible; if the hold is 0, resume."""
        hold = read_hold(message)
        self.held_until = workflow.time() + hold if hold else None
        self._run.waits.changes += 1

    @property
    def is_held(self) -> bool:
        """True while a checkpoint holds the run."""
        return self.held_until is not None and workflow.time() < self.held_until

    # --- steps that wait for the next execution --------------------------------------------------------------------

    async def hold(self, key: str) -> None:
        """Return when a step may begin, which is never if the run continues as new first.

        Raises:
            PayloadTooLargeError: The run has to continue as new, and cannot.
        """
        self._check_room()
        if not self._must_hold():
            return
        waits = self._run.waits
        self.held[key] = None
        waits.changes += 1
        try:
            while self._is_leaving():
                left = None if self.held_until is None else time_until(self.held_until)
                try:
                    await wait_until(lambda: not self._is_leaving(), timeout=left)
                except TimeoutError:
                    self.held_until = None
        finally:
            del self.held[key]
            waits.changes += 1

    def _is_leaving(self) -> bool:
        if workflow.cancellation_reason() is not None and self._run.journal.is_idle:
            return False  # a cancelled run ends in this execution
        return self.is_held or (workflow.info().is_continue_as_new_suggested() and not self._too_large)

    def _must_hold(self) -> bool:
        """Return whether a step that is about to begin waits for the next execution instead.

        That step counts as busy already, so with one busy step it is the only one, and the run can leave at once. With
        others in flight, steps still begin, until the history is so long that the run has to come to rest.
        """
        if not self._is_leaving() or workflow.cancellation_reason() is not None:
            return False
        if self.is_held or self.held or _has_history(HARD_LENGTH, HARD_BYTES):
            return True
        return self._run.busy_steps() == 1 and self._is_alone()

    # --- the end of a run that cannot continue as new --------------------------------------------------------------

    def _check_room(self) -> None:
        """Raise PayloadTooLargeError if the run cannot continue as new, and its history has no room left."""
        if self._too_large and _has_history(LAST_LENGTH, LAST_BYTES):
            raise PayloadTooLargeError(f"the run cannot continue as new: {self._too_large}")

    def is_at_its_end(self) -> bool:
        """Return whether Temporal would soon terminate the run, which cannot continue as new."""
        if not _has_history(LAST_LENGTH + _LAST_STEP_LENGTH, LAST_BYTES + _LAST_STEP_BYTES):
            return False
        return bool(self._too_large) or (self._run.journal.is_idle and self._run.busy_steps() > 0)

    def check_end(self) -> None:
        """Check that what the run received while it waited has left room in its history.

        Raises:
            PayloadTooLargeError: There is no room left.
        """
        if self.is_at_its_end():
            self._check_room()
            raise PayloadTooLargeError(
                "the run cannot continue as new while steps are in flight, and Temporal would terminate it soon: its "
                f"history has {workflow.info().get_current_history_size():,} bytes and "
                f"{workflow.info().get_current_history_length():,} events; listen for less (match, if_exp), or listen "
                f"when the step is done ({PAGE})"
            )

    # --- the right moment ------------------------------------------------------------------------------------------

    def is_quiet(self) -> bool:
        """Return whether another execution can continue from here."""
        run = self._run
        if not (run.waits.now or self.held) or run.busy_steps() or run.subscriptions.is_busy or run.signals.is_busy:
            return False
        if not run.journal.is_idle:
            return False
        return bool(self.held) or self._is_alone()

    def _is_alone(self) -> bool:
        """Return whether the body waits for steps and timers only, and no other Temporal operation is in flight."""
        waits = self._run.waits.now.values()
        timers = sum(map(timers_of, waits)) + self._is_parking
        children = sum(waiting.next_poll_at is None for waiting in waits if isinstance(waiting, InvokeWait))
        return are_only(asyncio.get_running_loop(), timers=timers, children=children)

    async def until_left(self, body: asyncio.Task[Any]) -> None:
        """Return when the body has ended; continue as new if that comes first."""
        while True:
            await workflow.wait_condition(
                lambda: self._is_over(body) or self.is_quiet() or self._run.cannot_wake(body) or self.is_at_its_end()
            )
            if self._is_over(body):
                return
            self.check_end()
            if self._run.cannot_wake(body):
                raise deadlock(body, self._run.workflow.id)
            if self.held or self.is_held:
                await self._leave(is_parked=self.is_held, is_held=True)
            park_after = self._park_after()
            self._is_parking = park_after is not None
            try:
                await wait_until(self._something_changes(body), timeout=park_after, summary=PARKS)
            except TimeoutError:
                self._is_parking = False
                await self._leave(is_parked=self._run.workflow.park_after is not None)
            finally:
                self._is_parking = False

    def _something_changes(self, body: asyncio.Task[Any]) -> Callable[[], bool]:
        """Return a condition that holds once the time until the run parks has to be determined again."""
        waits, info = self._run.waits, workflow.info()
        changes, is_suggested = waits.changes, info.is_continue_as_new_suggested()
        return lambda: (
            self._is_over(body)
            or waits.changes != changes
            or not self.is_quiet()
            or info.is_continue_as_new_suggested() != is_suggested
            or self.is_at_its_end()
        )

    def _is_over(self, body: asyncio.Task[Any]) -> bool:
        return body.done() or self._run.journal.error is not None

    def _park_after(self) -> timedelta | None:
        """Return the time after which the run leaves if nothing changes; None if it does not."""
        after = self._run.workflow.park_after
        if self._too_large:
            return None
        if workflow.info().is_continue_as_new_suggested():
            return timedelta(milliseconds=1)  # a timer, so that the run leaves at a point that a replay finds again
        if after is None:
            return None
        until = self._run.waits.earliest()
        if until is not None and until - workflow.time() <= after.total_seconds():
            return None
        return after

    # --- leaving ---------------------------------------------------------------------------------------------------

    async def until_all_is_seen(self) -> None:
        """Wait until everything that arrived in the same activation was handled, or a cancellation would be lost."""
        await workflow.wait_condition(lambda: not self._run.loop.has_more_jobs)

    async def _leave(self, *, is_parked: bool, is_held: bool = False) -> None:
        """Continue as new, unless something happens meanwhile, or the state is too large.

        Args:
            is_parked: Whether the next execution waits first, without the handler.
            is_held: Whether the run leaves only as long as it or steps are held.
        """
        if too_large := self.size.surely_too_large():
            self._stay(too_large)
            return
        all_asked = await self._ask_children()
        if workflow.cancellation_reason() is not None:
            # If a task is cancelled while it sends a signal to another workflow, the SDK cancels the signal instead of
            # the task, which would continue as if nothing had happened.
            raise asyncio.CancelledError
        if not all_asked:
            return
        await self.until_all_is_seen()
        if not self.is_quiet() or (is_held and not (self.held or self.is_held)):
            return
        self.go(is_parked=is_parked)

    def go(self, *, is_parked: bool) -> None:
        """Continue as new, unless the run was cancelled or its state is too large."""
        if workflow.cancellation_reason() is not None:  # it has just arrived, and belongs to this execution
            return
        carried = self._run.state(is_parked=is_parked)
        argument, too_large = self.size.argument(carried)
        if too_large:
            self._stay(too_large)
            return
        self._too_large = ""
        count_checkpoint(self._reason(), self.size.steps)
        workflow.continue_as_new(
            args=[*self._run.origin.arguments(self._run.data), argument],
            search_attributes=self._attributes(carried),
            initial_versioning_behavior=ContinueAsNewVersioningBehavior.AUTO_UPGRADE,
        )

    def _stay(self, too_large: str) -> None:
        """Let the held steps begin, and continue in this execution for as long as Temporal allows."""
        self.size.warn(too_large)
        self._too_large = too_large
        self.held_until = None
        self._run.waits.changes += 1

    @property
    def is_overdue(self) -> bool:
        """True if a parked run's history is long (Temporal accepts 10,000 signals) and the run can continue as new."""
        return not self._too_large and workflow.info().is_continue_as_new_suggested()

    def _reason(self) -> Literal["history", "park", "checkpoint"]:
        if self.is_held:
            return "checkpoint"
        return "history" if workflow.info().is_continue_as_new_suggested() else "park"

    def _attributes(self, carried: RunState) -> TypedSearchAttributes | None:
        """Return the search attributes of the next execution; with None, Temporal keeps those of this one."""
        if not carried.is_indexed:
            return None
        found_by = [name for awaited in self._run.awaited() for name in awaited.found_by()]
        return waiting_for(workflow.info().typed_search_attributes, found_by)

    async def _ask_children(self) -> bool:
        """Ask invoked runs to report their end by a signal; return False if one has ended, and its result is coming."""
        for waiting in list(self._run.waits.now.values()):
            if isinstance(waiting, InvokeWait) and not waiting.report_requested:
                if not await self._run.children.ask(waiting.child):
                    return False
                waiting.report_requested = True
        return True


def read_hold(message: JSON) -> float:
    """Return how long a checkpoint holds a run, in seconds; 0 to resume it."""
    hold = message.get("hold", 0) if isinstance(message, dict) else 0
    return min(hold, _LONGEST_HOLD) if isinstance(hold, int | float) and hold > 0 else 0


def time_until(moment: float) -> timedelta:
    """Return the time until a moment, in seconds since the epoch; 0 if it has passed."""
    return timedelta(seconds=max(moment - workflow.time(), 0))


def _has_history(length: int, size: int) -> bool:
    """Return whether the history of the execution exceeds a length or size."""
    info = workflow.info()
    return info.get_current_history_length() > length or info.get_current_history_size() > size
