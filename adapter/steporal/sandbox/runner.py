"""Runner for Steporal's workflows: their bodies are watched, and can neither stop a worker nor hang it.

Temporal's own sandbox executes the modules of a workflow anew for each run, and replaces what a body must not use by
proxies. This one executes no module twice and has no proxies: a body runs the functions that the app has loaded, and is
watched while it runs (``watch.py``).

It is one of the few modules that use the SDK's internals (AGENTS.md lists them), so the project pins the SDK's minor
version.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import temporalio.workflow
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.converter import DataConverter
from temporalio.worker import UnsandboxedWorkflowRunner, WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from ..closures.own_code import OwnCode
from ..sdk.eviction import evict, is_eviction
from ..sdk.workflow_definition import WorkflowDefinition
from ..wire.failures import application_error
from ..workflow_kinds import kind_of
from .interrupts import contained, ends_the_program
from .nondeterminism import explained
from .watch import Watch


class SteporalWorkflowRunner(WorkflowRunner):
    """Runs Steporal's workflows under watch, and all others by the worker's own runner.

    Args:
        own_code: The code of the app, which is watched.
        others: The worker's own runner.
    """

    def __init__(self, own_code: OwnCode, others: WorkflowRunner) -> None:
        self._own_code = own_code
        self._others = others

    def prepare_workflow(self, defn: WorkflowDefinition) -> None:
        """See base class."""
        (_unwatched if kind_of(defn.cls) == "run" else self._others).prepare_workflow(defn)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """See base class."""
        if kind_of(det.defn.cls) == "run":
            return _Instance(det, self._own_code)
        return self._others.create_instance(det)

    def set_worker_level_failure_exception_types(self, types: Any) -> None:
        """See base class."""
        self._others.set_worker_level_failure_exception_types(types)


class _Instance(WorkflowInstance):
    """Instance of a run under watch."""

    def __init__(self, details: WorkflowInstanceDetails, own_code: OwnCode) -> None:
        self._info = details.info
        self._own_code = own_code
        self._thread_id: int | None = None
        self._instance: Any = _unwatched.create_instance(details)

    def activate(self, act: Any) -> Any:
        self._thread_id = threading.get_ident()
        try:
            if is_eviction(act):
                return evict(self._instance, act, self._instance.activate)
            watch = Watch(self._own_code)
            try:
                with watch():
                    completion = self._instance.activate(act)
            except BaseException as err:
                if not ends_the_program(err):
                    raise
                return _failed(err)  # from a callback; coroutines do not let such errors through
            if watch.error is not None and not completion.HasField("failed"):  # the body has caught it
                raise explained(watch.error, self._info)
            return completion
        finally:
            self._thread_id = None

    def get_info(self) -> temporalio.workflow.Info:
        return self._info

    def get_thread_id(self) -> int | None:
        return self._thread_id

    def get_serialization_context(self, command_info: Any) -> Any:
        return self._instance.get_serialization_context(command_info)

    def get_external_store_context(self, command_info: Any) -> Any:
        return self._instance.get_external_store_context(command_info)


def _failed(error: BaseException) -> WorkflowActivationCompletion:
    """Return the completion of a run whose event loop an error has left."""
    completion = WorkflowActivationCompletion()
    completion.successful.SetInParent()
    failure = completion.successful.commands.add().fail_workflow_execution.failure
    converter = DataConverter.default
    recorded = application_error(contained(error), attempt=1, non_retryable=True)
    converter.failure_converter.to_failure(recorded, converter.payload_converter, failure)
    return completion


_unwatched = UnsandboxedWorkflowRunner()


def beside_ours(runner: WorkflowRunner | None) -> WorkflowRunner:
    """Return the worker's own runner; if it is the stock sandbox, let Steporal and its dependencies pass through."""
    runner = runner or SandboxedWorkflowRunner()
    if isinstance(runner, SandboxedWorkflowRunner):
        return replace(runner, restrictions=runner.restrictions.with_passthrough_modules("steporal", "cronsim", "ulid"))
    return runner
