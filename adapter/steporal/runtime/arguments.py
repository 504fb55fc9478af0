"""Checks of what steps are called with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from temporalio import workflow

from ..durations import Duration, parse_deadline, parse_duration
from ..errors import InvalidArgumentError


@contextmanager
def arguments_checked(step_id: str) -> Iterator[None]:
    """Turns a ValueError or TypeError about an argument into one that names the step and fails the run at once."""
    try:
        yield
    except InvalidArgumentError:
        raise
    except (ValueError, TypeError) as err:
        raise InvalidArgumentError(f"step {step_id!r}: {err}") from None


def deadline_of(until: Duration | datetime, what: str) -> datetime:
    """A duration from now, or a time, as a time."""
    if isinstance(until, datetime):
        return parse_deadline(until, what=what)
    return workflow.now() + parse_duration(until, what=what)
