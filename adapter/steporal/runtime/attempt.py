"""One attempt of a body: it performs the steps that the body calls.

The way of a step, from the body to an activity and back::

    step.run("charge", f)               step.py               the body calls it
      Attempt.run                       attempt.py            key of the step, reference to f, digest of the call
      Attempt.outcome                                         asks the journal for the outcome of the step
        Journal.until                   journal.py            while the body comes back: the recorded outcome, if any
        Attempt._begin                                        otherwise the step begins
          StepScheduler.start           scheduling.py         a task outside the body: its turn, its slot, its metrics
            perform                     steps/activity.py     schedules the activity, and joins one of a lost worker
              Activities.run_step       worker/activities.py  on any worker of the app: resolves f, calls it
          StepScheduler._finish         scheduling.py         the outcome goes to the memo, and arrives at the journal
        Journal.arrive                  journal.py            wakes the body, one outcome at a time
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from types import MethodType
from typing import Any

import pydantic
from temporalio import workflow
from temporalio.common import RawValue

from ..closures.calls import UNKNOWN, AnotherCallError, Call, check_call, is_other
from ..closures.digests import digest
from ..closures.references import Describer, target_of, without_code
from ..context import Context
from ..definition import Invocable, WorkflowReference
from ..durations import Duration, parse_deadline, parse_duration
from ..errors import CaptureError, PayloadTooLargeError, StepError, UnserializableError
from ..events import EventLike, ReceivedEvent, SendEventResult, derived_ulid, ids_of_sender, prepare_events
from ..http import FetchRequest, FetchResponse
from ..observability.run_metrics import StepKind
from ..sandbox.watch import aside
from ..signals import OnConflict, ReceivedSignal, SendSignalResult
from ..step import Listener, RunOptions, Step, StepExt, Wanted
from ..step_calls import StepCalls
from ..types import JSON
from ..validation import check_heartbeat_timeout, check_max_attempts, check_retry
from ..values.converter import dumps, issues, to_raw
from ..values.encoding import TAG, encode
from ..wire.limits import BATCH_BYTES, summary, to_limited
from ..wire.memo import Outcome, decode_result
from ..wire.names import FETCH, RUN_STEP, SEND_EVENT
from ..wire.run_input import fields_made_anew
from ..wire.sent_events import unpack
from ..wire.waits import TimedWait, left_until
from .branches import BRANCH, Branch, serving
from .keys import Keys
from .run import Run
from .steps import events, fetch, invoke, signals
from .steps.activity import StepActivity, perform, until_begun, with_attempts
from .steps.arguments import arguments_checked, check_function, check_step_id, check_task_queue, check_type

STEP_TIMEOUT = timedelta(days=1)
LOCAL_STEP_TIMEOUT = timedelta(minutes=1)


class Captives:
    """Encodes the values that only the run knows, where a step function captured them."""

    def __init__(self) -> None:
        self.context_is_captured: bool = False

    def encode(self, value: Any) -> JSON | None:
        if isinstance(value, Context):
            self.context_is_captured = True
            return {TAG: "context"}
        return None

    def is_step(self, value: Any) -> bool:
        owner = value.__self__ if isinstance(value, MethodType) else value
        return isinstance(owner, Step | StepExt | Attempt)


class Attempt:
    """One attempt of a run's body.

    Attributes:
        owner: The run.
        step_calls: The calls of steps that the body has made.
        branch: The branch of the body itself.
    """

    def __init__(self, run: Run) -> None:
        self.owner = run
        self.step_calls: StepCalls = StepCalls()
        self.branch: Branch = Branch()
        self._loop = asyncio.get_running_loop()
        self._keys = Keys()
        self._calls: dict[str, Call] = {}
        self._closed = False

    def close(self) -> None:
        """End the tasks of the body that are left; their steps go on, for the next attempt."""
        self.step_calls.close()
        self._closed = self.branch.is_closed = True
        self.owner.journal.close()
        for timer in list(self.branch.running):
            timer.drop()
        for task in list(self.branch.tasks):
            task.cancel()

    # --- the kinds of step -----------------------------------------------------------------------------------------

    def run(
        self, step_id: str, handler: Callable[..., Any], args: tuple[Any, ...], options: RunOptions
    ) -> Coroutine[Any, Any, Any]:
        key = self.key(step_id)
        with arguments_checked(key):
            check_function(handler, args)
            check_type(options.output_type, "output_type")
        try:
            with arguments_checked(key):
                call, argument = aside(self._described, key, handler, args)
        except (CaptureError, PayloadTooLargeError):
            if not self._has_ended_here(key):
                raise
            return self._run_result(key, handler, options, None)  # it has ended, and can be described no more
        own = self.called(key, call)
        if own in self.owner.memo:
            return self._run_result(own, handler, options, None)
        with arguments_checked(own):
            if own != key:
                _, argument = aside(self._described, own, handler, args)
            start = aside(self.activity, own, options, RUN_STEP, argument)
        return self._run_result(own, handler, options, start)

    def _has_ended_here(self, key: str) -> bool:
        """Return whether a step of this branch has a result, of which nothing else can be compared with its call.

        Raises:
            AnotherCallError: It is that of another kind of step.
        """
        recorded = self._recorded(key)
        if recorded is not None and recorded.branch not in (_label(), UNKNOWN):
            return False
        if recorded is not None and recorded.kind != "run":
            self.called(key, Call("run"))
        return key in self.owner.memo

    async def _run_result(self, key: str, handler: Callable[..., Any], options: RunOptions, start: Any) -> Any:
        outcome = await self.outcome(key, "run", start)
        packages = self.owner.workflow.step_packages
        try:
            result = decode_result(outcome.value, handler, options.output_type, packages)
        except pydantic.ValidationError as err:
            message = f"the result does not fit output_type {options.output_type!r}: {issues(err)}"
            raise StepError(key, "ValidationError", message) from None
        if options.output_type is not None:
            again = decode_result(outcome.value, handler, options.output_type, packages)
            if fields := fields_made_anew(result, again):
                raise StepError(key, "ValidationError", _made_anew(options.output_type, fields))
        return result

    def sleep(self, step_id: str, duration: Duration) -> Coroutine[Any, Any, None]:
        key = self.key(step_id)
        with arguments_checked(key):
            deadline = workflow.now() + parse_duration(duration)
        key = self.called(key, Call("sleep", details=digest(duration)))
        return self._sleep(key, deadline, self.owner.journal.now())

    def sleep_until(self, step_id: str, when: datetime) -> Coroutine[Any, Any, None]:
        key = self.key(step_id)
        with arguments_checked(key):
            deadline = parse_deadline(when, what="when")
        key = self.called(key, Call("sleep", details=digest(when)))
        return self._sleep(key, deadline, None)

    async def _sleep(self, key: str, deadline: datetime, asked: int | None) -> None:
        if deadline <= workflow.now() and key not in self.owner.memo:
            await self.owner.journal.next_turn()
            return
        await self.outcome(key, "sleep", partial(self._perform_sleep, key, deadline, asked))

    async def _perform_sleep(self, key: str, deadline: datetime, asked: int | None) -> Outcome:
        run = self.owner
        until = run.clock.moved(deadline.timestamp(), asked)
        carried = run.waits.resume(key, "sleep", "timer")
        until = until if carried is None or carried.until is None else carried.until
        left = left_until(until, workflow.time())
        if left <= timedelta(0) and run.waits.is_known_to_be_over(key):
            run.clock.note_passed(key, until)
            return Outcome()
        with run.waits.during(key, TimedWait("sleep", until)):
            await workflow.sleep(max(left, run.clock.shortest(key)), summary=summary(key))
        return Outcome()

    def invoke(
        self,
        step_id: str,
        workflow: Invocable[Any, Any] | WorkflowReference[Any],
        data: Any,
        timeout: Duration | datetime | None,
    ) -> Coroutine[Any, Any, Any]:
        return invoke.invoke(self, step_id, workflow, data, timeout)

    def send_event(self, step_id: str, events: EventLike | Sequence[EventLike]) -> Coroutine[Any, Any, SendEventResult]:
        key = self.key(step_id)
        prepared = self._prepared(key, events)
        # Those of the sender alone: others are made of the run, and of the time.
        own = zip(prepared, ids_of_sender(events), strict=True)
        compared = [(event.name, event.data, event.v, *([which] if any(which) else [])) for event, which in own]
        names = " and ".join({event.name: None for event in prepared})
        call = self.owner.call("send_event", names, compared, is_json=True)
        called = self.called(key, call)
        return self._send(called, prepared if called == key else self._prepared(called, events))

    def _prepared(self, key: str, events: EventLike | Sequence[EventLike]) -> list[ReceivedEvent]:
        now_ms = int(workflow.now().timestamp() * 1000)
        return prepare_events(events, new_id=partial(self.derived_id, key), now_ms=now_ms)

    async def _send(self, key: str, events: list[ReceivedEvent]) -> SendEventResult:
        outcome = await self.outcome(key, "send_event", partial(self._perform_send, key, events))
        return unpack(outcome.value)

    async def _perform_send(self, key: str, events: list[ReceivedEvent]) -> Outcome:
        sent_batches: list[JSON] = []
        for batch in _batches(events):
            argument = to_raw({"events": batch, "call": self.described(key)})
            start = self.activity(key, RunOptions(), SEND_EVENT, argument)
            sent = await start()
            if sent.failure:
                return sent
            sent_batches.append(sent.value)
        return Outcome(sent_batches, call=sent.call)

    def wait_for_event(self, step_id: str, wanted: Wanted) -> Coroutine[Any, Any, ReceivedEvent | None]:
        return events.wait_for_event(self, self.key(step_id), wanted)

    def listen(self, step_id: str, wanted: Wanted) -> Coroutine[Any, Any, Listener]:
        return events.listen(self, self.key(step_id), wanted)

    def wait_for_signal(
        self, step_id: str, signal: str, timeout: Duration | datetime, schema: Any, on_conflict: OnConflict
    ) -> Coroutine[Any, Any, ReceivedSignal[Any] | None]:
        return signals.wait_for_signal(self, self.key(step_id), signal, timeout, schema, on_conflict)

    def send_signal(self, step_id: str, signal: str, data: Any) -> Coroutine[Any, Any, SendSignalResult]:
        return signals.send_signal(self, self.key(step_id), signal, data)

    def fetch(self, step_id: str, request: FetchRequest) -> Coroutine[Any, Any, FetchResponse]:
        return fetch.fetch(self, self.key(step_id), request)

    # --- what they share -------------------------------------------------------------------------------------------

    def key(self, step_id: str) -> str:
        check_step_id(step_id)
        if self.is_forgotten():
            raise GeneratorExit
        if self._closed:
            raise asyncio.CancelledError("this attempt of the body has ended")
        return self._keys.next(step_id, _label())

    def is_forgotten(self) -> bool:
        """Return whether the worker has removed the run from memory, and Python ends the rest of its body.

        It does so whenever it collects garbage, which may be while another run has the thread: a step in a ``finally``
        would be scheduled there.
        """
        try:
            return asyncio.get_running_loop() is not self._loop
        except RuntimeError:
            return True

    def called(self, key: str, call: Call) -> str:
        """A step is called: return its key, once it is sure that what is recorded under it was made by this call.

        That is the key that it was given, or another one where that has the result of another branch.

        Raises:
            AnotherCallError: It was made by another one, or is about to be.
        """
        run, call = self.owner, replace(call, branch=_label())
        key = self._own_key(key, call)
        recorded = self._recorded(key)
        self._calls[key] = call
        if recorded is not None:
            try:
                check_call(key, recorded, call, run.exists)
            except AnotherCallError as err:
                is_same_place = recorded.kind == call.kind and recorded.branch in (call.branch, UNKNOWN)
                if is_same_place and run.journal.is_new_attempt and self._is_only(key):
                    return key  # what it captured may depend on ctx.attempt
                run.journal.stop(err)
                raise
        return key

    def described(self, key: str) -> JSON:
        """The call of a step, for the argument of its activity."""
        return self._calls[key].json()

    def _recorded(self, key: str) -> Call | None:
        outcome = self.owner.memo.get(key)
        return outcome.call if outcome else self.owner.steps.calls.get(key)

    def _own_key(self, key: str, call: Call) -> str:
        """The key of a call, which was given one as if nothing had happened yet.

        The first use of an id has the id for its key. It stays with the branch whose result it has: another attempt of
        the body, which ended before one of its branches came to its step, may have come to the id in another branch
        first.
        """
        recorded = self._recorded(key)
        if recorded is None or recorded.branch in (call.branch, UNKNOWN) or not self._keys.is_first(key):
            return key
        is_same = recorded.details == call.details and not is_other(recorded, call, self.owner.exists)
        if is_same and self._recorded(Keys.in_branch(key, call.branch)) is None:
            return key
        return self._keys.instead(key, recorded.branch, call.branch)

    def _is_only(self, key: str) -> bool:
        """Return whether the id of a step is used once in the run, so that its key cannot mean another call."""
        return not any(
            other.startswith((f"{key}:", f"{key}@")) or key.startswith((f"{other}:", f"{other}@"))
            for other in (*self.owner.memo, *self.owner.steps.calls)
        )

    async def outcome(
        self,
        key: str,
        kind: StepKind,
        start: Callable[[], Coroutine[Any, Any, Outcome]] | None,
        *,
        at_once: bool = False,
    ) -> Outcome:
        """Wait until the outcome of a step reaches the body.

        Args:
            key: The step's key.
            kind: The step's kind.
            start: Performs it, if it has not ended; may be None if it has.
            at_once: Whether it may begin while the body comes back.
        """
        run = self.owner
        if self._closed:
            raise asyncio.CancelledError("this attempt of the body has ended")
        try:
            due = run.clock.due(key)
            await run.journal.until("step", key, serving(self._begin, key, kind, start), due=due, at_once=at_once)
        except asyncio.CancelledError:
            if not self._closed:
                run.steps.cancel(key)
            raise
        outcome = run.memo[key]
        if outcome.failure:
            raise outcome.failure.error(key)
        return outcome

    def _begin(self, key: str, kind: StepKind, start: Callable[[], Coroutine[Any, Any, Outcome]] | None) -> None:
        if key in self.owner.memo:  # it has ended since the attempt before, or the body has passed over it
            self.owner.journal.arrive("step", key)
        else:
            assert start is not None
            self.owner.steps.calls[key] = self._calls[key]
            self.owner.steps.start(key, kind, start)

    def derived_id(self, key: str, position: int) -> str:
        return derived_ulid(self.owner.clock.started, self.owner.id, key, position)

    def _described(self, key: str, handler: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Call, RawValue]:
        """A call of a function, as it is compared with others, and as its activity is given it."""
        captives = Captives()
        run = self.owner
        packages, secrets = run.workflow.step_packages, run.secrets.are_sent
        describer = Describer(run.workflow.id, run.handler, packages, captives, secrets)
        described = describer.call(key, handler, args)
        target, fingerprint = target_of(described["function"])
        whole = without_code(described) if describer.has_order else None
        call = run.call("run", target, *describer.values, code=fingerprint, names=describer.names, whole=whole)
        call = replace(call, branch=_label())
        argument = {"workflow": run.workflow.id, "step": key, **described, "call": call.json()}
        if captives.context_is_captured:
            argument["context"] = self._context_json()
        return call, to_limited(f"what step {key!r} captured or is given", argument, run.storage.size_limit)

    def _context_json(self) -> JSON:
        context, info = self.owner.body.context, workflow.info()
        origin = context.input
        return {
            **self._input_json(),
            "id": origin.id,
            "name": origin.name,
            "time": origin.time.isoformat(),
            "type": origin.type,
            "v": origin.ext.v,
            "cron": origin.ext.cron,
            "run_id": context.run_id,
            "workflow_id": info.workflow_id,
            "task_queue": info.task_queue,
        }

    def _input_json(self) -> dict[str, JSON]:
        """The input as it is now; one that cannot be sent is made anew of what the run was started with."""
        run = self.owner
        try:
            packages = run.workflow.step_packages
            return {"input": encode(run.body.context.input.data, secrets=run.secrets.are_sent, packages=packages)}
        except UnserializableError:
            return {"data": run.data, "exact": run.origin.exact}

    def activity(
        self, key: str, options: RunOptions, name: str, argument: RawValue
    ) -> Callable[[], Coroutine[Any, Any, Outcome]]:
        definition = self.owner.workflow
        where = f"step {key!r}"
        attempts = definition.max_attempts
        if options.max_attempts is not None:
            attempts = check_max_attempts(options.max_attempts, where)
        policy = definition.retry if options.retry is None else check_retry(options.retry, where)
        task_queue = check_task_queue(options.task_queue, is_local=options.local)
        timeout = None
        if options.timeout is not None:
            timeout = parse_duration(options.timeout, what="timeout", minimum=timedelta(milliseconds=1))
        heartbeat_timeout = definition.heartbeat_timeout
        if options.heartbeat_timeout is not None:
            heartbeat_timeout = check_heartbeat_timeout(options.heartbeat_timeout, where)
        if options.local:
            if options.heartbeat_timeout is not None:
                raise ValueError("local=True runs the step without heartbeats; it takes no heartbeat_timeout")
            return lambda: self.perform(
                key,
                lambda: workflow.start_local_activity(
                    name,
                    argument,
                    result_type=RawValue,
                    activity_id=self.owner.steps.activity_id(key),
                    start_to_close_timeout=timeout or LOCAL_STEP_TIMEOUT,
                    retry_policy=with_attempts(policy, attempts),
                    summary=summary(key),
                ),
                attempts,
            )
        step = StepActivity(
            key=key,
            name=name,
            argument=argument,
            max_attempts=attempts,
            retry=policy,
            timeout=timeout or STEP_TIMEOUT,
            heartbeat_timeout=heartbeat_timeout,
            task_queue=task_queue,
            is_joinable=name in (RUN_STEP, FETCH),
        )
        return lambda: perform(self.owner, step)

    def local(self, key: str, name: str, argument: JSON) -> Callable[[], Any]:
        return lambda: workflow.start_local_activity(
            name,
            to_raw(argument),
            result_type=RawValue,
            start_to_close_timeout=LOCAL_STEP_TIMEOUT,
            retry_policy=with_attempts(self.owner.workflow.retry, self.owner.workflow.max_attempts),
            summary=summary(key),
        )

    async def perform(self, key: str, start: Callable[[], Any], max_attempts: int = 0) -> Outcome:
        return await until_begun(key, start, max_attempts, self.owner.workflow.code_timeout)


def _made_anew(kind: Any, fields: list[str]) -> str:
    names = ", ".join(fields)
    return (
        f"output_type {kind!r} fills in {names} with a new value each time it reads the result, and a run reads it "
        f"again whenever it is replayed; return {names} from the step"
    )


def _batches(events: list[ReceivedEvent]) -> list[list[JSON]]:
    batches: list[list[JSON]] = [[]]
    size = 0
    for event in events:
        encoded = event.model_dump(mode="json")
        length = len(dumps(encoded))
        if batches[-1] and size + length > BATCH_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(encoded)
        size += length
    return batches


def _label() -> str:
    """The branch of the body that runs, as keys name it."""
    branch = BRANCH.get()
    return branch.label if branch else ""
