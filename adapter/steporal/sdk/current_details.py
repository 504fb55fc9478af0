"""Current details of a run, which Temporal's UI shows."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable


def show_details(loop: AbstractEventLoop, describe: Callable[[], str]) -> None:
    """Add the result of ``describe`` to the current details of a run, whenever they are requested.

    The SDK's public way is to set a text in advance, which would have to be updated with each step. But a query
    requests the text from the SDK's workflow instance, which is the event loop of the run. So its method is replaced.
    """
    original: Callable[[], str] = loop.workflow_get_current_details  # type: ignore[attr-defined]
    vars(loop)["workflow_get_current_details"] = lambda: "\n\n".join(filter(None, (original(), describe())))
