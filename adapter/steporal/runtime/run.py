"""One run: its input, the attempts of its body, and the memo of its finished steps.

The handler's body runs inside a Temporal workflow. An exception that it raises itself runs it again from the top,
after a backoff, with finished steps returning from the memo; steps that were in flight go on, and are joined.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from traceback import format_tb
from typing import Any, Literal
from uuid import UUID

from temporalio import workflow
from temporalio.common import RawValue

from ..context import Context, ContextExt, Input
from ..converter import from_raw, return_type, to_json
from ..definition import CANCEL_ON_TIMEOUT, CancelOn, Workflow, validate_input
from ..durations import format_duration, parse_duration
from ..errors import RetryAfterError, UnserializableError
from ..routing.waiting import check_events, check_expression
from ..search_attributes import WAITING_FOR, is_indexed, of_run
from ..step import Step
from ..types import JSON
from .awaited import Awaited, described
from .body_log import BodyLogger, RunLogger
from .carried import Carried, outcome_json, read_outcome
from .children import Children, failed_with, was_cancelled
from .coming_back import WayBack
from .continuing import Continuing
from .counting import StepKind, count_body, count_end, count_start, counted
from .deadlock import of_another_loop
from .details import show_details
from .determinism import explained, nondeterminism_in
from .endings import tell_cancelled, tell_failed, tell_finished
from .failures import application_error, is_final, message_of
from .inbox import Inbox
from .limits import to_limited
from .memo import Memo, Outcome
from .ordered_tasks import number_tasks
from .pending import is_idle, waits_for_a_future
from .signal_inbox import SignalInbox
from .start import Origin, cron_data
from .storage import StorageOfRun
from .subscriptions import Subscriptions
from .traced import TRACE
from .until import wait_until
from .waits import BACKOFF, BACKOFF_AFTER, UNTIL_TS, Waiting, Waits, left_until

Perform = Callable[[], Coroutine[Any, Any, Outcome]]

_CANCELLED_AGAIN = timedelta(minutes=1)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class WorkflowSurroundings:
    """What ``ctx`` is made of in a body: Temporal's deterministic sources."""

    run: Run

    @property
    def attempt(self) -> int:
        return self.run.failures

    @property
    def random(self) -> random.Random:
        return self.run.random

    @property
    def logger(self) -> logging.LoggerAdapter[Any]:
        return self.run.body_logger

    def now(self) -> datetime:
        return self.run.now()

    def uuid4(self) -> UUID:
        return UUID(int=self.run.random.getrandbits(128), version=4)


