"""``POST /invoke/{workflow}``: start a run of one workflow."""

from __future__ import annotations

import difflib

from starlette.requests import Request
from starlette.responses import Response

import steporal
from steporal import Workflow, WorkflowReference, reference
from steporal.errors import InvalidEventError, InvalidInputError, PayloadTooLargeError, UnknownWorkflowError
from steporal.events import check_json
from steporal.routing.catalog.reading import Snapshot
from steporal.types import JSON
from steporal.validation import MAX_ID_BYTES

from .answers import Problem, answer
from .bodies import object_of, read_json

_MAX_NAME_LENGTH = 2 * MAX_ID_BYTES + 1


class InvokeApi:
    """Starts runs."""

    def __init__(self, client: steporal.Client) -> None:
        self._client = client

    async def start(self, request: Request) -> Response:
        """Start a run with the ``data`` of the body as its input: ``{"id": run id, "status": 200}``."""
        data = await read_json(request, _data_of)
        try:
            return answer({"id": await self._start(request.path_params["workflow"], data), "status": 200})
        except InvalidInputError as err:
            raise Problem(400, str(err)) from None
        except PayloadTooLargeError as err:
            raise Problem(413, str(err)) from None
        except UnknownWorkflowError as err:
            raise Problem(404, str(err)) from None

    async def _start(self, name: str, data: JSON) -> str:
        run = await self._client.start_workflow(await self._workflow(name), data)
        return run.run_id

    async def _workflow(self, name: str) -> Workflow[JSON, JSON] | WorkflowReference[JSON]:
        for workflow in self._client.workflows:
            if name in (workflow.id, f"{self._client.id}-{workflow.id}"):
                return workflow
        catalog = self._client.sending.dispatcher(await self._client.connect()).catalog
        ids = possible_ids(name)
        found = find(await catalog.read_workflows(ids), name) or find(
            await catalog.read_workflows(ids, fresh=True), name
        )
        if len(found) == 1:
            return found[0]
        if found:
            names = " or ".join(sorted(f"/invoke/{one.app}-{one.id}" for one in found))
            raise Problem(400, f"several apps have a workflow {name!r}; say which: {names}")
        listed = sorted({one.workflow for one in (await catalog.read_all()).workflows})
        close = difflib.get_close_matches(name[:100], listed, n=3)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise Problem(404, f"no app has a workflow {name[:200]!r}{hint}")


def _data_of(body: JSON) -> JSON:
    data = object_of(body).get("data")
    try:
        check_json(data, "data", "the body")
    except InvalidEventError as err:
        raise Problem(400, str(err)) from None
    return data


def find(snapshot: Snapshot, name: str) -> list[WorkflowReference[JSON]]:
    """The workflows with an id, in all apps; else those whose ``{app}-{workflow}`` it is, as Inngest names them."""
    found = snapshot.with_id(name) or [
        match for id in possible_ids(name)[1:] for match in snapshot.with_id(id, name.removesuffix(f"-{id}"))
    ]
    return [reference(match.app, match.workflow) for match in found]


def possible_ids(name: str) -> list[str]:
    """The ids that a workflow may have whose name in a path is an id, or ``{app}-{workflow}``."""
    name = name[:_MAX_NAME_LENGTH]
    return [name, *(name[i + 1 :] for i, char in enumerate(name[:-1]) if char == "-" and i > 0)]
