"""The step that makes an HTTP request, in a run."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from ..http import FetchRequest, FetchResponse

if TYPE_CHECKING:
    from .attempt import Attempt


def fetch(attempt: Attempt, key: str, request: FetchRequest) -> Coroutine[Any, Any, FetchResponse]:
    """Perform ``step.ext.fetch``."""
    raise NotImplementedError
