"""``steporal runs rerun``: runs the same work again, in a new run, and prints its id."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from temporalio.client import Client

import steporal
from steporal.operations.rerun import rerun

from ..output import print_json, print_line, say


async def run_rerun(
    temporal: Client,
    id: str,
    *,
    definitions: steporal.Client | None = None,
    from_step: str | None,
    data: Any,
    as_json: bool,
) -> None:
    """Start a new run with the input of another, and print its workflow id.

    Args:
        temporal: The connection to the other run's namespace.
        id: The other run's id.
        definitions: The client whose ``input_schema`` checks a new input.
        from_step: The first step that runs again; what had finished before it began is kept.
        data: A new input, or ``steporal.operations.rerun.SAME``.
        as_json: Print JSON.
    """
    new = await rerun(temporal, id, definitions=definitions, from_step=from_step, data=data)
    if as_json:
        started = {"workflow_id": new.workflow_id, "run_id": new.run_id, "event_id": new.event_id}
        original = {"workflow_id": new.original_workflow_id, "run_id": new.original_run_id, "from": new.from_step}
        print_json({**started, "rerun_of": original, "kept_steps": list(new.kept_steps)})
        return
    print_line(new.workflow_id)
    if new.from_step is not None:
        say(f"  kept from the original run: {escape(', '.join(new.kept_steps)) or 'nothing'}")
