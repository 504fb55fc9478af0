"""The logger of a body: it logs a line once, though the body runs from the top again and again.

A body runs from the top when Temporal replays it, in each execution that goes on with a run, and in each attempt. While
it comes back through what it has done before, its lines are held back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import Any

from temporalio import workflow

from .journal import Journal


class RunLogger(workflow.LoggerAdapter):
    """Temporal's logger, which is silent on replay; its lines have the attempt of the body, from 1.

    Args:
        attempt: Returns the attempt.
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
    """``ctx.logger`` in a body.

    Args:
        attempt: Returns the attempt.
        journal: The run's, which knows whether the body repeats what it has done before.
    """

    def __init__(self, attempt: Callable[[], int], journal: Journal) -> None:
        super().__init__(attempt)
        self._journal = journal

    def isEnabledFor(self, level: int) -> bool:
        """See base class."""
        return not self._journal.repeats and super().isEnabledFor(level)
