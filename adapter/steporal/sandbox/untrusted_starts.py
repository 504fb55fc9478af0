"""The arguments and headers of workflows of ours, made such that the SDK can read them, whatever somebody sent.

The SDK uses the types of a workflow's parameters only where it was started with as many arguments as it has
parameters. With another number, the SDK has the client's payload converter read them, and fails the workflow task, for
ever, if that cannot. So does Temporal's ``OpenTelemetryPlugin`` where it cannot read the header that says which trace a
start, a signal, an update or a query belongs to.
"""

from __future__ import annotations

from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadConverter
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner

from ..sdk.workflow_definition import WorkflowDefinition
from ..values.converter import to_raw
from ..workflow_kinds import kind_of

_NONE = to_raw(None).payload


def number_of(defn: WorkflowDefinition) -> int | None:
    """Return how many arguments a workflow takes; None for one that is not ours."""
    return None if kind_of(defn.cls) is None else len(defn.arg_types or ())


def give_arguments(act: Any, number: int) -> None:
    """Have the run that an activation starts, if any, begin with a number of arguments: cut, or filled up with null."""
    for job in act.jobs:
        if job.HasField("initialize_workflow"):
            arguments = job.initialize_workflow.arguments
            del arguments[number:]
            while len(arguments) < number:
                arguments.append(_NONE)


_TRACE = "_tracer-data"
"""The header of Temporal's ``OpenTelemetryPlugin``."""

_KINDS = ("initialize_workflow", "signal_workflow", "do_update", "query_workflow")
"""The jobs of an activation that have headers."""


def drop_unreadable_traces(act: Any) -> None:
    """Remove the header with the trace from what an activation brings, where it is none."""
    for job in act.jobs:
        kind = job.WhichOneof("variant")
        if kind in _KINDS and _TRACE in (headers := getattr(job, kind).headers) and not _is_trace(headers[_TRACE]):
            del headers[_TRACE]


def _is_trace(payload: Payload) -> bool:
    try:
        carrier = PayloadConverter.default.from_payload(payload)
    except Exception:
        return False
    return isinstance(carrier, dict) and all(isinstance(text, str) for text in carrier.values())


class ArityRunner(WorkflowRunner):
    """Runs workflows by another runner, ours with as many arguments as they take and headers that can be read.

    Args:
        runner: The other runner.
    """

    def __init__(self, runner: WorkflowRunner) -> None:
        self._runner = runner

    def prepare_workflow(self, defn: WorkflowDefinition) -> None:
        """See base class."""
        self._runner.prepare_workflow(defn)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """See base class."""
        instance, number = self._runner.create_instance(det), number_of(det.defn)
        if number is not None:
            activate, takes = instance.activate, number

            def activate_with_arguments(act: Any) -> Any:
                give_arguments(act, takes)
                drop_unreadable_traces(act)
                return activate(act)

            vars(instance)["activate"] = activate_with_arguments
        return instance

    def set_worker_level_failure_exception_types(self, types: Any) -> None:
        """See base class."""
        self._runner.set_worker_level_failure_exception_types(types)
