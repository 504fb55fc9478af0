"""Errors of operations.

::

    SteporalError
    └── OperationError                    an operation that was not done, because of the state of a run or of Temporal
        ├── NoSuchRunError                an id that no run has
        ├── TooLargeError                 what a rerun from a step would keep is too large, or has been kept too often
        ├── QueryRefusedError             a condition that Temporal does not accept
        └── RequestError (ValueError)     arguments that are not valid
            ├── UnindexedEventError       a filter by event where the namespace has no search attributes
            └── HoldTooShortError         a checkpoint whose first runs would resume before the last ones are parked
"""

from __future__ import annotations

from datetime import timedelta

from ..durations import format_duration
from ..errors import SteporalError


class OperationError(SteporalError):
    """An operation that was not done, because of the state of a run or of Temporal."""


class NoSuchRunError(OperationError):
    """An id that no run has."""


class TooLargeError(OperationError):
    """A rerun from a step that would keep more than a run can begin with. A rerun from the beginning keeps nothing."""


class QueryRefusedError(OperationError):
    """A condition that Temporal does not accept.

    Attributes:
        where: The condition, in the query language of Temporal's visibility.
        reason: The reason that Temporal gives.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"Temporal does not accept the condition {where!r}: {reason}")
        self.where = where
        self.reason = reason


class RequestError(OperationError, ValueError):
    """Arguments that are not valid. Nothing was done."""


class UnindexedEventError(RequestError):
    """A filter by event, for an operation on many runs, where the namespace has no search attributes."""

    def __init__(self, namespace: str) -> None:
        super().__init__(
            f"runs cannot be selected by event: namespace {namespace!r} does not have the search attributes; "
            "`steporal setup` registers them, for runs that start from then on"
        )
        self.namespace = namespace


class HoldTooShortError(RequestError):
    """A checkpoint whose first runs would resume before the last ones are parked."""

    def __init__(self, hold: timedelta, timeout: timedelta) -> None:
        super().__init__(
            f"the hold, {format_duration(hold)}, is not longer than the timeout, {format_duration(timeout)}: runs "
            "would resume before all are parked"
        )
        self.hold = hold
        self.timeout = timeout
