"""Arguments of a run's Temporal workflow: the input and its origin.

The first argument is the input as plain JSON, so that any client can start a run. The second, optional, is what
Steporal adds: the event that started the run, and the exact input where JSON does not express all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import cast

from temporalio import workflow
from temporalio.common import RawValue, SearchAttributeKey

from ..context import Input, InputExt, InputType
from ..errors import InvalidInputError, UnknownKeyError
from ..events import ReceivedEvent
from ..types import JSON
from ..values.converter import check_can_be_written, dumps, from_raw, is_nested_deeper, to_json, to_raw
from ..values.encrypted import check_readable
from .limits import MAX_MILLISECONDS, code, utc
from .workflow_ids import run_name

INVOKED = "inngest/function.invoked"
SCHEDULED = "inngest/scheduled.timer"

SCHEDULED_AT = SearchAttributeKey.for_datetime("TemporalScheduledStartTime")
_MAX_TEXT = 1_000
_MAX_NESTING = 500
"""Nesting limit of an argument. A value of 150 levels takes up to 450 levels of JSON."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Origin:
    """Event, schedule or call that started a run.

    Attributes:
        listened: Whether anything listens to ``inngest/function.finished``; None if the starter did not know.
        indexed: Whether the run must set its own search attributes, because its starter could not.
        exact: The exact input, encoded, if the first argument does not express all of it.
    """

    type: InputType
    id: str
    name: str
    ts: int | None = None
    v: str | None = None
    cron: str | None = None
    listened: bool | None = None
    indexed: bool | None = None
    exact: JSON = None

    @classmethod
    def of_event(cls, event: ReceivedEvent, listened: bool | None = None) -> Origin:
        return cls("event", event.id, event.name, event.ts, event.v, listened=listened)

    @classmethod
    def of_invoke(cls, id: str, listened: bool | None = None, exact: JSON = None) -> Origin:
        return cls("invoke", id, INVOKED, listened=listened, exact=exact)

    def arguments(self, data: JSON) -> list[RawValue]:
        """Return the two arguments of the Temporal workflow."""
        added = {field.name: getattr(self, field.name) for field in fields(self)}
        return [to_raw(data), to_raw({key: value for key, value in added.items() if value is not None})]

    @classmethod
    def of_run(cls, added: object, workflow_id: str) -> Origin:
        """Return the origin of the current run; a run that a foreign client started has only its input.

        Fields that Steporal's starters never write are ignored.
        """
        name = run_name(workflow_id)
        fallback = name.event_id if name else workflow_id
        options: Mapping[str, JSON] = added if isinstance(added, Mapping) else {}
        kind = options.get("type")
        if kind not in ("event", "cron", "invoke"):
            kind = "invoke"
        ts, listened, indexed = options.get("ts"), options.get("listened"), options.get("indexed")
        return cls(
            cast(InputType, kind),
            _text(options.get("id")) or fallback,
            _text(options.get("name")) or (SCHEDULED if kind == "cron" else INVOKED),
            ts if type(ts) is int and 0 <= ts <= MAX_MILLISECONDS else None,
            _text(options.get("v")),
            _text(options.get("cron")),
            listened if isinstance(listened, bool) else None,
            indexed if isinstance(indexed, bool) else None,
            options.get("exact"),
        )

    def details(self) -> str:
        """Return a description of the start for Temporal's UI, in Markdown."""
        at = "" if self.ts is None else f", of {utc(self.ts / 1000)}"
        return f"Started by event {code(self.name)}, id {code(self.id)}{at}"

    def time(self) -> datetime:
        """Return the time when the event was sent, or the start of the run if unknown."""
        return _EPOCH + timedelta(milliseconds=self.ts) if self.ts is not None else workflow.info().start_time

    def input(self, data: JSON) -> Input[JSON]:
        """Return ``ctx.input`` before validation."""
        return Input(data, self.id, self.name, self.time(), self.type, InputExt(self.v, self.cron))


def cron_data(cron: str, began: datetime) -> dict[str, JSON]:
    """Return the data of a run that a schedule started, in Inngest's form: ``{cron, scheduledAt, fireAt}``."""
    scheduled = workflow.info().typed_search_attributes.get(SCHEDULED_AT) or began
    return {"cron": cron, "scheduledAt": scheduled.isoformat(), "fireAt": began.isoformat()}


def _text(value: JSON) -> str | None:
    """Return a text that may stand in a header, a search attribute and a message; None for any other value."""
    return value if isinstance(value, str) and len(value) <= _MAX_TEXT else None


def argument_json(raw: RawValue | object, what: str) -> JSON:
    """Return an argument of a run as JSON.

    Args:
        raw: The argument.
        what: The name of the argument, for the message.

    Raises:
        InvalidInputError: The argument is not JSON that a run can pass on: it is not JSON at all, is nested too deep,
            or contains NaN, infinity, or text that is not valid Unicode.
        UnknownKeyError: The argument is encrypted, and this process does not have the key.
    """
    try:
        data = payload_json(raw)
        text = raw.payload.data if isinstance(raw, RawValue) else dumps(data)
        check_can_be_written(data, text)
    except UnknownKeyError:
        raise
    except Exception as err:
        why = "nested too deep" if isinstance(err, RecursionError) else f"{type(err).__name__}: {str(err)[:200]}"
        raise InvalidInputError(f"{what} cannot be read: {why}") from None
    if is_nested_deeper(_MAX_NESTING, data, text):
        raise InvalidInputError(f"{what} is nested more than {_MAX_NESTING} levels deep")
    return data


def origin_of(added: RawValue | object, workflow_id: str) -> Origin:
    """Return the origin of the current run from the second argument of the run.

    Raises:
        InvalidInputError: The argument is not JSON that a run can pass on.
    """
    return Origin.of_run(argument_json(added, "the second argument of the run"), workflow_id)


def payload_json(raw: RawValue | object) -> JSON:
    """Return an argument as JSON; through the client's payload converter if the argument is not JSON already.

    The SDK ignores the types of a workflow's parameters if the workflow was started with fewer arguments. It then
    passes what the payload converter made of the arguments.
    """
    if not isinstance(raw, RawValue):
        return to_json(raw)
    if raw.payload.metadata.get("encoding") == b"json/plain":
        return from_raw(raw)
    check_readable(raw.payload)
    return to_json(workflow.payload_converter().from_payload(raw.payload))
