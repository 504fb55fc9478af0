"""What a body logs with: a line is logged once, though the body runs from the top again and again.

A body runs from the top when Temporal replays it, in each execution that goes on with a run, and in each attempt. Where
it was before, its lines are held back:

- in an execution that goes on with the attempt of the one before, until the body has come to where it waited, or is
  given an outcome that no execution before has given it;
- in a new attempt, until it has come again to every finished step that an attempt before had come to, or is given an
  outcome that none before was given.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

from temporalio import workflow


class RunLogger(workflow.LoggerAdapter):
    """Temporal's logger, which is silent on replay; its lines have the attempt of the body, from 1.

    Args:
        attempt: Says which attempt it is.
    """

    def __init__(self, attempt: Callable[[], int]) -> None:
        super().__init__(logging.getLogger("steporal.workflow"), None)
        self.workflow_info_on_message = False
        self._attempt = attempt

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """See base class."""
        kwargs["extra"] = {"attempt": self._attempt(), **(kwargs.get("extra") or {})}
        return super().process(msg, kwargs)


class BodyLogger(RunLogger):
    """What ``ctx.logger`` is in a body.

    Args:
        attempt: Says which attempt it is.
        reached: The finished steps that the body has come to in an execution before.
    """

    def __init__(self, attempt: Callable[[], int], reached: Iterable[str]) -> None:
        super().__init__(attempt)
        self._reached = set(reached)
        self._ahead: set[str] = set()
        self._goes_on = False

    def isEnabledFor(self, level: int) -> bool:
        """See base class."""
        return not self.holds_back and super().isEnabledFor(level)

    @property
    def holds_back(self) -> bool:
        """Whether the body is where it was before."""
        return self._goes_on or bool(self._ahead)

    def go_on(self) -> None:
        """The body runs from the top to where it waited in the execution before."""
        self._goes_on = True

    def begin(self) -> None:
        """A new attempt of the body begins."""
        self._ahead = set(self._reached)

    def reach(self, key: str, *, is_news: bool) -> None:
        """The body has come to a finished step.

        Args:
            key: The step's.
            is_news: Whether it had to wait for it.
        """
        self._reached.add(key)
        self._ahead.discard(key)
        if is_news:
            self.is_there()

    def is_there(self) -> None:
        """The body has come to where it was."""
        self._goes_on = False
        self._ahead.clear()
