"""Temporal workflow of a sink: one run for each event, with one activity that is retried until the event is delivered.

The activity receives the sink's id but not its contents. So neither secrets nor URLs are in Temporal's history, and the
next attempt of waiting deliveries uses a corrected sink.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, TimeoutError

from ..durations import format_duration
from ..errors import InvalidInputError
from ..metrics import SINK_DELIVERIES
from ..observability.run_metrics import count
from ..sdk.any_arguments import of_any_count
from ..types import JSON
from ..values.converter import to_raw
from ..wire.failures import failure_of, is_cancellation
from ..wire.limits import shortened, summary
from ..wire.names import POST_EVENT, START_SIGNAL
from ..wire.start import Origin, argument_json, origin_of
from ..workflow_kinds import of_kind

if TYPE_CHECKING:
    from .sinks import EventSink


_HEARTBEAT_TIMEOUT = timedelta(seconds=30)
_MARGIN = timedelta(seconds=10)

_NONE = to_raw(None)


def delivery_class(sink: EventSink) -> type:
    """Return the Temporal workflow class of a sink's deliveries. It runs unsandboxed, as it contains no user code."""

    class Delivery:
        async def run(self, data: RawValue = _NONE, added: RawValue = _NONE) -> RawValue:
            origin, payload = _arguments(data, added)
            if origin.type != "event":
                raise ApplicationError(f"sink {sink.id!r} can only be started by events", non_retryable=True)
            if (delay := origin.time() - workflow.now()) > timedelta(0):
                await workflow.sleep(delay, summary=f"until the event's ts, {origin.time().isoformat()}")
            event = {"name": origin.name, "data": payload, "id": origin.id, "ts": origin.ts, "v": origin.v}
            return await _counted(sink, event)

        @workflow.signal(name=START_SIGNAL, description="An event was sent again that has started this run.")
        @of_any_count
        def event(self, message: RawValue) -> None:
            """Do nothing: the run was started by the event."""

    Delivery.__doc__ = f"Delivers events to {sink.origin}."
    Delivery.__module__ = __name__
    of_kind("delivery")(Delivery)
    Delivery.__qualname__ = "Delivery"
    Delivery.run.__qualname__ = "Delivery.run"
    workflow.run(Delivery.run)
    return workflow.defn(name=sink.id, sandboxed=False)(Delivery)


def _arguments(data: RawValue, added: RawValue) -> tuple[Origin, JSON]:
    """Return the arguments of a delivery, which anybody can start, with any arguments.

    Raises:
        ApplicationError: The arguments cannot be read, which fails the run; another error would fail its task, for
            ever.
    """
    try:
        origin = origin_of(added, workflow.info().workflow_id)
        return origin, argument_json(data, "the data of the event")
    except InvalidInputError as err:
        raise ApplicationError(str(err), type=InvalidInputError.__name__, non_retryable=True) from None


def _last_failure(error: ActivityError) -> FailureError:
    """Return the failure of the last attempt if Temporal reports that the time is over."""
    timeout = error.cause
    if isinstance(timeout, TimeoutError) and isinstance(timeout.cause, ApplicationError):
        return timeout.cause
    return error


async def _counted(sink: EventSink, event: dict[str, object]) -> RawValue:
    try:
        delivered = await _deliver(sink, event)
    except ApplicationError:
        count(lambda meter: SINK_DELIVERIES.add(meter, outcome="failed"))
        raise
    except (ActivityError, asyncio.CancelledError):
        count(lambda meter: SINK_DELIVERIES.add(meter, outcome="cancelled"))
        raise
    count(lambda meter: SINK_DELIVERIES.add(meter, outcome="delivered"))
    return delivered


async def _deliver(sink: EventSink, event: dict[str, object]) -> RawValue:
    try:
        delivered: RawValue = await workflow.execute_activity(
            POST_EVENT,
            to_raw({"sink": sink.id, "event": event}),
            result_type=RawValue,
            # An attempt may have to wait for other requests to the same host.
            start_to_close_timeout=2 * sink.timeout + _MARGIN,
            schedule_to_close_timeout=sink.give_up_after,
            heartbeat_timeout=_HEARTBEAT_TIMEOUT,
            retry_policy=sink.retry,
            summary=summary(f"POST {sink.origin}"),
        )
        return delivered
    except ActivityError as err:
        if is_cancellation(err):
            raise
        failure = failure_of(_last_failure(err))
        message = (
            f"event {event['name']!r} with id {event['id']!r} was not delivered "
            f"(attempts: {failure.attempts or 'unknown'}, for at most {format_duration(sink.give_up_after)}): "
            f"{failure.message}"
        )
        raise ApplicationError(
            shortened(message), {"attempts": failure.attempts}, type=failure.name, non_retryable=True
        ) from err
