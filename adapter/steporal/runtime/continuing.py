"""Decision of when a run parks or continues as new, and the size of the state that it hands over.

A run does so by itself in three cases, and only at a moment when all that is in flight are waits that another execution
can go on with:

- Temporal suggests it, as the history grows: steps that have not begun are held, and the next execution runs the
  handler from the top, with the memo;
- it has only waited for ``park_after``: the next execution waits without the handler ("parked"), so that the history of
  a waiting run has nothing of the user's code in it, which can be edited meanwhile;
- a checkpoint was asked for: steps that have not begun are held, and the next execution is parked.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
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
from ..sdk.worker_versioning import follow_the_current_version
from ..types import JSON
from ..values.converter import dumps, raw_text, size_of
from ..wire.limits import MAX_PAYLOAD_BYTES, MAX_STORED_BYTES, PAGE
from ..wire.memo import Memo, Outcome
from ..wire.names import GOES_ON, PARKS
from ..wire.run_state import RunState, is_packed, memo_json, pack
from ..wire.start import Origin
from ..wire.storage import StorageOfRun
from ..wire.waits import (
    EventWait,
    InvokeWait,
    NextWait,
    SignalWait,
    TimedWait,
    Waiting,
    Waits,
    box_of,
    moments_of,
    timers_of,
)
from ..workflow import Workflow
from .awaited import Awaited
from .branches import RunLoop
from .children import Children
from .deadlock import deadlock
from .inbox import Inbox
from .journal import Journal
from .signal_inbox import SignalInbox
from .subscriptions import Subscriptions

HARD_LENGTH = 20_000
"""From this many events on, a run holds its steps though others are in flight; Temporal suggests it from 4,096 on, and
ends a run at 51,200. A live run replays with this number."""

HARD_BYTES = 20 * 1024 * 1024

LAST_LENGTH = 50_000
"""From this many events on, a run that cannot continue as new fails, before Temporal terminates it without a word."""

LAST_BYTES = 46 * 1024 * 1024
"""The same in bytes; Temporal ends a run at 50 MiB."""

_MORE_LENGTH = 500
"""So many more, and a run fails that only waits: a step that is in flight may be its last one."""

_MORE_BYTES = 1024 * 1024
"""The same in bytes; an event may have half of it."""

_MOST_JSON = 24 * 1024 * 1024
"""Limit of the JSON that a run hands over, in bytes, compressed or not: the next execution has to read it."""

WARN_FROM = 0.5
"""From which part of the most that a run can take along it warns."""

_WARN_AGAIN = 1.25

_ENTRY_BYTES = 10
"""About how many bytes the journal's entry of a step has in what the next execution is handed, compressed."""

_ENTRY_JSON_BYTES = 24
"""The same as JSON, without the step's id."""

_SAMPLE_BYTES = 64 * 1024
"""Bytes of compressed events from which the size of all is estimated."""

_PIECE_BYTES = 16 * 1024

_LONGEST_HOLD = timedelta(days=365).total_seconds()


class ContinuingRun(Protocol):
    """Parts of a run on which it depends when the run continues as new; see :class:`.run.Run`."""

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
        """Return the number of steps in flight that another execution could not go on with."""

    def cannot_wake(self, body: asyncio.Task[Any]) -> bool:
        """Return whether nothing is in flight that could wake the body."""


