"""What the integration tests run workers with: every run that a worker touches is remembered, to be replayed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import temporalio.client
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.worker import (
    ExecuteWorkflowInput,
    Interceptor,
    Replayer,
    Worker,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

import steporal
from steporal.routing.catalog.registering import Source
from steporal.worker.plugin import SteporalPlugin

_SEEN = "tests.run_seen"
_REPLAYED_PER_TEST = 40

Seen = Callable[[str, str], None]

TOO_SLOW = "TMPRL1101"
"""In the failure of a workflow task that took two seconds, as on a busy machine; it says nothing of the code."""

REPLAYS = 10
"""How often a history is replayed that such a failure ended."""


class RunRecorder(Interceptor):
    """Tells ``seen`` the workflow id and the run id of each run that a worker executes or replays."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:
        """See base class."""
        input.unsafe_extern_functions[_SEEN] = self._seen
        return _RecordedRun


class _RecordedRun(WorkflowInboundInterceptor):
    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:
        info = workflow.info()
        workflow.extern_functions()[_SEEN](info.workflow_id, info.run_id)
        return await super().execute_workflow(input)


class _Unlisted(SteporalPlugin):
    """Runs an app without registering it."""

    async def _keep_registered(self, temporal: temporalio.client.Client, source: Source) -> None:
        self.registered.set()
        await asyncio.Event().wait()


@dataclass
class Workers:
    """Starts workers of apps: ``async with workers(client):``.

    Attributes:
        temporal: The connection of the workers, and of the clients whose workers are started.
        max_cached_workflows: For each worker that is not told otherwise.
    """

    temporal: temporalio.client.Client
    max_cached_workflows: int
    _clients: dict[str, steporal.Client] = field(default_factory=dict)
    _runs: dict[tuple[str, str], str] = field(default_factory=dict)

    @asynccontextmanager
    async def __call__(
        self, client: steporal.Client, *, is_listed: bool | None = None, **options: Any
    ) -> AsyncIterator[Worker]:
        """Run a worker of an app.

        Args:
            client: The app.
            is_listed: Whether to register the app, until the worker is stopped; by default if an event or a schedule
                starts one of its workflows. That is most of what a short test costs, and others are not looked up.
            **options: The worker's.
        """
        if is_listed is None:
            is_listed = bool(client.sinks) or any(workflow.triggers for workflow in client.workflows)
        options.setdefault("task_queue", client.task_queue)
        options.setdefault("max_cached_workflows", self.max_cached_workflows)
        # Temporal's five of each are a tenth of what a short test costs the server.
        options.setdefault("max_concurrent_workflow_task_polls", 2)
        options.setdefault("max_concurrent_activity_task_polls", 1)
        options["interceptors"] = [*options.get("interceptors", ()), self.recorder(client)]
        client.temporal = self.temporal
        plugin = client.plugin() if is_listed else _Unlisted(client.app, client._connection, client.sending)
        async with Worker(self.temporal, plugins=[plugin], **options) as worker:
            await asyncio.wait_for(plugin.registered.wait(), 60)
            try:
                yield worker
            finally:
                if is_listed:
                    await self.forget(client)

    def recorder(self, client: steporal.Client) -> RunRecorder:
        """An interceptor for a worker of a client; what it records is replayed with that client's code."""
        self._clients[client.id] = client
        return RunRecorder(lambda workflow_id, run_id: self.saw(client, workflow_id, run_id))

    def saw(self, client: steporal.Client, workflow_id: str, run_id: str) -> None:
        """Remember a run; it is replayed with the code of the client that saw it last."""
        self._clients[client.id] = client
        self._runs[workflow_id, run_id] = client.id

    def drop(self, *workflow_ids: str) -> None:
        """Do not replay these: runs of native workflows, which a replayer of an app does not have."""
        for run in [run for run in self._runs if run[0] in workflow_ids]:
            del self._runs[run]

    async def forget(self, client: steporal.Client) -> None:
        """Drop an app from the catalog, and its schedules."""
        await steporal.Client(client.id, temporal=self.temporal, task_queue=client.task_queue).sync()

    async def replay(self) -> None:
        """Replay the recorded runs, open and closed, with the code that their app has now; of hundreds, some.

        Raises:
            AssertionError: The history of one does not fit the code.
        """
        for client_id, client in self._clients.items():
            mine = [run for run, owner in self._runs.items() if owner == client_id]
            mine = mine[:: len(mine) // _REPLAYED_PER_TEST + 1]
            replayer = Replayer(workflows=[], plugins=[client.plugin()])
            failures: list[str] = []
            for _ in range(REPLAYS):
                results = await replayer.replay_workflows(self._histories(mine), raise_on_replay_failure=False)
                found = {run_id: f"{run_id}: {failure}" for run_id, failure in results.replay_failures.items()}
                slow = {run_id for run_id, failure in found.items() if TOO_SLOW in failure}
                failures += [failure for run_id, failure in found.items() if run_id not in slow]
                if not (mine := [run for run in mine if run[1] in slow]):
                    break
            else:
                failures += [found[run_id] for run_id in slow]
            text = "\n".join(failures).encode(errors="backslashreplace").decode()
            assert not failures, f"runs of app {client_id!r} do not replay:\n{text}"

    async def _histories(self, runs: list[tuple[str, str]]) -> AsyncIterator[WorkflowHistory]:
        for workflow_id, run_id in runs:
            yield await self.temporal.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
