"""Workflow ids of runs: ``{app}/{workflow}/{event id}``, such as ``shop/process-order/01HZX…``.

A slash in the id of an app or workflow is written ``~1`` and a tilde ``~0``, as in JSON Pointer (RFC 6901), so that
no two runs share an id. The rest is the event's id, unchanged.
"""

from __future__ import annotations

from typing import NamedTuple


class RunName(NamedTuple):
    """Parts of a run's workflow id."""

    app: str
    workflow: str
    event_id: str


def workflow_id_of(app: str, workflow: str, event_id: str) -> str:
    """Return Temporal's workflow id of the run of a workflow that an event starts."""
    return f"{named_workflow(app, workflow)}/{event_id}"


def named_workflow(app: str, workflow: str) -> str:
    """Return the part of a workflow id that names a workflow of an app."""
    return f"{escaped(app)}/{escaped(workflow)}"


def run_name(workflow_id: str) -> RunName | None:
    """Return the parts of a workflow id of :func:`workflow_id_of`; None for an id that a user chose."""
    parts = workflow_id.split("/", 2)
    return RunName(_read(parts[0]), _read(parts[1]), parts[2]) if len(parts) == 3 else None


def workflow_of(workflow_id: str) -> str:
    """Return the workflow that a workflow id of :func:`workflow_id_of` names; the id itself if it names no workflow."""
    name = run_name(workflow_id)
    return name.workflow if name else workflow_id


def escaped(id: str) -> str:
    """Return an id without slashes, for a place between slashes."""
    return id.replace("~", "~0").replace("/", "~1")


def _read(escaped: str) -> str:
    return escaped.replace("~1", "/").replace("~0", "~")
