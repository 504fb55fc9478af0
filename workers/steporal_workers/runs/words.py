"""Formatting of statuses, times and values."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from steporal.durations import format_duration
from steporal.history.timeline import State
from steporal.types import JSON

_RED = ("failed", "stuck", "terminated", "timed-out")
_COLOURS = {**dict.fromkeys(_RED, "red"), "completed": "green", "cancelled": "yellow"}


def status_text(status: str) -> str:
    """Return a status in its colour."""
    colour = _COLOURS.get(status)
    return f"[{colour}]{status}[/]" if colour else status


def mark(state: State) -> str:
    """Return the symbol for the state of a step."""
    return {"completed": "[green]✓[/]", "failed": "[red]✗[/]", "running": "…"}.get(state, "[yellow]-[/]")


def clock(moment: datetime | None) -> str:
    """Return a time in this machine's time zone, for people."""
    return "-" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def iso(moment: datetime | None) -> str | None:
    """Return a time in ISO 8601, for programs."""
    return None if moment is None else moment.astimezone(UTC).isoformat()


def took(duration: timedelta) -> str:
    """Return a duration, for people."""
    seconds = duration.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 60 else format_duration(timedelta(seconds=round(seconds)))


def short(value: JSON, width: int) -> str:
    """Return a value as JSON in one line, cut to a width."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split()) if isinstance(value, str) else text
    return text if len(text) <= width else text[: width - 1] + "…"
