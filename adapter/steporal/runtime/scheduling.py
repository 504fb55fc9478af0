"""Steps in flight: each key runs once at a time, and its outcome goes to the memo and to the journal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

from ..closures.calls import Call, Exists, check_call
from ..observability.progress import watched
from ..observability.run_metrics import StepKind, counted
from ..observability.run_trace import TRACE
from ..wire.memo import Failure, Memo, Outcome
from ..wire.run_state import RunState
from ..wire.waits import Waits
from .branches import out_of_body
from .clock import BodyClock
from .slots import Slots

Perform = Callable[[], Coroutine[Any, Any, Outcome]]


class StepScheduler:
    """Performs the steps of a run.

    Args:
        memo: The outcomes of finished steps, to which the scheduler adds.
        waits: The waits of the run.
        clock: The body's clock, with the run's journal.
        hold: Waits until a step may begin, if the run is about to continue as new.
        exists: Returns whether this version of the code has what a call names.
        finished: Is called for each outcome, before the body receives it.

    Attributes:
        calls: Descriptions of the calls of the steps in flight, by key.
        scheduled: Number of times each step was scheduled, by key; ids of pending activities must differ.
        slots: The slots of steps that are in flight.
        in_flight: The steps in flight, by key.
    """

    def __init__(
        self,
        memo: Memo,
        waits: Waits,
        clock: BodyClock,
        *,
        hold: Callable[[str], Awaitable[None]],
        exists: Exists,
        finished: Callable[[str, Outcome], None],
    ) -> None:
        self._memo = memo
        self._waits = waits
        self._clock = clock
        self._hold = hold
        self._exists = exists
        self._finished = finished
        self._taken: dict[str, None] = {}
        self.calls: dict[str, Call] = {}
        self.scheduled: dict[str, int] = {}
        self.slots: Slots = Slots()
        self.in_flight: dict[str, asyncio.Task[Outcome]] = {}

    def restore(self, carried: RunState) -> None:
        """Take over the state that an earlier execution handed over."""
        self.calls |= {key: call for key, data in carried.calls.items() if (call := Call.read(data)) is not None}
        self.scheduled = carried.scheduled
        self._taken = dict.fromkeys(carried.taken)

    @property
    def taken(self) -> list[str]:
        """Activity ids that look like those of another step."""
        return list(self._taken)

    def start(self, key: str, kind: StepKind, perform: Perform) -> asyncio.Task[Outcome]:
        """Return the step with this key: in flight already, or started now."""
        task = self.in_flight.get(key)
        if task is None or task.cancelling():
            before = task
            finish = self._finish(key, kind, perform, self.calls.get(key), before)
            task = asyncio.create_task(finish, context=out_of_body())
            self.in_flight[key] = task
            task.add_done_callback(partial(self._has_landed, key))  # also of one that never began
        return task

    def _has_landed(self, key: str, task: asyncio.Task[Outcome]) -> None:
        if self.in_flight.get(key) is task:
            del self.in_flight[key]
            self.calls.pop(key, None)
            error = None if task.cancelled() else task.exception()
            if isinstance(error, Exception) and not task.cancelling():
                self._clock.journal.stop(error)  # no step's outcome, but an error of ours or of the SDK's

    def is_in_flight(self, key: str) -> bool:
        """Return whether a step has begun and has not ended."""
        return key in self.in_flight

    def cancel(self, key: str) -> None:
        """Cancel a step that is in flight, as the body waits for it no longer."""
        if (task := self.in_flight.get(key)) is not None:
            task.cancel()

    async def until_cancelled(self, key: str) -> None:
        """Wait until a step with this key that was cancelled has ended, if one exists."""
        task = self.in_flight.get(key)
        if task is not None and task.cancelling():
            await asyncio.wait([task])

    def activity_id(self, key: str) -> str:
        """Return an id for one more activity of a step; the id of another step may look like one of these."""
        count = self.scheduled.get(key, 0) + 1
        while (id := key if count == 1 else f"{key}#{count}") in self._taken:
            count += 1
        self.scheduled[key] = count
        if "#" in id:
            self._taken[id] = None
        return id

    async def _finish(
        self, key: str, kind: StepKind, perform: Perform, call: Call | None, before: asyncio.Task[Outcome] | None
    ) -> Outcome:
        journal = self._clock.journal
        if before is not None:  # it was cancelled, and has not ended yet
            await asyncio.wait([before])
        if not journal.takes_events:  # or a `next` would take its event later than it did
            await self._hold(key)
        trace = TRACE.get()
        performed = perform if trace is None else partial(trace.step, key, perform)
        is_resumed = key in self._waits.carried
        performed = partial(counted, kind, performed, is_resumed=is_resumed)
        try:
            async with self.slots.of(key, kind, is_resumed=is_resumed):
                outcome = await watched(key, kind, performed, is_resumed=is_resumed)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            outcome = Outcome(failure=Failure("CancelledError", "the step was cancelled, and not by its run"))
        if outcome.call is not None and call is not None:
            check_call(key, outcome.call, call, self._exists)
        outcome = replace(outcome, call=self.calls.get(key))
        self._memo[key] = outcome
        self._finished(key, outcome)
        journal.arrive("step", key, self._clock.passed_at(key))
        return outcome
