"""The number of arguments that a workflow of ours is started with: the one that it takes, whatever somebody sent.

The SDK uses the types of a workflow's parameters only where it was started with as many arguments as it has
parameters. With another number, the SDK has the client's payload converter read them, and fails the workflow task, for
ever, if that cannot.
"""

from __future__ import annotations

from typing import Any

import temporalio.workflow
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner

from ..converter import to_raw

_PACKAGE = __name__.partition(".")[0]
_NONE = to_raw(None).payload


def number_of(defn: temporalio.workflow._Definition) -> int | None:
    """Return how many arguments a workflow takes; None for one that is not ours."""
    is_ours = defn.cls.__module__.partition(".")[0] == _PACKAGE
    return len(defn.arg_types or ()) if is_ours else None


def give_arguments(act: Any, number: int) -> None:
    """Have the run that an activation starts, if any, begin with a number of arguments: cut, or filled up with null."""
    for job in act.jobs:
        if job.HasField("initialize_workflow"):
            arguments = job.initialize_workflow.arguments
            del arguments[number:]
            while len(arguments) < number:
                arguments.append(_NONE)


class ArityRunner(WorkflowRunner):
    """Runs workflows by another runner, ours with as many arguments as they take.

    Args:
        runner: The other runner.
    """

    def __init__(self, runner: WorkflowRunner) -> None:
        self._runner = runner

    def prepare_workflow(self, defn: temporalio.workflow._Definition) -> None:
        """See base class."""
        self._runner.prepare_workflow(defn)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """See base class."""
        instance, number = self._runner.create_instance(det), number_of(det.defn)
        if number is not None:
            activate, takes = instance.activate, number

            def activate_with_arguments(act: Any) -> Any:
                give_arguments(act, takes)
                return activate(act)

            vars(instance)["activate"] = activate_with_arguments
        return instance

    def set_worker_level_failure_exception_types(self, types: Any) -> None:
        """See base class."""
        self._runner.set_worker_level_failure_exception_types(types)
