"""Which app runs a workflow, by the catalog."""

from __future__ import annotations

from ...errors import UnknownWorkflowError
from .reading import Catalog


async def find_task_queue(catalog: Catalog, app: str, workflow_id: str) -> str:
    """Return the task queue of a workflow of an app in the catalog.

    Raises:
        UnknownWorkflowError: It is not registered; the message names what is.
    """
    for fresh in (False, True):
        found = (await catalog.read_workflows([workflow_id], fresh=fresh)).with_id(workflow_id, app)
        if found:
            return found[0].task_queue
    snapshot = await catalog.read_all()
    if app not in snapshot.apps:
        apps = ", ".join(sorted(map(repr, snapshot.apps))) or "none"
        raise UnknownWorkflowError(f"no app {app!r} is registered in this namespace; the registered apps are: {apps}")
    listed = ", ".join(sorted(repr(each.workflow) for each in snapshot.workflows if each.app == app))
    raise UnknownWorkflowError(f"app {app!r} has no workflow {workflow_id!r}; it has: {listed}")
