"""Errors of histories that cannot be read as a run's."""

from __future__ import annotations

from ..errors import SteporalError


class HistoryError(SteporalError):
    """History of a native workflow, or one that contains something that no worker of Steporal writes."""
