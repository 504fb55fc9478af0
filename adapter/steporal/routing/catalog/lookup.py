"""Look-up of the app that runs a workflow in the catalog."""

from __future__ import annotations

from ...errors import UnknownWorkflowError
from .reading import Catalog


async def find_task_queue(catalog: Catalog, app: str, workflow_id: str) -> str:
    """Return the task queue of a workflow of an app in the catalog.

    Raises:
        UnknownWorkflowError: The workflow is not registered; the message lists the registered ones.
    """
    for fresh in (False, True):
        matches = (await catalog.read_workflows([workflow_id], fresh=fresh)).with_id(workflow_id, app)
        if matches:
            return matches[0].task_queue
    snapshot = await catalog.read_all()
    if app not in snapshot.apps:
        apps = ", ".join(sorted(map(repr, snapshot.apps))) or "none"
        raise UnknownWorkflowError(f"no app {app!r} is registered in this namespace; the registered apps are: {apps}")
    listed = ", ".join(sorted(repr(each.workflow) for each in snapshot.workflows if each.app == app))
    raise UnknownWorkflowError(f"app {app!r} has no workflow {workflow_id!r}; its workflows are: {listed}")
