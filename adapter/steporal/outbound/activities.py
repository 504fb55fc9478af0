"""Activities that make HTTP requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from temporalio import activity
from temporalio.common import RawValue

from ..activities.executions import Executions
from ..activities.reporting import alive, counted, failing
from ..closures.calls import call_metadata
from ..errors import NonRetryableError
from ..events import ReceivedEvent
from ..metrics import SINK_ATTEMPTS
from ..observability.tracing import is_traced
from ..types import JSON
from ..values.converter import from_raw, to_raw
from ..wire.limits import to_limited
from ..wire.names import FETCH, POST_EVENT
from ..wire.step_activities import BEFORE
from ..wire.storage import size_limit_with
from .addresses import addresses_of, public_addresses_of
from .exchange import Addresses, Answer, Request, exchange, phrase
from .fetching import FetchCall, response_of
from .host_slots import HostSlots
from .posts import post_of
from .problems import DeliveryRefusedError, HttpStatusError, SinkNotFoundError
from .retry_after import retry_after

if TYPE_CHECKING:
    from .sinks import EventSink

LONGEST_OF_A_FETCH = timedelta(days=1)
LONGEST_OF_A_DELIVERY = timedelta(hours=1)
"""Limits of ``Retry-After``; longer ones are cut. Temporal gives up at once if the next attempt would be too late."""

_TOO_MANY_REQUESTS = 429
_RETRIED_BY_SINKS = (408, 409, 425, _TOO_MANY_REQUESTS)


class HttpActivities:
    """Activities of ``step.ext.fetch`` and of sinks.

    Args:
        sinks: The app's sinks, by id.
        executions: Keeps track of the steps that run in this worker.
        slots: The number of steps that the worker runs at a time. Sinks use at most half, as receivers may not respond.
    """

    def __init__(self, sinks: Mapping[str, EventSink], executions: Executions, slots: int) -> None:
        self._sinks = sinks
        self._executions = executions
        self._slots = HostSlots(max(1, slots // 2))

    def all(self) -> list[Callable[..., Any]]:
        """Return the activities for a worker."""
        return [self.fetch, self.post_event]

    @activity.defn(name=FETCH)
    async def fetch(self, argument: RawValue) -> RawValue:
        """Make a request; any response except 429 and 5xx is the result."""
        options = from_raw(argument)
        before = options.pop(BEFORE, {})
        call = FetchCall.read(options, size_limit_with(activity.client().data_converter))
        return await self._executions.run(call.step, before, lambda: self._fetch(call, options.get("call")))

    async def _fetch(self, call: FetchCall, description: JSON) -> RawValue:
        async with failing(description), counted():
            request = call.request()
            answer = await _exchanged(request)
            if answer.status == _TOO_MANY_REQUESTS or answer.status >= 500:
                raise _status_error(request, answer, LONGEST_OF_A_FETCH)
            response = response_of(answer)
            what, limit_for = f"the response of step {call.step!r}", size_limit_with(activity.client().data_converter)
            return to_limited(what, response.model_dump(mode="json"), limit_for, call_metadata(description))

    @activity.defn(name=POST_EVENT)
    async def post_event(self, argument: RawValue) -> RawValue:
        """Deliver an event to a sink."""
        options = from_raw(argument)
        async with alive(), failing(), _counted():
            sink = self._sink(options["sink"])
            async with self._slots.slot(sink.origin, activity.info().attempt):
                request = post_of(sink, ReceivedEvent.model_validate(options["event"]), datetime.now(UTC))
                addresses = addresses_of if sink.allow_private else public_addresses_of
                answer = await _exchanged(request, addresses, read=False)
            if 200 <= answer.status < 300:
                return to_raw({"status": answer.status, "attempts": activity.info().attempt})
            if answer.status in _RETRIED_BY_SINKS or answer.status >= 500:
                raise _status_error(request, answer, LONGEST_OF_A_DELIVERY)
            raise DeliveryRefusedError(_refused(request, answer))

    def _sink(self, id: str) -> EventSink:
        sink = self._sinks.get(id)
        if sink is None:
            raise SinkNotFoundError(
                f"this worker's code has no sink {id!r}; retrying, as another worker or the next deploy may have it"
            )
        return sink


@asynccontextmanager
async def _counted() -> AsyncIterator[None]:
    """Count an attempt of a delivery."""
    outcome = "failed"
    try:
        yield
        outcome = "delivered"
    except asyncio.CancelledError:
        outcome = "cancelled"
        raise
    except NonRetryableError:
        outcome = "refused"
        raise
    finally:
        SINK_ATTEMPTS.add(activity.metric_meter(), workflow_type=activity.info().workflow_type or "", outcome=outcome)


async def _exchanged(request: Request, addresses: Addresses | None = None, *, read: bool = True) -> Answer:
    """Make a request, with the current trace if there is one."""
    if not is_traced(activity.client()):
        return await exchange(request, addresses, read=read)
    from .request_spans import answered, request_span

    with request_span(request) as (span, traced):
        answer = await exchange(traced, addresses, read=read)
        answered(span, answer)
        return answer


def _status_error(request: Request, answer: Answer, longest: timedelta) -> HttpStatusError:
    delay = retry_after(answer.headers.get("retry-after"), datetime.now(UTC), longest)
    return HttpStatusError(f"{request.method} {request.shown} returned {phrase(answer.status)}", delay)


def _refused(request: Request, answer: Answer) -> str:
    message = f"{request.method} {request.shown} returned {phrase(answer.status)}"
    if 300 <= answer.status < 400:
        message += ", a redirect to another host or by another method, which sinks do not follow"
    return message
