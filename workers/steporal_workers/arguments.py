"""Values on the command line: JSON, times and numbers, checked before anything slow is imported."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from .problems import Mistake
from .usage import of_text_for_json


def read_json(text: str, option: str) -> Any:
    """Return the JSON of an option: its text, ``@file``, or standard input if it is ``-``.

    Raises:
        Mistake: It is not valid JSON; the message has the position.
    """
    source = option
    if text == "-":
        text, source = sys.stdin.read(), f"{option} (standard input)"
    elif text.startswith("@"):
        path = Path(text[1:])
        try:
            text, source = path.read_text(encoding="utf-8"), f"{option} ({path})"
        except (OSError, UnicodeDecodeError) as err:
            raise Mistake(f"{option}: {path} cannot be read: {err}") from None
    try:
        return json.loads(text, parse_constant=_reject_constant)
    except json.JSONDecodeError as err:
        around = text[max(err.pos - 20, 0) : err.pos + 20].replace("\n", " ")
        hint = of_text_for_json(text) if source == option else ""
        raise Mistake(
            f"{source} is not valid JSON: {err.msg} at line {err.lineno}, column {err.colno}, near {around!r}{hint}"
        ) from None
    except (ValueError, RecursionError) as err:
        raise Mistake(f"{source} is not valid JSON: {err}") from None


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number in JSON")


def parse_ts(text: str | None) -> int | None:
    """Return milliseconds since the epoch, from a number or an ISO 8601 time with a time zone.

    Raises:
        Mistake: The text is neither.
    """
    if text is None:
        return None
    if text.lstrip("-").isdecimal():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise Mistake(
            f"--ts is {text!r}; use milliseconds since the epoch, or a time such as 2030-01-31T09:00:00+01:00"
        )
    return int(moment.timestamp() * 1000)


def duration(text: str) -> timedelta:
    """Parse a duration such as ``30s``."""
    from steporal.durations import parse_duration

    try:
        return parse_duration(text)
    except ValueError:
        raise click.BadParameter(f'{text!r} is not a duration; write "30s", "5m" or "1h30m"') from None


def whole_number(minimum: int, maximum: int | None = None) -> Callable[[str | int], int]:
    """Return the type of an option that takes a whole number in a range."""
    takes = f"a number from {minimum} to {maximum}" if maximum is not None else f"a number of at least {minimum}"

    def number(text: str | int) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum or (maximum is not None and value > maximum):
            raise click.BadParameter(f"{text!r} is not valid; it takes {takes}")
        return value

    return number
