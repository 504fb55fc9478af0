"""Everything assembled: a client's workflows and activities as one Temporal plugin.

``steporal worker`` and a user's own ``Worker(..., plugins=[client.plugin()])`` are the same.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import temporalio.client
import temporalio.worker
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, ReplayerConfig, Worker, WorkerConfig, WorkflowReplayResult

from .errors import DefinitionError
from .routing.catalog import SYSTEM_TASK_QUEUE, CatalogWorkflow
from .runtime.compiled import reloadable_module, workflow_class
from .runtime.sandbox import SteporalWorkflowRunner, default_runner

if TYPE_CHECKING:
    from .client import Client

logger = logging.getLogger("steporal")

DEFAULT_STEP_THREADS = 100
"""Temporal's own default for activities that a worker runs at once."""

SYSTEM_WORKFLOWS: list[type] = [CatalogWorkflow]


class SteporalPlugin(temporalio.worker.Plugin):
    """Adds a client's workflows and activities to a Temporal worker, or to a replayer.

    A worker on the client's task queue registers the client's workflows and triggers when it starts, and serves the
    system workflows beside its own. A worker on another task queue runs steps alone (``step.run(task_queue=...)``).
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._threads: ThreadPoolExecutor | None = None
        self._runs_workflows = True

    def name(self) -> str:
        """See base class."""
        return "steporal.SteporalPlugin"

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        """See base class."""
        from .activities import Activities

        activities = list(config.get("activities") or ())
        if any(getattr(a, "__self__", None).__class__ is Activities for a in activities):
            raise DefinitionError(
                "a worker takes the plugin of one steporal client; start a worker for each, on its own task queue"
            )
        threads = config.get("max_concurrent_activities") or DEFAULT_STEP_THREADS
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="steporal-step")
        config["activities"] = [*activities, *Activities(self._client, self._threads).all()]
        self._runs_workflows = config.get("task_queue") == self._client.task_queue
        if self._runs_workflows:
            config["workflows"] = [*(config.get("workflows") or ()), *self._workflow_classes()]
            config["workflow_runner"] = self._runner(config.get("workflow_runner"))
        return config

    def configure_replayer(self, config: ReplayerConfig) -> ReplayerConfig:
        """See base class."""
        config["workflows"] = [*(config.get("workflows") or ()), *self._workflow_classes(), *SYSTEM_WORKFLOWS]
        config["workflow_runner"] = self._runner(config.get("workflow_runner"))
        return config

    def _workflow_classes(self) -> list[type]:
        return [workflow_class(workflow) for workflow in self._client.workflows]

    def _runner(self, others: temporalio.worker.WorkflowRunner | None) -> SteporalWorkflowRunner:
        modules = {module for w in self._client.workflows if (module := reloadable_module(w)) is not None}
        return SteporalWorkflowRunner(modules, others or default_runner())

    async def run_worker(self, worker: Worker, next: Callable[[Worker], Awaitable[None]]) -> None:
        """See base class."""
        assert self._threads is not None
        try:
            if not self._runs_workflows:
                await next(worker)
                return
            self._client.temporal = worker.client
            async with system_worker(worker.client):
                listed = await self._client.sync()
                logger.info("app %r is registered with %d workflows", listed.id, len(listed.workflows))
                await next(worker)
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def run_replayer(
        self,
        replayer: Replayer,
        histories: AsyncIterator[WorkflowHistory],
        next: Callable[
            [Replayer, AsyncIterator[WorkflowHistory]],
            AbstractAsyncContextManager[AsyncIterator[WorkflowReplayResult]],
        ],
    ) -> AbstractAsyncContextManager[AsyncIterator[WorkflowReplayResult]]:
        """See base class."""
        return next(replayer, histories)


def system_worker(temporal: temporalio.client.Client) -> Worker:
    """A worker for the system workflows of the namespace, which every app's worker helps to serve."""
    config: dict[str, Any] = {"max_cached_workflows": 10, "max_concurrent_workflow_tasks": 10}
    return Worker(
        temporal,
        task_queue=SYSTEM_TASK_QUEUE,
        workflows=SYSTEM_WORKFLOWS,
        **config,
    )
