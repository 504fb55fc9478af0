"""The step that makes an HTTP request, in a run."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

from ...http import FetchRequest, FetchResponse
from ...outbound.checks import check_method, check_url
from ...outbound.fetching import FetchCall
from ...step import RunOptions
from ...wire.limits import to_limited
from ...wire.names import FETCH
from .arguments import arguments_checked
from .host import StepHost

_MARGIN = timedelta(seconds=10)
"""The activity ends a request by itself, with a message that says more than Temporal's timeout."""


def fetch(attempt: StepHost, key: str, request: FetchRequest) -> Coroutine[Any, Any, FetchResponse]:
    """Perform ``step.ext.fetch``."""
    with arguments_checked(key):
        check_method(request.method)
        check_url(request.url)
    sent = (request.headers, request.params, request.json, request.content)
    key = attempt.called(key, attempt.owner.call("fetch", f"{request.method} {request.url}", *sent, is_json=True))
    if key in attempt.owner.memo:
        return _response(attempt, key, None)
    with arguments_checked(key):
        most = attempt.owner.storage.size_limit
        call = FetchCall.of(key, request, most)
        options = RunOptions(max_attempts=request.max_attempts, timeout=timedelta(seconds=call.timeout) + _MARGIN)
        argument = {**call.model_dump(mode="json"), "call": attempt.described(key)}
        start = attempt.activity(key, options, FETCH, to_limited(f"the request of step {key!r}", argument, most))
    return _response(attempt, key, start)


async def _response(attempt: StepHost, key: str, start: Any) -> FetchResponse:
    outcome = await attempt.outcome(key, "fetch", start)
    return FetchResponse.model_validate(outcome.value)
