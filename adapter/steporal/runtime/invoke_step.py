"""Steps that invoke other workflows, in a run."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from temporalio import workflow
from temporalio.common import RawValue, TypedSearchAttributes, WorkflowIDReusePolicy
from temporalio.exceptions import ChildWorkflowError, WorkflowAlreadyStartedError
from temporalio.workflow import ChildWorkflowCancellationType, ChildWorkflowHandle, ParentClosePolicy

from ..converter import copied
from ..definition import Workflow, WorkflowReference
from ..durations import Duration
from ..errors import InvalidInputError, InvalidResultError, InvokeTimeoutError, StepError
from ..given import Given, given, given_to_other_app
from ..search_attributes import is_indexed, of_run
from ..type_names import shown
from ..types import JSON
from ..wire.names import FIND_END, FIND_WORKFLOW, INVOKED_BY, LISTENS_BEFORE_IT_ASKS
from ..workflow_ids import named_workflow, workflow_id_of, workflow_of
from .arguments import arguments_checked, deadline_of
from .carried import read_outcome, unpacked_outcome
from .failures import failure_of, is_cancellation
from .limits import summary, to_limited
from .memo import Failure, Outcome
from .returned import of_memo, read_result, value_of
from .start import INVOKED, Origin
from .until import wait_until
from .waits import SHORTEST, Waiting

if TYPE_CHECKING:
    from .attempt import Attempt


LOOK_AFTER = timedelta(hours=1)
_LOOK_AT_LEAST_EVERY = timedelta(days=1)

Target = Workflow[Any, Any] | WorkflowReference[Any]


def invoke(
    attempt: Attempt, step_id: str, target: Target, data: Any, timeout: Duration | datetime | None
) -> Coroutine[Any, Any, Any]:
    """Perform ``step.invoke_workflow``."""
    key = attempt.key(step_id)
    with arguments_checked(key):
        if not isinstance(target, Workflow | WorkflowReference):
            raise TypeError(
                f"workflow is {shown(target)}; pass what client.workflow returned, or steporal.reference(app, id)"
            )
        deadline = None if timeout is None else deadline_of(timeout, "timeout")
    sent = None if key in attempt.owner.memo else _given(attempt, key, target, data)
    is_json = isinstance(target, WorkflowReference)
    call = attempt.owner.call("invoke_workflow", named_workflow(target.app, target.id), data, is_json=is_json)
    own = attempt.called(key, call)
    if sent is None and own not in attempt.owner.memo:
        sent = _given(attempt, own, target, data)
    asked = None if isinstance(timeout, datetime) else attempt.owner.journal.now()
    return _invoke(attempt, own, target, sent, deadline, asked)


async def _invoke(
    attempt: Attempt, key: str, target: Target, data: Given | None, deadline: datetime | None, asked: int | None
) -> Any:
    start = None if data is None else partial(_perform, attempt, key, target, data, deadline, asked)
    outcome = await attempt.outcome(key, "invoke_workflow", start)
    where, is_own = f"workflow {target.id!r}", isinstance(target, Workflow)
    try:
        packages = target.client.step_packages if isinstance(target, Workflow) else ()
        returned = of_memo(copied(outcome.value))
        return value_of(returned, where, target.output_type, is_own=is_own, packages=packages)
    except InvalidResultError as err:
        raise StepError(key, type(err).__name__, str(err)) from None


async def _perform(
    attempt: Attempt, key: str, target: Target, data: Given, deadline: datetime | None, asked: int | None
) -> Outcome:
    run = attempt.owner
    if deadline is not None:
        deadline = datetime.fromtimestamp(run.moved(deadline.timestamp(), asked), UTC)
    if carried := run.waits.resume(key, "invoke"):
        return await _until_reported(attempt, key, carried)
    event_id = attempt.derived_id(key, 0)
    child_id = workflow_id_of(target.app, target.id, event_id)
    until = None if deadline is None else deadline.timestamp()
    more: dict[str, JSON] = {"child": child_id, "look_after": LOOK_AFTER.total_seconds()}
    if child_id in run.children.invoked:
        return await _until_reported(attempt, key, Waiting("invoke", until, more))
    task_queue: str | None = None
    if isinstance(target, WorkflowReference):
        found = await attempt.perform(
            key, attempt.local(key, FIND_WORKFLOW, {"app": target.app, "workflow": target.id})
        )
        if found.failure:
            return found
        task_queue = found.value["task_queue"]
    elif target.client.task_queue != workflow.info().task_queue:
        task_queue = target.client.task_queue
    origin = Origin.of_invoke(event_id, run.origin.listened, data.exact)
    try:
        child = await workflow.start_child_workflow(
            target.id,
            args=origin.arguments(data.data),
            id=child_id,
            task_queue=task_queue,
            result_type=RawValue,
            # It goes on when this run continues as new, and reports its end then (children.py).
            parent_close_policy=ParentClosePolicy.ABANDON,
            cancellation_type=ChildWorkflowCancellationType.ABANDON,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            search_attributes=_attributes(target, event_id),
            static_summary=invoked_by(key, workflow.info().workflow_id),
            static_details=origin.details(),
        )
    except WorkflowAlreadyStartedError:
        # By this very step: its id is made of the run's and the step's. The run was reset, or the step was cancelled.
        listens = run.children.awaiting(child_id) if workflow.patched(LISTENS_BEFORE_IT_ASKS) else nullcontext()
        with listens:  # its end may be told before the answer that it was asked
            await run.children.ask(child_id)
            return await _until_reported(attempt, key, Waiting("invoke", until, {**more, "look_at": workflow.time()}))
    except ChildWorkflowError as err:
        # The step was cancelled before Temporal had started the run. The SDK raises that as an error of the run's.
        if is_cancellation(err):
            raise asyncio.CancelledError from None
        return Outcome(failure=failure_of(err))
    waiting = Waiting("invoke", until, more, timers=0 if deadline is None else 1)
    with run.children.awaiting(child_id), run.waits.during(key, waiting):
        if deadline is not None and not await _ends_in_time(child, deadline, key):
            return too_late(child_id)
        try:
            return Outcome(read_result(await child).as_json())
        except ChildWorkflowError as err:
            return Outcome(failure=failure_of(err))


def invoked_by(key: str, workflow_id: str) -> str:
    """What Temporal's UI says of an invoked run, in its own history and in that of the run that invokes it."""
    return summary(f"{key}{INVOKED_BY}{workflow_id}")


