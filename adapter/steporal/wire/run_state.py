"""State that one execution of a run hands over to the next when it continues as new."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import pydantic
from temporalio.api.failure.v1 import Failure as FailureMessage
from temporalio.common import RawValue
from temporalio.converter import DataConverter

from ..closures.calls import Call
from ..types import JSON
from ..values.converter import dumps, raw_text, to_raw
from ..values.packed import MAX_UNPACKED_BYTES, unpack_json
from .journal_entries import is_entry
from .limits import MAX_MILLISECONDS, MAX_PAYLOAD_BYTES
from .memo import Failure, Outcome
from .waits import Waiting, read_waiting, waiting_json

_COMPRESS_FROM = 64 * 1024

MAX_RERUNS = 100
"""Of how many runs one may be a rerun, one of the other. What its steps are called with is read by the ids of each."""


StoredWait = Annotated[Waiting, pydantic.PlainValidator(read_waiting), pydantic.PlainSerializer(waiting_json)]


class RunState(pydantic.BaseModel):
    """The state of a run, between two executions.

    Attributes:
        is_parked: Whether the next execution waits first, without the handler.
        is_indexed: Whether a search attribute says what the run waits for.
        held_until: Until when a checkpoint holds the run at most, in seconds since the epoch.
        started: When the first execution started, in milliseconds since the epoch; 0 if this is the first.
        seed: What ``ctx.random`` starts from in each attempt of the body; empty if this is the first execution, of a
            run that begins with steps of another.
        attempt_began: When the attempt of the body began, in microseconds after ``started``.
        memo: The finished steps: what :func:`memo_json` makes of each.
        past: What has reached the body, in order: entries of the journal.
        base: What the times in the journal count from, in milliseconds since the epoch; 0 if that is ``started``. It is
            another moment where a run begins with what another run has done.
        failures: How often the body has raised since a step finished last.
        attempt: Which attempt of the body this is, from 0.
        taken_over_until: Until when, on the body's clock, another run did what this one goes on from; -1: none did.
        moved_by: By how much that was earlier, in microseconds, once it is known.
        reruns: The ids of the runs of which this one is a rerun, the last one first; see ``Run.own_ids``.
        reopens: The listeners of that run that this one has to subscribe for itself.
        repeated: How many entries of the journal it has in common with the attempt before.
        begins_anew: Whether the next attempt of the body reads the time anew; see ``Journal.may_begin_anew``.
        calls: What the steps were called with that have begun, and that the next execution goes on with.
        scheduled: How often each step was scheduled.
        waits: What the body waits for, by step; the first element says whether it was in that wait.
        boxes: Subscriptions, and what came for them.
        cancelling: The topics of events that cancel the run.
        signals: Waits for signals.
        ended: Outcomes of invoked runs that came before their step was done, by workflow id.
        came: The ids of the last events that have come.
        is_cancelled: Whether the run was cancelled, and is told so again.
        began: When the first workflow task began, by the clock; where the run was recovered in its first execution.
        mailboxes: The mailboxes that a history has shown to be chosen for signals to send, by step.
        taken: The ids of activities and waits that look as if they had a number.
        invoked: The runs that a history has shown to be invoked, by workflow id, with the step that did, if known.
        reports_to: The runs that wait for the end of this one.
        size: About how many bytes the finished steps have here.
        json_size: The same as JSON, not compressed.
        warning: That there is nearly too much of it.
    """

    is_parked: bool
    is_indexed: bool = False
    held_until: float | None = pydantic.Field(default=None, allow_inf_nan=False)
    started: int = pydantic.Field(ge=0, le=MAX_MILLISECONDS)
    seed: str = pydantic.Field(pattern="^[0-9a-f]*$")
    attempt_began: int = 0
    memo: dict[str, Any] = {}
    past: list[Any] = []
    base: int = pydantic.Field(default=0, ge=0, le=MAX_MILLISECONDS)
    failures: int = 0
    attempt: int = 0
    repeated: int = 0
    taken_over_until: int = -1
    moved_by: int | None = None
    reruns: list[list[str]] = pydantic.Field(default=[], max_length=MAX_RERUNS)
    reopens: list[str] = []
    begins_anew: bool = True
    calls: dict[str, Any] = {}
    scheduled: dict[str, int] = {}
    waits: dict[str, tuple[bool, StoredWait]] = {}
    boxes: dict[str, Any] = {}
    cancelling: dict[str, list[str]] = {}
    signals: dict[str, Any] = {}
    ended: dict[str, Any] = {}
    came: list[str] = []
    is_cancelled: bool = False
    began: str | None = None
    mailboxes: dict[str, str] = {}
    taken: list[str] = []
    invoked: dict[str, str | None] = {}
    reports_to: list[dict[str, str]] = []
    size: int = 0
    json_size: int = 0
    warning: str = ""

    @pydantic.field_validator("began")
    @classmethod
    def _is_a_time(cls, began: str | None) -> str | None:
        if began is not None:
            datetime.fromisoformat(began)
        return began

    def raw(self, is_stored: Callable[[], bool]) -> RawValue:
        """As an argument of the next execution, compressed where it is large.

        Args:
            is_stored: Whether what is over Temporal's limit goes into external storage; asked if this is. It is not
                compressed then: that takes longer than all else, of the little time that a workflow task has.
        """
        text = self.text()
        return pack(text) if is_packed(len(text), is_stored) else raw_text(text)

    def text(self) -> bytes:
        """As JSON."""
        return dumps(self.model_dump(mode="json", exclude_defaults=True))


def is_packed(size: int, is_stored: Callable[[], bool]) -> bool:
    """Return whether a state of this size is compressed; see :meth:`Carried.raw`."""
    is_small, is_large = size < _COMPRESS_FROM, size > MAX_UNPACKED_BYTES
    return not (is_small or is_large or (size > MAX_PAYLOAD_BYTES and is_stored()))


def pack(text: bytes) -> RawValue:
    """Return a state as a compressed argument."""
    return to_raw({"zlib": base64.b64encode(zlib.compress(text)).decode()})


def read_run_state(data: JSON) -> RunState | None:
    """Return the state that the previous execution handed over; None in the first execution.

    Raises:
        ValueError: Somebody has made it up.
    """
    if data is None:
        return None
    packed = data.get("zlib") if isinstance(data, dict) else None
    if isinstance(packed, str):
        data = unpack_json(base64.b64decode(packed))
    carried = RunState.model_validate(data)
    if not _is_whole(carried):
        raise ValueError("it has entries that no run writes")
    return carried


def read_recovery(message: JSON) -> tuple[RunState, int] | None:
    """Return the state that a history has shown, and the number of earlier signals that it includes.

    None if a signal of that name brings anything else.
    """
    if not isinstance(message, dict):
        return None
    try:
        carried = read_run_state(message.get("carried"))
    except Exception:
        return None
    known = message.get("signals", 0)
    return (carried, known) if carried is not None and isinstance(known, int) else None


def _is_whole(carried: RunState) -> bool:
    return (
        all(is_outcome(outcome) for outcome in carried.memo.values())
        and all(is_entry(entry) for entry in carried.past)
        and (not carried.seed or is_seed(carried.seed))
    )


def is_seed(text: str) -> bool:
    """Return whether a value can seed random numbers: a number in hexadecimal."""
    try:
        int(text, 16)
    except ValueError:
        return False
    return True


def memo_json(outcome: Outcome) -> JSON:
    """A finished step as JSON: what :func:`outcome_json` makes of it, with the description of its call."""
    encoded = outcome_json(outcome)
    if outcome.call is None:
        return encoded
    call = outcome.call.json()
    return [*encoded, call] if isinstance(encoded, list) else {**encoded, "call": call}


def outcome_json(outcome: Outcome) -> JSON:
    """An outcome as JSON: ``[value]``, or an object that describes the failure."""
    failure = outcome.failure
    if failure is None:
        return [outcome.value]
    return {
        "name": failure.name,
        "message": failure.message,
        "stack": failure.stack,
        "attempts": failure.attempts,
        "cause": None if failure.cause is None else _cause_text(failure.cause),
    }


def read_outcome(data: Any) -> Outcome:
    """The inverse of :func:`memo_json` and of :func:`outcome_json`."""
    if isinstance(data, list):
        return Outcome(data[0], call=Call.read(data[1]) if len(data) > 1 else None)
    cause = data.get("cause")
    return Outcome(
        failure=Failure(
            data["name"],
            data["message"],
            data.get("stack", ""),
            data.get("attempts", 0),
            None if cause is None else _read_cause(cause),
        ),
        call=Call.read(data.get("call")),
    )


_LARGEST_OUTCOME = MAX_PAYLOAD_BYTES - 4 * 1024  # beside the ids of two runs


def packed_outcome(outcome: JSON, *, is_stored: bool) -> JSON:
    """Return an outcome as one run hands it to another: compressed, if it is too large for a payload of Temporal's.

    A result is stored as plain JSON, with the exact value compressed beside it where JSON does not say it all. An
    outcome has both as JSON.

    Args:
        outcome: What :func:`outcome_json` returned.
        is_stored: Whether what is over Temporal's limit goes into external storage.
    """
    if is_stored or len(text := dumps(outcome)) <= _LARGEST_OUTCOME:
        return outcome
    return {"zlib": base64.b64encode(zlib.compress(text)).decode()}


def unpacked_outcome(data: JSON) -> JSON:
    """Return what :func:`packed_outcome` was given.

    Raises:
        ValueError: It cannot be read.
    """
    packed = data.get("zlib") if isinstance(data, dict) else None
    return unpack_json(base64.b64decode(packed)) if isinstance(packed, str) else data


def is_outcome(data: JSON) -> bool:
    """Return whether :func:`read_outcome` can read a value."""
    try:
        failure = read_outcome(data).failure
    except Exception:
        return False
    return failure is None or all(isinstance(text, str) for text in (failure.name, failure.message, failure.stack))


def _cause_text(cause: BaseException) -> str:
    message = FailureMessage()
    DataConverter.default.failure_converter.to_failure(cause, DataConverter.default.payload_converter, message)
    return base64.b64encode(message.SerializeToString()).decode()


def _read_cause(text: str) -> BaseException:
    message = FailureMessage.FromString(base64.b64decode(text))
    return DataConverter.default.failure_converter.from_failure(message, DataConverter.default.payload_converter)
