"""Calls that only work outside the body of a workflow."""

from __future__ import annotations

import sys

from temporalio import workflow

from .errors import NotInBodyError
from .sandbox.remedies import remedy
from .step_calls import place_of
from .wire.failures import is_users


def check_outside(call: str, name: str) -> None:
    """Check that the caller is not the body of a workflow, which a connection could never wake again.

    Args:
        call: The call as users write it: ``client.send_event``.
        name: The full name, by which :mod:`steporal.sandbox.remedies` finds the remedy.

    Raises:
        NotInBodyError: The caller is the body of a workflow.
    """
    if not workflow.in_workflow():
        return
    frame = sys._getframe(1)
    while not is_users(frame.f_code.co_filename) and frame.f_back is not None:
        frame = frame.f_back
    place = place_of(frame.f_code.co_filename, frame.f_lineno) if is_users(frame.f_code.co_filename) else ""
    raise NotInBodyError(
        f"workflow {workflow.info().workflow_type!r} calls {call} in its body{f' ({place})' if place else ''}, where "
        f"a run cannot wait for a connection; {remedy(name)}"
    )
