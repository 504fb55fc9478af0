"""The activity of a step, in a run: its attempts, and what follows when no worker can begin it or its worker is lost.

The server retries an attempt that failed or exceeded the step's timeout. It does not retry a heartbeat timeout, but
reports it to the run, because the step's function may still run: perhaps only the connection was lost, or the server
was down. The run then asks the worker that the last heartbeat named, by the activity ``steporal.join_step`` on the task
queue of that worker alone, and the worker answers with the function's outcome. A worker that does not take the question
within :data:`JOIN_TIMEOUT` is lost, and so is the attempt.

The server can also hand an attempt to a worker that never receives it, because the worker is shutting down or its
connection has just ended. Before the last attempt of an activity, a worker therefore waits until the server has
recorded a heartbeat that names it. If that heartbeat is missing, the attempt has not begun anywhere, so it does not
count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ApplicationError, FailureError, TimeoutType
from temporalio.exceptions import TimeoutError as ActivityTimeout
from temporalio.workflow import ActivityCancellationType

from ...closures.calls import Call
from ...durations import format_duration
from ...types import JSON
from ...values.converter import from_raw, to_raw
from ...wire.failures import LOST, NEVER_BEGAN, NOT_BEGUN, UNKNOWN_KEY, call_of, failure_of, is_cancellation
from ...wire.limits import summary
from ...wire.memo import Failure, Outcome
from ...wire.names import JOIN_STEP, STEP_NOT_HERE, UNTIL_CODE, UNTIL_NEXT_ATTEMPT, WORKER_TASK_QUEUE
from ...wire.step_activities import BEFORE, LAST
from ..backoff import backoff
from ..run import Run

JOIN_TIMEOUT = timedelta(seconds=15)

_HEARTBEAT_TIMEOUT_TYPE = "TemporalTimeout:Heartbeat"
"""The server's name for a heartbeat timeout in a retry policy's ``non_retryable_error_types``."""

_CODE_PAUSE = timedelta(seconds=1)
_LONGEST_CODE_PAUSE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepActivity:
    """Options of a step's activity.

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

    def schedule(self, run: Run, attempts: Attempts) -> Any:
        """Schedule the activity, and note its id in ``attempts`` unless an earlier one began the step."""
        argument, activity_id = self.argument, run.steps.activity_id(self.key)
        if not attempts.begun:
            attempts.activity_id = activity_id
        if self.is_joinable and (attempts.begun or attempts.is_last):
            argument = to_raw({**from_raw(argument), BEFORE: attempts.before()})
        finals = [*(self.retry.non_retryable_error_types or ())]
        if self.is_joinable:
            finals.append(_HEARTBEAT_TIMEOUT_TYPE)
        return workflow.start_activity(
            self.name,
            argument,
            result_type=RawValue,
            activity_id=activity_id,
            task_queue=self.task_queue,
            start_to_close_timeout=self.timeout,
            heartbeat_timeout=self.heartbeat_timeout,
            retry_policy=with_attempts(self.retry, self.max_attempts - attempts.begun, finals),
            cancellation_type=ActivityCancellationType.TRY_CANCEL,
            summary=summary(self.key),
        )

    def join(self, run: Run, attempts: Attempts, worker: str | None) -> Any:
        """Ask the worker that runs the step's function for its outcome."""
        return workflow.start_activity(
            JOIN_STEP,
            to_raw({"activity_id": attempts.activity_id}),
            result_type=RawValue,
            activity_id=run.steps.activity_id(self.key),
            task_queue=worker or self.task_queue,  # without a name, any worker of the app answers: it may be the one
            schedule_to_start_timeout=JOIN_TIMEOUT,
            start_to_close_timeout=self.timeout,
            heartbeat_timeout=self.heartbeat_timeout,
            retry_policy=RetryPolicy(maximum_attempts=1),
            cancellation_type=ActivityCancellationType.TRY_CANCEL,
            summary=summary(self.key),
        )


