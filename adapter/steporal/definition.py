"""Definitions: what Temporal can run for an app, as data.

A :class:`Definition` is a Python handler (:class:`~steporal.Workflow`) or the deliveries of a sink
(:class:`~steporal.EventSink`). The plugin makes a Temporal workflow class of each; the catalog lists its triggers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Generic, Protocol

import pydantic
from typing_extensions import TypeVar

from .triggers import Trigger
from .validation import check_id

I = TypeVar("I", default=Any)  # noqa: E741
O = TypeVar("O", default=Any)  # noqa: E741


class Definition(Protocol):
    """Anything that Temporal can run for an app."""

    @property
    def id(self) -> str:
        """The Temporal workflow type, unique in the app."""

    @property
    def triggers(self) -> Sequence[Trigger]:
        """Events and schedules that start it."""

    @property
    def is_bridge(self) -> bool:
        """True if it forwards events to another system, from which some events came."""


class Invocable(ABC, Generic[I, O]):
    """A workflow of this app, as :meth:`steporal.Client.start_workflow` and ``step.invoke_workflow`` take it.

    Attributes:
        id: The workflow's id, which is the Temporal workflow type.
        app: The id of the client that it belongs to.
        task_queue: The task queue of its runs.
        input_schema: Validates its input; None if any JSON is accepted.
        step_packages: Top-level packages whose functions are steps of the app and whose classes its values may have.
    """

    id: str
    app: str
    task_queue: str
    input_schema: Any
    step_packages: AbstractSet[str]

    @property
    @abstractmethod
    def output_type(self) -> Any:
        """Type that its handler's annotations name for the result, or None."""


@dataclass(frozen=True, slots=True)
class WorkflowReference(Generic[O]):
    """A workflow of another app, by name; made by :func:`reference`."""

    app: str
    id: str
    output_type: Any = None

    def __post_init__(self) -> None:
        check_id(self.app, "the app of a reference")
        check_id(self.id, "the workflow id of a reference")


def reference(app: str, workflow_id: str, *, output_type: type[O] | None = None) -> WorkflowReference[O]:
    """A workflow of another app in the same namespace, to start or to invoke.

    Args:
        app: The other client's id.
        workflow_id: The workflow's id.
        output_type: What its result is validated as; plain JSON without one.

    Raises:
        DefinitionError: One of the ids cannot be an id.
    """
    return WorkflowReference(app, workflow_id, output_type)


class FailedWith(pydantic.BaseModel):
    """The error that a run failed with: the class's name, the message and the stack trace."""

    name: str
    message: str
    stack: str = ""


class RunFailure(pydantic.BaseModel):
    """Input of a failure handler: the data of ``inngest/function.failed``.

    Attributes:
        function_id: The failed run's app and workflow, as ``{app}-{workflow}``.
        run_id: The failed run's id.
        workflow_id: Its Temporal workflow id.
        error: The error that it failed with.
        event: What had started it; its ``data`` is the original input.
    """

    function_id: str
    run_id: str
    workflow_id: str
    error: FailedWith
    event: dict[str, Any]
