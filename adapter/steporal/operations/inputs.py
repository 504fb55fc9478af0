"""Check of the input of a run that an operator starts."""

from __future__ import annotations

from ..client import Client
from ..types import JSON


def check_input(definitions: Client | None, app: str, workflow_id: str, data: JSON) -> None:
    """Check the input of a workflow if the client defines the workflow.

    Raises:
        InvalidInputError: The input does not fit.
    """
    for workflow in definitions.workflows if definitions is not None and definitions.id == app else ():
        if workflow.id == workflow_id:
            workflow.validate_input(data)
