"""Which version of the workers goes on with a run, where those are versioned (Temporal's Worker Versioning)."""

from __future__ import annotations

from asyncio import AbstractEventLoop

from temporalio import workflow
from temporalio.common import VersioningBehavior

IS_VERSIONED = "steporal.is_versioned"
"""The name of what tells a run whether its worker has a version: Temporal gives every worker some build id."""


def follow_the_current_version(loop: AbstractEventLoop, follows: bool) -> None:
    """Let a run move on to the current version of the workers by itself, from the next workflow task on, or not.

    The SDK has a behavior for each workflow, and none that changes; its workflow instance, which is the event loop of
    the run, sends the one that it has with each workflow task. Of workers without versions Temporal takes none.
    """
    if IS_VERSIONED in workflow.extern_functions():
        vars(loop)["_versioning_behavior"] = VersioningBehavior.AUTO_UPGRADE if follows else None
