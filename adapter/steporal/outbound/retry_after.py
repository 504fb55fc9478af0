"""Parsing of ``Retry-After``: seconds, or a date (https://www.rfc-editor.org/rfc/rfc9110#field.retry-after)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime


def retry_after(header: str | None, now: datetime, longest: timedelta) -> timedelta:
    """Return the time to wait, from 0 to ``longest``; 0 if the header is missing or not valid."""
    if header is None:
        return timedelta(0)
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(timedelta(seconds=int(text[:9])), longest)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return timedelta(0)
    if until.tzinfo is None:  # the zone is "-0000"
        until = until.replace(tzinfo=UTC)
    return min(max(until - now, timedelta(0)), longest)
