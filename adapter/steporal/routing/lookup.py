"""Which app runs a workflow, by the catalog."""

from __future__ import annotations

from ..errors import UnknownWorkflowError
from .catalog import App, Catalog, Listed


async def find_listed(catalog: Catalog, app: str, workflow_id: str) -> tuple[App, Listed]:
    """A workflow of an app in the catalog.

    Raises:
        UnknownWorkflowError: There is none; the message names what there is.
    """
    snapshot = await catalog.read()
    found = snapshot.workflow(workflow_id, app)
    if not found:
        snapshot = await catalog.read(fresh=True)
        found = snapshot.workflow(workflow_id, app)
    if found:
        return found[0]
    if app not in snapshot.apps:
        apps = ", ".join(sorted(map(repr, snapshot.apps))) or "none"
        raise UnknownWorkflowError(f"no app {app!r} is registered in this namespace; the registered apps are: {apps}")
    listed = ", ".join(sorted(repr(w.id) for w in snapshot.apps[app].workflows))
    raise UnknownWorkflowError(f"app {app!r} has no workflow {workflow_id!r}; it has: {listed}")
