"""Where events are delivered to outside Temporal: sinks, as a client defines them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from temporalio.common import RetryPolicy

from ..durations import parse_duration
from ..errors import DefinitionError
from ..http import Secret
from ..triggers import EventTrigger, event_trigger
from ..validation import MAX_TRIGGERS, check_id, check_retry
from .addresses import is_plainly_private
from .checks import check_header_value, check_headers, check_url, origin_of
from .signatures import check_secret

EVERY_EVENT = "*"
"""The pattern of all events but the system's; of sinks alone."""

SINK_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=5), backoff_coefficient=2.0, maximum_interval=timedelta(hours=1)
)


@dataclass(frozen=True, slots=True)
class Webhook:
    """A URL that is sent events as Standard Webhooks (https://www.standardwebhooks.com)."""

    url: str
    secret: str | Secret | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class InngestSink:
    """An Inngest server, or another gateway of Steporal: what ``client.event_sink`` forwards events to.

    An event keeps its id, name, data and time, so that Inngest starts each of its functions once for it, as Temporal
    does. Events that came from Inngest, which their ids say by starting with ``inngest:``, are not sent back.

    Example:
        ``client.event_sink("*", InngestSink(steporal.secret("INNGEST_EVENT_KEY")))``

    Attributes:
        event_key: Inngest's event key; as a :func:`~steporal.secret`, of the worker's environment.
        base_url: Where its event API is, such as ``http://127.0.0.1:8288`` for its dev server.
    """

    event_key: str | Secret = field(repr=False)
    base_url: str = "https://inn.gs"


@dataclass(frozen=True, slots=True)
class EventSink:
    """A sink, as ``client.event_sink`` returns it.

    Attributes:
        id: Its id, which is the Temporal workflow type of its deliveries.
        triggers: Which events it delivers.
        target: Where to.
        headers: Headers of its own.
        timeout: Of one attempt.
        give_up_after: How long to try.
        retry: The backoff between attempts.
        allow_private: Whether addresses of private networks are allowed.
    """

    id: str
    triggers: tuple[EventTrigger, ...]
    target: Webhook | InngestSink
    headers: dict[str, str | Secret]
    timeout: timedelta
    give_up_after: timedelta
    retry: RetryPolicy
    allow_private: bool

    @property
    def is_bridge(self) -> bool:
        """Whether events that came from the system that it forwards to are left out."""
        return isinstance(self.target, InngestSink)

    @property
    def origin(self) -> str:
        """Scheme, host and port that it delivers to; the rest of a URL may be secret."""
        return origin_of(check_url(_url_of(self.target)))


def define_sink(
    app: str,
    events: str | Sequence[str],
    to: str | InngestSink,
    *,
    secret: str | Secret | None,
    id: str | None,
    if_exp: str | None,
    headers: Any,
    timeout: Any,
    give_up_after: Any,
    retry: RetryPolicy | None,
    allow_private: bool,
) -> EventSink:
    """What ``client.event_sink`` was called with, checked.

    Raises:
        DefinitionError: Something cannot be right.
    """
    patterns = [events] if isinstance(events, str) else events
    where = f"event_sink({events!r})"
    if id is not None:
        where = f"event_sink {check_id(id, 'the id of an event_sink')!r}"
    try:
        if not isinstance(allow_private, bool):
            raise TypeError(f"allow_private is {allow_private!r}; it takes True or False")
        triggers = _triggers(patterns, if_exp)
        target = _target(to, secret, allow_private)
        ours = ("content-type", "host", "webhook-")
        return EventSink(
            id=_default_id(app, patterns, target) if id is None else id,
            triggers=triggers,
            target=target,
            headers=check_headers(headers or {}, ours=ours),
            timeout=parse_duration(timeout, what="timeout", minimum=timedelta(milliseconds=1)),
            give_up_after=parse_duration(give_up_after, what="give_up_after", minimum=timedelta(seconds=1)),
            retry=SINK_RETRY if retry is None else check_retry(retry, "the sink"),
            allow_private=allow_private,
        )
    except (ValueError, TypeError) as err:
        raise DefinitionError(f"{where}: {err}") from None


def _triggers(patterns: Sequence[str], if_exp: str | None) -> tuple[EventTrigger, ...]:
    if not isinstance(patterns, Sequence) or not 0 < len(patterns) <= MAX_TRIGGERS:
        raise ValueError(f"events is {patterns!r}; it takes a name or pattern, or 1 to {MAX_TRIGGERS} of them")
    return tuple(_trigger(pattern, if_exp) for pattern in patterns)


def _trigger(pattern: str, if_exp: str | None) -> EventTrigger:
    if pattern != EVERY_EVENT:
        return event_trigger(pattern, if_exp)
    return EventTrigger(EVERY_EVENT, event_trigger("any", if_exp).if_exp)


def _target(to: object, secret: str | Secret | None, allow_private: bool) -> Webhook | InngestSink:
    if isinstance(to, str):
        if secret is not None:
            check_secret(secret)
        _check_target_url(to, "url", allow_private)
        return Webhook(to, secret)
    if not isinstance(to, InngestSink):
        raise TypeError(f"to is {to!r}; it takes a URL, or InngestSink(...)")
    if secret is not None:
        raise ValueError("secret signs what is sent to a URL; InngestSink(...) has an event_key")
    _check_event_key(to.event_key)
    if _check_target_url(to.base_url, "base_url", allow_private).query:
        raise ValueError("base_url has a query; it takes what stands before '/e/{key}'")
    return to


def _check_event_key(key: object) -> None:
    check_header_value(key, "event_key")
    if isinstance(key, str) and not key:
        raise ValueError("event_key is empty; an Inngest dev server takes any, such as 'dev'")


def _check_target_url(url: str, what: str, allow_private: bool) -> Any:
    parts = check_url(url, what)
    if not allow_private and is_plainly_private(parts.hostname or ""):
        raise ValueError(
            f"{what} leads to {parts.hostname!r}, which is not a public address of the internet; "
            "to allow addresses of your own network: allow_private=True"
        )
    return parts


def _url_of(target: Webhook | InngestSink) -> str:
    return target.url if isinstance(target, Webhook) else target.base_url


def _default_id(app: str, patterns: Sequence[str], target: Webhook | InngestSink) -> str:
    """An id that people recognise, and that no other app has, or an event would be delivered by one of them alone.

    It has no slash, which ends ids of workflows in ids of runs.
    """
    host = check_url(_url_of(target)).hostname
    text = f"{app}: {' '.join(patterns)} to {host}".replace("/", ".")
    if len(text) <= 200:
        return text
    return f"{text[:180]} {hashlib.sha256(text.encode()).hexdigest()[:12]}"
