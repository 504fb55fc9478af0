"""What scenes are played on: a Temporal server with workers of all apps, and the executions to keep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import temporalio.client
from http_server import Asked, HttpServer, Reply
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType, ResetReapplyType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import WorkflowFailureError, WorkflowHandle, WorkflowHistory
from temporalio.worker import Worker

import steporal
from steporal.history.recovery import rebuild
from steporal.values.converter import to_raw
from steporal.wire.names import CHECKPOINT, RECOVER, REPORT
from steporal_workers.devserver import NAMESPACE, dev_server

RECORDER = "recorder"
"""Who all clients and workers say they are; Temporal's own words would have the machine's name."""

_PATIENCE = 60.0

Handle = WorkflowHandle[Any, Any]


@dataclass(frozen=True)
class Stage:
    """A server, and what is kept of it.

    Attributes:
        temporal: A connection to the server.
        http: A receiver of requests.
        kept: The Temporal workflow ids of what is recorded, by the name of its file.
    """

    temporal: temporalio.client.Client
    http: HttpServer
    kept: dict[str, str] = field(default_factory=dict)

    def keep(self, name: str, workflow_id: str) -> Handle:
        """Record all executions of a workflow, when all scenes are over."""
        assert name not in self.kept, name
        self.kept[name] = workflow_id
        return self.temporal.get_workflow_handle(workflow_id)

    async def start(self, name: str, workflow: steporal.Workflow[Any, Any], data: Any = None) -> Handle:
        """Start a run, to be kept under its workflow's id and a name, if it is not the only one."""
        run = await workflow.start(data, id=f"{workflow.id}/{name or 'run'}")
        self.keep(f"{workflow.id}.{name}" if name else workflow.id, run.workflow_id)
        return run.temporal

    async def started_by(self, workflow: steporal.Workflow[Any, Any], event: dict[str, Any]) -> Handle:
        """Send an event, and keep the run of a workflow that it starts, under the event's id."""
        await workflow.client.send_event(event)
        return self.keep(f"{workflow.id}.{event['id']}", f"{workflow.app}/{workflow.id}/{event['id']}")

    async def histories(self) -> dict[str, WorkflowHistory]:
        """What is kept, by name; of several executions, each has a number."""
        found: dict[str, WorkflowHistory] = {}
        for name, workflow_id in self.kept.items():
            executions = await executions_of(self.temporal.get_workflow_handle(workflow_id))
            if not any(event.HasField(_TASK_DONE) for event in executions[-1].events):  # it has just been started
                del executions[-1]
            names = [name] if len(executions) == 1 else [f"{name}.{n}" for n in range(1, len(executions) + 1)]
            found |= zip(names, executions, strict=True)
        return found


_TASK_DONE = "workflow_task_completed_event_attributes"


async def executions_of(handle: Handle) -> list[WorkflowHistory]:
    """The history of each execution of a workflow, the first one first; of one that was reset, what it was reset to."""
    client = handle._client
    found = [await client.get_workflow_handle(handle.id).fetch_history()]
    while before := found[0].events[0].workflow_execution_started_event_attributes.continued_execution_run_id:
        found.insert(0, await client.get_workflow_handle(handle.id, run_id=before).fetch_history())
    return found


async def children_of(handle: Handle) -> list[str]:
    """The Temporal workflow ids of what a run's first execution has invoked."""
    invoked = "start_child_workflow_execution_initiated_event_attributes"
    events = (await executions_of(handle))[0].events
    return [getattr(event, invoked).workflow_id for event in events if event.HasField(invoked)]


@asynccontextmanager
async def staged(
    http: HttpServer, apps: Sequence[steporal.Client], *dynamic_config: str, search_attributes: bool = False
) -> AsyncIterator[Stage]:
    """A stage with workers of some apps."""
    serving_all = dev_server(dynamic_config=dynamic_config, search_attributes=search_attributes)
    async with serving_all as server, AsyncExitStack() as workers:
        temporal = await temporalio.client.Client.connect(server.address, namespace=NAMESPACE, identity=RECORDER)
        for app in apps:
            await workers.enter_async_context(serving(app, temporal))
        yield Stage(temporal, http)


@asynccontextmanager
async def serving(app: steporal.Client, temporal: temporalio.client.Client) -> AsyncIterator[None]:
    """A worker of an app, which is registered on entry."""
    app.temporal = temporal
    async with Worker(temporal, task_queue=app.task_queue, plugins=[app.plugin()]):
        await app.sync()
        yield


# --- waiting -------------------------------------------------------------------------------------------------------


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    """Wait for what a condition asks the server."""
    async with asyncio.timeout(_PATIENCE):
        while not await condition():
            await asyncio.sleep(0.02)


async def ended(*handles: Handle) -> None:
    """Wait for the ends of workflows, whatever they are."""
    async with asyncio.timeout(_PATIENCE):
        for handle in handles:
            with suppress(WorkflowFailureError):
                await handle.result()


async def until_seen(handle: Handle, text: str) -> None:
    """Wait until a text stands in the history of a workflow's current execution."""

    async def is_seen() -> bool:
        events = (await handle.fetch_history()).events
        return any(text.encode() in event.SerializeToString() for event in events)

    await until(is_seen)


async def until_done(handle: Handle) -> None:
    """Wait until a workflow has done all that it can: what it does next has a workflow task of its own."""

    async def is_done() -> bool:
        last = (await handle.fetch_history()).events[-1]
        return last.event_type in (EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED, EventType.EVENT_TYPE_TIMER_STARTED)

    await until(is_done)


async def until_parked(handle: Handle, times: int = 1) -> None:
    """Wait until a run has continued as new so many times."""

    async def is_parked() -> bool:
        return len(await executions_of(handle)) > times

    await until(is_parked)


async def checkpoint(handle: Handle, hold: float) -> None:
    """Ask a run to park, as ``steporal checkpoint`` does; with 0, let it go on."""
    await handle.signal(CHECKPOINT, to_raw({"hold": hold}))


async def recover(handle: Handle) -> None:
    """Hand to a run what it has done, and reset it, as ``steporal recover`` does."""
    client = handle._client
    rebuilt = await rebuild((await handle.fetch_history()).events, client.data_converter)
    parent = {"workflow_id": handle.id, "run_id": rebuilt.run_id}
    for child in rebuilt.children:
        await client.get_workflow_handle(child).signal(REPORT, to_raw(parent))
    await handle.signal(RECOVER, to_raw(rebuilt.message(is_stored=False)))
    await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=handle.id),
            reason="recorded",
            workflow_task_finish_event_id=rebuilt.first_task or 0,
            request_id=str(uuid4()),
            reset_reapply_type=ResetReapplyType.RESET_REAPPLY_TYPE_ALL_ELIGIBLE,
        )
    )


# --- HTTP ----------------------------------------------------------------------------------------------------------


class Receiver:
    """Answers by what a request's path, or the id of the event in it, starts with."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def __call__(self, asked: Asked) -> Reply:
        what = asked.headers.get("webhook-id") or asked.path.strip("/")
        is_first = what not in self._seen
        self._seen.add(what)
        if what.startswith("broken") or (what.startswith("busy") and is_first):
            return Reply(503)
        return Reply(400 if what.startswith("refused") else 200)
