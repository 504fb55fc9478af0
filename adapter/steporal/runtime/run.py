"""One run: its input, the attempts of its body, and the memo of its finished steps.

The handler's body runs inside a Temporal workflow. An exception that it raises itself runs it again from the top,
after a backoff. The journal then hands it what it was handed before, in the same order; steps that were in flight go
on, and are joined.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal
from uuid import UUID

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from ..context import Context, ContextExt
from ..converter import return_type
from ..definition import CANCEL_ON_TIMEOUT, CancelOn, Workflow
from ..durations import format_duration, parse_duration
from ..errors import InvalidInputError, RetryAfterError, UnserializableError
from ..given import check_received, received
from ..routing.waiting import check_events, check_expression
from ..sealed import unreadable
from ..search_attributes import WAITING_FOR, is_indexed, of_run
from ..step import Step
from ..syntax import format_stack
from ..types import JSON
from ..wire.names import BACKOFF_AFTER, BEGINS_ANEW, RUN_SEED, UNTIL_TS
from .awaited import Awaited, described
from .body_log import BodyLogger, RunLogger
from .branches import BRANCH, RunLoop, out_of_body
from .calls import Call, check_call
from .carried import Carried, memo_json, read_outcome
from .children import Children, failed_with, was_cancelled
from .continuing import Continuing
from .counting import StepKind, count_body, count_end, count_start, counted
from .deadlock import of_another_loop
from .details import show_details
from .determinism import explained, nondeterminism_in
from .endings import tell_cancelled, tell_failed, tell_finished
from .failures import FAILED_CODE, application_error, is_final, logged, message_of, step_of
from .inbox import Inbox
from .indexing import index
from .interrupts import Contained, containing
from .journal import Entry, Journal
from .memo import Failure, Memo, Outcome
from .pending import is_idle, waits_for_a_future
from .progress import run_ended, run_started, watched
from .references import is_there
from .returned import limited_result, read_result, write_result
from .secrecy import SecretsOfRun
from .signal_inbox import SignalInbox
from .slots import Slots
from .start import Origin, cron_data
from .storage import StorageOfRun
from .subscriptions import Subscriptions
from .traced import TRACE
from .until import wait_until
from .waits import BACKOFF, SHORTEST, Waiting, Waits, left_until
from .watch import in_body

Perform = Callable[[], Coroutine[Any, Any, Outcome]]

_CANCELLED_AGAIN = timedelta(minutes=1)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def seed_of(run_id: str) -> str:
    """Return what the random numbers of a run start from, in hexadecimal; a run that repeats another takes its seed.

    Args:
        run_id: The run's id, which the server draws at random.
    """
    return hashlib.sha256(f"{RUN_SEED}{run_id}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class WorkflowSurroundings:
    """What ``ctx`` is made of in a body: Temporal's deterministic sources."""

    run: Run

    @property
    def attempt(self) -> int:
        return 0 if self.run.journal.has_news else self.run.attempt

    @property
    def random(self) -> random.Random:
        return self.run.random

    @property
    def logger(self) -> logging.LoggerAdapter[Any]:
        return self.run.body_logger

    def now(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self.run.nanoseconds() // 1000)

    def uuid4(self) -> UUID:
        return UUID(int=self.run.random.getrandbits(128), version=4)


class Run:
    """One run of a workflow.

    Attributes:
        workflow: What the app defined: options, and what its references may name.
        handler: The handler to call, which ends at most the run.
        memo: The finished steps.
        journal: What has reached the body, in order.
        base: What the journal's times count from, in milliseconds since the epoch.
        failures: How often the body has raised since a step finished last.
        attempt: Which attempt of the body this is, from 0; none but those since a step finished last count.
        loop: The run's event loop, as the body does not see it.
        logger: What is logged of it.
        body_logger: What the body logs with.
        scheduled: How often each step was scheduled, by key; activity ids must not repeat while one is pending.
        calls: What the steps in flight were called with, by key.
        taken_over_until: Until when, on the body's clock, another run did what this one goes on from; -1: none did.
        moved_by: By how much that was earlier, in microseconds, once it is known.
        reruns: The ids of the runs of which this one is a rerun; see :attr:`own_ids`.
        reopens: The listeners of that run that this one has to subscribe for itself.
        overdue: When waits were over that the body had in an execution before, for those that were when it came back.
        mailboxes: The mailboxes that a recovery has found to be chosen for signals to send, by step.
        random: What the body draws from; begins anew with each attempt of it.
        started: When its first execution started, in milliseconds since the epoch.
        waits: What it waits for.
        inbox: The events that it was sent.
        signals: Its waits for signals.
        children: The runs that it has invoked.
        slots: How many steps may be in flight.
        continuing: When it continues as new.
        storage: Whether values over Temporal's limit go into external storage.
        secrets: Whether values with secrets may be sent.
    """

    def __init__(
        self, definition: Workflow[Any, Any], loaded: Workflow[Any, Any], carried: Carried | None = None
    ) -> None:
        self.workflow = definition
        self.loaded = loaded
        self.handler: Callable[..., Contained] = containing(loaded.handler)
        self.memo: Memo = {}
        self.failures: int = 0
        self.attempt: int = 0
        self.loop: RunLoop
        self.logger: RunLogger = RunLogger(lambda: self.failures + 1)
        self.scheduled: dict[str, int] = {}
        self.data: JSON = None
        self.origin: Origin
        self.context: Context[Any]
        self.random: random.Random
        self.waits: Waits = Waits()
        self.inbox: Inbox = Inbox()
        self.subscriptions: Subscriptions = Subscriptions(self, self.inbox)
        self.signals: SignalInbox = SignalInbox(self.waits)
        self.children: Children = Children()
        self.slots: Slots = Slots()
        self.storage: StorageOfRun = StorageOfRun()
        self.secrets: SecretsOfRun = SecretsOfRun()
        self.mailboxes: dict[str, str] = {}
        self._taken: dict[str, None] = {}
        self._body_task: asyncio.Task[Any] | None = None
        self.continuing: Continuing = Continuing(self, carried.held_until if carried else None)
        self._carried = carried
        self._goes_on = carried is not None and workflow.info().continued_run_id is not None
        self._in_flight: dict[str, asyncio.Task[Outcome]] = {}
        self.taken_over_until: int = -1
        self.moved_by: int | None = None
        self.reruns: list[list[str]] = []
        self.reopens: dict[str, None] = {}
        self.calls: dict[str, Call] = {}
        self.overdue: dict[str, int] = {}
        began = int(workflow.info().workflow_start_time.timestamp() * 1000)
        self.started: int = (carried.started if carried else 0) or began
        self.base: int = (carried.base if carried else 0) or self.started
        self._seed = carried.seed if carried and carried.seed else seed_of(self.id)
        self._event_loop: Any = asyncio.get_running_loop()
        entries = [Entry.read(entry) for entry in carried.past] if carried else []
        self.journal: Journal = Journal(self.elapsed, self._take_unasked, self._take_back, entries)
        if carried is not None:
            self._restore(carried)
        self.body_logger: BodyLogger = BodyLogger(lambda: self.failures + 1, self.journal)

    # --- from one execution to the next ----------------------------------------------------------------------------

    def _restore(self, carried: Carried) -> None:
        self.memo = {key: read_outcome(outcome) for key, outcome in carried.memo.items()}
        self.journal.attempt_began = carried.attempt_began
        self.journal.may_begin_anew = carried.begins_anew
        self.failures = carried.failures
        self.attempt = carried.attempt
        self.journal.repeated = carried.repeated
        self.taken_over_until = carried.taken_over_until
        self.moved_by = carried.moved_by
        self.reruns = carried.reruns
        self.reopens = dict.fromkeys(carried.reopens)
        self.calls = {key: call for key, data in carried.calls.items() if (call := Call.read(data)) is not None}
        self.scheduled = carried.scheduled
        self.mailboxes = carried.mailboxes
        self._taken = dict.fromkeys(carried.taken)
        self.waits.restore(carried.waits)
        self.inbox.restore(carried.boxes, carried.came)
        self.subscriptions.cancelling = {key: tuple(topics) for key, topics in carried.cancelling.items()}
        self.signals.restore(carried.signals)
        self.children.ended = carried.ended
        self.children.invoked = carried.invoked
        for parent in carried.reports_to:
            self.children.report_to(dict(parent))
        self.continuing.restore(carried)

    def recovered(self, carried: Carried) -> Run:
        """The same run, before it begins, with what its history has shown that it has done."""
        run = Run(self.workflow, self.loaded, carried.model_copy(update={"seed": carried.seed or self._seed}))
        run._goes_on = False
        return run

    def state(self, *, is_parked: bool) -> Carried:
        """What the next execution goes on with."""
        return Carried(
            is_parked=is_parked,
            is_indexed=is_parked and is_indexed(workflow.info().typed_search_attributes),
            held_until=self.continuing.held_until,
            started=self.started,
            base=0 if self.base == self.started else self.base,
            seed=self._seed,
            attempt_began=self.journal.attempt_began,
            begins_anew=self.journal.begins_anew,
            memo={key: memo_json(outcome) for key, outcome in self.memo.items()},
            past=[entry.json() for entry in self.journal.entries()],
            failures=self.failures,
            attempt=self.attempt,
            repeated=self.journal.repeated_entries,
            taken_over_until=self.taken_over_until,
            moved_by=self.moved_by,
            calls={key: call.json() for key, call in self.calls.items() if self._goes_on_with(key)},
            scheduled=self.scheduled,
            waits=self.waits.state(),
            boxes=self.inbox.state(),
            came=self.inbox.came(),
            mailboxes=self.mailboxes,
            taken=list(self._taken),
            cancelling={key: list(topics) for key, topics in self.subscriptions.cancelling.items()},
            signals=self.signals.state(),
            ended=self.children.ended,
            invoked=self.children.invoked,
            reports_to=self.children.reports_to,
            reruns=self.reruns,
            reopens=list(self.reopens),
            size=self.continuing.size,
            json_size=self.continuing.json_size,
            warning=self.continuing.warning,
        )

    def _goes_on_with(self, key: str) -> bool:
        """Whether the next execution goes on with what a step has done, and does not only wait for the same."""
        waiting = self.waits.now.get(key) or self.waits.carried.get(key)
        return key in self.mailboxes or (waiting is not None and waiting.kind == "invoke")

    # --- the calls of steps ----------------------------------------------------------------------------------------

    @property
    def own_ids(self) -> list[str]:
        """Ids that differ between a run and its rerun: the workflow id, the run id and the id of the event."""
        return [workflow.info().workflow_id, self.id, self.origin.id]

    def call(self, kind: str, target: str, *values: Any, **more: Any) -> Call:
        """Describe a call of a step; see :meth:`Call.of`."""
        reruns = [dict(zip(self.own_ids, ids, strict=False)) for ids in self.reruns]
        return Call.of(kind, target, *values, reruns=reruns, **more)

    def exists(self, named: str, *, exactly: bool = False) -> bool:
        """Return whether this version of the code has what a call names; see :func:`.references.is_there`."""
        return is_there(named, exactly, self.handler, self.workflow.id, self.workflow.client.step_packages)

    # --- the time that the body sees -------------------------------------------------------------------------------

    def elapsed(self) -> int:
        """Return the time of the present workflow task, in microseconds since :attr:`base`."""
        loop = self._event_loop
        now: int = type(loop).workflow_time_ns(loop)
        return now // 1000 - self.base * 1000

    def microseconds(self, moment: float) -> int:
        """Return a time in seconds since the epoch as the journal has it."""
        return round(moment * 1_000_000) - self.base * 1000

    def nanoseconds(self) -> int:
        """Return the time in the body, in nanoseconds since the epoch."""
        return (self.base * 1000 + self.journal.now()) * 1000

    def moved(self, until: float, asked: int | None) -> float:
        """Return when something ends, in a run that goes on from what another run has done.

        What that run had left of a time when it was there, this one has left.

        Args:
            until: When it would have ended in that run, in seconds since the epoch.
            asked: When the body has asked for it, on its clock; None if it has asked for a moment, and not for a while.
        """
        if asked is None or asked > self.taken_over_until or self.taken_over_until < 0:
            return until
        if self.moved_by is None:
            self.moved_by = self.elapsed() - self.taken_over_until
        return until + self.moved_by / 1_000_000

    def due(self, key: str) -> int | None:
        """Return when a wait is over that the body was in, as the journal has it; None for other steps."""
        waiting = self.waits.carried.get(key)
        return None if waiting is None or waiting.until is None else self.microseconds(waiting.until)

    def shortest(self, key: str) -> timedelta:
        """Return how long the timer of a wait is at least.

        What is over when the body has come back has timers that fire in the order in which it was over, and not in that
        in which the body asks for it.
        """
        return SHORTEST * (1 + self.journal.ranks.get(key, 0))

    def _take_unasked(self, entry: Entry) -> None:
        """Take what reaches the body though it has not asked for it."""
        if entry.kind == "cancel" and self._body_task is not None:
            self._body_task.cancel()
        elif entry.kind == "event":
            self.inbox.put(entry.key, entry.event)

    def _take_back(self, entry: Entry) -> bool:
        return self.inbox.take_back(entry.key, str(entry.event["id"]))

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
        waiting = sum(waiting.kind not in ("backoff", "asyncio", "start") for waiting in self.waits.now.values())
        return len(self._in_flight) - waiting - len(self.continuing.held) - len(self.slots.queued)

    def cannot_wake(self, body: asyncio.Task[Any]) -> bool:
        """Whether nothing is in flight that could wake the body, which has not ended."""
        if self._in_flight or self.waits.now or not self.journal.is_idle or self.loop.has_more_jobs:
            return False
        # The two conditions are the journal's and the one by which the run waits for this.
        return waits_for_a_future(body) and is_idle(asyncio.get_running_loop(), conditions=2)

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

    async def execute(self, data: JSON, added: JSON, refusal: InvalidInputError | None = None) -> RawValue:
        """Run the handler to its end; what Temporal's workflow returns.

        Args:
            data: The input, as plain JSON.
            added: What the starter has added.
            refusal: Why the run fails at once.
        """
        self.loop = RunLoop(self)
        self.origin = Origin.of_run(added, workflow.info().workflow_id)
        began = workflow.info().start_time
        if self._carried is not None and self._carried.began is not None:
            began = datetime.fromisoformat(self._carried.began)  # Carried has checked it
        if self.origin.ts is None:
            self.origin = replace(self.origin, ts=int(began.timestamp() * 1000))
        show_details(asyncio.get_running_loop(), self._details)
        if self._carried is None:
            count_start(self.origin.type)
            run_started(self.origin)
        self.data = cron_data(self.origin.cron, began) if data is None and self.origin.cron else data
        try:
            if refusal is not None:
                raise refusal
            if self.origin.indexed and workflow.info().continued_run_id is None:
                await index(of_run(self.workflow.app, self.workflow.id, self.origin.name, self.origin.id))
            result = await self._handled()
        except asyncio.CancelledError:
            await self._end(was_cancelled(), partial(tell_cancelled, self))
            self._count_end("cancelled")
            run_ended("cancelled", self.started)
            raise
        except Exception as err:
            if unreadable() is not None:
                raise  # the workflow task fails, and is tried again until a worker has the key: no run has ended
            if nondeterminism := nondeterminism_in(err):
                raise explained(nondeterminism, workflow.info()) from None
            failure = application_error(err, attempt=self.failures, non_retryable=True)
            trace = format_stack(failure.__traceback__)
            self._log_end(failure, err)
            await self._end(failed_with(failure), partial(tell_failed, self, failure, trace))
            self._count_end("failed")
            step = step_of(failure)
            why = f"at step {step.step_id!r}" if step else f"{failure.type}: {failure.message}"
            run_ended("failed", self.started, why)
            raise failure from failure.__cause__
        await self._end(Outcome(read_result(result).as_json()), partial(tell_finished, self, result))
        self._count_end("finished")
        run_ended("completed", self.started)
        return result

    async def _end(self, outcome: Outcome, tell: Callable[[], Awaitable[None]]) -> None:
        await self.subscriptions.end()
        await self.signals.end()
        await self.children.report(outcome)
        await tell()
        await self._until_all_is_seen()
        await self.children.report(outcome)  # to those who have asked meanwhile
        if (trace := TRACE.get()) is not None:
            failure = None if outcome.failure is None else outcome.failure.name
            trace.ended(self.workflow.app, self.origin, self.started, failure, is_cancelled=outcome == was_cancelled())

    async def _until_all_is_seen(self) -> None:
        """Let the run see the rest of what came with the job that ended it: one of its parents may ask for the end."""
        while self.loop.has_more_jobs:
            with suppress(asyncio.CancelledError):  # the run has ended, and is not cancelled any more
                await workflow.wait_condition(lambda: not self.loop.has_more_jobs)

    def _log_end(self, failure: ApplicationError, error: Exception) -> None:
        """Log that the run has failed; with the body's own frames, unless a step's log lines have shown the error."""
        exc_info = None if step_of(failure) else logged(error)
        id, extra = workflow.info().workflow_id, {FAILED_CODE: True}
        self.logger.error("run %r failed: %s: %s", id, failure.type, failure.message, exc_info=exc_info, extra=extra)

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
        if self._carried is not None and self._carried.is_indexed and self._is_found_by_waits():
            workflow.upsert_search_attributes([WAITING_FOR.value_unset()])
        for number, cancel in enumerate(self.workflow.ext.cancel_on):
            if not is_cancelled:
                await self._cancel_on(f"cancel_on:{number}", cancel)
        await self._until(self.origin)
        with workflow.unsafe.sandbox_unrestricted():  # what the schema draws shows in what it makes
            packages = self.workflow.client.step_packages
            check_received(self.workflow.id, self.loaded.input_schema, self.data, self.origin.exact, packages)
        return self._result(await self._live(is_cancelled=is_cancelled))

    def _is_found_by_waits(self) -> bool:
        """Whether a search attribute says what the run waits for: its state may be made up."""
        return workflow.info().typed_search_attributes.get(WAITING_FOR) is not None

    async def _until_cancelled(self) -> None:
        """Wait for the cancellation that follows a recovery: Temporal does not repeat it after a reset."""
        with suppress(TimeoutError):
            await wait_until(lambda: False, timeout=_CANCELLED_AGAIN, summary="until the run is cancelled again")

    async def _live(self, *, is_cancelled: bool) -> Any:
        """Run the body to its end, unless the run continues as new before."""
        if is_cancelled and self._is_between_attempts():
            raise asyncio.CancelledError
        self.waits.awake()
        body = self._body_task = asyncio.create_task(self._body())
        was_cancelled = any(entry.kind == "cancel" for entry in self.journal.entries())
        is_cancelled = is_cancelled and not was_cancelled
        try:
            if self._carried is not None:
                is_cancelled = await self._come_back(body) or is_cancelled
            if is_cancelled:
                self.journal.arrive("cancel", "")
            if is_cancelled or was_cancelled:
                await self._until_done(body)
            else:
                await self.continuing.until_left(body)
        except asyncio.CancelledError:
            self.journal.arrive("cancel", "")
            await self._until_done(body)
        except Exception:
            body.cancel()
            raise
        self._check_journal()
        return await body

    async def _until_done(self, body: asyncio.Task[Any]) -> None:
        await workflow.wait_condition(lambda: body.done() or self.journal.error is not None)

    def _check_journal(self) -> None:
        """Raise what a body may have caught: that it does not fit its past."""
        if self.journal.error is not None:
            raise self.journal.error

    async def _come_back(self, body: asyncio.Task[Any]) -> bool:
        """Wait until the body has come to where it waits; return whether the run was cancelled meanwhile."""
        is_cancelled = False
        while True:
            try:
                await workflow.wait_condition(
                    lambda: self.journal.is_back or body.done() or self.journal.error is not None
                )
            except asyncio.CancelledError:
                is_cancelled = True
                if self._is_between_attempts():
                    body.cancel()
            else:
                return is_cancelled

    def _is_between_attempts(self) -> bool:
        """Whether the body has raised and waits for its next attempt, so that none of it is there to be cancelled."""
        return BACKOFF in self.waits.now or BACKOFF in self.waits.carried

    async def _cancel_on(self, key: str, cancel: CancelOn) -> None:
        if key in self.subscriptions.cancelling:  # since an execution before
            return
        until = workflow.now() + (CANCEL_ON_TIMEOUT if cancel.timeout is None else parse_duration(cancel.timeout))
        topics, source = check_events(cancel.event), check_expression(cancel.if_exp, cancel.match)
        await self.subscriptions.cancel_on(key, topics, source, until.timestamp())

    async def _until(self, origin: Origin) -> None:
        """Wait for an event's ``ts`` in the future, parked where that is long.

        The run waits itself: Temporal's start delay would end at the first resend of the start signal.
        """
        self.waits.carried.pop(UNTIL_TS, None)
        if origin.type != "event" or origin.time() <= workflow.now():
            return
        waiting = asyncio.create_task(self._sleep_until(origin.time()))
        try:
            await self.continuing.until_left(waiting)
        except asyncio.CancelledError:
            waiting.cancel()
            raise
        await waiting

    async def _sleep_until(self, moment: datetime) -> None:
        with self.waits.during(UNTIL_TS, Waiting("start", moment.timestamp())):
            await workflow.sleep(moment - workflow.now(), summary=f"{UNTIL_TS}{moment.isoformat()}")

    def _input(self) -> Any:
        """Return the input as a value of its own: an attempt of the body may change it."""
        packages = self.workflow.client.step_packages
        return received(self.workflow.id, self.loaded.input_schema, self.data, self.origin.exact, packages)

    def _context(self) -> Context[Any]:
        info = workflow.info()
        return Context(
            input=self.origin.input(self._input()),
            run_id=self.id,
            max_attempts=self.workflow.max_attempts,
            ext=ContextExt(info.workflow_id, info.namespace, info.task_queue),
            surroundings=WorkflowSurroundings(self),
        )

    async def _body(self) -> Any:
        from .attempt import Attempt

        is_new = self._carried is None
        if carried := self.waits.resume(BACKOFF, "backoff"):
            is_new = True
            await self._pause(carried)
            self.attempt = self.failures
        try:
            while True:
                self.random = random.Random(int(self._seed, 16))  # the same in each: what is drawn may name steps
                self.journal.open(is_new=is_new, is_silent=self._goes_on and not is_new)
                self.context = in_body(self._context)
                attempt = Attempt(self)
                BRANCH.set(attempt.branch)
                try:
                    result = await self.handler(self.context, Step(attempt))
                    attempt.step_calls.check_awaited()
                    self._warn_of(attempt.step_calls.still_running())
                    count_body("returned")
                    return result
                except Exception as err:
                    if nondeterminism_in(err):
                        raise
                    if foreign := of_another_loop(err, self.workflow.id):
                        raise foreign from None
                    count_body("raised")
                    self.failures += 1
                    never_again = is_final(err, self.workflow.retry.non_retryable_error_types)
                    if never_again or self.failures >= self.workflow.max_attempts:
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
                await self._pause(Waiting("backoff", (workflow.now() + delay).timestamp()))
                self.attempt = self.failures
        finally:
            self.journal.end()

    def _log_failed_attempt(self, error: Exception, delay: timedelta) -> None:
        self.logger.warning(
            "attempt %d of %d of the body of workflow %r raised %s: %s; the next starts in %s",
            self.failures,
            self.workflow.max_attempts,
            self.workflow.id,
            type(error).__name__,
            message_of(error),
            format_duration(delay),
            exc_info=logged(error),
            extra={"attempt": self.failures, FAILED_CODE: True},
        )

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
            anew = BEGINS_ANEW if self.journal.begins_anew else ""
            with self.waits.during(BACKOFF, waiting):
                await workflow.sleep(left, summary=f"{BACKOFF_AFTER}{self.failures} of the body{anew}")

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
            return write_result(
                value,
                return_type(self.handler),
                lambda data, exact: limited_result(f"the result of {where}", data, exact, self.storage),
                self.secrets.are_sent,
                self.workflow.client.step_packages,
            )
        except UnserializableError as err:
            raise type(err)(f"the handler of {where} returned a value that cannot be sent: {err}") from None

    # --- steps -----------------------------------------------------------------------------------------------------

    def step(self, key: str, kind: StepKind, perform: Perform) -> asyncio.Task[Outcome]:
        """The step with this key: in flight already, or started now."""
        task = self._in_flight.get(key)
        if task is None or task.cancelling():
            before = task
            finish = self._finish(key, kind, perform, self.calls.get(key), before)
            task = asyncio.create_task(finish, context=out_of_body())
            self._in_flight[key] = task
            task.add_done_callback(partial(self._has_landed, key))  # also of one that never began
        return task

    def _has_landed(self, key: str, task: asyncio.Task[Outcome]) -> None:
        if self._in_flight.get(key) is task:
            del self._in_flight[key]
            self.calls.pop(key, None)
            error = None if task.cancelled() else task.exception()
            if isinstance(error, Exception) and not task.cancelling():
                self.journal.stop(error)  # no step's outcome, but an error of ours or of the SDK's

    def is_in_flight(self, key: str) -> bool:
        """Return whether a step has begun and has not ended."""
        return key in self._in_flight

    def cancel_step(self, key: str) -> None:
        """Cancel a step that is in flight, as the body waits for it no longer."""
        if (task := self._in_flight.get(key)) is not None:
            task.cancel()

    async def _finish(
        self, key: str, kind: StepKind, perform: Perform, call: Call | None, before: asyncio.Task[Outcome] | None
    ) -> Outcome:
        if before is not None:  # it was cancelled, and has not ended yet
            await asyncio.wait([before])
        if not self.journal.takes_events:  # or a `next` would take its event later than it did
            await self.continuing.hold(key)
        trace = TRACE.get()
        performed = perform if trace is None else partial(trace.step, key, perform)
        is_resumed = key in self.waits.carried
        performed = partial(counted, kind, performed, is_resumed=is_resumed)
        try:
            async with self.slots.of(key, kind, is_resumed=is_resumed):
                outcome = await watched(key, kind, performed, is_resumed=is_resumed)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            outcome = Outcome(failure=Failure("CancelledError", "the step was cancelled, and not by its run"))
        if outcome.call is not None and call is not None:
            check_call(key, outcome.call, call, self.exists)
        outcome = replace(outcome, call=self.calls.get(key))
        self.memo[key] = outcome
        self.failures = 0
        self.continuing.grew(key, outcome)
        self.journal.arrive("step", key, self.overdue.pop(key, None))
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
