"""One run: its input, the attempts of its body, and the memo of its finished steps.

The handler's body runs inside a Temporal workflow. An exception that it raises itself runs it again from the top,
after a backoff. The journal then hands it what it was handed before, in the same order; steps that were in flight go
on, and are joined.

A run that only waits is parked: it continues as new, without its handler. How it wakes::

    the next execution starts                                    with the state that the last one handed over
      Compiled.__init__             compiled.py                  reads it (wire/run_state.py)
        Run._restore                run.py                       memo, journal, waits, inbox, steps, ...
      Run.execute
        Parked.until_due            parked.py                    waits until a wait is over, or something arrives for it
        Run._live
          Body.execute              body.py                      the handler, from the top
            Journal                 journal.py                   hands the body what reached it, in order, at its times
          Run._come_back                                         until the body waits for what has not happened yet
          Continuing.until_left     continuing.py                live: parks again, continues as new, or ends
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from ..closures.calls import Call
from ..closures.references import is_there
from ..closures.syntax import format_stack
from ..context import Context, ContextExt
from ..durations import parse_duration
from ..errors import InvalidInputError, UnserializableError
from ..expressions.wait_arguments import check_events, check_expression
from ..observability.progress import run_ended, run_started
from ..observability.run_metrics import count_end, count_start
from ..observability.run_trace import TRACE
from ..observability.search_attributes import WAITING_FOR, is_indexed, of_run
from ..sandbox.interrupts import Contained, containing
from ..sandbox.nondeterminism import explained, nondeterminism_in
from ..sdk.current_details import show_details
from ..sdk.pending import is_idle, waits_for_a_future
from ..sdk.wait_until import wait_until
from ..types import JSON
from ..values.converter import return_type
from ..values.encrypted import unreadable
from ..wire.failures import FAILED_CODE, application_error, logged, step_of
from ..wire.journal_entries import Entry
from ..wire.memo import Memo, Outcome
from ..wire.names import UNTIL_TS
from ..wire.run_input import check_received, decode_input
from ..wire.run_result import limited_result, read_result, write_result
from ..wire.run_state import RunState, memo_json, read_outcome
from ..wire.start import Origin, cron_data
from ..wire.storage import StorageOfRun
from ..wire.waits import BACKOFF, TimedWait, Waits
from ..workflow import CANCEL_ON_TIMEOUT, CancelOn, Workflow
from .awaited import Awaited, described
from .body import Body, BodyAttempt, WorkflowSurroundings, seed_of
from .body_log import RunLogger
from .branches import RunLoop
from .children import Children, failed_with, was_cancelled
from .clock import BodyClock
from .continuing import Continuing
from .identity import RunIdentity, run_id
from .inbox import Inbox
from .indexing import index
from .journal import Journal
from .parked import Parked
from .scheduling import StepScheduler
from .secrecy import SecretsOfRun
from .signal_inbox import SignalInbox
from .subscriptions import Subscriptions
from .system_events import send_cancelled, send_failed, send_finished
from .takeover import Takeover

_CANCELLED_AGAIN = timedelta(minutes=1)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Run:
    """One run of a workflow.

    Attributes:
        workflow: The workflow, with its options.
        handler: The handler to call, which ends at most the run.
        memo: Outcomes of the finished steps, by key.
        journal: Entries that have reached the body, in order.
        loop: The run's event loop, as the body does not see it.
        logger: Logger of the run.
        body: The attempts of the handler.
        clock: The time that the body sees.
        takeover: The state of another run that this one goes on from.
        steps: The steps in flight.
        waits: Waits of the body.
        inbox: Events that were delivered to the run.
        signals: Waits for signals.
        children: The runs that it has invoked.
        continuing: Decision of when the run parks or continues as new.
        parked: Waiting without the handler.
        storage: Whether values over Temporal's limit go into external storage.
        secrets: Whether values with secrets may be sent.
    """

    def __init__(
        self, definition: Workflow[Any, Any], new_attempt: Callable[[Run], BodyAttempt], carried: RunState | None = None
    ) -> None:
        self.workflow = definition
        self._new_attempt = new_attempt
        self.handler: Callable[..., Contained] = containing(definition.handler)
        self.memo: Memo = {}
        self.loop: RunLoop
        self.logger: RunLogger = RunLogger(lambda: self.body.failures + 1)
        self.data: JSON = None
        self.origin: Origin
        self.waits: Waits = Waits()
        self.inbox: Inbox = Inbox()
        self.subscriptions: Subscriptions = Subscriptions(self.inbox, lambda: self.identity.event)
        self.signals: SignalInbox = SignalInbox(self.waits)
        self.children: Children = Children()
        self.storage: StorageOfRun = StorageOfRun()
        self.secrets: SecretsOfRun = SecretsOfRun()
        self._body_task: asyncio.Task[Any] | None = None
        self.continuing: Continuing = Continuing(self, carried.held_until if carried else None)
        self.parked: Parked = Parked(self, self.continuing)
        self._carried = carried
        self._goes_on = carried is not None and workflow.info().continued_run_id is not None
        self.takeover: Takeover = Takeover()
        began = int(workflow.info().workflow_start_time.timestamp() * 1000)
        started = (carried.started if carried else 0) or began
        base = (carried.base if carried else 0) or started
        self.clock: BodyClock = BodyClock(self.waits, self.takeover, started=started, base=base)
        entries = [Entry.read(entry) for entry in carried.past] if carried else []
        self.journal: Journal = Journal(self.clock.elapsed, self._take_unasked, self._take_back, entries)
        self.clock.journal = self.journal
        self.steps: StepScheduler = StepScheduler(
            self.memo,
            self.waits,
            self.clock,
            hold=self.continuing.hold,
            exists=self.exists,
            finished=self._step_finished,
        )
        seed = carried.seed if carried and carried.seed else seed_of(self.id)
        self.body: Body = Body(
            definition, self.handler, self.journal, self.waits, seed, lambda: self._new_attempt(self)
        )
        if carried is not None:
            self._restore(carried)

    # --- from one execution to the next ----------------------------------------------------------------------------

    def _restore(self, carried: RunState) -> None:
        self.memo.update((key, read_outcome(outcome)) for key, outcome in carried.memo.items())
        self.journal.attempt_began = carried.attempt_began
        self.journal.may_begin_anew = carried.begins_anew
        self.body.restore(carried)
        self.journal.repeated = carried.repeated
        self.takeover.restore(carried)
        self.steps.restore(carried)
        self.waits.restore(carried.waits)
        self.inbox.restore(carried.boxes, carried.came)
        self.subscriptions.cancelling = {key: tuple(topics) for key, topics in carried.cancelling.items()}
        self.signals.restore(carried.signals)
        self.children.ended = carried.ended
        self.children.invoked = carried.invoked
        for parent in carried.reports_to:
            self.children.report_to(dict(parent))
        self.continuing.size.restore(carried)

    def recovered(self, carried: RunState) -> Run:
        """The same run, before it begins, with what its history has shown that it has done."""
        run = Run(self.workflow, self._new_attempt, carried.model_copy(update={"seed": carried.seed or self.body.seed}))
        run._goes_on = False
        return run

    def state(self, *, is_parked: bool) -> RunState:
        """Return the state that the next execution continues from."""
        return RunState(
            is_parked=is_parked,
            is_indexed=is_parked and is_indexed(workflow.info().typed_search_attributes),
            held_until=self.continuing.held_until,
            started=self.clock.started,
            base=0 if self.clock.base == self.clock.started else self.clock.base,
            seed=self.body.seed,
            attempt_began=self.journal.attempt_began,
            begins_anew=self.journal.begins_anew,
            memo={key: memo_json(outcome) for key, outcome in self.memo.items()},
            past=[entry.json() for entry in self.journal.entries()],
            failures=self.body.failures,
            attempt=self.body.attempt,
            repeated=self.journal.repeated_entries,
            taken_over_until=self.takeover.until,
            moved_by=self.takeover.moved_by,
            calls={key: call.json() for key, call in self.steps.calls.items() if self._goes_on_with(key)},
            scheduled=self.steps.scheduled,
            waits=self.waits.state(),
            boxes=self.inbox.state(),
            came=self.inbox.came(),
            mailboxes=self.takeover.mailboxes,
            taken=self.steps.taken,
            cancelling={key: list(topics) for key, topics in self.subscriptions.cancelling.items()},
            signals=self.signals.state(),
            ended=self.children.ended,
            invoked=self.children.invoked,
            reports_to=self.children.reports_to,
            reruns=self.takeover.reruns,
            reopens=list(self.takeover.reopens),
            size=self.continuing.size.steps,
            json_size=self.continuing.size.steps_as_json,
            warning=self.continuing.size.warning,
        )

    def _step_finished(self, key: str, outcome: Outcome) -> None:
        self.body.failures = 0
        self.continuing.size.step_finished(key, outcome)

    def _goes_on_with(self, key: str) -> bool:
        """Return whether the next execution continues a step, and does not only begin the same wait."""
        waiting = self.waits.now.get(key) or self.waits.carried.get(key)
        return key in self.takeover.mailboxes or (waiting is not None and waiting.kind == "invoke")

    # --- the calls of steps ----------------------------------------------------------------------------------------

    @property
    def own_ids(self) -> list[str]:
        """Ids that differ between a run and its rerun: the workflow id, the run id and the id of the event."""
        return [workflow.info().workflow_id, self.id, self.origin.id]

    def call(self, kind: str, target: str, *values: Any, **more: Any) -> Call:
        """Describe a call of a step; see :meth:`Call.of`."""
        reruns = [dict(zip(self.own_ids, ids, strict=False)) for ids in self.takeover.reruns]
        return Call.of(kind, target, *values, reruns=reruns, **more)

    def exists(self, named: str, *, exactly: bool = False) -> bool:
        """Return whether this version of the code has what a call names; see :func:`.references.is_there`."""
        return is_there(named, exactly, self.handler, self.workflow.id, self.workflow.step_packages)

    # --- what the run waits for ------------------------------------------------------------------------------------

    def _take_unasked(self, entry: Entry) -> None:
        """Take what reaches the body though it has not asked for it."""
        if entry.kind == "cancel" and self._body_task is not None:
            self._body_task.cancel()
        elif entry.kind == "event":
            self.inbox.put(entry.key, entry.event)

    def _take_back(self, entry: Entry) -> bool:
        return self.inbox.take_back(entry.key, str(entry.event["id"]))

    def awaited(self) -> list[Awaited]:
        """Return descriptions of the present waits."""
        boxes = {key: box.topics for key, box in self.inbox.boxes.items()}
        waits = self.waits.now or self.waits.inside()
        return [Awaited.of(key, waiting, boxes) for key, waiting in waits.items()]

    def _details(self) -> str:
        """Return details for Temporal's UI, with the run's start, which it shows for the first execution only."""
        waits = described(self.awaited(), is_parked=bool(self.waits.inside()))
        full = self.continuing.size.warning_of_events()
        return "\n\n".join(filter(None, (full and f"**Warning**: {full}", waits, self.origin.details())))

    def busy_steps(self) -> int:
        """Return the number of steps in flight that another execution could not continue."""
        waiting = sum(waiting.kind not in ("backoff", "asyncio", "start") for waiting in self.waits.now.values())
        return len(self.steps.in_flight) - waiting - len(self.continuing.held) - len(self.steps.slots.queued)

    def cannot_wake(self, body: asyncio.Task[Any]) -> bool:
        """Return whether nothing is in flight that could wake the body, which has not ended."""
        if self.steps.in_flight or self.waits.now or not self.journal.is_idle or self.loop.has_more_jobs:
            return False
        # The two conditions are the journal's and the one by which the run waits for this.
        return waits_for_a_future(body) and is_idle(asyncio.get_running_loop(), conditions=2)

    @property
    def id(self) -> str:
        """The run's id, the same in each of its executions."""
        return run_id()

    @property
    def identity(self) -> RunIdentity:
        """Names of the run, and what started it."""
        return RunIdentity(self.workflow.app, self.workflow.id, self.origin, self.data, self.clock.started)

    async def execute(self, data: JSON, added: JSON, refusal: InvalidInputError | None = None) -> RawValue:
        """Run the handler to its end; what Temporal's workflow returns.

        Args:
            data: The input, as plain JSON.
            added: What the starter has added.
            refusal: Why the run fails at once.
        """
        self.loop = RunLoop(self.clock, self.waits, lambda: self.body.random)
        self.origin = Origin.of_run(added, workflow.info().workflow_id)
        began = workflow.info().start_time
        if self._carried is not None and self._carried.began is not None:
            began = datetime.fromisoformat(self._carried.began)  # RunState has checked it
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
            await self._end(was_cancelled(), partial(send_cancelled, self.identity))
            self._count_end("cancelled")
            run_ended("cancelled", self.clock.started)
            raise
        except Exception as err:
            if unreadable() is not None:
                raise  # the workflow task fails, and is tried again until a worker has the key: no run has ended
            if nondeterminism := nondeterminism_in(err):
                raise explained(nondeterminism, workflow.info()) from None
            failure = application_error(err, attempt=self.body.failures, non_retryable=True)
            trace = format_stack(failure.__traceback__)
            self._log_end(failure, err)
            await self._end(failed_with(failure), partial(send_failed, self.identity, failure, trace))
            self._count_end("failed")
            step = step_of(failure)
            why = f"at step {step.step_id!r}" if step else f"{failure.type}: {failure.message}"
            run_ended("failed", self.clock.started, why)
            raise failure from failure.__cause__
        await self._end(Outcome(read_result(result).as_json()), partial(send_finished, self.identity, result))
        self._count_end("finished")
        run_ended("completed", self.clock.started)
        return result

    async def _end(self, outcome: Outcome, send_event: Callable[[], Awaitable[None]]) -> None:
        await self.subscriptions.end()
        await self.signals.end()
        await self.children.report(outcome)
        await send_event()
        await self._until_all_is_seen()
        await self.children.report(outcome)  # to those who have asked meanwhile
        if (trace := TRACE.get()) is not None:
            failure = None if outcome.failure is None else outcome.failure.name
            trace.ended(
                self.workflow.app, self.origin, self.clock.started, failure, is_cancelled=outcome == was_cancelled()
            )

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
        count_end(outcome, started=self.clock.started, memo_size=self.continuing.size.steps)

    async def _handled(self) -> RawValue:
        is_cancelled = False
        if self._carried is not None and (self._carried.is_parked or self._carried.is_cancelled):
            try:
                await self._until_cancelled() if self._carried.is_cancelled else await self.parked.until_due()
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
            packages = self.workflow.step_packages
            check_received(self.workflow.id, self.workflow.input_schema, self.data, self.origin.exact, packages)
        return self._result(await self._live(is_cancelled=is_cancelled))

    def _is_found_by_waits(self) -> bool:
        """Return whether a search attribute lists the run's waits: the state may be forged."""
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
        executing = self.body.execute(self._context, is_new=self._carried is None, is_silent=self._goes_on)
        body = self._body_task = asyncio.create_task(executing)
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
        """Return whether the body has raised and waits for its next attempt, so that nothing of it can be cancelled."""
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
        with self.waits.during(UNTIL_TS, TimedWait("start", moment.timestamp())):
            await workflow.sleep(moment - workflow.now(), summary=f"{UNTIL_TS}{moment.isoformat()}")

    def _input(self) -> Any:
        """Return the input as a value of its own: an attempt of the body may change it."""
        packages = self.workflow.step_packages
        return decode_input(self.workflow.id, self.workflow.input_schema, self.data, self.origin.exact, packages)

    def _context(self) -> Context[Any]:
        info = workflow.info()
        return Context(
            input=self.origin.input(self._input()),
            run_id=self.id,
            max_attempts=self.workflow.max_attempts,
            ext=ContextExt(info.workflow_id, info.namespace, info.task_queue),
            surroundings=WorkflowSurroundings(self.body, self.clock),
        )

    def _result(self, value: Any) -> RawValue:
        where = f"workflow {self.workflow.id!r}"
        try:
            return write_result(
                value,
                return_type(self.handler),
                lambda data, exact: limited_result(f"the result of {where}", data, exact, self.storage),
                self.secrets.are_sent,
                self.workflow.step_packages,
            )
        except UnserializableError as err:
            raise type(err)(f"the handler of {where} returned a value that cannot be sent: {err}") from None
