"""Checks of what a user defines: ids, numbers, durations, handlers, schemas and triggers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pydantic
from temporalio.api.common.v1 import RetryPolicy as RetryPolicyMessage
from temporalio.common import RetryPolicy

from .closures.code import unwrapped
from .durations import parse_duration
from .errors import DefinitionError, InvalidArgumentError
from .triggers import CronTrigger, EventTrigger, Trigger
from .values.converter import issues, validate
from .values.type_names import shown, type_label

MAX_ID_BYTES = 255
"""Two ids and the id of an event make one of Temporal's ids of 1,000 bytes."""

MAX_TRIGGERS = 10
"""Inngest's limit."""

_OF_VALUES = ("value_error", "assertion_error")
"""Pydantic's names for what a validator of the user's rejects; other values may pass."""


def check_id(value: object, what: str, *, max_bytes: int = MAX_ID_BYTES) -> str:
    """An id of an app, workflow, run or step: any text that fits into Temporal's ids."""
    if not isinstance(value, str):
        raise DefinitionError(f"{what} is {shown(value)} ({type_label(type(value))}); ids are strings")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise DefinitionError(
            f"{what} is {shown(value)}, which contains half of a surrogate pair; ids are valid Unicode"
        ) from None
    if not value.strip():
        raise DefinitionError(f"{what} is {value!r}; an id cannot be empty")
    if size > max_bytes:
        raise DefinitionError(f"{what} is {shown(value)} with {size:,} bytes in UTF-8; an id has at most {max_bytes:,}")
    if "\0" in value:
        raise DefinitionError(f"{what} is {shown(value)}; an id cannot contain a NUL")
    return value


def check_id_argument(value: object, what: str, *, max_bytes: int = MAX_ID_BYTES) -> str:
    """An id that a method was called with; see :func:`check_id`.

    Raises:
        InvalidArgumentError: It cannot be an id.
    """
    try:
        return check_id(value, what, max_bytes=max_bytes)
    except DefinitionError as err:
        raise InvalidArgumentError(str(err)) from None


