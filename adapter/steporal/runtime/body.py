"""Body of a run: the handler, executed again from the top after it raised."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from temporalio import workflow

from ..context import Context
from ..durations import format_duration
from ..errors import RetryAfterError
from ..observability.run_metrics import count_body
from ..sandbox.interrupts import Contained
from ..sandbox.nondeterminism import nondeterminism_in
from ..sandbox.watch import in_body
from ..step import Step, Steps
from ..wire.failures import FAILED_CODE, is_final, logged, message_of
from ..wire.names import BACKOFF_AFTER, BEGINS_ANEW, RUN_SEED
from ..wire.run_state import RunState
from ..wire.waits import BACKOFF, TimedWait, Waits, left_until
from ..workflow import Workflow
from .backoff import backoff
from .body_log import BodyLogger, RunLogger
from .branches import BRANCH, Branch
from .clock import BodyClock
from .deadlock import of_another_loop
from .journal import Journal

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def seed_of(run_id: str) -> str:
    """Return what the random numbers of a run start from, in hexadecimal; a run that repeats another takes its seed.

    Args:
        run_id: The run's id, which the server draws at random.
    """
    return hashlib.sha256(f"{RUN_SEED}{run_id}".encode()).hexdigest()[:32]


class BodyAttempt(Steps, Protocol):
    """One attempt of a body: it performs the steps that the body calls.

    Attributes:
        branch: The branch of the body itself.
    """

    branch: Branch

    def is_forgotten(self) -> bool:
        """Return whether the worker has removed the run from its cache."""

    def close(self) -> None:
        """End the attempt; its steps go on."""


@dataclass(frozen=True, slots=True)
class WorkflowSurroundings:
    """Sources of ``ctx`` in a body: deterministic ones of Temporal's."""

    body: Body
    clock: BodyClock

    @property
    def attempt(self) -> int:
        return 0 if self.clock.journal.has_news else self.body.attempt

    @property
    def random(self) -> random.Random:
        return self.body.random

    @property
    def logger(self) -> logging.LoggerAdapter[Any]:
        return self.body.logger

    def now(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self.clock.nanoseconds() // 1000)

    def uuid4(self) -> UUID:
        return UUID(int=self.body.random.getrandbits(128), version=4)


class Body:
    """Executes the handler of a run.

    Args:
        definition: The workflow.
        handler: Its handler, which ends at most the run.
        journal: The run's journal.
        waits: The waits of the run.
        seed: The seed of the body's random numbers, in hexadecimal.
        new_attempt: Makes an attempt, in the body's task.

    Attributes:
        failures: Number of times the body has raised since a step last finished.
        attempt: Number of the present attempt, from 0; those before a step last finished do not count.
        seed: See above.
        random: Random numbers of the body; they begin anew with each attempt.
        context: ``ctx`` of the present attempt.
        logger: Logger that the body has as ``ctx.logger``.
    """

    random: random.Random
    context: Context[Any]

    def __init__(
        self,
        definition: Workflow[Any, Any],
        handler: Callable[..., Contained],
        journal: Journal,
        waits: Waits,
        seed: str,
        new_attempt: Callable[[], BodyAttempt],
    ) -> None:
        self._definition = definition
        self._handler = handler
        self._journal = journal
        self._waits = waits
        self._new_attempt = new_attempt
        self._logger = RunLogger(lambda: self.failures + 1)
        self.seed = seed
        self.failures: int = 0
        self.attempt: int = 0
        self.logger: BodyLogger = BodyLogger(lambda: self.failures + 1, journal)

    def restore(self, carried: RunState) -> None:
        """Take over the state that an earlier execution handed over."""
        self.failures = carried.failures
        self.attempt = carried.attempt

    async def execute(self, context: Callable[[], Context[Any]], *, is_new: bool, is_silent: bool) -> Any:
        """Execute the handler to its end, in as many attempts as the workflow allows.

        Args:
            context: Makes the handler's ``ctx``.
            is_new: Whether no earlier execution of the run has begun the body.
            is_silent: Whether an earlier execution has, and logged what the body logs until it is back.
        """
        journal = self._journal
        if (carried := self._waits.resume(BACKOFF, "backoff")) and carried.until is not None:
            is_new = True
            await self._pause(carried.until)
            self.attempt = self.failures
        try:
            while True:
                self.random = random.Random(int(self.seed, 16))  # the same in each: what is drawn may name steps
                journal.open(is_new=is_new, is_silent=is_silent and not is_new)
                self.context = in_body(context)
                attempt = self._new_attempt()
                BRANCH.set(attempt.branch)
                try:
                    result = await self._handler(self.context, Step(attempt))
                    attempt.step_calls.check_awaited()
                    self._warn_of(attempt.step_calls.still_running())
                    count_body("returned")
                    return result
                except Exception as err:
                    if nondeterminism_in(err):
                        raise
                    if foreign := of_another_loop(err, self._definition.id):
                        raise foreign from None
                    count_body("raised")
                    self.failures += 1
                    never_again = is_final(err, self._definition.retry.non_retryable_error_types)
                    if never_again or self.failures >= self._definition.max_attempts:
                        raise
                    delay = self._backoff(err)
                    self._log_failed_attempt(err, delay)
                finally:
                    # Where the run is forgotten, Python ends this body as it collects garbage, in the context of
                    # whatever run has the thread: to set a variable there would change that one's, and crashes Python
                    # 3.11 where it copies the context just then.
                    if not attempt.is_forgotten():
                        BRANCH.set(None)
                        attempt.close()
                is_new = True
                await self._pause((workflow.now() + delay).timestamp())
                self.attempt = self.failures
        finally:
            self._journal.end()

    def _log_failed_attempt(self, error: Exception, delay: timedelta) -> None:
        self._logger.warning(
            "attempt %d of %d of the body of workflow %r raised %s: %s; the next starts in %s",
            self.failures,
            self._definition.max_attempts,
            self._definition.id,
            type(error).__name__,
            message_of(error),
            format_duration(delay),
            exc_info=logged(error),
            extra={"attempt": self.failures, FAILED_CODE: True},
        )

    def _warn_of(self, running: str) -> None:
        """Log the steps that a body left running when it returned; Temporal cancels them as the run ends."""
        if running:
            self._logger.warning(
                "workflow %r returned while steps were still running, which cancels them: %s; await them, or cancel "
                "them before the body returns",
                self._definition.id,
                running,
            )

    async def _pause(self, until: float) -> None:
        if (left := left_until(until, workflow.time())) > timedelta(0):
            anew = BEGINS_ANEW if self._journal.begins_anew else ""
            with self._waits.during(BACKOFF, TimedWait("backoff", until)):
                await workflow.sleep(left, summary=f"{BACKOFF_AFTER}{self.failures} of the body{anew}")

    def _backoff(self, error: Exception) -> timedelta:
        if isinstance(error, RetryAfterError):
            return error.delay(workflow.now())
        return backoff(self._definition.retry, self.failures)
