"""Steps that invoke other workflows, in a run."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue, WorkflowIDReusePolicy
from temporalio.exceptions import ChildWorkflowError, WorkflowAlreadyStartedError
from temporalio.workflow import ChildWorkflowCancellationType, ChildWorkflowHandle, ParentClosePolicy

from ...definition import Invocable, WorkflowReference
from ...durations import Duration
from ...errors import InvalidInputError, InvalidResultError, InvokeTimeoutError, StepError
from ...observability.search_attributes import is_indexed
from ...sdk.wait_until import wait_until
from ...start_request import StartRequest
from ...values.converter import copied
from ...values.type_names import shown
from ...wire.failures import failure_of, is_cancellation
from ...wire.limits import summary, to_limited
from ...wire.memo import Failure, Outcome
from ...wire.names import FIND_END, FIND_WORKFLOW, INVOKED_BY
from ...wire.run_input import InputPayload, encode_foreign_input, encode_input
from ...wire.run_result import of_memo, read_result, value_of
from ...wire.run_state import read_outcome, unpacked_outcome
from ...wire.start import Origin
from ...wire.waits import SHORTEST, InvokeWait
from ...wire.workflow_ids import named_workflow, workflow_id_of, workflow_of
from .arguments import arguments_checked, deadline_of
from .host import StepHost

LOOK_AFTER = timedelta(hours=1)
_LOOK_AT_LEAST_EVERY = timedelta(days=1)

Target = Invocable[Any, Any] | WorkflowReference[Any]


def invoke(
    attempt: StepHost, step_id: str, target: Target, data: Any, timeout: Duration | datetime | None
) -> Coroutine[Any, Any, Any]:
    """Perform ``step.invoke_workflow``."""
    key = attempt.key(step_id)
    with arguments_checked(key):
        if not isinstance(target, Invocable | WorkflowReference):
            raise TypeError(
                f"workflow is {shown(target)}; pass what client.workflow returned, or steporal.reference(app, id)"
            )
        deadline = None if timeout is None else deadline_of(timeout, "timeout")
    sent = None if key in attempt.owner.memo else _encode_input(attempt, key, target, data)
    is_json = isinstance(target, WorkflowReference)
    call = attempt.owner.call("invoke_workflow", named_workflow(target.app, target.id), data, is_json=is_json)
    own = attempt.called(key, call)
    if sent is None and own not in attempt.owner.memo:
        sent = _encode_input(attempt, own, target, data)
    asked = None if isinstance(timeout, datetime) else attempt.owner.journal.now()
    return _invoke(attempt, own, target, sent, deadline, asked)


async def _invoke(
    attempt: StepHost, key: str, target: Target, data: InputPayload | None, deadline: datetime | None, asked: int | None
) -> Any:
    start = None if data is None else partial(_perform, attempt, key, target, data, deadline, asked)
    outcome = await attempt.outcome(key, "invoke_workflow", start)
    where, is_own = f"workflow {target.id!r}", isinstance(target, Invocable)
    try:
        packages = target.step_packages if isinstance(target, Invocable) else ()
        returned = of_memo(copied(outcome.value))
        return value_of(returned, where, target.output_type, is_own=is_own, packages=packages)
    except InvalidResultError as err:
        raise StepError(key, type(err).__name__, str(err)) from None


async def _perform(
    attempt: StepHost, key: str, target: Target, data: InputPayload, deadline: datetime | None, asked: int | None
) -> Outcome:
    run = attempt.owner
    if deadline is not None:
        deadline = datetime.fromtimestamp(run.clock.moved(deadline.timestamp(), asked), UTC)
    if isinstance(carried := run.waits.resume(key, "invoke"), InvokeWait):
        return await _until_reported(attempt, key, carried)
    event_id = attempt.derived_id(key, 0)
    child_id = workflow_id_of(target.app, target.id, event_id)
    until = None if deadline is None else deadline.timestamp()
    waiting = InvokeWait(until, child_id, LOOK_AFTER.total_seconds())
    if child_id in run.children.invoked:
        return await _until_reported(attempt, key, waiting)
    if isinstance(target, WorkflowReference):
        found = await attempt.perform(
            key, attempt.local(key, FIND_WORKFLOW, {"app": target.app, "workflow": target.id})
        )
        if found.failure:
            return found
        task_queue = found.value["task_queue"]
    else:
        task_queue = target.task_queue
    request = StartRequest(
        app=target.app,
        workflow=target.id,
        workflow_id=child_id,
        task_queue=task_queue,
        origin=Origin.of_invoke(event_id, run.origin.listened, data.exact),
        data=data.data,
        summary=invoked_by(key, workflow.info().workflow_id),
    )
    try:
        child = await workflow.start_child_workflow(
            request.workflow,
            args=request.arguments(),
            id=request.workflow_id,
            task_queue=request.task_queue,
            result_type=RawValue,
            # It goes on when this run continues as new, and reports its end then (children.py).
            parent_close_policy=ParentClosePolicy.ABANDON,
            cancellation_type=ChildWorkflowCancellationType.ABANDON,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            # A child has search attributes if this run has: a run cannot ask whether its namespace has them.
            search_attributes=request.search_attributes() if _is_indexed() else None,
            static_summary=request.summary,
            static_details=request.details(),
        )
    except WorkflowAlreadyStartedError:
        # By this very step: its id is made of the run's and the step's. The run was reset, or the step was cancelled.
        with run.children.awaiting(child_id):  # the report of its end may arrive before the answer to the request
            await run.children.ask(child_id)
            return await _until_reported(attempt, key, replace(waiting, next_poll_at=workflow.time()))
    except ChildWorkflowError as err:
        # The step was cancelled before Temporal had started the run. The SDK raises that as an error of the run's.
        if is_cancellation(err):
            raise asyncio.CancelledError from None
        return Outcome(failure=failure_of(err))
    with run.children.awaiting(child_id), run.waits.during(key, waiting):
        if deadline is not None and not await _ends_in_time(child, deadline, key):
            return too_late(child_id)
        try:
            return Outcome(read_result(await child).as_json())
        except ChildWorkflowError as err:
            return Outcome(failure=failure_of(err))


def invoked_by(key: str, workflow_id: str) -> str:
    """Return the summary of an invoked run for Temporal's UI, in its history and in that of the invoking run."""
    return summary(f"{key}{INVOKED_BY}{workflow_id}")