def with_attempts(policy: RetryPolicy, attempts: int, finals: list[str] | None = None) -> RetryPolicy:
    """Return a retry policy with a number of attempts, and with other final types of errors unless they are None."""
    return replace(
        policy, maximum_attempts=attempts, non_retryable_error_types=finals or policy.non_retryable_error_types
    )


@dataclass(slots=True)
class Attempts:
    """The attempts that a step has had in activities that have ended.

    Attributes:
        max_attempts: The step's attempts in all.
        final_types: The types of errors after which there is no further attempt.
        begun: How many it has had.
        activity_id: The activity by which the step began.
    """

    max_attempts: int
    final_types: Sequence[str]
    begun: int = 0
    activity_id: str | None = None

    def before(self) -> JSON:
        """Return what the worker of the next activity has to know."""
        return {
            "attempts": self.begun,
            **({"activity_id": self.activity_id} if self.begun else {}),
            **({LAST: True} if self.is_last else {}),
        }

    @property
    def is_last(self) -> bool:
        """True if the step has one attempt left."""
        return self.begun == self.max_attempts - 1

    def count_heartbeat_timeout(self, timeout: ActivityTimeout, *, is_join: bool) -> str | None:
        """Count an attempt whose heartbeats have stopped, and return the task queue of its worker, if it is known.

        An activity that joins a function begins no attempt, so its end adds none. The number in the heartbeat may be
        higher than the count, because the server retries an activity without the run.
        """
        worker, attempt = _read_details(timeout)
        self.begun = max(self.begun if is_join else self.begun + 1, attempt)
        return worker

    def is_unbegun(self, timeout: ActivityTimeout) -> bool:
        """Return whether no worker has begun the attempt of an activity that had one attempt left.

        Only before a last attempt does a worker wait until the server has recorded its heartbeat
        (``activities/announcing.py``). So only then does a missing heartbeat prove that no worker began it.
        """
        return self.is_last and not timeout.last_heartbeat_details

    def uncount_unbegun(self, failure: Failure) -> None:
        """Count the attempts before one that a worker received and could not begin."""
        self.begun = max(self.begun, failure.attempts - 1)

    def count_failed_join(self, failure: Failure) -> tuple[Failure, bool]:
        """Count an attempt that failed while joined, or could not be joined.

        Returns:
            The failure of the attempt, and whether another attempt follows.
        """
        cause = failure.cause
        if isinstance(cause, ActivityTimeout) or (isinstance(cause, ApplicationError) and cause.type == STEP_NOT_HERE):
            failure = Failure("TimeoutError", LOST, "", self.begun, cause)
            return failure, self.begun < self.max_attempts
        self.begun = max(self.begun, failure.attempts)
        is_final = isinstance(cause, ApplicationError) and (cause.non_retryable or cause.type in self.final_types)
        failure = replace(failure, attempts=self.begun)
        return failure, self.begun < self.max_attempts and not is_final


def _read_details(timeout: ActivityTimeout) -> tuple[str | None, int]:
    """Return the worker and the attempt that the last heartbeat named, unless the step itself has sent another."""
    match list(timeout.last_heartbeat_details):
        case [{"worker": str(worker), "attempt": int(attempt)}] if (
            worker.startswith(WORKER_TASK_QUEUE) and len(worker) < 100  # Temporal rejects a longer task queue
        ):
            return worker, attempt
    return None, 0


