"""What events of a history mean for a run."""

from __future__ import annotations

from typing import Any

from simulation.history import LOCAL_ACTIVITY, History, payload, payloads
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.converter import DataConverter

from steporal.history.reading import FactReader
from steporal.history.recovery import rebuild
from steporal.history.timeline import Timeline
from steporal.wire.names import COMES_BACK, FIND_END, FIND_MAILBOX


def started() -> History:
    """The history of a run whose body was executed once."""
    history = History()
    history.add(
        0,
        "workflow_execution_started",
        workflow_id="shop/order/1",
        input=payloads([payload(None), payload({})]),
        first_execution_run_id="run",
    )
    for what in ("scheduled", "started", "completed"):
        history.add(0, f"workflow_task_{what}")
    return history


def local_activity(history: History, activity: str, *, result: Any = None, failure: str | None = None) -> None:
    """Step ``tell`` has done something in the workflow's worker; its activity has an id that Temporal's core chose."""
    moment = {"seconds": 1, "nanos": 0}
    data = {"activity_type": activity, "activity_id": "1", "attempt": 1, "complete_time": moment}
    details = {"data": payloads([payload(data)])}
    failed = {}
    if failure is None:
        details["result"] = payloads([payload(result)])
    else:
        failed["failure"] = Failure(message=failure)
        failed["failure"].application_failure_info.type = "RPCError"
    event = history.add(0, "marker_recorded", marker_name=LOCAL_ACTIVITY, details=details, **failed)
    event.user_metadata.summary.CopyFrom(payload("tell"))


async def timeline_of(events: list[HistoryEvent]) -> Timeline:
    reader = FactReader(DataConverter.default)
    timeline = Timeline("shop/order/1", reader.values)
    for event in events:
        if (fact := await reader.read(event)) is not None:
            await timeline.add(fact)
    return timeline


async def test_a_signal_that_no_run_waits_for_is_shown_as_a_step() -> None:
    history = started()
    local_activity(history, FIND_MAILBOX, result=None)
    (step,) = (await timeline_of(history.events)).steps
    assert (step.id, step.kind, step.is_step, step.state) == ("tell", "send signal", True, "completed")


async def test_a_step_that_fails_in_its_first_half_is_not_run_again_by_a_recovery() -> None:
    for activity in (FIND_MAILBOX, FIND_END):
        history = started()
        local_activity(history, activity, failure="not allowed")
        carried = (await rebuild(history.events, DataConverter.default)).carried
        assert carried.memo["tell"]["message"] == "not allowed", activity


async def test_a_timer_that_the_body_does_not_see_is_not_shown() -> None:
    history = started()
    event = history.add(0, "timer_started", timer_id="1")
    event.user_metadata.summary.CopyFrom(payload(COMES_BACK))
    assert (await timeline_of(history.events)).steps == []