def invoking_step(text: str) -> str | None:
    """The step in what :func:`invoked_by` makes; None if a version before this one has made it."""
    key, mark, _ = text.partition(INVOKED_BY)
    return key if mark else None


def _attributes(target: Target, event_id: str) -> TypedSearchAttributes | None:
    """The search attributes of an invoked run: it has some if this one has, as a run cannot ask what there is."""
    if not is_indexed(workflow.info().typed_search_attributes):
        return None
    return of_run(target.app, target.id, INVOKED, event_id)


async def _ends_in_time(child: ChildWorkflowHandle[Any, Any], deadline: datetime, key: str) -> bool:
    with suppress(TimeoutError):
        await wait_until(child.done, timeout=max(deadline - workflow.now(), SHORTEST), summary=summary(key))
    return child.done()


def too_late(child: str) -> Outcome:
    """How a step ends that waits no longer for the end of a run, by Temporal's workflow id of that."""
    message = f"workflow {workflow_of(child)!r} (run {child!r}) has not ended in time; it goes on"
    return Outcome(failure=Failure(InvokeTimeoutError.__name__, message))


def next_look_after(seconds: float) -> float:
    """Return when an invoked run is looked at again, by when it was looked at last, in seconds."""
    return min(seconds * 2, _LOOK_AT_LEAST_EVERY.total_seconds())


async def _until_reported(attempt: Attempt, key: str, waiting: Waiting) -> Outcome:
    """Wait for a run that an execution before has invoked.

    It reports its end, unless it was terminated: so it is looked at now and then.
    """
    with attempt.owner.children.awaiting(waiting.more["child"]):
        return await _reported(attempt, key, waiting)


async def _reported(attempt: Attempt, key: str, waiting: Waiting) -> Outcome:
    run, child = attempt.owner, waiting.more["child"]
    is_known_to_be_over = run.waits.is_known_to_be_over(key)
    is_timer_over = False
    while child not in run.children.ended:
        now = workflow.time()
        if waiting.more.get("look_at", 0) and now >= waiting.more["look_at"]:
            found = await attempt.perform(key, attempt.local(key, FIND_END, {"workflow_id": child}))
            if found.failure:
                return found
            if found.value is not None:
                return read_outcome(unpacked_outcome(found.value))
            waiting.more["look_after"] = next_look_after(waiting.more["look_after"])
            waiting.more["look_at"] = workflow.time() + waiting.more["look_after"]
            is_known_to_be_over = is_timer_over = False
        if waiting.until is not None and now >= waiting.until and (is_known_to_be_over or is_timer_over):
            if not is_timer_over:
                run.overdue[key] = run.microseconds(waiting.until)
            return too_late(child)
        waiting.more.setdefault("look_at", now + waiting.more["look_after"])
        next_look = waiting.more["look_at"]
        left = (next_look if waiting.until is None else min(next_look, waiting.until)) - now
        with run.waits.during(key, waiting):
            try:
                await wait_until(
                    lambda: child in run.children.ended,
                    timeout=max(timedelta(seconds=left), run.shortest(key)),
                    summary=summary(key),
                )
            except TimeoutError:
                is_timer_over = True
    return read_outcome(run.children.ended[child])


def _given(attempt: Attempt, key: str, target: Target, data: Any) -> Given:
    try:
        if isinstance(target, Workflow):
            secrets, packages = attempt.owner.secrets.are_sent, target.client.step_packages
            sent = given(target.id, target.input_schema, data, secrets=secrets, packages=packages)
        else:
            sent = given_to_other_app(target.id, data)
    except InvalidInputError as err:
        raise InvalidInputError(f"step {key!r}: {err}") from None
    to_limited(f"the data for workflow {target.id!r} of step {key!r}", sent.both(), attempt.owner.storage.most)
    return sent
