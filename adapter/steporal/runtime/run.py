"""One run: its input, the attempts of its body, and the memo of its finished steps.

The handler's body runs inside a Temporal workflow. An exception that it raises itself runs it again from the top,
after a backoff, with finished steps returning from the memo; steps that were in flight go on, and are joined.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from traceback import format_tb
from typing import Any, NoReturn
from uuid import UUID

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.worker.workflow_sandbox import RestrictedWorkflowAccessError

from ..context import Context, ContextExt, Input
from ..converter import return_type, to_json
from ..definition import CANCEL_ON_TIMEOUT, CancelOn, Workflow, validate_input
from ..durations import format_duration, parse_duration
from ..errors import RetryAfterError, UnserializableError
from ..routing.waiting import check_events, check_expression
from ..step import Step
from ..types import JSON
from .endings import tell_cancelled, tell_failed, tell_finished
from .failures import application_error, is_final, nondeterminism_in, users_part
from .inbox import Inbox
from .limits import to_limited
from .memo import Memo, Outcome
from .signal_inbox import SignalInbox
from .start import Origin, cron_data
from .subscriptions import Subscriptions

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
        signals: Its waits for signals.
    """

    def __init__(
        self, definition: Workflow[Any, Any], loaded: Workflow[Any, Any], inbox: Inbox, signals: SignalInbox
    ) -> None:
        self.workflow = definition
        self.loaded = loaded
        self.handler = loaded.handler
        self.memo: Memo = {}
        self.failures = 0
        self.scheduled: dict[str, int] = {}
        self.data: JSON = None
        self.origin: Origin
        self.context: Context[Any]
        self.subscriptions = Subscriptions(self, inbox)
        self.signals = signals
        self._in_flight: dict[str, asyncio.Task[Outcome]] = {}

    @property
    def id(self) -> str:
        """The run's id, stable over continue-as-new."""
        return workflow.info().first_execution_run_id

    @property
    def event(self) -> dict[str, JSON]:
        """What started the run, as expressions see it in ``event``."""
        origin = self.origin
        ts = int(origin.time().timestamp() * 1000)
        return {"name": origin.name, "data": self.data, "id": origin.id, "ts": ts, "v": origin.v}

    async def execute(self, data: JSON, added: JSON) -> RawValue:
        """Run the handler to its end; what Temporal's workflow returns."""
        self.origin = Origin.of_run(added, workflow.info().workflow_id)
        self.data = cron_data(self.origin.cron) if data is None and self.origin.cron else data
        try:
            result = await self._handled()
        except asyncio.CancelledError:
            await self._end_waits()
            await tell_cancelled(self)
            raise
        except Exception as err:
            if nondeterminism := nondeterminism_in(err):
                self._explain(nondeterminism)
            failure = application_error(err, attempt=self.failures, non_retryable=True)
            await self._end_waits()
            await tell_failed(self, failure, "".join(format_tb(failure.__traceback__)))
            raise failure from failure.__cause__
        await self._end_waits()
        await tell_finished(self, result)
        return result

    async def _end_waits(self) -> None:
        await self.subscriptions.end()
        await self.signals.end()

    async def _handled(self) -> RawValue:
        for number, cancel in enumerate(self.workflow.ext.cancel_on):
            await self._cancel_on(f"cancel_on:{number}", cancel)
        await self._until(self.origin)
        validated = validate_input(self.workflow.id, self.loaded.input_schema, self.data)
        self.context = self._context(self.origin.input(validated))
        return self._result(await self._body())

    async def _cancel_on(self, key: str, cancel: CancelOn) -> None:
        until = workflow.now() + (CANCEL_ON_TIMEOUT if cancel.timeout is None else parse_duration(cancel.timeout))
        topics, source = check_events(cancel.event), check_expression(cancel.if_exp, cancel.match)
        await self.subscriptions.subscribe(key, "cancel", topics, source, until.timestamp())

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

    async def until_cancelled(self, key: str) -> None:
        """Wait until a step with this key that was cancelled has ended, if there is one."""
        task = self._in_flight.get(key)
        if task is not None and task.cancelling():
            await asyncio.wait([task])

    def activity_id(self, key: str) -> str:
        """An id for one more activity of a step."""
        count = self.scheduled[key] = self.scheduled.get(key, 0) + 1
        return key if count == 1 else f"{key}#{count}"
