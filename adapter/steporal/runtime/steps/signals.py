"""Steps that wait for signals and send them, in a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import pydantic
from temporalio import workflow

from ...closures.digests import digest
from ...durations import Duration
from ...errors import InvalidInputError, PayloadTooLargeError, UnserializableError
from ...signals import OnConflict, ReceivedSignal, SendSignalResult, check_on_conflict, check_signal, signal_data
from ...step import RunOptions
from ...types import JSON
from ...values.converter import copied, issues, to_raw, validate
from ...wire.limits import to_limited
from ...wire.mailbox_wait import Wait
from ...wire.memo import Outcome
from ...wire.names import FIND_MAILBOX, SEND_SIGNAL
from ...wire.run_input import fields_made_anew
from ...wire.signal_types import type_to_check
from ...wire.waits import SignalWait
from ..branches import out_of_body, serving
from ..run import Run
from .arguments import arguments_checked, check_type, deadline_of
from .host import StepHost

# --- wait ----------------------------------------------------------------------------------------------------------


def wait_for_signal(
    attempt: StepHost, key: str, signal: str, timeout: Duration | datetime, schema: Any, on_conflict: OnConflict
) -> Coroutine[Any, Any, ReceivedSignal[Any] | None]:
    """Perform ``step.wait_for_signal``."""
    with arguments_checked(key):
        check_signal(signal)
        check_on_conflict(on_conflict)
        check_type(schema, "schema")
        deadline = deadline_of(timeout, "timeout")
    key = attempt.called(key, replace(attempt.owner.call("wait_for_signal", signal), details=digest(timeout)))
    asked = None if isinstance(timeout, datetime) else attempt.owner.journal.now()
    perform = partial(_perform_wait, attempt, key, signal, deadline, asked, on_conflict == "replace", schema)
    return _wait(attempt, key, signal, schema, deadline, perform)


async def _wait(
    attempt: StepHost,
    key: str,
    signal: str,
    schema: Any,
    deadline: datetime,
    perform: Callable[[], Coroutine[Any, Any, Outcome]],
) -> ReceivedSignal[Any] | None:
    if deadline <= workflow.now() and key not in attempt.owner.memo:
        await attempt.owner.journal.next_turn()
        return None
    outcome = await _outcome(attempt, key, perform)
    if outcome.value is None:
        return None
    data = copied(outcome.value["data"])
    if schema is not None:
        try:
            data = validate(data, schema)
        except pydantic.ValidationError as err:
            raise InvalidInputError(
                f"step {key!r}: the data of signal {signal!r} does not fit the schema: {issues(err)}"
            ) from None
        if fields := fields_made_anew(data, validate(outcome.value["data"], schema)):
            names = ", ".join(fields)
            raise InvalidInputError(
                f"step {key!r}: the schema fills in {names} with a new value each time it reads signal {signal!r}, and "
                f"a run reads it again whenever it is replayed; send {names} with the signal"
            )
    # Not of ``ReceivedSignal[schema]``: a step can capture it whatever the schema is, which need not have a name.
    return ReceivedSignal.model_construct(signal=outcome.value["signal"], data=data)


async def _outcome(attempt: StepHost, key: str, perform: Callable[[], Coroutine[Any, Any, Outcome]]) -> Outcome:
    """Return the outcome of a wait. A cancelled wait ends with its mailbox, and returns a signal that came before."""
    run = attempt.owner
    try:
        return await attempt.outcome(key, "wait_for_signal", perform)
    except asyncio.CancelledError:
        if attempt.branch.is_closed or not (run.steps.is_in_flight(key) or run.journal.has("ended", key)):
            raise  # nobody waits any more, or it has not begun
        await run.journal.until("ended", key, serving(_arrive_when_ended, run, key))
        outcome = run.memo.get(key)
        if outcome is None or workflow.cancellation_reason() is not None:
            raise
        if outcome.failure:
            raise outcome.failure.error(key) from None
        return outcome


def _arrive_when_ended(run: Run, key: str) -> None:
    async def until_ended() -> None:
        await run.steps.until_cancelled(key)
        run.journal.arrive("ended", key)

    asyncio.create_task(until_ended(), context=out_of_body())  # noqa: RUF006  the SDK keeps a run's tasks


async def _perform_wait(
    attempt: StepHost, key: str, signal: str, deadline: datetime, asked: int | None, replace: bool, schema: Any
) -> Outcome:
    run = attempt.owner
    if isinstance(carried := run.waits.resume(key, "signal"), SignalWait):
        return await run.signals.wait(
            key, carried.wait, replace=replace, carried=carried, shortest=run.clock.shortest(key)
        )
    wait = Wait(
        signal=signal,
        workflow_id=workflow.info().workflow_id,
        run_id=run.id,
        key=run.steps.activity_id(key),
        until=run.clock.moved(deadline.timestamp(), asked),
        data_type=type_to_check(schema, run.handler),
        task_queue=workflow.info().task_queue,
    )
    return await run.signals.wait(key, wait, replace=replace)


# --- send ----------------------------------------------------------------------------------------------------------


def send_signal(attempt: StepHost, key: str, signal: str, data: Any) -> Coroutine[Any, Any, SendSignalResult]:
    """Perform ``step.send_signal``."""
    with arguments_checked(key):
        check_signal(signal)
    try:
        encoded = signal_data(signal, data)
        to_limited(f"the data of signal {signal!r}", encoded, attempt.owner.storage.size_limit)
    except (UnserializableError, PayloadTooLargeError) as err:
        raise type(err)(f"step {key!r}: {err}") from None
    key = attempt.called(key, attempt.owner.call("send_signal", signal, data, is_json=True))
    return _send(attempt, key, signal, encoded)


async def _send(attempt: StepHost, key: str, signal: str, data: JSON) -> SendSignalResult:
    outcome = await attempt.outcome(key, "send_signal", partial(_perform_send, attempt, key, signal, data))
    return SendSignalResult(run_id=outcome.value)


async def _perform_send(attempt: StepHost, key: str, signal: str, data: JSON) -> Outcome:
    # The mailbox is chosen first, in the history: tried again, the activity cannot reach the next run that waits.
    mailbox = attempt.owner.takeover.mailboxes.get(key)
    if mailbox is None:
        wanted = {"signal": signal, "call": attempt.described(key)}
        found = await attempt.perform(key, attempt.local(key, FIND_MAILBOX, wanted))
        if found.failure or found.value is None:
            return found
        mailbox = found.value
    argument = {"signal": signal, "mailbox": mailbox, "data": data, "id": attempt.derived_id(key, 0)}
    argument["call"] = attempt.described(key)
    return await attempt.activity(key, RunOptions(), SEND_SIGNAL, to_raw(argument))()
