"""Eviction of runs from a worker's cache, even if the SDK's interruption of a task has left a run incomplete."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from temporalio.worker import UnsandboxedWorkflowRunner, WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner


class PlainRunner(UnsandboxedWorkflowRunner):
    """Runs workflows like Temporal's own runner without a sandbox, and can always evict them."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """See base class."""
        instance = super().create_instance(det)
        activate = instance.activate

        def activate_or_evict(act: Any) -> Any:
            return evict(instance, act, activate) if is_eviction(act) else activate(act)

        vars(instance)["activate"] = activate_or_evict
        return instance


def evictable(runner: WorkflowRunner | None) -> WorkflowRunner:
    """Return the worker's own runner without a sandbox, or a ``PlainRunner`` in place of the stock one."""
    return PlainRunner() if runner is None or type(runner) is UnsandboxedWorkflowRunner else runner


def is_eviction(act: Any) -> bool:
    """Return whether an activation removes a run from the cache; such an activation contains nothing else."""
    return bool(act.jobs) and act.jobs[0].HasField("remove_from_cache")


def evict(instance: Any, act: Any, activate: Any) -> Any:
    """End a run that is removed from the cache.

    The SDK interrupts a workflow task that computes for two seconds, wherever it is. When it later evicts the run, it
    ends the run's tasks. In about one of ten cases, a task remains that nothing wakes any more. The SDK would then
    retry for ever, keep the slot of the run, and never let the worker shut down. So the remaining tasks are closed
    here.
    """
    try:
        return activate(act)
    except RuntimeError:
        if not instance._tasks:
            raise
        for task in list(instance._tasks):
            # This also suppresses what closing raises: the SDK rejects commands of a run that is being evicted.
            with suppress(BaseException):
                task.get_coro().close()
        instance._tasks.clear()
        return activate(act)