def invoking_step(text: str) -> str | None:
    """Return the step that a text of :func:`invoked_by` names; None for another text."""
    key, mark, _ = text.partition(INVOKED_BY)
    return key if mark else None


def _is_indexed() -> bool:
    return is_indexed(workflow.info().typed_search_attributes)


async def _ends_in_time(child: ChildWorkflowHandle[Any, Any], deadline: datetime, key: str) -> bool:
    with suppress(TimeoutError):
        await wait_until(child.done, timeout=max(deadline - workflow.now(), SHORTEST), summary=summary(key))
    return child.done()


def too_late(child: str) -> Outcome:
    """Return the outcome of a step that no longer waits for the end of a run, by its workflow id."""
    message = f"workflow {workflow_of(child)!r} (run {child!r}) has not ended in time; it goes on"
    return Outcome(failure=Failure(InvokeTimeoutError.__name__, message))


def next_poll_interval(seconds: float) -> float:
    """Return the next interval between two looks at an invoked run, in seconds."""
    return min(seconds * 2, _LOOK_AT_LEAST_EVERY.total_seconds())


async def _until_reported(attempt: StepHost, key: str, waiting: InvokeWait) -> Outcome:
    """Wait for a run that an execution before has invoked.

    It reports its end, unless it was terminated: so it is looked at now and then.
    """
    with attempt.owner.children.awaiting(waiting.child):
        return await _reported(attempt, key, waiting)


async def _reported(attempt: StepHost, key: str, waiting: InvokeWait) -> Outcome:
    run, child = attempt.owner, waiting.child
    is_known_to_be_over = run.waits.is_known_to_be_over(key)
    is_timer_over = False
    while child not in run.children.ended:
        now = workflow.time()
        if waiting.next_poll_at is not None and now >= waiting.next_poll_at:
            found = await attempt.perform(key, attempt.local(key, FIND_END, {"workflow_id": child}))
            if found.failure:
                return found
            if found.value is not None:
                return read_outcome(unpacked_outcome(found.value))
            waiting.poll_interval = next_poll_interval(waiting.poll_interval)
            waiting.next_poll_at = workflow.time() + waiting.poll_interval
            is_known_to_be_over = is_timer_over = False
        if waiting.until is not None and now >= waiting.until and (is_known_to_be_over or is_timer_over):
            if not is_timer_over:
                run.clock.note_passed(key, waiting.until)
            return too_late(child)
        next_poll = waiting.next_poll(now)
        left = (next_poll if waiting.until is None else min(next_poll, waiting.until)) - now
        with run.waits.during(key, waiting):
            try:
                await wait_until(
                    lambda: child in run.children.ended,
                    timeout=max(timedelta(seconds=left), run.clock.shortest(key)),
                    summary=summary(key),
                )
            except TimeoutError:
                is_timer_over = True
    return read_outcome(run.children.ended[child])


def _encode_input(attempt: StepHost, key: str, target: Target, data: Any) -> InputPayload:
    try:
        if isinstance(target, Invocable):
            secrets, packages = attempt.owner.secrets.are_sent, target.step_packages
            sent = encode_input(target.id, target.input_schema, data, secrets=secrets, packages=packages)
        else:
            sent = encode_foreign_input(target.id, data)
    except InvalidInputError as err:
        raise InvalidInputError(f"step {key!r}: {err}") from None
    to_limited(f"the data for workflow {target.id!r} of step {key!r}", sent.both(), attempt.owner.storage.size_limit)
    return sent
