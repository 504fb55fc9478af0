"""Temporal's sandbox, made cheap: only the modules that define workflows are loaded again in it.

Temporal's own checks stay on, so that ``datetime.now()`` in a body fails. Loading everything again for each run, as
the stock sandbox does, costs tens of milliseconds, and fails outright where a module cannot be loaded twice.

This module is the only one that touches the sandbox's internals.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import temporalio.workflow
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from .compiled import is_compiled


class AllExcept(set[str]):
    """A set of module names that has every name but these, and but the packages that these are in.

    A package has to be loaded again with a module in it, or the module would be bound to the real package.
    """

    def __init__(self, modules: Iterable[str] = ()) -> None:
        super().__init__()
        self.reloaded = frozenset(
            ".".join(parts[: i + 1]) for parts in (m.split(".") for m in modules) for i in range(len(parts))
        )

    def __contains__(self, name: object) -> bool:
        return name not in self.reloaded


class SteporalWorkflowRunner(WorkflowRunner):
    """Runs our workflows in the cheap sandbox, and all others as the worker would without us.

    Args:
        modules: The modules that define workflows.
        others: The worker's own runner.
    """

    def __init__(self, modules: Iterable[str], others: WorkflowRunner) -> None:
        restrictions = replace(SandboxRestrictions.default, passthrough_modules=AllExcept(modules))
        self._ours = SandboxedWorkflowRunner(restrictions=restrictions)
        self._others = others

    def _runner(self, definition: Any) -> WorkflowRunner:
        return self._ours if is_compiled(definition.cls) else self._others

    def prepare_workflow(self, defn: temporalio.workflow._Definition) -> None:
        """See base class."""
        self._runner(defn).prepare_workflow(defn)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """See base class."""
        return self._runner(det.defn).create_instance(det)

    def set_worker_level_failure_exception_types(self, types: Any) -> None:
        """See base class."""
        self._ours.set_worker_level_failure_exception_types(types)
        self._others.set_worker_level_failure_exception_types(types)


def default_runner() -> WorkflowRunner:
    """The runner of a worker that was given none."""
    return SandboxedWorkflowRunner()


