"""What a run waits for in Temporal, counted."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable


def are_only(loop: AbstractEventLoop, *, timers: int, children: int) -> bool:
    """Whether a run has this many timers and invoked runs in flight, and nothing else.

    The SDK has no public way to ask; its workflow instance, which is the event loop of the run, keeps a list of each.
    """
    instance = vars(loop)
    return (
        len(instance["_pending_timers"]) == timers
        and len(instance["_pending_child_workflows"]) == children
        and not instance["_pending_activities"]
        and not instance["_pending_nexus_operations"]
    )


def is_condition_met(loop: AbstractEventLoop, *, but: Callable[[], bool]) -> bool:
    """Return whether a task of a run waits by ``workflow.wait_condition`` for a condition that holds now.

    Args:
        loop: The run's.
        but: A condition that does not count.
    """
    return any(
        condition is not but and not future.done() and condition() for condition, future in vars(loop)["_conditions"]
    )
