"""Steps that wait for events, in a run."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

from temporalio import workflow
from temporalio.exceptions import FailureError

from ...closures.calls import Call
from ...closures.digests import digest
from ...durations import Duration
from ...errors import StepError
from ...events import ReceivedEvent, event_matches
from ...expressions.wait_arguments import check_events, check_expression
from ...sdk.wait_until import wait_until
from ...step import Listener, Wanted
from ...step_calls import step_method
from ...values.converter import copied
from ...wire.failures import failure_of, is_cancellation
from ...wire.limits import summary
from ...wire.memo import Outcome
from ...wire.names import WAIT_REFUSED
from ...wire.waits import EventWait, NextWait
from ..inbox import Box
from ..run import Run
from .arguments import arguments_checked, deadline_of
from .host import StepHost


@dataclass(frozen=True, slots=True)
class Wait:
    """Checked arguments of a wait or a listener."""

    topics: tuple[str, ...]
    source: str | None
    until: float
    asked: int | None
    timeout: Duration | datetime

    @classmethod
    def of(cls, key: str, wanted: Wanted, now: int) -> Wait:
        with arguments_checked(key):
            topics = check_events(wanted.event)
            source = check_expression(wanted.if_exp, wanted.match)
            asked = None if isinstance(wanted.timeout, datetime) else now
            until = deadline_of(wanted.timeout, "timeout").timestamp()
            return cls(topics, source, until, asked, wanted.timeout)

    def moved(self, run: Run) -> Wait:
        """The same wait in a run that goes on from what another has done."""
        return replace(self, until=run.clock.moved(self.until, self.asked))

    def call(self, run: Run, kind: str) -> Call:
        """The description of the call."""
        call = run.call(kind, " or ".join(self.topics))
        return replace(call, details=digest(self.source, self.timeout))


def wait_for_event(attempt: StepHost, key: str, wanted: Wanted) -> Coroutine[Any, Any, ReceivedEvent | None]:
    """Perform ``step.ext.wait_for_event``."""
    wait = Wait.of(key, wanted, attempt.owner.journal.now())
    key = attempt.called(key, wait.call(attempt.owner, "wait_for_event"))
    return _wait_for_event(attempt, key, wait)


async def _wait_for_event(attempt: StepHost, key: str, wait: Wait) -> ReceivedEvent | None:
    return _received(key, await attempt.outcome(key, "wait_for_event", partial(_perform_wait, attempt, key, wait)))


def _received(key: str, outcome: Outcome) -> ReceivedEvent | None:
    """Return the event that a step has received.

    Raises:
        StepError: A topic refused the subscription.
    """
    if outcome.value is None:
        return None
    if outcome.value["name"] == WAIT_REFUSED:
        raise StepError(key, "TooManyWaitsError", outcome.value["data"]["message"])
    return ReceivedEvent.model_validate(copied(outcome.value))


async def _perform_wait(attempt: StepHost, key: str, wait: Wait) -> Outcome:
    subscriptions, waits = attempt.owner.subscriptions, attempt.owner.waits
    wait = wait.moved(attempt.owner)
    waiting = waits.resume(key, "event")
    box: Box | Outcome | None = None
    if waiting is not None:
        box = subscriptions.inbox.boxes.get(key)
    if not isinstance(waiting, EventWait) or box is None:
        waiting = EventWait(wait.until)
        box = await _subscribe(attempt, key, "once", wait)
    if isinstance(box, Outcome):
        return box
    try:
        event = await _take(attempt.owner, box, key, waiting)
    except asyncio.CancelledError:
        subscriptions.unsubscribe(key)
        raise
    if event is None:
        subscriptions.inbox.close(key)  # the topics know when it ends
    else:
        subscriptions.unsubscribe(key, [topic for topic in box.topics if not event_matches(topic, event["name"])])
    return Outcome(event)


async def _subscribe(attempt: StepHost, key: str, kind: Literal["once", "each"], wait: Wait) -> Box | Outcome:
    """The box that events come into, or how the step has failed."""
    subscriptions = attempt.owner.subscriptions
    try:
        return await subscriptions.subscribe(key, kind, wait.topics, wait.source, wait.until)
    except asyncio.CancelledError:
        subscriptions.unsubscribe(key)
        raise
    except FailureError as err:
        subscriptions.unsubscribe(key)
        if is_cancellation(err):
            raise asyncio.CancelledError from None
        return Outcome(failure=failure_of(err))


async def _take(run: Run, box: Box, key: str, waiting: EventWait | NextWait) -> dict[str, Any] | None:
    """The next event in a box; None when there is none in time, or the box is closed."""
    left = waiting.until - workflow.time()
    if left <= 0 and run.waits.is_known_to_be_over(key):
        run.clock.note_passed(key, waiting.until)
        return box.take()
    if box.events or box.is_closed:
        return box.take()
    with run.waits.during(key, waiting), suppress(TimeoutError):
        while not box.events and not box.is_closed:  # another call of `next` may take the event that has woken this one
            await wait_until(
                lambda: bool(box.events) or box.is_closed,
                timeout=max(timedelta(seconds=waiting.until - workflow.time()), run.clock.shortest(key)),
                summary=summary(key),
            )
    return box.take()


def listen(attempt: StepHost, key: str, wanted: Wanted) -> Coroutine[Any, Any, Listener]:
    """Perform ``step.ext.listen``."""
    wait = Wait.of(key, wanted, attempt.owner.journal.now())
    key = attempt.called(key, wait.call(attempt.owner, "listen"))
    return _listen(attempt, key, wait)


async def _listen(attempt: StepHost, key: str, wait: Wait) -> Listener:
    run = attempt.owner
    outcome = await attempt.outcome(key, "listen", partial(_perform_listen, attempt, key, wait))
    asked: int | None = run.journal.now()
    if key in run.takeover.reopens:
        del run.takeover.reopens[key]
        run.subscriptions.serve(_reopen(attempt, key, wait))
    return EventListener(attempt, key, outcome.value["until"], asked)


async def _reopen(attempt: StepHost, key: str, wait: Wait) -> None:
    """Subscribe for a listener of another run, from what this one goes on from, once the body is where that was."""
    run = attempt.owner
    await workflow.wait_condition(lambda: run.journal.is_back)
    if isinstance(failed := await _subscribe(attempt, key, "each", wait.moved(run)), Outcome):
        workflow.logger.warning("listener %r receives no events: %s", key, failed.failure)


async def _perform_listen(attempt: StepHost, key: str, wait: Wait) -> Outcome:
    wait = wait.moved(attempt.owner)
    box = await _subscribe(attempt, key, "each", wait)
    return box if isinstance(box, Outcome) else Outcome({"until": wait.until})


class EventListener:
    """A listener of a run; a new one in each attempt of the body, for the same events."""

    __slots__ = ("_asked", "_attempt", "_key", "_step_calls", "_until")

    def __init__(self, attempt: StepHost, key: str, until: float, asked: int | None) -> None:
        self._attempt = attempt
        self._step_calls = attempt.step_calls
        self._key = key
        self._until = until
        self._asked = asked

    @step_method("listener.next")
    def next(
        self, step_id: str, *, timeout: Duration | datetime | None = None
    ) -> Coroutine[Any, Any, ReceivedEvent | None]:
        """See :class:`~steporal.Listener`."""
        key = self._attempt.key(step_id)
        run = self._attempt.owner
        until, asked = None, None
        if timeout is not None:
            with arguments_checked(key):
                until = deadline_of(timeout, "timeout").timestamp()
            asked = None if isinstance(timeout, datetime) else run.journal.now()
        key = self._attempt.called(key, Call("next", self._key, details=digest(timeout)))
        return self._next(key, until, asked)

    async def _next(self, key: str, until: float | None, asked: int | None) -> ReceivedEvent | None:
        at_once = self._attempt.owner.journal.takes_events
        perform = partial(self._perform_next, key, until, asked)
        return _received(key, await self._attempt.outcome(key, "next", perform, at_once=at_once))

    async def _perform_next(self, key: str, own: float | None, asked: int | None) -> Outcome:
        run = self._attempt.owner
        box = run.subscriptions.inbox.boxes.get(self._key)
        if box is None:
            return Outcome()
        if run.journal.takes_events:
            await workflow.wait_condition(lambda: box.seen_before > 0 or run.journal.is_back)
        until = run.clock.moved(self._until, self._asked)
        if own is not None:
            until = min(until, run.clock.moved(own, asked))
        resumed = run.waits.resume(key, "next", "timer")
        waiting = NextWait(until if resumed is None or resumed.until is None else resumed.until, self._key)
        return Outcome(await _take(run, box, key, waiting))

    @step_method("listener.close")
    def close(self) -> Coroutine[Any, Any, None]:
        """See :class:`~steporal.Listener`."""
        return self._close()

    async def _close(self) -> None:
        self._attempt.owner.subscriptions.unsubscribe(self._key)

    async def __aenter__(self) -> Listener:
        return self

    async def __aexit__(self, *error: object) -> None:
        # The next attempt of a body that raised listens on, and gets what has come since.
        if error[0] is None:
            await self._close()
