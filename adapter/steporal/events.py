"""Events: their models, names and ids, and the checks before they are sent."""

from __future__ import annotations

import difflib
import enum
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import PurePath
from typing import Any, ClassVar, NamedTuple, TypeAlias
from uuid import UUID

import pydantic
from pydantic import BaseModel, ConfigDict, Field
from ulid import ULID

from .errors import EventTooLargeError, InvalidEventError, UnencryptedSecretError, UnserializableError
from .types import JSON
from .values.converter import copied
from .values.encoding import encode
from .values.type_names import shown, type_label
from .wire.workflow_ids import workflow_id_of

MAX_EVENT_BYTES = 512 * 1024
"""Size limit of one event, as in Inngest by default."""

MAX_EVENTS = 5_000
"""Limit of events in one call, as in Inngest."""

MAX_NAME_LENGTH = 512
MAX_NAME_BYTES = 900
"""Limit in UTF-8: a topic's id contains the name, and Temporal limits ids to 1,000 bytes."""

MAX_EVENT_ID_BYTES = 400
MAX_NESTING = 100
"""Nesting limit of data. A run holds the data inside other values, which may have 150 levels."""

MAX_LEVELS = 16
"""Limit of dots and slashes in a pattern: an event is matched by a pattern for each of its name's first 16."""

RESERVED_PREFIXES = ("inngest/", "steporal/")
"""Prefixes of events that only the system sends."""

FINISHED = "inngest/function.finished"
FAILED = "inngest/function.failed"
CANCELLED = "inngest/function.cancelled"

SYSTEM_EVENTS = (FINISHED, FAILED, CANCELLED)
"""Events that the system sends when runs end; workflows may start on them, and runs may wait for them."""

EARLIEST_MS, LATEST_MS = 315_532_800_000, 4_102_444_800_000
"""Range of valid event times: 1980, as in Inngest, to 2100."""

_MAX_INT_BITS = 14_000  # Python neither prints nor parses integers of more than 4,300 digits

_FIELDS = ("name", "data", "id", "ts", "v")

_SECRET_INSIDE = (
    "it contains a secret, which model_dump writes as asterisks: send the other fields, and a name by which to look "
    "up the secret"
)


class SentEvent(BaseModel):
    """An event to send. A dict with the same keys works as well.

    Attributes:
        name: The event's name, such as ``order.placed``; names that start with ``inngest/`` or ``steporal/`` are
            reserved.
        data: A JSON object.
        id: The event's id; each workflow starts at most one run for an id. A new ULID by default.
        ts: The time of the event, in milliseconds since the epoch; now by default. A time in the future delays the
            runs that the event starts until then.
        v: Any version of the data.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    name: str
    data: dict[str, Any] = Field(default_factory=dict)
    id: str | None = None
    ts: int | None = None
    v: str | None = None


class ReceivedEvent(BaseModel):
    """An event as a run receives it: the fields of :class:`SentEvent`, all set except ``v``."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    name: str
    data: dict[str, Any]
    id: str
    ts: int
    v: str | None = None


class StartedRun(BaseModel):
    """A run that an event started.

    Attributes:
        app: The app that defines the workflow.
        workflow: The workflow's id.
        workflow_id: The run's Temporal workflow id, for ``client.get_run``.
        event_id: The event's id.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    app: str
    workflow: str
    workflow_id: str
    event_id: str

    @classmethod
    def of(cls, app: str, workflow: str, event_id: str) -> StartedRun:
        """Return the run of a workflow that an event starts."""
        return cls(app=app, workflow=workflow, workflow_id=workflow_id_of(app, workflow, event_id), event_id=event_id)


class SendEventResult(BaseModel):
    """Outcome of sending events.

    Attributes:
        ids: The events' ids, in the order of the events.
        runs: The runs that the events started, in the order of the events. They include runs that an earlier event
            with the same id started.
        awaited: The ids of the events whose name a run waits for, or has waited for in the last ten minutes, with
            ``wait_for_event``, ``listen`` or ``cancel_on``. Of these runs, an event reaches those whose expression is
            true for it.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    ids: list[str]
    runs: list[StartedRun] = Field(default_factory=list)
    awaited: list[str] = Field(default_factory=list)


EventLike: TypeAlias = SentEvent | Mapping[str, Any]


# --- ids -----------------------------------------------------------------------------------------------------------


def new_ulid() -> str:
    """Return a new ULID. It reads the clock, so it must not be called in a workflow."""
    return str(ULID())


