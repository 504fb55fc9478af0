"""Version of the workers that continues a run, with Temporal's Worker Versioning."""

from __future__ import annotations

from asyncio import AbstractEventLoop

from temporalio import workflow
from temporalio.common import VersioningBehavior

IS_VERSIONED = "steporal.is_versioned"
"""Name by which a run finds out whether its worker has a version: Temporal gives every worker a build id."""


def follow_the_current_version(loop: AbstractEventLoop, follows: bool) -> None:
    """Let a run move to the current version of the workers from the next workflow task on, or pin it.

    The SDK has a fixed behavior for each workflow. Its workflow instance, which is the event loop of the run, sends the
    behavior with each workflow task, so it can be changed there. Temporal rejects a behavior from workers that have no
    version.
    """
    if IS_VERSIONED in workflow.extern_functions():
        vars(loop)["_versioning_behavior"] = VersioningBehavior.AUTO_UPGRADE if follows else None