async def perform(run: Run, step: StepActivity) -> Outcome:
    """Perform a step's activity to its end."""
    attempts = Attempts(step.max_attempts, step.retry.non_retryable_error_types or ())
    code_timeout, since = run.workflow.code_timeout, None
    while True:
        start = partial(step.schedule, run, attempts)
        outcome = await until_begun(step.key, start, step.max_attempts, code_timeout, attempts.uncount_unbegun)
        if not step.is_joinable or (timeout := heartbeat_timeout_of(outcome)) is None:
            return outcome
        if attempts.is_unbegun(timeout):
            since = since or workflow.now()
            if workflow.now() >= since + code_timeout:
                return Outcome(failure=Failure("TimeoutError", NEVER_BEGAN, "", attempts.begun, timeout))
            workflow.logger.warning("step %r begins again: its worker was lost before it began the step", step.key)
            continue
        since = None
        worker = attempts.count_heartbeat_timeout(timeout, is_join=False)
        outcome = await _join(run, step, attempts, worker)
        while (timeout := heartbeat_timeout_of(outcome)) is not None:
            worker = attempts.count_heartbeat_timeout(timeout, is_join=True)
            outcome = await _join(run, step, attempts, worker)
        if outcome.failure is None:
            return outcome
        failure, has_another = attempts.count_failed_join(outcome.failure)
        if not has_another:
            return replace(outcome, failure=failure)
        if pause := _pause(step.retry, attempts.begun, failure.cause):
            await workflow.sleep(pause, summary=f"{UNTIL_NEXT_ATTEMPT}{step.key}")


async def _join(run: Run, step: StepActivity, attempts: Attempts, worker: str | None) -> Outcome:
    try:
        return _returned(await step.join(run, attempts, worker))
    except FailureError as err:
        if is_cancellation(err):
            raise asyncio.CancelledError from None
        return Outcome(failure=failure_of(err), call=call_of(err))


def _returned(raw: RawValue) -> Outcome:
    return Outcome(from_raw(raw), call=Call.of_result(raw))


def _pause(policy: RetryPolicy, begun: int, cause: BaseException | None) -> timedelta:
    """Return how long to wait before the next attempt, as the server does."""
    if not isinstance(cause, ApplicationError) or cause.type == STEP_NOT_HERE:
        return timedelta(0)  # the worker was lost; finding that out took long enough
    if cause.next_retry_delay is not None:
        return cause.next_retry_delay
    return backoff(policy, begun)


def heartbeat_timeout_of(outcome: Outcome) -> ActivityTimeout | None:
    """Return the heartbeat timeout that an activity ended with, if it did."""
    cause = outcome.failure.cause if outcome.failure else None
    return cause if isinstance(cause, ActivityTimeout) and cause.type == TimeoutType.HEARTBEAT else None


async def until_begun(
    key: str,
    start: Callable[[], Any],
    max_attempts: int,
    code_timeout: timedelta,
    not_begun: Callable[[Failure], None] = lambda failure: None,
) -> Outcome:
    """Perform an activity, again while no worker can begin it.

    A worker cannot begin a step whose function was edited meanwhile, or whose arguments it has no key for. Such a step
    has not failed, and the next worker that has the run may have other code. A step waits for its code for
    ``code_timeout``. It waits for a key without a limit, as its run does.

    Args:
        key: The step's key.
        start: Starts the activity.
        max_attempts: The step's attempts in all.
        code_timeout: The time after which the step fails.
        not_begun: Called with each failure of a worker that could not begin the step.
    """
    since, tries = workflow.now(), 0
    while True:
        try:
            return _returned(await start())
        except FailureError as err:  # a local activity raises its cause alone, and on replay not always the same way
            if is_cancellation(err):
                raise asyncio.CancelledError from None
            failure, call = failure_of(err, max_attempts), call_of(err)
        if failure.name not in NOT_BEGUN:
            return Outcome(failure=failure, call=call)
        not_begun(failure)
        pause = min(_CODE_PAUSE * 2 ** min(tries, 20), _LONGEST_CODE_PAUSE) if tries else timedelta(0)
        if failure.name != UNKNOWN_KEY and workflow.now() + pause >= since + code_timeout:
            message = f"no worker could begin the step within {format_duration(code_timeout)}; the last one says: "
            return Outcome(failure=Failure(failure.name, message + failure.message, cause=failure.cause))
        workflow.logger.warning("step %r begins again with what this worker has: %s", key, failure.message)
        if pause:
            await workflow.sleep(pause, summary=f"{UNTIL_CODE}{key}")
        tries += 1