def derived_ulid(timestamp_ms: int, *parts: str | int) -> str:
    """Return a ULID that depends only on the arguments: its random bits are the first 80 of a SHA-256 of ``parts``."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return str(ULID.from_bytes(timestamp_ms.to_bytes(6, "big") + digest[:10]))


# --- names ---------------------------------------------------------------------------------------------------------


def check_event_name(name: object, *, pattern: bool) -> str:
    """Return a valid event name; with ``pattern``, the name may end with a wildcard: ``order.*``, ``app/*``.

    Raises:
        ValueError: The name is not valid, or is reserved.
    """
    if not isinstance(name, str):
        raise ValueError(f"name is {shown(name)} ({type_label(type(name))}); event names are strings")
    if not name or name != name.strip():
        raise ValueError(f"name is {name!r}; an event name cannot be empty, or start or end with a space")
    if not _is_text(name):
        raise ValueError(f"name is {shown(name)}, which contains a lone surrogate, so it is not valid Unicode")
    if "\0" in name:
        raise ValueError(f"name is {shown(name)}; a name cannot contain a NUL")
    if len(name) > MAX_NAME_LENGTH:
        raise ValueError(f"name is {name[:40]!r}… with {len(name)} characters; the maximum is {MAX_NAME_LENGTH}")
    if (size := _bytes(name)) > MAX_NAME_BYTES:
        raise ValueError(f"name is {name[:40]!r}… with {size} bytes in UTF-8; the maximum is {MAX_NAME_BYTES}")
    if pattern and name in SYSTEM_EVENTS:
        return name
    if name.startswith(RESERVED_PREFIXES):
        prefix = name[: name.index("/") + 1]
        raise ValueError(f"name is {name!r}; names that start with {prefix!r} are reserved for system events")
    if "*" in name and pattern and (name.count("*") > 1 or not name.endswith((".*", "/*")) or len(name) < 3):
        raise ValueError(f"name is {name!r}; put the wildcard at the end, after '.' or '/': 'order.*', 'app/*'")
    if "*" in name and not pattern:
        raise ValueError(f"name is {name!r}; only triggers can have wildcards")
    if "*" in name and name.count(".") + name.count("/") > MAX_LEVELS:
        raise ValueError(f"name is {name!r}; a pattern has at most {MAX_LEVELS} dots and slashes")
    return name


def wildcard_prefix(pattern: str) -> str | None:
    """Return the prefix of the names that a pattern matches, or None for a plain name."""
    return pattern[:-1] if pattern.endswith("*") else None


def event_matches(pattern: str, name: str) -> bool:
    """Return whether a trigger's name or pattern, checked by :func:`check_event_name`, matches an event name."""
    prefix = wildcard_prefix(pattern)
    return name == pattern if prefix is None else name.startswith(prefix)


# --- what can be sent ----------------------------------------------------------------------------------------------


def prepare_events(
    events: object,
    *,
    new_id: Callable[[int], str],
    now_ms: int,
    max_bytes: int = MAX_EVENT_BYTES,
    max_count: int = MAX_EVENTS,
) -> list[ReceivedEvent]:
    """Return the complete events to send, after checking all of them.

    Args:
        events: One event or several.
        new_id: Returns the id for an event without one, by its position.
        now_ms: The ``ts`` for events without one.
        max_bytes: The size limit of one event, as JSON in UTF-8.
        max_count: The limit of events.

    Raises:
        InvalidEventError: An event cannot be sent; the message has its position, its name and the field.
    """
    if isinstance(events, SentEvent | Mapping):
        return [_prepare(events, "event", 0, new_id, now_ms, max_bytes)]
    if isinstance(events, str | bytes) or not isinstance(events, Sequence):
        raise InvalidEventError(
            f"an event is {shown(events)}; it takes a SentEvent or a dict with a name, or a list of them"
        )
    if len(events) > max_count:
        raise InvalidEventError(f"{len(events):,} events in one call; the maximum is {max_count:,}")
    return [_prepare(event, f"event {i}", i, new_id, now_ms, max_bytes) for i, event in enumerate(events)]


def ids_of_sender(events: EventLike | Sequence[EventLike]) -> list[tuple[str | None, int | None]]:
    """Return the id and the ``ts`` that the sender set on each event that :func:`prepare_events` has prepared."""
    all_events = [events] if isinstance(events, SentEvent | Mapping) else events
    fields = (_fields(event, "event") for event in all_events)
    return [(each.get("id"), each.get("ts")) for each in fields]


def _prepare(
    event: object, label: str, position: int, new_id: Callable[[int], str], now_ms: int, max_bytes: int
) -> ReceivedEvent:
    fields = _fields(event, label)
    try:
        name = check_event_name(fields["name"], pattern=False)
    except KeyError:
        raise InvalidEventError(f"{label} has no name; an event is {{'name': 'order.placed', 'data': {{…}}}}") from None
    except ValueError as err:
        raise InvalidEventError(f"{label}: {err}") from None
    label = f"{label} ({name!r})"
    data = fields.get("data")
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise InvalidEventError(f"{label}: data is {shown(data)}; it takes a JSON object, which is a dict")
    check_json(data, "data", label)
    event_id, ts, v = fields.get("id"), fields.get("ts"), fields.get("v")
    if event_id is not None and not (
        isinstance(event_id, str)
        and _is_text(event_id)
        and 0 < _bytes(event_id) <= MAX_EVENT_ID_BYTES
        and "\0" not in event_id
    ):
        raise InvalidEventError(
            f"{label}: id is {shown(event_id)}; ids are strings of 1 to {MAX_EVENT_ID_BYTES} bytes in UTF-8, without a "
            "NUL"
        )
    if ts is not None and (type(ts) is not int or not EARLIEST_MS <= ts <= LATEST_MS):
        raise InvalidEventError(
            f"{label}: ts is {shown(ts)}; it takes an int of milliseconds since the epoch, 1980 to 2100"
        )
    if v is not None and not (isinstance(v, str) and _is_text(v)):
        raise InvalidEventError(f"{label}: v is {shown(v)}; versions are strings of valid Unicode")
    prepared = ReceivedEvent.model_construct(
        name=name,
        data=copied(data),  # a snapshot: a step may send it later
        id=new_id(position) if event_id is None else event_id,
        ts=now_ms if ts is None else ts,
        v=v,
    )
    size = _bytes(json.dumps(prepared.__dict__, ensure_ascii=False, separators=(",", ":")))
    if size > max_bytes:
        raise EventTooLargeError(
            f"{label} has {size:,} bytes of JSON; the maximum is {max_bytes:,}. "
            "Store the data elsewhere, and send a reference to it"
        )
    return prepared


def unknown_field(name: object) -> str | None:
    """Return the end of a message about a field that events do not have, or None for a field that they have."""
    if not isinstance(name, str):
        return f"; the fields of an event are {', '.join(_FIELDS)}"
    if name in _FIELDS:
        return None
    close = difflib.get_close_matches(str(name)[:100], _FIELDS, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{hint}; the fields of an event are {', '.join(_FIELDS)}"


def _fields(event: object, label: str) -> Mapping[str, Any]:
    if isinstance(event, SentEvent):
        return {name: getattr(event, name) for name in _FIELDS if hasattr(event, name)}
    if not isinstance(event, Mapping):
        raise InvalidEventError(f"{label} is {shown(event)}; it takes a SentEvent or a dict with a name")
    for key in event:
        if unknown := unknown_field(key):
            raise InvalidEventError(f"{label} has the unknown key {shown(key)}{unknown}")
    return event


def check_json(value: JSON, path: str, label: str) -> None:
    """Check that a value can be sent as JSON.

    Args:
        value: The value.
        path: The path of the value, for the message.
        label: The event that contains the value, for the message.

    Raises:
        InvalidEventError: The value cannot be sent; the message has the path.
    """
    _check_json(value, _Place(path, None), label, 0)


class _Place(NamedTuple):
    """Path of a value, as a linked list: a string for each part would cost the length of all keys for each value."""

    part: str | int
    within: _Place | None

    def __str__(self) -> str:
        parts: list[str] = []
        place: _Place | None = self
        while place is not None:
            part = place.part
            parts.append(f"[{part}]" if isinstance(part, int) else part if place.within is None else f".{part}")
            place = place.within
        return "".join(map(_shortened, reversed(parts)))


def _check_json(value: JSON, place: _Place, label: str, depth: int) -> None:
    kind = type(value)
    if value is None or kind is str or kind is bool or kind is int:
        if kind is str and not _is_text(value):
            raise InvalidEventError(f"{label}: {place} contains a lone surrogate, so it is not valid Unicode")
        if kind is int and value.bit_length() > _MAX_INT_BITS:
            raise InvalidEventError(f"{label}: {place} is an integer of thousands of digits; send it as a string")
        return
    if depth > MAX_NESTING:
        raise InvalidEventError(
            f"{label}: {_shortened(str(place))} is nested more than {MAX_NESTING} deep, or contains itself"
        )
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or not _is_text(key):
                raise InvalidEventError(f"{label}: {place} has the key {shown(key)}; JSON keys are strings")
            _check_json(item, _Place(key, place), label, depth + 1)
    elif kind is list or kind is tuple:
        for i, item in enumerate(value):
            _check_json(item, _Place(i, place), label, depth + 1)
    elif kind is float:
        if not math.isfinite(value):
            raise InvalidEventError(f"{label}: {place} is {value!r}, which is not valid JSON")
    else:
        raise InvalidEventError(
            f"{label}: {place} is {shown(value)}, a {kind.__module__}.{kind.__qualname__}, "
            f"which is not valid JSON; {_advice(value)}"
        )


def _shortened(path: str) -> str:
    return path if len(path) <= 60 else f"{path[:60]}…"


def _advice(value: object) -> str:
    if isinstance(value, pydantic.BaseModel):
        return _SECRET_INSIDE if _has_secret(value) else "write .model_dump(mode='json')"
    if isinstance(value, pydantic.SecretStr | pydantic.SecretBytes | pydantic.Secret):
        return "send a name by which to look up the secret"
    if isinstance(value, enum.Enum):
        return "write .value"
    if isinstance(value, Decimal | UUID | PurePath):
        return "write str(...)"
    if isinstance(value, bytes):
        return "encode it in Base64"
    if hasattr(value, "isoformat"):
        return "write .isoformat()"
    if isinstance(value, set | frozenset):
        return "write sorted(...) or list(...)"
    return "convert it to strings, numbers, lists and dicts"


def _has_secret(model: pydantic.BaseModel) -> bool:
    try:
        encode(model)
    except UnencryptedSecretError:
        return True
    except UnserializableError:
        return False
    return False


def _is_text(text: str) -> bool:
    return text.isascii() or text.encode("utf-8", "replace") == text.encode("utf-8", "surrogatepass")


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
