"""Arguments and headers of Steporal's workflows, changed so that the SDK can read them, whatever the sender sent.

The SDK uses the types of a workflow's parameters only if the workflow was started with as many arguments as it has
parameters. With any other number, the SDK reads the arguments with the client's payload converter. If that fails, the
workflow task fails, for ever. The same happens when Temporal's ``OpenTelemetryPlugin`` cannot read the header with the
trace of a start, a signal, an update or a query.
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
    """Return the number of arguments of a workflow; None if it is not one of Steporal's."""
    return None if kind_of(defn.cls) is None else len(defn.arg_types or ())


def give_arguments(act: Any, number: int) -> None:
    """Give the run that an activation starts, if any, a number of arguments: cut, or padded with null."""
    for job in act.jobs:
        if job.HasField("initialize_workflow"):
            arguments = job.initialize_workflow.arguments
            del arguments[number:]
            while len(arguments) < number:
                arguments.append(_NONE)


_TRACE = "_tracer-data"
"""Header of Temporal's ``OpenTelemetryPlugin``."""

_KINDS = ("initialize_workflow", "signal_workflow", "do_update", "query_workflow")
"""Jobs of an activation that have headers."""


def drop_unreadable_traces(act: Any) -> None:
    """Remove headers with a trace from an activation if they cannot be read."""
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
    """Runs workflows by another runner; Steporal's get the right number of arguments, and headers that can be read.

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
