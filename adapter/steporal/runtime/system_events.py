"""Events that a run sends when it ends, as in Inngest: ``inngest/function.finished``, ``.failed``, ``.cancelled``.

They are sent before the run ends, for as long as it takes. Failures and cancellations are always sent; that a run has
finished, only if somebody listens, as it costs every run an activity. Runs that such an event started send nothing, or
they would start themselves. (https://www.inngest.com/docs/reference/system-events/inngest-function-failed)
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ApplicationError

from ..events import MAX_EVENT_BYTES, SYSTEM_EVENTS, ReceivedEvent, derived_ulid
from ..types import JSON
from ..values.converter import from_raw, to_raw
from ..wire.limits import summary
from ..wire.names import SEND_EVENT
from .identity import RunIdentity, run_id

Ending = Literal["finished", "failed", "cancelled"]

_FOREVER = RetryPolicy(maximum_interval=timedelta(minutes=1))
_LEFT_OUT = "more than an event can have; it is in Temporal's history of the run"


async def send_finished(run: RunIdentity, result: RawValue) -> None:
    """Send that a run has finished, if somebody listens or the run does not know."""
    if run.origin.listened is not False:
        await _send(run, "finished", {"result": from_raw(result)}, local=run.origin.listened is None)


async def send_failed(run: RunIdentity, error: ApplicationError, stack: str) -> None:
    """Send that a run fails, and with what."""
    name, message = error.type or "Error", error.message
    described = {"error": f"{name}: {message}", "name": name, "message": message, "stack": stack}
    await _send(run, "failed", {"error": described})


async def send_cancelled(run: RunIdentity) -> None:
    """Send that a run is cancelled."""
    await _send(run, "cancelled", {})


async def _send(run: RunIdentity, ending: Ending, more: dict[str, JSON], *, local: bool = False) -> None:
    if run.origin.name in SYSTEM_EVENTS:
        return
    event = _event(run, ending, more).model_dump(mode="json")
    what = summary(f"send inngest/function.{ending}")
    if local:
        await workflow.execute_local_activity(
            SEND_EVENT,
            to_raw({"events": [event]}),
            result_type=RawValue,
            start_to_close_timeout=timedelta(minutes=1),
            retry_policy=_FOREVER,
            summary=what,
        )
        return
    await workflow.execute_activity(
        SEND_EVENT,
        to_raw({"events": [event]}),
        result_type=RawValue,
        start_to_close_timeout=timedelta(days=1),
        heartbeat_timeout=timedelta(seconds=30),
        retry_policy=_FOREVER,
        summary=what,
    )


def _event(run: RunIdentity, ending: Ending, more: dict[str, JSON]) -> ReceivedEvent:
    now = int(workflow.now().timestamp() * 1000)
    data = {
        "function_id": f"{run.app}-{run.workflow}",
        "workflow": run.workflow,
        "app": run.app,
        "run_id": run_id(),
        "workflow_id": workflow.info().workflow_id,
        "event": run.event,
        "events": [run.event],
        **more,
    }
    # A run ends once, however often it sends this. As in Inngest, the id of a failure is the run's.
    id = derived_ulid(run.started, run_id(), ending) if ending == "finished" else run_id()
    event = ReceivedEvent(name=f"inngest/function.{ending}", data=data, id=id, ts=now)
    if len(event.model_dump_json()) > MAX_EVENT_BYTES:
        slim = {**run.event, "data": {"left_out": _LEFT_OUT}}
        data |= {"event": slim, "events": [slim]}
        if "result" in data:
            data["result"] = {"left_out": _LEFT_OUT}
        event = event.model_copy(update={"data": data})
    return event
