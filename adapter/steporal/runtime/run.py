"""One run: its input, the attempts of its body, and the memo of its finished steps.

The handler's body runs inside a Temporal workflow. An exception that it raises itself runs it again from the top,
after a backoff, with finished steps returning from the memo; steps that were in flight go on, and are joined.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NoReturn
from uuid import UUID

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.worker.workflow_sandbox import RestrictedWorkflowAccessError

from ..context import Context, ContextExt, Input
from ..converter import return_type, to_json
from ..definition import Workflow, validate_input
from ..durations import format_duration
from ..errors import InvalidArgumentError, RetryAfterError, UnserializableError
from ..step import Step
from ..types import JSON
from .failures import application_error, is_final, nondeterminism_in, users_part
from .limits import to_limited
from .memo import Memo, Outcome
from .start import Origin, cron_data

Perform = Callable[[], Coroutine[Any, Any, Outcome]]

_logger = workflow.LoggerAdapter(logging.getLogger("steporal.workflow"), None)
_logger.workflow_info_on_message = False


@dataclass(frozen=True, slots=True)
class WorkflowSurroundings:
    """What ``ctx`` is made of in a body: Temporal's deterministic sources."""

    run: Run

    @property
    def attempt(self) -> int:
        return self.run.failures

    @property
    def random(self) -> random.Random:
        return workflow.random()

    @property
    def logger(self) -> logging.LoggerAdapter[Any]:
        return _logger

    def now(self) -> datetime:
        return workflow.now()

    def uuid4(self) -> UUID:
        return workflow.uuid4()


class Run:
    """One run of a workflow.

    Attributes:
        workflow: What the app defined: options, and what its references may name.
        handler: The handler to call; in the sandbox that of the module that was loaded again.
        memo: The finished steps.
        failures: How often the body has raised since a step finished last.
        scheduled: How often each step was scheduled, by key; activity ids must not repeat while one is pending.
    """

    def __init__(self, definition: Workflow[Any, Any], loaded: Workflow[Any, Any]) -> None:
        self.workflow = definition
        self.loaded = loaded
        self.handler = loaded.handler
        self.memo: Memo = {}
        self.failures = 0
        self.scheduled: dict[str, int] = {}
        self.data: JSON = None
        self.context: Context[Any]
        self._in_flight: dict[str, asyncio.Task[Outcome]] = {}

    @property
    def id(self) -> str:
        """The run's id, stable over continue-as-new."""
        return workflow.info().first_execution_run_id

    async def execute(self, data: JSON, added: JSON) -> RawValue:
        """Run the handler to its end; what Temporal's workflow returns."""
        origin = Origin.of_run(added, workflow.info().workflow_id)
        self.data = cron_data(origin.cron) if data is None and origin.cron else data
        try:
            await self._until(origin)
            validated = validate_input(self.workflow.id, self.loaded.input_schema, self.data)
            self.context = self._context(origin.input(validated))
            return self._result(await self._body())
        except asyncio.CancelledError:
            raise
        except Exception as err:
            if nondeterminism := nondeterminism_in(err):
                self._explain(nondeterminism)
            failure = application_error(err, attempt=self.failures, non_retryable=True)
            raise failure from failure.__cause__

    async def _until(self, origin: Origin) -> None:
        """Wait for an event's ``ts`` in the future.

        The run waits itself: Temporal's start delay would end at the first resend of the start signal.
        """
        if origin.type == "event" and (delay := origin.time() - workflow.now()) > timedelta(0):
            await workflow.sleep(delay, summary=f"until the event's ts, {origin.time().isoformat()}")

    def _context(self, input: Input[Any]) -> Context[Any]:
        info = workflow.info()
        return Context(
            input=input,
            run_id=self.id,
            max_attempts=self.workflow.max_attempts,
            ext=ContextExt(info.workflow_id, info.namespace, info.task_queue),
            surroundings=WorkflowSurroundings(self),
        )

    async def _body(self) -> Any:
        from .attempt import Attempt

        while True:
            attempt = Attempt(self)
            try:
                return await self.handler(self.context, Step(attempt))
            except Exception as err:
                self.failures += 1
                if nondeterminism_in(err) or is_final(err) or self.failures >= self.workflow.max_attempts:
                    raise
                delay = self._backoff(err)
                _logger.warning(
                    "attempt %d of %d of the body of workflow %r raised %s: %s; the next starts in %s",
                    self.failures,
                    self.workflow.max_attempts,
                    self.workflow.id,
                    type(err).__name__,
                    err,
                    format_duration(delay),
                )
            finally:
                attempt.close()
            await workflow.sleep(delay, summary=f"backoff after attempt {self.failures} of the body")

    def _backoff(self, error: Exception) -> timedelta:
        if isinstance(error, RetryAfterError):
            return error.delay(workflow.now())
        policy = self.workflow.retry
        longest = policy.maximum_interval or policy.initial_interval * 100  # Temporal's default
        factor = policy.backoff_coefficient ** (self.failures - 1)
        return min(policy.initial_interval * min(factor, 1e9), longest)

    def _result(self, value: Any) -> RawValue:
        where = f"workflow {self.workflow.id!r}"
        try:
            return to_limited(f"the result of {where}", to_json(value, return_type(self.handler)))
        except (UnserializableError, ValueError) as err:
            raise UnserializableError(f"the handler of {where} returned a value that is no JSON: {err}") from None

    def _explain(self, error: workflow.NondeterminismError) -> NoReturn:
        """Say a sandbox error in the user's words; it fails the workflow task, which is tried again after the fix."""
        if not isinstance(error, RestrictedWorkflowAccessError):
            raise error
        called = error.qualified_name.removeprefix("__builtins__.").removesuffix(".__call__")
        where = users_part(error.__traceback__)
        at = f" ({where.tb_frame.f_code.co_filename}:{where.tb_lineno})" if where else ""
        raise workflow.NondeterminismError(
            f"the body of workflow {self.workflow.id!r} calls {called}, "
            "which gives another result when Temporal replays the run; "
            f"put it in a step.run(...), or use ctx.now(), ctx.random or ctx.uuid4(){at}. "
            "The run waits: it goes on when a worker has the corrected code."
        ) from None

    # --- steps -----------------------------------------------------------------------------------------------------

    def step(self, key: str, perform: Perform) -> asyncio.Task[Outcome]:
        """The step with this key: in flight already, or started now."""
        task = self._in_flight.get(key)
        if task is None:
            task = self._in_flight[key] = asyncio.create_task(self._finish(key, perform))
            task.add_done_callback(lambda _: self._in_flight.pop(key))  # also of one that never began
        return task

    async def _finish(self, key: str, perform: Perform) -> Outcome:
        outcome = await perform()
        self.memo[key] = outcome
        self.failures = 0
        return outcome

    def activity_id(self, key: str) -> str:
        """An id for one more activity of a step."""
        count = self.scheduled[key] = self.scheduled.get(key, 0) + 1
        return key if count == 1 else f"{key}#{count}"


@contextmanager
def arguments_checked(step_id: str) -> Iterator[None]:
    """Turns a ValueError or TypeError about an argument into one that names the step and fails the run at once."""
    try:
        yield
    except InvalidArgumentError:
        raise
    except (ValueError, TypeError) as err:
        raise InvalidArgumentError(f"step {step_id!r}: {err}") from None
