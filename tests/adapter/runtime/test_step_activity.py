"""What a run learns of the worker of a step by the last heartbeat of it, which anybody may have sent."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.exceptions import TimeoutError, TimeoutType

from steporal.activities.executions import Executions
from steporal.runtime.steps.activity import Attempts


def timed_out(details: Any) -> str | None:
    beat = TimeoutError("", type=TimeoutType.HEARTBEAT, last_heartbeat_details=[details])
    return Attempts(3, ()).count_heartbeat_timeout(beat, is_join=False)


def test_a_worker_is_asked_on_its_own_task_queue() -> None:
    own = Executions().task_queue
    assert timed_out({"worker": own, "attempt": 1}) == own


@pytest.mark.parametrize("worker", ["", "another-queue", f"steporal.worker/{'x' * 2_000}", 5])
def test_no_other_task_queue_is_asked(worker: Any) -> None:
    assert timed_out({"worker": worker, "attempt": 1}) is None
