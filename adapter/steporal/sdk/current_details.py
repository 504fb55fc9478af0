"""The current details of a run, which Temporal's UI shows."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable


def show_details(loop: AbstractEventLoop, describe: Callable[[], str]) -> None:
    """Add what ``describe`` returns to the current details of a run, whenever somebody looks at them.

    The SDK takes a text in advance, which would have to be made anew with each step; its workflow instance, which is
    the event loop of the run, is asked for it by a query.
    """
    given: Callable[[], str] = loop.workflow_get_current_details  # type: ignore[attr-defined]
    vars(loop)["workflow_get_current_details"] = lambda: "\n\n".join(filter(None, (given(), describe())))
