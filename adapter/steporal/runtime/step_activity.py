"""The activity of a step, in a run: its attempts, and what follows when no worker can begin it or its worker is lost.

The server retries an attempt that failed or exceeded the step's timeout. It does not retry a heartbeat timeout, but
reports it to the run, because the step's function may still run: perhaps only the connection was lost, or the server
was down. The run then asks the worker that the last heartbeat named, by the activity ``steporal.join_step`` on the task
queue of that worker alone, and the worker answers with the function's outcome. A worker that does not take the question
within :data:`JOIN_TIMEOUT` is lost, and so is the attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, TimeoutError, TimeoutType
from temporalio.workflow import ActivityCancellationType

from ..converter import from_raw, to_raw
from ..durations import format_duration
from .failures import NOT_BEGUN, failure_of, is_cancellation
from .limits import summary
from .memo import Failure, Outcome
from .waits import UNTIL_CODE, UNTIL_NEXT_ATTEMPT

if TYPE_CHECKING:
    from .run import Run

JOIN_STEP = "steporal.join_step"
NOT_HERE = "StepNotHereError"
"""The type of the error by which a worker answers that it does not run a step."""

ATTEMPTS_BEFORE = "attempts_before"
"""In the argument of a step's activity: how many attempts the step has had in earlier activities."""

JOIN_TIMEOUT = timedelta(seconds=15)

_HEARTBEAT_TIMEOUT_TYPE = "TemporalTimeout:Heartbeat"
"""By this name the server compares a heartbeat timeout with a retry policy's non_retryable_error_types."""

_CODE_PAUSE = timedelta(seconds=1)
_LONGEST_CODE_PAUSE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepActivity:
    """How a step's activity is scheduled.

    Attributes:
        key: The step's key.
        name: The activity's type.
        argument: Its argument.
        max_attempts: The step's attempts in all.
        retry: The backoff between them.
        timeout: How long one attempt may take.
        heartbeat_timeout: How long its worker may send no heartbeat.
        task_queue: Its task queue; the run's if None.
        is_joinable: Whether a worker remembers its function, so that a later attempt can join it.
    """

    key: str
    name: str
    argument: RawValue
    max_attempts: int
    retry: RetryPolicy
    timeout: timedelta
    heartbeat_timeout: timedelta
    task_queue: str | None = None
    is_joinable: bool = False

    def schedule(self, run: Run, begun: int) -> Any:
        """Schedule the activity, after a number of attempts in earlier ones."""
        argument = self.argument
        if begun:
            argument = to_raw({**from_raw(argument), ATTEMPTS_BEFORE: begun})
        finals = [*(self.retry.non_retryable_error_types or ())]
        if self.is_joinable:
            finals.append(_HEARTBEAT_TIMEOUT_TYPE)
        return workflow.start_activity(
            self.name,
            argument,
            result_type=RawValue,
            activity_id=run.activity_id(self.key),
            task_queue=self.task_queue,
            start_to_close_timeout=self.timeout,
            heartbeat_timeout=self.heartbeat_timeout,
            retry_policy=with_attempts(self.retry, self.max_attempts - begun, finals),
            cancellation_type=ActivityCancellationType.TRY_CANCEL,
            summary=summary(self.key),
        )

    def join(self, run: Run, worker: str | None) -> Any:
        """Ask the worker that runs the step's function for its outcome."""
        return workflow.start_activity(
            JOIN_STEP,
            to_raw({"step": self.key}),
            result_type=RawValue,
            activity_id=run.activity_id(self.key),
            task_queue=worker or self.task_queue,
            schedule_to_start_timeout=JOIN_TIMEOUT,
            start_to_close_timeout=self.timeout,
            heartbeat_timeout=self.heartbeat_timeout,
            retry_policy=RetryPolicy(maximum_attempts=1),
            cancellation_type=ActivityCancellationType.TRY_CANCEL,
            summary=summary(self.key),
        )


def with_attempts(policy: RetryPolicy, attempts: int, finals: list[str] | None = None) -> RetryPolicy:
    """A retry policy with a number of attempts."""
    return RetryPolicy(
        initial_interval=policy.initial_interval,
        backoff_coefficient=policy.backoff_coefficient,
        maximum_interval=policy.maximum_interval,
        maximum_attempts=attempts,
        non_retryable_error_types=finals or policy.non_retryable_error_types,
    )


