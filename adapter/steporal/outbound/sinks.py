"""Sinks: destinations outside of Temporal that events are delivered to."""

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
"""Pattern of all events except system events; valid only in sinks."""

SINK_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=5), backoff_coefficient=2.0, maximum_interval=timedelta(hours=1)
)


@dataclass(frozen=True, slots=True)
class Webhook:
    """URL that receives events as Standard Webhooks (https://www.standardwebhooks.com)."""

    url: str
    secret: str | Secret | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class InngestSink:
    """Inngest server, or another Steporal gateway, that ``client.event_sink`` forwards events to.

    An event keeps its id, name, data and time, so that Inngest, like Temporal, starts each of its functions once for
    the event. Events that came from Inngest, whose ids start with ``inngest:``, are not sent back.

    Example:
        ``client.event_sink("*", InngestSink(steporal.secret("INNGEST_EVENT_KEY")))``

    Attributes:
        event_key: Inngest's event key; as a :func:`~steporal.secret`, it is read from the worker's environment.
        base_url: The base URL of its event API, such as ``http://127.0.0.1:8288`` for its dev server.
    """

    event_key: str | Secret = field(repr=False)
    base_url: str = "https://inn.gs"


@dataclass(frozen=True, slots=True)
class EventSink:
    """Sink that ``client.event_sink`` returns.

    Attributes:
        id: The sink's id, which is the Temporal workflow type of its deliveries.
        triggers: The triggers for the events that it delivers.
        target: The destination.
        headers: The user's additional headers.
        timeout: The timeout of one attempt.
        give_up_after: The time after which a delivery fails.
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
        """True if the sink forwards to Inngest, and so skips events that came from there."""
        return isinstance(self.target, InngestSink)

    @property
    def origin(self) -> str:
        """Scheme, host and port of the destination; the rest of a URL may be secret."""
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
    """Return the checked sink for a call of ``client.event_sink``.

    Raises:
        DefinitionError: An argument is not valid.
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
        raise ValueError("secret is only for URLs; InngestSink(...) has an event_key")
    _check_event_key(to.event_key)
    if _check_target_url(to.base_url, "base_url", allow_private).query:
        raise ValueError("base_url contains a query; it takes the part before '/e/{key}'")
    return to


def _check_event_key(key: object) -> None:
    check_header_value(key, "event_key")
    if isinstance(key, str) and not key:
        raise ValueError("event_key is empty; an Inngest dev server takes any, such as 'dev'")


def _check_target_url(url: str, what: str, allow_private: bool) -> Any:
    parts = check_url(url, what)
    if not allow_private and is_plainly_private(parts.hostname or ""):
        raise ValueError(
            f"{what} leads to {parts.hostname!r}, which is not a public internet address; "
            "to allow addresses of your own network: allow_private=True"
        )
    return parts


def _url_of(target: Webhook | InngestSink) -> str:
    return target.url if isinstance(target, Webhook) else target.base_url


def _default_id(app: str, patterns: Sequence[str], target: Webhook | InngestSink) -> str:
    """Return an id that people recognize, and that is unique to the app, so that another app also gets each event.

    The id has no slash, because a slash ends a workflow's id in the ids of runs.
    """
    host = check_url(_url_of(target)).hostname
    text = f"{app}: {' '.join(patterns)} to {host}".replace("/", ".")
    if len(text) <= 200:
        return text
    return f"{text[:180]} {hashlib.sha256(text.encode()).hexdigest()[:12]}"
