"""What a run has done, as its history tells it piece by piece."""

from __future__ import annotations

from typing import Any

from simulation.history import History, payload, payloads
from temporalio.api.common.v1 import ActivityType, RetryPolicy
from temporalio.api.enums.v1 import TimeoutType
from temporalio.api.failure.v1 import Failure
from temporalio.converter import DataConverter

from steporal.history.recovery import rebuild
from steporal.history.state.recovered_state import RecoveredState
from steporal.wire.names import BACKOFF_AFTER, BEGINS_ANEW, JOIN_STEP, RUN_STEP, WORKER_TASK_QUEUE
from steporal.wire.run_state import RunState


def test_a_step_that_sends_more_has_not_ended_before_the_attempt_that_began_meanwhile() -> None:
    past = RecoveredState("run", "shop/order/1", RunState(is_parked=False, started=0, seed=""), is_first=True)
    past.task_done()
    past.timer_started(5, f"{BACKOFF_AFTER}1 of the body{BEGINS_ANEW}", 1.0)
    past.sent("mail")
    past.timer_fired(5)
    past.task_started(1_000_000_000)
    past.task_done()
    past.sends_more("mail")
    carried = past.carried()
    assert (carried.past, carried.attempt, carried.repeated) == ([], 1, 0)


def scheduled(history: History, kind: str, activity_id: str, argument: Any, attempts: int) -> int:
    """An activity of step ``pay`` was scheduled."""
    event = history.add(
        0,
        "activity_task_scheduled",
        activity_id=activity_id,
        activity_type=ActivityType(name=kind),
        input=payloads([payload(argument)]),
        retry_policy=RetryPolicy(maximum_attempts=attempts),
    )
    event.user_metadata.summary.CopyFrom(payload("pay"))
    return event.event_id


def timed_out(history: History, activity: int, kind: str, attempt: int | None = None) -> None:
    """The worker of an activity was lost, whose last heartbeat named an attempt."""
    failure = Failure(message="timed out")
    if attempt is not None:
        named = payload({"worker": f"{WORKER_TASK_QUEUE}1", "attempt": attempt})
        failure.timeout_failure_info.last_heartbeat_details.CopyFrom(payloads([named]))
    failure.timeout_failure_info.timeout_type = TimeoutType.Value(f"TIMEOUT_TYPE_{kind}")
    history.add(0, "activity_task_timed_out", scheduled_event_id=activity, failure=failure)


async def test_a_step_that_was_cancelled_and_begins_anew_has_all_of_its_attempts() -> None:
    history = History()
    history.add(
        0,
        "workflow_execution_started",
        workflow_id="shop/order/1",
        input=payloads([payload(None), payload({})]),
        first_execution_run_id="run",
    )
    history.add(0, "workflow_task_scheduled")
    history.add(0, "workflow_task_started")
    history.add(0, "workflow_task_completed")
    timed_out(history, scheduled(history, RUN_STEP, "pay", {"call": ["run"]}, 2), "HEARTBEAT")
    join = scheduled(history, JOIN_STEP, "pay#2", {"activity_id": "pay"}, 1)
    history.add(0, "activity_task_cancel_requested", scheduled_event_id=join)
    timed_out(history, scheduled(history, RUN_STEP, "pay#3", {"call": ["run"]}, 2), "HEARTBEAT")
    timed_out(history, scheduled(history, JOIN_STEP, "pay#4", {"activity_id": "pay#3"}, 1), "SCHEDULE_TO_START")
    rebuilt = await rebuild(history.events, DataConverter.default)
    assert (rebuilt.in_flight, rebuilt.carried.memo) == (("pay",), {})
    before = {"call": ["run"], "before": {"attempts": 1, "activity_id": "pay#3"}}
    timed_out(history, scheduled(history, RUN_STEP, "pay#5", before, 1), "HEARTBEAT")
    timed_out(history, scheduled(history, RUN_STEP, "pay#6", before, 1), "HEARTBEAT", attempt=2)
    timed_out(history, scheduled(history, JOIN_STEP, "pay#7", {"activity_id": "pay#3"}, 1), "SCHEDULE_TO_START")
    rebuilt = await rebuild(history.events, DataConverter.default)
    assert (rebuilt.in_flight, list(rebuilt.carried.memo)) == ((), ["pay"])
