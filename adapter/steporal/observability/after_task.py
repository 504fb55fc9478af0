"""What others are told of a run when its workflow task has not failed: one that fails is tried again, for ever."""

from __future__ import annotations

from collections.abc import Callable

from temporalio import workflow

AFTERWARDS = "steporal.afterwards"
"""The name, among a run's extern functions, of what takes an :data:`Action`; it is there where somebody is told."""

Action = Callable[[], None]


class Afterwards:
    """What is to be done when a run's workflow task is over, unless it has failed."""

    def __init__(self) -> None:
        self._actions: list[Action] = []

    def take(self, action: Action) -> None:
        """Remember it."""
        self._actions.append(action)

    def end_task(self, *, has_failed: bool) -> None:
        """Do what is remembered, or forget it."""
        for action in () if has_failed else self._actions:
            action()
        self._actions.clear()


def afterwards(action: Action) -> None:
    """Do something when this workflow task is over, in the code of a run; nothing on replay."""
    take = workflow.extern_functions().get(AFTERWARDS)
    if take is not None and not workflow.unsafe.is_replaying():
        take(action)