class Continuing:
    """Decides when a run continues as new.

    Attributes:
        held: The steps that have not begun and wait for the next execution.
        held_until: Until when a checkpoint holds the run, in seconds since the epoch.
        size: About how many bytes the finished steps have in what the next execution is handed.
        json_size: The same as JSON, whatever the worker makes of it.
        warning: That the next execution is to be handed nearly more than Temporal takes.
    """

    def __init__(self, run: ContinuingRun, held_until: float | None = None) -> None:
        self._run = run
        self._is_parking = False
        self._too_large = ""
        self._is_asked = False
        self.held: dict[str, None] = {}
        self.held_until = held_until
        self.size: int = 0
        self.json_size: int = 0
        self.warning: str = ""
        self._warn_at = 0.0
        self._look_at = 0.0
        self._sampled = 0, 0
        self._packer: zlib._Compress | None = None
        self._uncompressed = 0
        self._compressed = 0

    def checkpoint(self, message: JSON) -> None:
        """Park as soon as possible; or go on, if the hold is 0."""
        hold = read_hold(message)
        self.held_until = workflow.time() + hold if hold else None
        self._is_asked = self.held_until is not None
        self._run.waits.changes += 1

    # --- steps that wait for the next execution --------------------------------------------------------------------

    async def hold(self, key: str) -> None:
        """Return if a step may begin; else never, as the run is about to continue as new.

        Raises:
            PayloadTooLargeError: It has to continue as new, and cannot.
        """
        self.check_room()
        if not self._must_hold():
            return
        waits = self._run.waits
        self.held[key] = None
        waits.changes += 1
        try:
            while self._is_leaving():
                left = None if self.held_until is None else _left(self.held_until)
                try:
                    await wait_until(lambda: not self._is_leaving(), timeout=left)
                except TimeoutError:
                    self.held_until = None
        finally:
            del self.held[key]
            waits.changes += 1

    def _is_held(self) -> bool:
        return self.held_until is not None and workflow.time() < self.held_until

    def _is_leaving(self) -> bool:
        if workflow.cancellation_reason() is not None and self._run.journal.is_idle:  # then the run leaves no more
            return False
        return self._is_held() or (workflow.info().is_continue_as_new_suggested() and not self._too_large)

    def check_room(self) -> None:
        """Check that a run that has too much to continue as new has room left in its history.

        Raises:
            PayloadTooLargeError: It has none.
        """
        if self._too_large and _has_history(LAST_LENGTH, LAST_BYTES):
            raise PayloadTooLargeError(f"the run cannot continue as new: {self._too_large}")

    def _is_at_its_end(self) -> bool:
        """Return whether Temporal is about to terminate the run for its history, and it cannot continue as new."""
        if not _has_history(LAST_LENGTH + _MORE_LENGTH, LAST_BYTES + _MORE_BYTES):
            return False
        return bool(self._too_large) or (self._run.journal.is_idle and self._run.busy_steps() > 0)

    def _check_end(self) -> None:
        """Check that what a run was sent while it waited has not brought it to its end.

        Raises:
            PayloadTooLargeError: It has.
        """
        if self._is_at_its_end():
            self.check_room()
            raise PayloadTooLargeError(
                "the run cannot continue as new while steps are in flight, and Temporal would terminate it soon: its "
                f"history has {workflow.info().get_current_history_size():,} bytes and "
                f"{workflow.info().get_current_history_length():,} events; listen for less (match, if_exp), or listen "
                f"when the step is done ({PAGE})"
            )

    def _must_hold(self) -> bool:
        if not self._is_leaving() or workflow.cancellation_reason() is not None:
            return False
        if self._is_held() or self.held:
            return True
        info = workflow.info()
        if info.get_current_history_length() > HARD_LENGTH or info.get_current_history_size() > HARD_BYTES:
            return True
        return self._run.busy_steps() == 1 and self._is_alone()

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
        """Return whether the body waits for nothing but steps and timers: for nothing else of Temporal's."""
        waits = self._run.waits.now.values()
        timers = sum(map(timers_of, waits)) + self._is_parking
        children = sum(waiting.next_poll_at is None for waiting in waits if isinstance(waiting, InvokeWait))
        return are_only(asyncio.get_running_loop(), timers=timers, children=children)

    async def until_left(self, body: asyncio.Task[Any]) -> None:
        """Return when the body has ended; leave by continue-as-new if that comes first."""
        waits = self._run.waits
        while True:
            await workflow.wait_condition(
                lambda: self._is_over(body) or self.is_quiet() or self._run.cannot_wake(body) or self._is_at_its_end()
            )
            if self._is_over(body):
                return
            self._check_end()
            if self._run.cannot_wake(body):
                raise deadlock(body, self._run.workflow.id)
            if self.held or self._is_held():
                await self._leave(is_parked=self._is_held(), is_held=True)
            seen, is_suggested = waits.changes, workflow.info().is_continue_as_new_suggested()
            self._is_parking = (after := self._park_in()) is not None
            try:
                await wait_until(
                    lambda: (
                        self._is_over(body)
                        or waits.changes != seen  # noqa: B023
                        or not self.is_quiet()
                        or workflow.info().is_continue_as_new_suggested() != is_suggested  # noqa: B023
                        or self._is_at_its_end()
                    ),
                    timeout=after,
                    summary=PARKS,
                )
            except TimeoutError:
                self._is_parking = False
                await self._leave(is_parked=self._run.workflow.park_after is not None)
            finally:
                self._is_parking = False

    def _is_over(self, body: asyncio.Task[Any]) -> bool:
        return body.done() or self._run.journal.error is not None

    def _park_in(self) -> timedelta | None:
        after = self._run.workflow.park_after
        if self._too_large:
            return None
        if workflow.info().is_continue_as_new_suggested():
            return timedelta(milliseconds=1)
        if after is None:
            return None
        until = self._run.waits.earliest()
        if until is not None and until - workflow.time() <= after.total_seconds():
            return None
        return after

    async def _until_all_is_seen(self) -> None:
        """Wait for what has come in the same activation, lest a cancellation is lost."""
        await workflow.wait_condition(lambda: not self._run.loop.has_more_jobs)

    async def _leave(self, *, is_parked: bool, is_held: bool = False) -> None:
        """Continue as new, unless something happens meanwhile, or there is too much to take along.

        Args:
            is_parked: Whether the next execution waits first, without the handler.
            is_held: Whether that is so only as long as steps or the run are held.
        """
        if self._is_surely_too_large():
            return
        has_asked = await self._ask_children()
        if workflow.cancellation_reason() is not None:
            # A task that is cancelled while it sends a signal to another workflow goes on as if nothing had happened:
            # the SDK cancels the signal instead of the task.
            raise asyncio.CancelledError
        if not has_asked:
            return
        await self._until_all_is_seen()
        if not self.is_quiet() or (is_held and not (self.held or self._is_held())):
            return
        self._go(self._run.state(is_parked=is_parked))

    def _is_surely_too_large(self) -> bool:
        """Return whether the state is too large to hand over, by an estimate; building it takes longer than a task may.

        A replay has to come to the same: the sizes as JSON are the same on each worker, and the history says whether
        there was external storage, and which compressed values were too large.
        """
        as_json = self.json_size + self._run.inbox.size
        if as_json <= MAX_STORED_BYTES:
            return False
        if as_json > _MOST_JSON or self._run.storage.is_used():
            self._cannot(as_json, self._run.inbox.size)
            return True
        self._pack_all()
        events = self._packed_events()  # never what a warning has estimated: queries warn, too, and are not replayed
        if not self._run.storage.is_too_large_packed(self.size + events, as_json):
            return False
        self._cannot(self.size + events, events)
        return True

    def _go(self, carried: RunState) -> None:
        if workflow.cancellation_reason() is not None:  # it has come in this moment, and is for this execution alone
            return
        storage, text = self._run.storage, carried.text()
        if is_packed(len(text), storage.is_used):
            raw = pack(text)
            size = size_of(raw)
            is_too_large = storage.is_too_large_packed(size, len(text))
        else:
            raw, size = raw_text(text), len(text)
            is_too_large = size > storage.most(size)
        if is_too_large:
            self._cannot(size, max(size - self.size, 0) if self._run.inbox.size else 0)
            return
        self._too_large = ""
        count_checkpoint(self._reason(), self.size)
        workflow.continue_as_new(
            args=[*self._run.origin.arguments(self._run.data), raw],
            search_attributes=self._attributes(carried),
            initial_versioning_behavior=ContinueAsNewVersioningBehavior.AUTO_UPGRADE,
        )

    def _reason(self) -> Literal["history", "park", "checkpoint"]:
        if self._is_held():
            return "checkpoint"
        return "history" if workflow.info().is_continue_as_new_suggested() else "park"

    def _attributes(self, carried: RunState) -> TypedSearchAttributes | None:
        """Those of the next execution; without any, Temporal takes those of this one."""
        if not carried.is_indexed:
            return None
        found_by = [name for awaited in self._run.awaited() for name in awaited.found_by()]
        return waiting_for(workflow.info().typed_search_attributes, found_by)

    async def _ask_children(self) -> bool:
        """Have invoked runs report their end by a signal; False if one has ended, and its result is about to come."""
        for waiting in list(self._run.waits.now.values()):
            if isinstance(waiting, InvokeWait) and not waiting.report_requested:
                if not await self._run.children.ask(waiting.child):
                    return False
                waiting.report_requested = True
        return True

    def _cannot(self, size: int, events: int) -> None:
        text = self._described_size(size, events)
        self._warn(text)
        self._too_large = text  # the steps that are held begin, and the run goes on for as long as Temporal lets it
        self.held_until = None
        self._run.waits.changes += 1

    # --- how much there is to hand over ----------------------------------------------------------------------------

    def restore(self, carried: RunState) -> None:
        """Go on with what an execution before had."""
        self.json_size = carried.json_size or sum(_json_size(key, _text(key, it)) for key, it in self._run.memo.items())
        self.size = carried.size or self.json_size
        self.warning = carried.warning
        if self.warning:
            self._warn_at = self.size * _WARN_AGAIN
            workflow.set_current_details(self.warning)

    def grew(self, key: str, outcome: Outcome) -> None:
        """A step has finished: warn if the next execution is to be handed nearly more than Temporal takes."""
        self._count(key, outcome)
        enough = max(self._warn_at, WARN_FROM * self._most())
        if self.size + self._run.inbox.size < enough:
            return
        events = self._estimated_events()
        if (size := self.size + events) >= enough and events < self.size:
            self._warn_at = size * _WARN_AGAIN
            self._warn(self._described_size(size, events))

    def heard(self) -> None:
        """An event has come: warn if those that nobody has taken are nearly too much, with all else."""
        size = self._run.inbox.size
        if size >= max(self._look_at, WARN_FROM * self._most() - self.size):
            self._look_at = size * _WARN_AGAIN
            if text := self.full_boxes():
                workflow.logger.warning("run %s: %s", workflow.info().workflow_id, text)

    def full_boxes(self) -> str:
        """Return a warning if the unconsumed events of a run are nearly too large to hand over; else an empty text."""
        enough = WARN_FROM * self._most()
        if self._run.inbox.size + self.size < enough or self._run.inbox.size < self.size:
            return ""
        events = self._estimated_events()
        is_enough = self.size + events >= enough and events >= self.size
        return self._described_size(self.size + events, events) if is_enough else ""

    def _packed_events(self) -> int:
        """Return the bytes of unconsumed events in the state that is handed over."""
        if self._run.storage.is_there() or not self._run.inbox.size:
            return self._run.inbox.size
        return _packed_size(self._run.inbox.texts(), self._run.inbox.size, MAX_PAYLOAD_BYTES) * 4 // 3  # base64

    def _estimated_events(self) -> int:
        """Return about the same for a warning, from a sample, which is taken again when the events have doubled.

        To compress takes longer than all else that a run does when an event comes, and many may come in one workflow
        task, which has two seconds.
        """
        size = self._run.inbox.size
        if self._run.storage.is_there() or not size:
            return size
        before, packed = self._sampled
        if not before or not before / 2 <= size <= before * 2:
            packed = _packed_size(self._run.inbox.texts(), size, _SAMPLE_BYTES) * 4 // 3
            self._sampled = before, packed = size, packed
        return packed * size // before

    def _count(self, key: str, outcome: Outcome) -> None:
        """Add to the sizes: compressed, where that matters, and piece by piece, as a workflow task has little time."""
        text = _text(key, outcome)
        size = _json_size(key, text)
        self.json_size += size
        if self._packer is not None:
            self._pack(text)
            return
        self.size += size
        if not self._run.storage.is_there() and self.size >= WARN_FROM * MAX_PAYLOAD_BYTES:
            self._pack_all()

    def _pack_all(self) -> None:
        """Have the size compressed from now on; it depends on nothing but the finished steps."""
        if self._packer is None:
            self._packer = zlib.compressobj()
            self.size = 0
            for key, outcome in self._run.memo.items():
                self._pack(_text(key, outcome))

    def _pack(self, text: bytes) -> None:
        """Add to the compressed size; where it is too large already, it is estimated from what was compressed."""
        assert self._packer is not None
        self.size += _ENTRY_BYTES
        if self.size > MAX_PAYLOAD_BYTES:
            self.size += int(len(text) * self._compressed / self._uncompressed)
            return
        size = len(self._packer.compress(text)) * 4 // 3  # base64
        self._uncompressed += len(text)
        self._compressed += size
        self.size += size

    def _most(self) -> int:
        return MAX_STORED_BYTES if self._run.storage.is_there() else MAX_PAYLOAD_BYTES

    def _described_size(self, size: int, events: int = 0) -> str:
        """Describe which part of the state is too large, and the remedy.

        Args:
            size: Of all of it, in bytes.
            events: Of the events in it.
        """
        is_stored = self._run.storage.is_there()
        bytes_ = "bytes" if is_stored else "bytes compressed"
        way_out = "" if is_stored else "give the client external storage, "
        if events >= size / 2:
            boxes = {key: (len(box.events), box.size) for key, box in self._run.inbox.boxes.items()}
            what = untaken(boxes, len(self._run.memo))
            remedy = f"take them sooner, listen for less (match, if_exp), {way_out}or close the listener"
        else:
            what = f"the results of its {len(self._run.memo):,} steps"
            remedy = f"return less from steps, {way_out}or invoke a workflow for parts of the work"
        return (
            f"{what} have {size:,} {bytes_}, of {self._most():,} that a run can take along when it continues as new; "
            f"{remedy} ({PAGE})"
        )

    def _warn(self, text: str) -> None:
        workflow.logger.warning("run %s: %s", workflow.info().workflow_id, text)
        self.warning = f"**Warning**: {text}"
        workflow.set_current_details(self.warning)

    # --- parked ----------------------------------------------------------------------------------------------------

    async def until_due(self) -> None:
        """Wait, without the handler, until there is something to do for it."""
        waits = self._run.waits.inside()
        for waiting in waits.values():
            if isinstance(waiting, InvokeWait):
                waiting.next_poll(workflow.time())
        follow_the_current_version(asyncio.get_running_loop(), True)
        try:
            while not self._is_due(waits):
                await self._until_something_comes(waits)
                self._check_end()
                if self._is_asked or self._is_full():  # who asks looks at the arguments
                    await self._until_all_is_seen()
                    self._is_asked = False
                    self._go(self._run.state(is_parked=True))
        except asyncio.CancelledError:
            self._goes_on()
            raise
        self._goes_on()

    def _goes_on(self) -> None:
        self.held_until = None
        follow_the_current_version(asyncio.get_running_loop(), False)

    async def _until_something_comes(self, waits: dict[str, Waiting]) -> None:
        held_until = self.held_until
        until = _earliest(waits) if held_until is None else held_until
        with suppress(TimeoutError):
            await wait_until(
                lambda: (
                    self._is_asked
                    or self._is_full()
                    or self.held_until != held_until
                    or self._is_due(waits)
                    or self._is_at_its_end()
                ),
                timeout=None if until is None else _left(until),
                summary=GOES_ON,
            )

    def _is_full(self) -> bool:
        """Return whether unconsumed events have made the history long: Temporal accepts 10,000 signals."""
        return not self._too_large and workflow.info().is_continue_as_new_suggested()

    def _is_due(self, waits: dict[str, Waiting]) -> bool:
        if self.held_until is not None:
            return not self._is_held()
        earliest = _earliest(waits)
        if not waits or (earliest is not None and earliest <= workflow.time()):
            return True
        return any(self._has_come(key, waiting) for key, waiting in waits.items())

    def _has_come(self, key: str, waiting: Waiting) -> bool:
        run = self._run
        match waiting:
            case EventWait() | NextWait():
                box = run.inbox.boxes.get(box_of(key, waiting))
                return box is None or box.is_closed or bool(box.events)
            case SignalWait(wait=wait):
                return run.signals.has(wait.key)
            case InvokeWait(child=child):
                return child in run.children.ended
            case TimedWait():
                return False


