"""Pending operations of a run in Temporal."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Task
from collections.abc import Callable
from typing import Any


def are_only(loop: AbstractEventLoop, *, timers: int, children: int) -> bool:
    """Return whether a run has this many timers and invoked runs in flight, and nothing else.

    The SDK has no public API for this; its workflow instance, which is the event loop of the run, keeps a list of each.
    """
    instance = vars(loop)
    return (
        len(instance["_pending_timers"]) == timers
        and len(instance["_pending_child_workflows"]) == children
        and not instance["_pending_activities"]
        and not instance["_pending_nexus_operations"]
    )


def waits_for_a_future(task: Task[Any]) -> bool:
    """Return whether a task waits for a future; one that was lost in an interrupted workflow task does not."""
    return task._fut_waiter is not None  # type: ignore[attr-defined]


def is_idle(loop: AbstractEventLoop, *, conditions: int) -> bool:
    """Return whether a run can only be woken from outside: no task can continue, and no command is in flight.

    Args:
        loop: The run's event loop.
        conditions: The number of calls of ``wait_condition`` to ignore.
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
    """Return whether a task of a run waits in ``workflow.wait_condition`` for a condition that now holds.

    Args:
        loop: The run's event loop.
        but: A condition to ignore.
    """
    return any(
        condition is not but and not future.done() and condition() for condition, future in vars(loop)["_conditions"]
    )
