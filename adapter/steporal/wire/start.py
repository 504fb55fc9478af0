"""What a run is started with: the two arguments of its Temporal workflow.

The first argument is the input as plain JSON, so that anyone can start a run. The second, optional, is what Steporal
adds: the event that started it, and the exact input where JSON does not say all of it.
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
"""How deep an argument may be nested. A value of 150 levels takes up to 450 of JSON."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Origin:
    """What started a run.

    Attributes:
        listened: Whether anybody listens to ``inngest/function.finished``; None if the starter did not know.
        indexed: Whether the run has to give itself search attributes, as its starter could not.
        exact: The exact input, encoded, where the first argument does not say all of it.
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
        """The two arguments of the Temporal workflow."""
        added = {field.name: getattr(self, field.name) for field in fields(self)}
        return [to_raw(data), to_raw({key: value for key, value in added.items() if value is not None})]

    @classmethod
    def of_run(cls, added: object, workflow_id: str) -> Origin:
        """The origin of the current run; one that a foreign client started has only its input.

        What no starter of ours writes is left out.
        """
        name = run_name(workflow_id)
        fallback = name.event_id if name else workflow_id
        given: Mapping[str, JSON] = added if isinstance(added, Mapping) else {}
        kind = given.get("type")
        if kind not in ("event", "cron", "invoke"):
            kind = "invoke"
        ts, listened, indexed = given.get("ts"), given.get("listened"), given.get("indexed")
        return cls(
            cast(InputType, kind),
            _text(given.get("id")) or fallback,
            _text(given.get("name")) or (SCHEDULED if kind == "cron" else INVOKED),
            ts if type(ts) is int and 0 <= ts <= MAX_MILLISECONDS else None,
            _text(given.get("v")),
            _text(given.get("cron")),
            listened if isinstance(listened, bool) else None,
            indexed if isinstance(indexed, bool) else None,
            given.get("exact"),
        )

    def details(self) -> str:
        """What Temporal's UI says of the start, in Markdown."""
        at = "" if self.ts is None else f", of {utc(self.ts / 1000)}"
        return f"Started by event {code(self.name)}, id {code(self.id)}{at}"

    def time(self) -> datetime:
        """When the event was sent; the start of the run where nobody said."""
        return _EPOCH + timedelta(milliseconds=self.ts) if self.ts is not None else workflow.info().start_time

    def input(self, data: JSON) -> Input[JSON]:
        """What the handler finds in ``ctx.input``, before validation."""
        return Input(data, self.id, self.name, self.time(), self.type, InputExt(self.v, self.cron))


def cron_data(cron: str, began: datetime) -> dict[str, JSON]:
    """The data of a run that a schedule started, as Inngest has it: ``{cron, scheduledAt, fireAt}``."""
    scheduled = workflow.info().typed_search_attributes.get(SCHEDULED_AT) or began
    return {"cron": cron, "scheduledAt": scheduled.isoformat(), "fireAt": began.isoformat()}


def _text(value: JSON) -> str | None:
    """A text that may stand in a header, a search attribute and a message; None for what is none."""
    return value if isinstance(value, str) and len(value) <= _MAX_TEXT else None


def argument_json(raw: RawValue | object, what: str) -> JSON:
    """Return an argument of a run as JSON.

    Args:
        raw: The argument.
        what: What it is, for the message.

    Raises:
        InvalidInputError: It is not JSON that a run can hand on: no JSON at all, nested too deep, with NaN or
            infinity, or with text that is not Unicode.
        UnknownKeyError: It is encrypted, and this process does not have the key.
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
    """Return the origin of the current run, by the second argument that it was started with.

    Raises:
        InvalidInputError: The argument is not JSON that a run can hand on.
    """
    return Origin.of_run(argument_json(added, "the second argument of the run"), workflow_id)


def payload_json(raw: RawValue | object) -> JSON:
    """An argument as JSON; through the client's payload converter where it is not JSON already.

    The SDK ignores the types of a workflow's parameters where it was started with fewer arguments, and hands over what
    the payload converter made of them.
    """
    if not isinstance(raw, RawValue):
        return to_json(raw)
    if raw.payload.metadata.get("encoding") == b"json/plain":
        return from_raw(raw)
    check_readable(raw.payload)
    return to_json(workflow.payload_converter().from_payload(raw.payload))