def check_max_attempts(value: object, where: str) -> int:
    """A number of attempts in all, at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise DefinitionError(f"max_attempts of {where} is {value!r}; it counts all attempts, so the minimum is 1")
    return value


def check_revision(value: object, where: str) -> int | None:
    """Return a revision: a whole number that is not negative, also as text; or None."""
    if value is None:
        return None
    text = value if isinstance(value, str) else str(value) if type(value) is int else ""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise DefinitionError(f"{where} is {value!r}; it takes a whole number, such as that of the CI's build: 1042")
    return int(text)


def check_park_after(value: object, where: str) -> timedelta | None:
    """A duration of at least a second, or None for ``"never"``."""
    if value == "never":
        return None
    try:
        return parse_duration(value, what="park_after", minimum=timedelta(seconds=1))
    except (TypeError, ValueError) as err:
        raise DefinitionError(f'{where}: {err}; or "never"') from None


def check_heartbeat_timeout(value: object, where: str) -> timedelta:
    """Return a duration of at least a second."""
    return _duration(value, "heartbeat_timeout", where, timedelta(seconds=1))


def check_code_timeout(value: object, where: str) -> timedelta:
    """Return a duration."""
    return _duration(value, "code_timeout", where, timedelta(0))


def _duration(value: object, what: str, where: str, minimum: timedelta) -> timedelta:
    try:
        return parse_duration(value, what=what, minimum=minimum)
    except (TypeError, ValueError) as err:
        raise DefinitionError(f"{where}: {err}") from None


def check_retry(value: object, where: str) -> RetryPolicy:
    """A Temporal retry policy that leaves the count to ``max_attempts``."""
    if not isinstance(value, RetryPolicy):
        raise DefinitionError(f"retry of {where} is {value!r}; it takes a steporal.RetryPolicy")
    if value.maximum_attempts:
        raise DefinitionError(
            f"retry of {where} has maximum_attempts={value.maximum_attempts}; set max_attempts={value.maximum_attempts}"
        )
    try:
        value.apply_to_proto(RetryPolicyMessage())
    except ValueError as err:
        raise DefinitionError(f"retry of {where}: {err}") from None
    return value


def check_handler(handler: object, workflow_id: str) -> None:
    """An ``async def`` of two positional parameters."""
    where = f"the handler of workflow {workflow_id!r}"
    if not callable(handler):
        raise DefinitionError(f"{where} is {handler!r}; decorate an `async def handler(ctx, step)`")
    if unwrapped(handler) is None:
        raise DefinitionError(
            f"{where} is {handler!r} ({type_label(type(handler))}), which has no name to be found by; decorate an "
            "`async def handler(ctx, step)` and call the other from it"
        )
    name = getattr(handler, "__qualname__", repr(handler))
    if inspect.isasyncgenfunction(inspect.unwrap(handler)):
        raise DefinitionError(f"{where}, {name!r}, yields, which a workflow cannot do; return its result instead")
    if not inspect.iscoroutinefunction(inspect.unwrap(handler)):
        raise DefinitionError(f"{where}, {name!r}, is not async; write `async def {name}(ctx, step)`")
    parameters = inspect.signature(handler).parameters.values()
    kinds = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    positional = [p for p in parameters if p.kind in kinds]
    required = [p for p in parameters if p.default is p.empty and p.kind is not inspect.Parameter.VAR_POSITIONAL]
    if len(positional) != 2 or any(p.kind not in kinds for p in required):
        raise DefinitionError(
            f"{where}, {name!r}, takes ({', '.join(str(p) for p in parameters)}); it is called with two "
            f"arguments: `async def {name}(ctx: Context[...], step: Step)`"
        )
    first, second = positional
    if first.name == "step" or second.name in ("ctx", "context"):
        raise DefinitionError(
            f"{where}, {name!r}, takes ({first}, {second}), but it is called with the context first; swap them: "
            f"`async def {name}({second}, {first})`"
        )


def check_schema(schema: Any, workflow_id: str) -> None:
    """Anything that ``pydantic.TypeAdapter`` takes."""
    if schema is None or (isinstance(schema, type) and issubclass(schema, pydantic.BaseModel)):
        return
    try:
        if isinstance(schema, str):
            raise TypeError("a string may name a type, but it is not one")
        pydantic.TypeAdapter(schema)
    except Exception as err:
        raise DefinitionError(
            f"input_schema of workflow {workflow_id!r} is {shown(schema)}; it takes a pydantic model "
            f"or any type that pydantic.TypeAdapter does: {err}"
        ) from None


def check_triggers(triggers: object, workflow_id: str, input_schema: Any = None) -> tuple[Trigger, ...]:
    """A list of triggers without repetitions, whose cron triggers fit the input schema."""
    where = f"triggers of workflow {workflow_id!r}"
    if isinstance(triggers, str | EventTrigger | CronTrigger) or not isinstance(triggers, Sequence):
        raise DefinitionError(f"{where} is {triggers!r}; it takes a list: triggers=[event_trigger('order.placed')]")
    for trigger in triggers:
        if not isinstance(trigger, EventTrigger | CronTrigger):
            raise DefinitionError(f"{where} has {trigger!r}; write event_trigger(...) or cron_trigger(...)")
    repeated = next((t for i, t in enumerate(triggers) if t in triggers[:i]), None)
    if repeated is not None:
        raise DefinitionError(f"{where} has {repeated!r} twice")
    if len(triggers) > MAX_TRIGGERS:
        raise DefinitionError(
            f"workflow {workflow_id!r} has {len(triggers)} triggers; a workflow has at most {MAX_TRIGGERS}"
        )
    crons = [trigger for trigger in triggers if isinstance(trigger, CronTrigger)]
    for position, cron in enumerate(crons):
        if cron.described in (other.described for other in crons[:position]):
            raise DefinitionError(f"{where} has the schedule {cron.described!r} twice, with different jitter; keep one")
        _check_cron_input(cron, input_schema, workflow_id)
    return tuple(triggers)


def _check_cron_input(cron: CronTrigger, input_schema: Any, workflow_id: str) -> None:
    """Check that the data of a run that a schedule starts can fit the input schema."""
    if input_schema is None:
        return
    moment = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    try:
        validate({"cron": cron.schedule, "scheduledAt": moment, "fireAt": moment}, input_schema)
    except pydantic.ValidationError as err:
        if any(issue["type"] in _OF_VALUES for issue in err.errors()):
            return
        raise DefinitionError(
            f"workflow {workflow_id!r} has cron_trigger({cron.schedule!r}), whose runs have the data "
            f"{{'cron', 'scheduledAt', 'fireAt'}}, and an input_schema that it never fits: {issues(err)}; "
            "allow both in the input_schema (Order | CronTick), or define a separate workflow for the schedule"
        ) from None
    except Exception:  # a validator of the user's that does not take the sample says nothing about other values
        return
