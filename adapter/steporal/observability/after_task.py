"""Actions after a workflow task of a run that has not failed; a failing task is retried, for ever."""

from __future__ import annotations

from collections.abc import Callable

from temporalio import workflow

AFTER_TASK = "steporal.afterwards"
"""Name, among a run's extern functions, of the function that takes an :data:`Action`; absent without observers."""

Action = Callable[[], None]


class AfterTask:
    """Actions for the end of a run's workflow task, unless the task fails."""

    def __init__(self) -> None:
        self._actions: list[Action] = []

    def take(self, action: Action) -> None:
        """Add an action."""
        self._actions.append(action)

    def end_task(self, *, has_failed: bool) -> None:
        """Run the actions, or discard them."""
        for action in () if has_failed else self._actions:
            action()
        self._actions.clear()


def after_task(action: Action) -> None:
    """Run an action when this workflow task ends, from the code of a run; do nothing on replay."""
    take = workflow.extern_functions().get(AFTER_TASK)
    if take is not None and not workflow.unsafe.is_replaying():
        take(action)
