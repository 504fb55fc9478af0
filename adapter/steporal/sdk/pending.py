"""What a run waits for in Temporal, counted."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Task
from collections.abc import Callable
from typing import Any


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


def waits_for_a_future(task: Task[Any]) -> bool:
    """Whether a task waits, unlike one that was lost as the SDK interrupted a workflow task: nothing wakes that one."""
    return task._fut_waiter is not None  # type: ignore[attr-defined]


def is_idle(loop: AbstractEventLoop, *, conditions: int) -> bool:
    """Whether only the world outside can wake a run: no task of it can go on, and nothing of Temporal's is in flight.

    Args:
        loop: The run's event loop.
        conditions: The number of calls of ``wait_condition`` that do not count.
    """
    instance = vars(loop)
    return (
        are_only(loop, timers=0, children=0)
        and not instance["_pending_external_signals"]
        and not instance["_pending_external_cancels"]
        and len(instance["_conditions"]) <= conditions
        and not instance["_ready"]
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
