"""``steporal runs rerun --from``: what a new run is given of one that has ended, by the command's own code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.client import WorkflowExecutionStatus

from steporal.history.story import Reader, Story
from steporal.operations.rerun import kept_before

from .history import value_of
from .recovering import FakeTemporal
from .service import START, Service, at_once


@dataclass(frozen=True, slots=True)
class Kept:
    """What a new run begins with.

    Attributes:
        step: The step from which on everything is done again.
        began: When that had begun, in seconds since the run's start.
        argument: What the new run is given.
    """

    step: str
    began: float
    argument: Any


@dataclass(frozen=True, slots=True)
class _Ended:
    """What the command uses of the description of a run that has ended."""

    id: str
    run_id: str
    status: WorkflowExecutionStatus = WorkflowExecutionStatus.COMPLETED
    workflow_type: str = "simulation"
    raw_description: DescribeWorkflowExecutionResponse = field(default_factory=DescribeWorkflowExecutionResponse)

    async def memo(self) -> Mapping[str, Any]:
        return {}


def kept(service: Service, position: int) -> Kept | None:
    """What a run that does everything again from a step on is given.

    Args:
        service: The run that has ended.
        position: Which step: one of those whose begin is in the history, in their order.
    """
    story = _story(service)
    steps = [entry for entry in story.timeline.steps if entry.is_step and entry.start is not None]
    if not steps:
        return None
    entry = steps[position % len(steps)]
    assert entry.start is not None
    carried = kept_before(story, entry.id)
    return Kept(entry.id, entry.start.timestamp() - START / 1e9, value_of(carried.raw(lambda: False).payload))


def _story(service: Service) -> Story:
    temporal: Any = FakeTemporal(service)
    described: Any = _Ended(service.workflow_id, service.execution.run_id)
    described.raw_description.workflow_execution_info.first_run_id = service.execution.first_run_id
    return at_once(Reader(temporal).read(described))