async def perform(run: Run, step: StepActivity) -> Outcome:
    """Perform a step's activity to its end."""
    begun = 0
    while True:
        start = partial(step.schedule, run, begun)
        outcome, error = await until_begun(step.key, start, step.max_attempts, run.workflow.code_timeout)
        if not step.is_joinable or (beat := heartbeat_timeout(error)) is None:
            return outcome
        outcome, error, begun = await _joined(run, step, beat, begun)
        if outcome.failure is None or begun >= step.max_attempts or _is_final(step, error):
            return outcome
        if pause := _pause(step.retry, begun, error):
            await workflow.sleep(pause, summary=f"{UNTIL_NEXT_ATTEMPT}{step.key}")


async def _joined(
    run: Run, step: StepActivity, beat: TimeoutError, begun: int
) -> tuple[Outcome, FailureError | None, int]:
    """The outcome of an attempt whose heartbeats stopped, and how many attempts the step has had with it."""
    while True:
        last = next(iter(beat.last_heartbeat_details), None)
        details = last if isinstance(last, dict) else {}
        attempt = max(begun + 1, int(details.get("attempt", 0)))
        try:
            return Outcome(from_raw(await step.join(run, details.get("worker")))), None, attempt
        except FailureError as err:
            if is_cancellation(err):
                raise asyncio.CancelledError from None
            error = err
        again = heartbeat_timeout(error)
        if again is None:
            break
        beat = again
    cause = error.cause if isinstance(error, ActivityError) else error
    if isinstance(cause, TimeoutError) or (isinstance(cause, ApplicationError) and cause.type == NOT_HERE):
        lost = Failure("TimeoutError", "the worker was lost: it stopped reporting that the step is alive", "", attempt)
        return Outcome(failure=lost), None, attempt
    failure = failure_of(error, attempt)
    return Outcome(failure=failure), error, max(attempt, failure.attempts)


def _is_final(step: StepActivity, error: FailureError | None) -> bool:
    cause = error.cause if isinstance(error, ActivityError) else error
    return isinstance(cause, ApplicationError) and (
        cause.non_retryable or cause.type in (step.retry.non_retryable_error_types or ())
    )


def _pause(policy: RetryPolicy, begun: int, error: FailureError | None) -> timedelta:
    cause = error.cause if isinstance(error, ActivityError) else error
    if isinstance(cause, ApplicationError) and cause.next_retry_delay is not None:
        return cause.next_retry_delay
    if error is None:  # the time in which the worker was lost was long enough
        return timedelta(0)
    longest = policy.maximum_interval or policy.initial_interval * 100
    factor = min(policy.backoff_coefficient ** (begun - 1), longest / policy.initial_interval)
    return min(policy.initial_interval * factor, longest)


def heartbeat_timeout(error: FailureError | None) -> TimeoutError | None:
    """The heartbeat timeout that an activity ended with, if it did."""
    cause = error.cause if isinstance(error, ActivityError) else error
    return cause if isinstance(cause, TimeoutError) and cause.type == TimeoutType.HEARTBEAT else None


async def until_begun(
    key: str, start: Callable[[], Any], max_attempts: int, code_timeout: timedelta
) -> tuple[Outcome, FailureError | None]:
    """Perform an activity, again while no worker can begin it, until ``code_timeout`` is over.

    A worker cannot begin a step whose function was edited meanwhile, or whose arguments it has no key for. Such a step
    has not failed. The next worker that has the run may have other code.
    """
    since, tries = workflow.now(), 0
    while True:
        try:
            return Outcome(from_raw(await start())), None
        except FailureError as err:  # a local activity raises its cause alone, and on replay not always the same way
            if is_cancellation(err):
                raise asyncio.CancelledError from None
            error, failure = err, failure_of(err, max_attempts)
        if failure.name not in NOT_BEGUN:
            return Outcome(failure=failure), error
        pause = min(_CODE_PAUSE * 2 ** min(tries, 20), _LONGEST_CODE_PAUSE) if tries else timedelta(0)
        if workflow.now() + pause >= since + code_timeout:
            message = f"no worker could begin the step within {format_duration(code_timeout)}; the last one says: "
            return Outcome(failure=Failure(failure.name, message + failure.message, cause=failure.cause)), error
        workflow.logger.warning("step %r begins again with what this worker has: %s", key, failure.message)
        if pause:
            await workflow.sleep(pause, summary=f"{UNTIL_CODE}{key}")
        tries += 1