def _text(key: str, outcome: Outcome) -> bytes:
    """A finished step, about as the next execution is handed it."""
    return dumps([key, memo_json(outcome)])


def _json_size(key: str, text: bytes) -> int:
    """Return the bytes of a finished step and of its entry in the journal, as JSON."""
    return len(text) + len(key) + _ENTRY_JSON_BYTES


def _packed_size(texts: Iterable[bytes], size: int, most: int) -> int:
    """Return how many bytes texts have, compressed; estimated from the first ones where those are enough.

    Args:
        texts: The texts.
        size: How many bytes they have.
        most: How many bytes, compressed, are enough.
    """
    packer = zlib.compressobj()
    uncompressed = compressed = 0
    for text in texts:
        for start in range(0, len(text), _PIECE_BYTES):
            piece = text[start : start + _PIECE_BYTES]
            uncompressed += len(piece)
            compressed += len(packer.compress(piece))
            if compressed > most:
                return max(compressed, compressed * size // uncompressed)
    return compressed + len(packer.flush())


def read_hold(message: JSON) -> float:
    """Return how long a checkpoint holds a run, in seconds; 0 to let it go on."""
    hold = message.get("hold", 0) if isinstance(message, dict) else 0
    return min(hold, _LONGEST_HOLD) if isinstance(hold, int | float) and hold > 0 else 0


def untaken(boxes: Mapping[str, tuple[int, int]], steps: int) -> str:
    """The events that a run has not taken, in words.

    Args:
        boxes: How many there are for each listener, and how many bytes they have.
        steps: How many steps are finished.
    """
    key, (count, _) = max(boxes.items(), key=lambda box: box[1][1])
    others = sum(each for each, _ in boxes.values()) - count
    more = f" (and {others:,} of other listeners)" if others else ""
    return (
        f"the {count:,} events of listener {key!r} that nobody has taken{more} and the results of its {steps:,} steps"
    )


def _has_history(length: int, size: int) -> bool:
    """Return whether the history of the execution exceeds a length or size."""
    info = workflow.info()
    return info.get_current_history_length() > length or info.get_current_history_size() > size


def _left(until: float) -> timedelta:
    return timedelta(seconds=max(until - workflow.time(), 0))


def _earliest(waits: dict[str, Waiting]) -> float | None:
    return min((moment for waiting in waits.values() for moment in moments_of(waiting)), default=None)
