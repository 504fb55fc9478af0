"""Conversion of an event to the request that delivers it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from ..events import ReceivedEvent
from ..values.converter import dumps
from .exchange import Request
from .secrets import revealed
from .signatures import signatures

if TYPE_CHECKING:
    from .sinks import EventSink, InngestSink, Webhook

Headers = list[tuple[str, str]]


def post_of(sink: EventSink, event: ReceivedEvent, now: datetime) -> Request:
    """Return the request that delivers an event to a sink, with its secrets.

    Raises:
        SecretNotFoundError: This process does not have a secret.
    """
    from .sinks import Webhook

    body = dumps(event.model_dump(mode="json", exclude_none=True))
    what = f"sink {sink.id!r}"
    headers: Headers = [(name, revealed(value, f"header {name!r} of {what}")) for name, value in sink.headers.items()]
    headers.append(("content-type", "application/json"))
    if isinstance(sink.target, Webhook):
        url = sink.target.url
        headers += _webhook_headers(sink.target, event, body, now, what)
    else:
        url = _inngest_url(sink.target, what)
    return Request(
        method="POST",
        url=url,
        headers=headers,
        content=body,
        timeout=sink.timeout,
        max_response_bytes=0,
        shown=sink.origin,
    )


def _webhook_headers(target: Webhook, event: ReceivedEvent, body: bytes, now: datetime, what: str) -> Headers:
    id = webhook_id(event.id)
    headers = [("webhook-id", id), ("webhook-timestamp", str(int(now.timestamp())))]
    if target.secret is not None:
        signed = signatures(target.secret, id=id, at=now.astimezone(UTC), body=body, what=what)
        headers.append(("webhook-signature", signed))
    return headers


def webhook_id(event_id: str) -> str:
    """Return an event's id for a header: unchanged if it is printable ASCII without blanks, or percent-encoded."""
    if event_id.isascii() and event_id.isprintable() and " " not in event_id:
        return event_id
    return quote(event_id, safe="")


def _inngest_url(target: InngestSink, what: str) -> str:
    key = revealed(target.event_key, f"the event key of {what}")
    return f"{target.base_url.rstrip('/')}/e/{quote(key, safe='')}"
