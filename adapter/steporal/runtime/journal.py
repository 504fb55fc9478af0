"""The journal of a run: what reached its body, in order, and how it reaches a body that begins again.

A body begins again after parking, continue-as-new, an exception of its own, a recovery and a rerun. It then has to take
the same way as before, so coming back is a replay of the run's own past:

1. While a body runs, everything that reaches it from outside goes through the journal: the outcome of a step, a timer
   of ``asyncio``, the cancellation of the run. The journal delivers one such entry, lets the body run until all of its
   tasks wait, records the entry with the time, and only then delivers the next.
2. When the body begins again, the journal delivers the recorded entries in the same order and at the recorded times,
   with the same pause between two of them. What the body asks for meanwhile and no entry answers is put off: a step
   that a timeout cancelled is put off and cancelled again, and so never begins a second time.
3. When no recorded entry answers anything that the body asks for, the body is where it was. What was put off begins
   now, in the order in which the body asked for it, and the run goes on live.

An entry that nobody asks for, because the code was edited, is passed over; it is delivered if the body asks for it
later.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from itertools import count

from temporalio import workflow

from ..sdk.pending import is_condition_met
from ..wire.journal_entries import Entry, Kind, Mark
from ..wire.names import COMES_BACK

ENTRIES_PER_TASK = 1_000
"""Number of entries that a body comes back through in one workflow task. The SDK ends a task that computes for two
seconds; ten thousand entries take about half a second of an idle processor. A live run replays with this number."""

_UNASKED = ("cancel", "event")
_MOMENT = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Request:
    """Something that the body waits for.

    Attributes:
        wake: Hands the body what it waits for.
        begin: Begins it for real; what comes of it arrives at the journal.
        due: When it is over, in microseconds since the journal's epoch, if that is known before it begins.
    """

    wake: Callable[[], object]
    begin: Callable[[], object]
    due: int | None = None


class Journal:
    """Delivers to a body, one entry at a time, and records the order.

    Args:
        elapsed: Returns the time of the run, in microseconds since the journal's epoch.
        take_unasked: Takes an entry of a kind that no request asks for: a cancellation or an event.
        take_back: Takes an event back from its listener; returns whether no ``next`` had taken it.
        entries: What reached the body before, in order.

    Attributes:
        attempt_began: When the attempt of the body began, on the body's clock.
        may_begin_anew: Whether the attempt has begun nothing since the last entry. If it ends now, the next attempt
            may read the time of its own beginning from there on, as nothing was begun with the time before.
        repeated: How many of the entries the attempt has in common with the attempt before.
        ranks: The places, among what was over when the body had come back, in the order in which it was over, by key.
        error: Why the run must not go on, if it must not.
    """

    def __init__(
        self,
        elapsed: Callable[[], int],
        take_unasked: Callable[[Entry], object],
        take_back: Callable[[Entry], bool],
        entries: Sequence[Entry] = (),
    ) -> None:
        self._elapsed = elapsed
        self._take_unasked = take_unasked
        self._take_back = take_back
        self._recorded: list[Entry] = []
        self._past: list[Entry] = list(entries)
        self._positions: dict[Mark, int] = {  # of the entries of the past that have not been delivered
            self._place(position): position for position in range(len(self._past))
        }
        self._answerable: list[int] = []  # a heap of those positions that the body asks for
        self._requests: dict[Mark, Request] = {}
        self._put_off: dict[Mark, Request] = {}
        self._due_now: deque[Callable[[], object]] = deque()
        self._arrived: list[tuple[int, int, Mark]] = []  # a heap: when due, in which order
        self._numbers = count()
        self._loop = asyncio.get_running_loop()
        self._predicate = self._turn
        self._delivering: asyncio.Task[None] | None = None
        self._clock = 0
        self._delivered = 0
        self._is_paused = False
        self._is_back = False
        self._is_new = False
        self._is_silent = False
        self._is_open = False
        self._has_events = False
        self.attempt_began: int = 0
        self.may_begin_anew: bool = True
        self.repeated: int = 0
        self.ranks: dict[str, int] = {}
        self._has_news = False
        self.error: Exception | None = None

    # --- attempts --------------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """Return what has reached the body, in order; then what reached an earlier attempt, and not this one yet.

        An event that has reached a listener is not among it: the listener has it, or the ``next`` that took it.
        """
        return [*(entry for entry in self._recorded if entry.kind != "event"), *self._undelivered()]

    def _undelivered(self) -> list[Entry]:
        return [self._past[position] for position in sorted(self._positions.values())]

    def _of_attempt_before(self) -> list[Entry]:
        """Return the entries through which the next attempt comes back, with events that no ``next`` consumed."""
        recorded = [entry for entry in self._recorded if entry.kind != "event" or self._take_back(entry)]
        return [*recorded, *self._undelivered()]

    def open(self, *, is_new: bool, is_silent: bool) -> None:
        """Let the body begin at its top, and come back through the entries.

        Args:
            is_new: Whether this is a new attempt of the body, and not one that another execution has begun.
            is_silent: Whether what the body did after the last entry, another execution has done before.
        """
        begins_anew = self.begins_anew
        self._past = self._of_attempt_before()
        if is_new and begins_anew:
            if self._past:
                self._past[-1] = replace(self._past[-1], at=self._elapsed())
            else:
                self.attempt_began = self._elapsed()
        self._recorded = []
        self._positions = {self._place(position): position for position in range(len(self._past))}
        self._answerable = [position for position, entry in enumerate(self._past) if entry.kind in _UNASKED]
        self._has_events = any(entry.kind == "event" for entry in self._past)
        self._requests.clear()
        self._put_off.clear()
        self._due_now.clear()
        # What else has arrived, the new attempt asks for; a cancellation of the run comes once.
        self._arrived = sorted(each for each in self._arrived if each[2][0] == "cancel")
        self._clock = self.attempt_began
        self._is_back = False
        self._is_new = is_new
        self._is_silent = is_silent
        self._is_open = True
        self._has_news = False
        self.may_begin_anew = True
        if self._delivering is None:
            self._delivering = asyncio.create_task(workflow.wait_condition(self._predicate))
        self._wake_loop()

    def _place(self, position: int) -> Mark:
        """The mark of an entry; events at one listener are told apart by their positions."""
        entry = self._past[position]
        return ("event", str(position)) if entry.kind == "event" else entry.mark

    @property
    def begins_anew(self) -> bool:
        """True if the next attempt reads the time anew from the last entry on."""
        return self.may_begin_anew and not (self._delivering is not None and self._positions)

    def close(self) -> None:
        """End the attempt: nothing reaches its body any more."""
        self._is_open = False
        self._requests.clear()
        self._put_off.clear()
        self._due_now.clear()

    def end(self) -> None:
        """Deliver nothing more, as the run ends."""
        self.close()
        if self._delivering is not None:
            self._delivering.cancel()

    def stop(self, error: Exception) -> None:
        """Deliver nothing more, as the body does not fit its past."""
        self.error = self.error or error
        self.close()

    @property
    def repeated_entries(self) -> int:
        """:attr:`repeated` as another execution counts, which is handed no events that have reached a listener."""
        return sum(entry.kind != "event" for entry in self._recorded[: self.repeated])

    # --- the clock -------------------------------------------------------------------------------------------------

    def now(self) -> int:
        """The time in the body, in microseconds since the journal's epoch."""
        return max(self._elapsed(), self._clock) if self._is_back else self._clock

    # --- what the body asks for ------------------------------------------------------------------------------------

    @property
    def is_back(self) -> bool:
        """True if the body is where it was."""
        return self._is_back

    @property
    def repeats(self) -> bool:
        """True if the body repeats what it has done before."""
        return not self._is_back and (self._is_silent or bool(self._positions))

    @property
    def is_new_attempt(self) -> bool:
        """True if the body comes back in a new attempt, and not in one that another execution began."""
        return self._is_new

    @property
    def has_news(self) -> bool:
        """True if the outcome of a step has reached this attempt of the body, and none before it."""
        return self._has_news

    @property
    def takes_events(self) -> bool:
        """True if the body comes back through events that it consumes itself by ``next``: see :data:`Kind`."""
        return self._has_events and not self._is_back

    @property
    def is_idle(self) -> bool:
        """True if the body has come back, and has received everything that arrived."""
        if not self._is_open:  # no attempt of the body is under way
            return True
        return self._is_back and not (self._answerable or self._put_off or self._due_now or self._arrived)

    def has(self, kind: Kind, key: str) -> bool:
        """Return whether a recorded entry of this kind and key has not been delivered yet."""
        return (kind, key) in self._positions

    async def until(
        self, kind: Kind, key: str, begin: Callable[[], object], *, due: int | None = None, at_once: bool = False
    ) -> None:
        """Wait until this reaches the body.

        Args:
            kind: The kind of its entry.
            key: The key of its entry.
            begin: Begins it, unless an entry of the past answers.
            due: When it is over, in microseconds since the journal's epoch, if that is known before it begins.
            at_once: Whether it is to begin while the body comes back.
        """
        future = self._loop.create_future()
        self.ask(kind, key, Request(partial(_resolve, future), begin, due), at_once=at_once)
        try:
            await future
        except asyncio.CancelledError:
            self.forget(kind, key)
            raise

    def ask(self, kind: Kind, key: str, request: Request, *, at_once: bool = False) -> None:
        """Ask for something; see :meth:`until`."""
        mark: Mark = kind, key
        self._requests[mark] = request
        self.may_begin_anew = False
        position = self._positions.get(mark)
        if position is not None:
            heapq.heappush(self._answerable, position)
        elif (self._positions or not self._is_back) and not at_once:
            self._put_off[mark] = request
        else:
            request.begin()

    def forget(self, kind: Kind, key: str) -> None:
        """Take back what was asked for."""
        self._requests.pop((kind, key), None)
        self._put_off.pop((kind, key), None)

    async def next_turn(self) -> None:
        """Wait until all tasks of the body wait; for what takes no time, and leaves no entry."""
        future = self._loop.create_future()
        self._due_now.append(partial(_resolve, future))
        await future

    def at_next_turn(self, wake: Callable[[], object]) -> None:
        """Call this when all tasks of the body wait; see :meth:`next_turn`."""
        self._due_now.append(wake)

    def arrive(self, kind: Kind, key: str, due: int | None = None) -> None:
        """Something has arrived for the body, and reaches it when the body has everything that arrived before.

        Args:
            kind: Its kind.
            key: Its key.
            due: When it was due, if that is before now: of two sleeps that were over while no worker was up, the one
                that was over first comes first.
        """
        mark: Mark = kind, key
        if not self._is_back and mark in self._requests and mark not in self._put_off:
            self._due_now.append(lambda: self._hand_over_if_asked(Entry(kind, key, self._clock)))
            self._wake_loop()
            return
        moment = self._elapsed() if due is None else min(due, self._elapsed())
        heapq.heappush(self._arrived, (moment, next(self._numbers), mark))
        self._wake_loop()

    def _wake_loop(self) -> None:
        """Have the run's loop look at its conditions, of which the delivery is one, when nothing else is to do."""
        self._loop.call_soon(lambda: None)

    # --- delivering ------------------------------------------------------------------------------------------------

    def _turn(self) -> bool:
        """Deliver the next entry.

        The SDK evaluates the conditions of a run when no task of it can go on, and goes on with the tasks that they
        wake. So a condition that is never met is the place where the body is known to wait. Where another condition is
        met, its task goes first.
        """
        if not self._is_paused and self.error is None and not is_condition_met(self._loop, but=self._predicate):
            self._deliver()
        return False

    def _deliver(self) -> None:
        if not self._is_open:
            self._deliver_between_attempts()
            return
        if self._due_now:
            self._due_now.popleft()()
            return
        while self._answerable:
            position = heapq.heappop(self._answerable)
            mark = self._place(position)
            if self._positions.get(mark) == position and (mark in self._requests or mark[0] in _UNASKED):
                del self._positions[mark]
                self._hand_over(self._past[position])
                self._pause_now_and_then()
                return
        if self._put_off or not self._is_back:
            self._go_live()
            return
        while self._arrived:
            _, _, (kind, key) = heapq.heappop(self._arrived)
            if (kind, key) in self._requests or kind in _UNASKED:
                self._hand_over(Entry(kind, key, self._elapsed()))  # type: ignore[arg-type]
                return

    def _deliver_between_attempts(self) -> None:
        """Deliver a cancellation of the run; what else arrives is there for the next attempt to ask for."""
        while self._arrived:
            _, _, (kind, key) = heapq.heappop(self._arrived)
            if kind == "cancel":
                self._hand_over(Entry("cancel", key, self._elapsed()))
                return

    def _hand_over_if_asked(self, entry: Entry) -> None:
        """Hand an entry over, unless the body, which was given another since it arrived, waits for it no longer."""
        if entry.mark in self._requests:
            self._hand_over(entry)

    def _hand_over(self, entry: Entry) -> None:
        self._clock = max(self._clock, entry.at)
        self.may_begin_anew = True
        self._recorded.append(replace(entry, at=self._clock))
        is_news = (self._is_back or not self._is_new) and len(self._recorded) > self.repeated
        self._has_news = self._has_news or (is_news and entry.kind == "step")
        if entry.kind in _UNASKED:
            self._take_unasked(entry)
            self._wake_loop()
        else:
            self._requests.pop(entry.mark).wake()

    def _go_live(self) -> None:
        if self._is_new and not self._is_back:
            self.repeated = len(self._recorded)
        self._is_back = True
        begun, self._put_off = self._put_off, {}
        self._rank(begun)
        for mark, request in begun.items():
            if mark in self._requests:
                request.begin()
        self._wake_loop()

    def _rank(self, requests: dict[Mark, Request]) -> None:
        """Number the requests that are over as they begin, the one first that was over first."""
        now = self._elapsed()
        dues = {
            mark: request.due for mark, request in requests.items() if request.due is not None and request.due <= now
        }
        self.ranks = {key: rank for rank, (_, key) in enumerate(sorted(dues, key=lambda mark: dues[mark]))}

    def _pause_now_and_then(self) -> None:
        self._delivered += 1
        if self._delivered % ENTRIES_PER_TASK == 0:
            self._is_paused = True
            self._loop.create_task(self._pause())

    async def _pause(self) -> None:
        try:
            await workflow.sleep(_MOMENT, summary=COMES_BACK)
        finally:
            self._is_paused = False


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