class Run:
    """One run of a workflow.

    Attributes:
        workflow: What the app defined: options, and what its references may name.
        handler: The handler to call; in the sandbox that of the module that was loaded again.
        memo: The finished steps.
        failures: How often the body has raised since a step finished last.
        logger: What is logged of it.
        body_logger: What the body logs with.
        scheduled: How often each step was scheduled, by key; activity ids must not repeat while one is pending.
        finished: When each step has finished, in microseconds since the run's start.
        slept: The same of sleeps, and of others that a recovery has found to be over, and that are not in the memo.
        mailboxes: The mailboxes that a recovery has found to be chosen for signals to send, by step.
        random: What the body draws from; begins anew with each attempt of it.
        started: When its first execution started, in milliseconds since the epoch.
        waits: What it waits for.
        inbox: The events that it was sent.
        signals: Its waits for signals.
        children: The runs that it has invoked.
        continuing: When it continues as new.
        storage: Whether values over Temporal's limit go into external storage.
        way_back: How far the body has come through finished steps.
    """

    def __init__(
        self, definition: Workflow[Any, Any], loaded: Workflow[Any, Any], carried: Carried | None = None
    ) -> None:
        self.workflow = definition
        self.loaded = loaded
        self.handler = loaded.handler
        self.memo: Memo = {}
        self.failures = 0
        self.logger = RunLogger(lambda: self.failures + 1)
        self.scheduled: dict[str, int] = {}
        self.data: JSON = None
        self.origin: Origin
        self.context: Context[Any]
        self.random: random.Random
        self.waits = Waits()
        self.inbox = Inbox()
        self.subscriptions = Subscriptions(self, self.inbox)
        self.signals = SignalInbox(self.waits)
        self.children = Children()
        self.storage = StorageOfRun()
        self.way_back = WayBack()
        self.finished: dict[str, int] = {}
        self.slept: dict[str, int] = {}
        self.mailboxes: dict[str, str] = {}
        self._taken: dict[str, None] = {}
        self._seen: dict[str, int] = {}
        self._reached: int | None = None
        self._attempt_began = 0
        self.continuing = Continuing(self, carried.held_until if carried else None)
        self._carried = carried
        self._goes_on = carried is not None and workflow.info().continued_run_id is not None
        self._in_flight: dict[str, asyncio.Task[Outcome]] = {}
        if carried is None or not carried.seed:
            self.started = int(workflow.info().workflow_start_time.timestamp() * 1000)
            self._seed = workflow.random().getrandbits(128)
        else:
            self.started, self._seed = carried.started, int(carried.seed, 16)
        if carried is not None:
            self._restore(carried)
        self.body_logger = BodyLogger(lambda: self.failures + 1, self.memo)

    # --- from one execution to the next ----------------------------------------------------------------------------

    def _restore(self, carried: Carried) -> None:
        self.memo = {key: read_outcome(outcome) for key, (outcome, _) in carried.memo.items()}
        self.finished = {key: at for key, (_, at) in carried.memo.items()}
        self._reached = self._attempt_began = carried.attempt_began
        self.failures = carried.failures
        self.scheduled = carried.scheduled
        self.slept = carried.slept
        self.mailboxes = carried.mailboxes
        self._taken = dict.fromkeys(carried.taken)
        self._seen = carried.seen
        self.waits.restore(carried.waits)
        self.inbox.restore(carried.boxes, carried.came)
        self.subscriptions.cancelling = {key: tuple(topics) for key, topics in carried.cancelling.items()}
        self.signals.restore(carried.signals)
        self.children.ended = carried.ended
        self.children.invoked = carried.invoked
        self.children.reports_to = carried.reports_to
        self.continuing.restore(carried)

    def recovered(self, carried: Carried) -> Run:
        """The same run, before it begins, with what its history has shown that it has done."""
        run = Run(self.workflow, self.loaded, carried.model_copy(update={"seed": carried.seed or f"{self._seed:x}"}))
        run._goes_on = False
        return run

    def state(self, *, is_parked: bool) -> Carried:
        """What the next execution goes on with."""
        return Carried(
            is_parked=is_parked,
            is_indexed=is_parked and is_indexed(workflow.info().typed_search_attributes),
            held_until=self.continuing.held_until,
            started=self.started,
            seed=f"{self._seed:x}",
            attempt_began=self._attempt_began,
            memo={key: (outcome_json(outcome), self.finished[key]) for key, outcome in self.memo.items()},
            failures=self.failures,
            scheduled=self.scheduled,
            waits=self.waits.state(),
            boxes=self.inbox.state(),
            came=self.inbox.came(),
            slept=self.slept,
            mailboxes=self.mailboxes,
            taken=list(self._taken),
            cancelling={key: list(topics) for key, topics in self.subscriptions.cancelling.items()},
            signals=self.signals.state(),
            ended=self.children.ended,
            invoked=self.children.invoked,
            reports_to=self.children.reports_to,
            size=self.continuing.size,
            warning=self.continuing.warning,
        )

    # --- the time that the body sees -------------------------------------------------------------------------------

    def _elapsed(self) -> int:
        """How long it is since the run's start, in microseconds."""
        return (workflow.now() - _EPOCH) // _MICROSECOND - self.started * 1000

    def now(self) -> datetime:
        """The time that ``ctx.now()`` is.

        In an execution that has continued as new, the body runs from the top again, through steps that have finished
        long ago; until it has come to where it was, it is the time that it was then.
        """
        if self._reached is None:
            return workflow.now()
        return _EPOCH + (self.started * 1000 + self._reached) * _MICROSECOND

    def reached(self, key: str, *, is_news: bool) -> None:
        """The body has come to a finished step, in the memo already or awaited."""
        self.body_logger.reach(key, is_news=is_news)
        if self._reached is not None:
            self._reached = max(self._reached, self.finished[key])

    def saw(self, key: str, id: str) -> None:
        """A step ends with an event, or the end of an invoked run, that the body has seen before a recovery."""
        if self._reached is not None and id in self._seen:
            self.slept[key] = max(self._reached, self._seen[id])

    def awaited(self) -> list[Awaited]:
        """What it waits for."""
        boxes = {key: box.topics for key, box in self.inbox.boxes.items()}
        waits = self.waits.now or self.waits.inside()
        return [Awaited.of(key, waiting, boxes) for key, waiting in waits.items()]

    def _details(self) -> str:
        """What Temporal's UI shows; also what has started the run, which the UI knows of its first execution alone."""
        waits = described(self.awaited(), is_parked=bool(self.waits.inside()))
        full = self.continuing.full_boxes()
        return "\n\n".join(filter(None, (full and f"**Warning**: {full}", waits, self.origin.details())))

    def busy_steps(self) -> int:
        """How many steps are in flight that another execution could not go on with."""
        waiting = len(self.waits.now) - (BACKOFF in self.waits.now)
        return len(self._in_flight) - waiting - len(self.continuing.held)

    def cannot_wake(self, body: asyncio.Task[Any]) -> bool:
        """Whether nothing is in flight that could wake the body, which has not ended."""
        if self._in_flight or self.waits.now or self.way_back.is_paused or not waits_for_a_future(body):
            return False
        return is_idle(asyncio.get_running_loop(), conditions=1)  # the one by which the run waits for this

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
        number_tasks(asyncio.get_running_loop())
        self.origin = Origin.of_run(added, workflow.info().workflow_id)
        began = workflow.info().start_time
        if self._carried is not None and self._carried.began is not None:
            began = datetime.fromisoformat(self._carried.began)
        if self.origin.ts is None:
            self.origin = replace(self.origin, ts=int(began.timestamp() * 1000))
        show_details(asyncio.get_running_loop(), self._details)
        if self._carried is None:
            count_start(self.origin.type)
        self.data = cron_data(self.origin.cron, began) if data is None and self.origin.cron else data
        if self.origin.indexed and workflow.info().continued_run_id is None:
            found_by = of_run(self.workflow.app, self.workflow.id, self.origin.name, self.origin.id)
            workflow.upsert_search_attributes([pair.key.value_set(pair.value) for pair in found_by])
        try:
            result = await self._handled()
        except asyncio.CancelledError:
            await self._end(was_cancelled(), partial(tell_cancelled, self))
            self._count_end("cancelled")
            raise
        except Exception as err:
            if nondeterminism := nondeterminism_in(err):
                raise explained(nondeterminism, self.workflow.id) from None
            failure = application_error(err, attempt=self.failures, non_retryable=True)
            trace = "".join(format_tb(failure.__traceback__))
            await self._end(failed_with(failure), partial(tell_failed, self, failure, trace))
            self._count_end("failed")
            raise failure from failure.__cause__
        await self._end(Outcome(from_raw(result)), partial(tell_finished, self, result))
        self._count_end("finished")
        return result

    async def _end(self, outcome: Outcome, tell: Callable[[], Awaitable[None]]) -> None:
        await self.subscriptions.end()
        await self.signals.end()
        await self.children.report(outcome)
        await tell()
        await self.children.report(outcome)  # to those who have asked meanwhile
        if (trace := TRACE.get()) is not None:
            failure = None if outcome.failure is None else outcome.failure.name
            trace.ended(self.workflow.app, self.origin, self.started, failure, is_cancelled=outcome == was_cancelled())

    def _count_end(self, outcome: Literal["finished", "failed", "cancelled"]) -> None:
        count_end(outcome, started=self.started, memo_size=self.continuing.size)

    async def _handled(self) -> RawValue:
        is_cancelled = False
        if self._carried is not None and (self._carried.is_parked or self._carried.is_cancelled):
            try:
                await self._until_cancelled() if self._carried.is_cancelled else await self.continuing.until_due()
            except asyncio.CancelledError:  # for the body, at the step that it waits in
                if workflow.cancellation_reason() is None:
                    raise  # the worker forgets the run, which is no cancellation: the body has nothing to do
                is_cancelled = True
        if self._carried is not None and self._carried.is_indexed:
            workflow.upsert_search_attributes([WAITING_FOR.value_unset()])
        for number, cancel in enumerate(self.workflow.ext.cancel_on):
            if not is_cancelled:
                await self._cancel_on(f"cancel_on:{number}", cancel)
        await self._until(self.origin)
        validated = validate_input(self.workflow.id, self.loaded.input_schema, self.data)
        self.context = self._context(self.origin.input(validated))
        return self._result(await self._live(is_cancelled=is_cancelled))

    async def _until_cancelled(self) -> None:
        """Wait for the cancellation that follows a recovery: Temporal does not repeat it after a reset."""
        with suppress(TimeoutError):
            await wait_until(lambda: False, timeout=_CANCELLED_AGAIN, summary="until the run is cancelled again")

    async def _live(self, *, is_cancelled: bool) -> Any:
        """Run the body to its end, unless the run continues as new before."""
        self.waits.awake()
        body = asyncio.create_task(self._body())
        try:
            if self._carried is not None:
                is_cancelled = await self._come_back() or is_cancelled
                self._reached = None
                self.body_logger.is_there()
            if is_cancelled:
                body.cancel()
            else:
                await self.continuing.until_left(body)
        except asyncio.CancelledError:
            self.body_logger.is_there()
            body.cancel()
        except Exception:
            body.cancel()
            raise
        return await body

    async def _come_back(self) -> bool:
        """Wait until the body has come to where it waits, and tell whether the run was cancelled meanwhile."""
        is_cancelled = False
        while True:
            try:
                await workflow.wait_condition(lambda: not self.way_back.is_paused)
            except asyncio.CancelledError:
                is_cancelled = True
            else:
                return is_cancelled

    async def _cancel_on(self, key: str, cancel: CancelOn) -> None:
        if key in self.subscriptions.cancelling:  # since an execution before
            return
        until = workflow.now() + (CANCEL_ON_TIMEOUT if cancel.timeout is None else parse_duration(cancel.timeout))
        topics, source = check_events(cancel.event), check_expression(cancel.if_exp, cancel.match)
        await self.subscriptions.cancel_on(key, topics, source, until.timestamp())

    async def _until(self, origin: Origin) -> None:
        """Wait for an event's ``ts`` in the future.

        The run waits itself: Temporal's start delay would end at the first resend of the start signal.
        """
        if origin.type == "event" and (delay := origin.time() - workflow.now()) > timedelta(0):
            await workflow.sleep(delay, summary=f"{UNTIL_TS}{origin.time().isoformat()}")

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

        if carried := self.waits.resume(BACKOFF, "backoff"):
            await self._pause(carried)
            self.body_logger.begin()
        elif self._goes_on:
            self.body_logger.go_on()
        else:
            self.body_logger.begin()
        while True:
            attempt = Attempt(self)
            self.random = random.Random(self._seed)  # the same in each: what is drawn may name steps
            if self._reached is None:
                self._attempt_began = self._elapsed()
            try:
                result = await self.handler(self.context, Step(attempt))
                attempt.calls.check_awaited()
                self._warn_of(attempt.calls.still_running())
                count_body("returned")
                return result
            except Exception as err:
                if nondeterminism_in(err):
                    raise
                if foreign := of_another_loop(err, self.workflow.id):
                    raise foreign from None
                count_body("raised")
                self.failures += 1
                if (
                    is_final(err, self.workflow.retry.non_retryable_error_types)
                    or self.failures >= self.workflow.max_attempts
                ):
                    raise
                delay = self._backoff(err)
                self.logger.warning(
                    "attempt %d of %d of the body of workflow %r raised %s: %s; the next starts in %s",
                    self.failures,
                    self.workflow.max_attempts,
                    self.workflow.id,
                    type(err).__name__,
                    message_of(err),
                    format_duration(delay),
                    extra={"attempt": self.failures},
                )
            finally:
                attempt.close()
            await self._pause(Waiting("backoff", (workflow.now() + delay).timestamp()))
            self.body_logger.begin()

    def _warn_of(self, running: str) -> None:
        """Log the steps that a body left running when it returned; Temporal cancels them as the run ends."""
        if running:
            self.logger.warning(
                "workflow %r returned while steps were still running, which cancels them: %s; await them, or cancel "
                "them before the body returns",
                self.workflow.id,
                running,
            )

    async def _pause(self, waiting: Waiting) -> None:
        assert waiting.until is not None
        if (left := left_until(waiting.until, workflow.time())) > timedelta(0):
            with self.waits.during(BACKOFF, waiting):
                await workflow.sleep(left, summary=f"{BACKOFF_AFTER}{self.failures} of the body")

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
            return to_limited(f"the result of {where}", to_json(value, return_type(self.handler)), self.storage.most)
        except (UnserializableError, ValueError) as err:
            raise UnserializableError(f"the handler of {where} returned a value that is no JSON: {err}") from None

    # --- steps -----------------------------------------------------------------------------------------------------

    def step(self, key: str, kind: StepKind, perform: Perform) -> asyncio.Task[Outcome]:
        """The step with this key: in flight already, or started now."""
        task = self._in_flight.get(key)
        if task is None:
            task = self._in_flight[key] = asyncio.create_task(self._finish(key, kind, perform))
            task.add_done_callback(lambda _: self._in_flight.pop(key))  # also of one that never began
        return task

    async def _finish(self, key: str, kind: StepKind, perform: Perform) -> Outcome:
        await self.continuing.hold(key)
        trace = TRACE.get()
        performed = perform if trace is None else partial(trace.step, key, perform)
        outcome = await counted(kind, performed, is_resumed=key in self.waits.carried)
        self.memo[key] = outcome
        self.finished[key] = self.slept.pop(key, self._elapsed())
        self.failures = 0
        self.continuing.grew(outcome)
        return outcome

    async def until_cancelled(self, key: str) -> None:
        """Wait until a step with this key that was cancelled has ended, if there is one."""
        task = self._in_flight.get(key)
        if task is not None and task.cancelling():
            await asyncio.wait([task])

    def activity_id(self, key: str) -> str:
        """An id for one more activity of a step; another step may have an id that looks like one of these."""
        count = self.scheduled.get(key, 0) + 1
        while (id := key if count == 1 else f"{key}#{count}") in self._taken:
            count += 1
        self.scheduled[key] = count
        if "#" in id:
            self._taken[id] = None
        return id
