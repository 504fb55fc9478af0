"""Steps that wait for events, in a run."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from temporalio import workflow
from temporalio.exceptions import FailureError

from ..calls import step_method
from ..durations import Duration
from ..events import ReceivedEvent, event_matches
from ..routing.waiting import check_events, check_expression
from ..step import Listener, Wanted
from .arguments import arguments_checked, deadline_of
from .failures import failure_of, is_cancellation
from .inbox import Box
from .limits import summary
from .memo import Outcome
from .until import wait_until
from .waits import Waiting, Waits

if TYPE_CHECKING:
    from .attempt import Attempt


@dataclass(frozen=True, slots=True)
class Wait:
    """What is waited for, checked."""

    topics: tuple[str, ...]
    source: str | None
    until: float

    @classmethod
    def of(cls, key: str, wanted: Wanted) -> Wait:
        with arguments_checked(key):
            topics = check_events(wanted.event)
            source = check_expression(wanted.if_exp, wanted.match)
            return cls(topics, source, deadline_of(wanted.timeout, "timeout").timestamp())


def wait_for_event(attempt: Attempt, key: str, wanted: Wanted) -> Coroutine[Any, Any, ReceivedEvent | None]:
    """Perform ``step.ext.wait_for_event``."""
    return _wait_for_event(attempt, key, Wait.of(key, wanted))


async def _wait_for_event(attempt: Attempt, key: str, wait: Wait) -> ReceivedEvent | None:
    return _received(await attempt.outcome(key, "wait_for_event", partial(_perform_wait, attempt, key, wait)))


def _received(outcome: Outcome) -> ReceivedEvent | None:
    return None if outcome.value is None else ReceivedEvent.model_validate(outcome.value)


async def _perform_wait(attempt: Attempt, key: str, wait: Wait) -> Outcome:
    subscriptions, waits = attempt.owner.subscriptions, attempt.owner.waits
    waiting = waits.resume(key, "event")
    box: Box | Outcome | None = None
    if waiting is not None:
        box = subscriptions.inbox.boxes.get(key)
    if waiting is None or box is None:
        waiting = Waiting("event", wait.until)
        box = await _subscribe(attempt, key, "once", wait)
    if isinstance(box, Outcome):
        return box
    try:
        event = await _take(waits, box, key, waiting)
    except asyncio.CancelledError:
        subscriptions.unsubscribe(key)
        raise
    if event is None:
        subscriptions.inbox.close(key)  # the topics know when it ends
    else:
        subscriptions.unsubscribe(key, [topic for topic in box.topics if not event_matches(topic, event["name"])])
    return Outcome(event)


async def _subscribe(attempt: Attempt, key: str, kind: Literal["once", "each"], wait: Wait) -> Box | Outcome:
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


async def _take(waits: Waits, box: Box, key: str, waiting: Waiting) -> dict[str, Any] | None:
    """The next event in a box; None when there is none in time, or the box is closed."""
    assert waiting.until is not None
    left = waiting.until - workflow.time()
    if not box.events and not box.is_closed and left > 0:
        with waits.during(key, waiting):
            try:
                await wait_until(
                    lambda: bool(box.events) or box.is_closed,
                    timeout=timedelta(seconds=left),
                    summary=summary(key),
                )
            except TimeoutError:
                pass
    return box.take()


def listen(attempt: Attempt, key: str, wanted: Wanted) -> Coroutine[Any, Any, Listener]:
    """Perform ``step.ext.listen``."""
    return _listen(attempt, key, Wait.of(key, wanted))


async def _listen(attempt: Attempt, key: str, wait: Wait) -> Listener:
    outcome = await attempt.outcome(key, "listen", partial(_perform_listen, attempt, key, wait))
    return EventListener(attempt, key, outcome.value["until"])


async def _perform_listen(attempt: Attempt, key: str, wait: Wait) -> Outcome:
    box = await _subscribe(attempt, key, "each", wait)
    return box if isinstance(box, Outcome) else Outcome({"until": wait.until})


class EventListener:
    """A listener of a run; a new one in each attempt of the body, for the same events."""

    __slots__ = ("_attempt", "_calls", "_key", "_until")

    def __init__(self, attempt: Attempt, key: str, until: float) -> None:
        self._attempt = attempt
        self._calls = attempt.calls
        self._key = key
        self._until = until

    @step_method("listener.next")
    def next(
        self, step_id: str, *, timeout: Duration | datetime | None = None
    ) -> Coroutine[Any, Any, ReceivedEvent | None]:
        """See :class:`~steporal.Listener`."""
        key = self._attempt.key(step_id)
        until = self._until
        if timeout is not None:
            with arguments_checked(key):
                until = min(until, deadline_of(timeout, "timeout").timestamp())
        return self._next(key, until)

    async def _next(self, key: str, until: float) -> ReceivedEvent | None:
        return _received(await self._attempt.outcome(key, "next", partial(self._perform_next, key, until)))

    async def _perform_next(self, key: str, until: float) -> Outcome:
        run = self._attempt.owner
        box = run.subscriptions.inbox.boxes.get(self._key)
        if box is None or key in run.slept:
            return Outcome()
        resumed = run.waits.resume(key, "next")
        waiting = Waiting("next", until if resumed is None else resumed.until, {"box": self._key})
        event = await _take(run.waits, box, key, waiting)
        if event is not None:
            run.saw(key, event["id"])
        return Outcome(event)

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
