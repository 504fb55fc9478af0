"""Everything assembled: a client's workflows and activities as one Temporal plugin.

``steporal worker`` and a user's own ``Worker(..., plugins=[client.plugin()])`` are the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import temporalio.client
import temporalio.worker
from temporalio.client import WorkflowHistory
from temporalio.converter import DataConverter
from temporalio.service import ServiceClient
from temporalio.worker import (
    Replayer,
    ReplayerConfig,
    Worker,
    WorkerConfig,
    WorkflowReplayResult,
)

from . import tracing
from .errors import DefinitionError
from .executions import LONGEST_THROTTLE, Executions, joinable
from .heartbeats import Heartbeats
from .loops import PerLoop
from .metrics import STEPS_STUCK, meter_of
from .outbound.delivery import delivery_class
from .own_code import OwnCode
from .routing.catalog import SYSTEM_TASK_QUEUE, CatalogWorkflow
from .routing.delivery import SYSTEM_ACTIVITIES
from .routing.directory import DirectoryWorkflow
from .routing.late import LateWorkflow
from .routing.mailbox import MailboxWorkflow
from .routing.topic import TopicWorkflow
from .runtime.compiled import workflow_class
from .runtime.evicting import PlainRunner, evictable
from .runtime.sandbox import SteporalWorkflowRunner, beside_ours
from .runtime.secrecy import IS_ENCRYPTED
from .runtime.storage import HAS_STORAGE, check_storage, reads_only
from .runtime.versioning import IS_VERSIONED
from .runtime.watching import WatchedRunner, quiet_the_sdk
from .sealed import encrypts
from .threads import StepThreads

if TYPE_CHECKING:
    from .client import Client

logger = logging.getLogger("steporal")

DEFAULT_STEP_SLOTS = 100
"""Temporal's own default for activities that a worker runs at once."""

SYSTEM_WORKFLOWS: list[type] = [
    CatalogWorkflow,
    DirectoryWorkflow,
    TopicWorkflow,
    LateWorkflow,
    MailboxWorkflow,
]


class SteporalPlugin(temporalio.worker.Plugin):
    """Adds a client's workflows and activities to a Temporal worker, or to a replayer.

    A worker on the client's task queue registers the client's workflows and triggers when it starts, and serves the
    system workflows beside its own. A worker on another task queue runs steps alone (``step.run(task_queue=...)``).

    Step functions that are not ``async`` run in the worker's ``activity_executor`` if that is a ``ThreadPoolExecutor``,
    which should have a thread for each of the worker's activity slots. Otherwise they run in threads of the plugin's.

    Attributes:
        registered: Set when the client's workflows are registered; at once where the worker runs steps alone.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._threads: StepThreads | None = None
        self._slots: int | None = None
        self._executions = Executions()
        self._heartbeats = Heartbeats()
        self._runs_workflows = True
        self.registered = asyncio.Event()

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
        check_storage(config["client"].data_converter, "the worker")
        if is_traced := tracing.is_traced(config["client"]):
            config["interceptors"] = [*(config.get("interceptors") or ()), tracing.of_worker(self._client.id)]
        self._configure_steps(config)
        assert self._threads is not None
        ours = Activities(self._client, self._threads, self._executions, self._slots or DEFAULT_STEP_SLOTS)
        config["activities"] = [*activities, *ours.all()]
        self._runs_workflows = config.get("task_queue") == self._client.task_queue
        if self._runs_workflows:
            config["workflows"] = [*(config.get("workflows") or ()), *self._workflow_classes()]
            runner = self._runner(config.get("workflow_runner"))
            others = evictable(config.get("unsandboxed_workflow_runner"))
            facts, meter = _facts(config), meter_of(config["client"])
            config["workflow_runner"] = WatchedRunner(runner, facts, meter, is_traced=is_traced)
            config["unsandboxed_workflow_runner"] = WatchedRunner(others, facts, meter, is_traced=is_traced)
        quiet_the_sdk()
        return config

    def _configure_steps(self, config: WorkerConfig) -> None:
        self._threads = StepThreads(config.get("activity_executor"))
        if config.get("tuner") is None:
            self._slots = config.get("max_concurrent_activities") or DEFAULT_STEP_SLOTS
        self._executions.configure(config.get("graceful_shutdown_timeout") or timedelta(0))
        config["interceptors"] = [*(config.get("interceptors") or ()), self._heartbeats]
        throttle = config.get("max_heartbeat_throttle_interval") or LONGEST_THROTTLE
        config["max_heartbeat_throttle_interval"] = min(throttle, LONGEST_THROTTLE)

    def out_of_steps(self) -> str | None:
        """Return why the worker can begin no step, or None if it can."""
        stuck = self._threads.stuck if self._threads is not None else 0
        if self._slots is None or stuck < self._slots:
            return None
        return (
            f"all {self._slots} slots for steps are kept by step functions that were cancelled or timed out and do not "
            "end; restart the worker, and give what they wait for a timeout"
        )

    def configure_replayer(self, config: ReplayerConfig) -> ReplayerConfig:
        """See base class."""
        config["workflows"] = [*(config.get("workflows") or ()), *self._workflow_classes(), *SYSTEM_WORKFLOWS]
        config["workflow_runner"] = self._runner(config.get("workflow_runner"))
        config["unsandboxed_workflow_runner"] = PlainRunner()
        converter = config.get("data_converter") or DataConverter.default
        if converter is DataConverter.default:
            converter = self._client.data_converter or converter
        config["data_converter"] = reads_only(converter)
        if tracing.has_plugin(before := config.get("interceptors") or ()):
            config["interceptors"] = [*before, tracing.of_worker(self._client.id)]
        return config

    def _workflow_classes(self) -> list[type]:
        workflows = [workflow_class(workflow) for workflow in self._client.workflows]
        return workflows + [delivery_class(sink) for sink in self._client.sinks.values()]

    def _runner(self, others: temporalio.worker.WorkflowRunner | None) -> SteporalWorkflowRunner:
        own_code = OwnCode(workflow.handler for workflow in self._client.workflows)
        return SteporalWorkflowRunner(own_code, beside_ours(others))

    async def run_worker(self, worker: Worker, next: Callable[[Worker], Awaitable[None]]) -> None:
        """See base class."""
        assert self._threads is not None
        self._heartbeats.attach(worker)
        if (meter := meter_of(worker.client)) is not None:
            self._threads.on_change = partial(STEPS_STUCK.set, meter, task_queue=worker.task_queue)
            self._threads.on_change(self._threads.stuck)
        # The worker runs first: one that never ran cannot be shut down, and `async with worker` would wait for ever.
        running = asyncio.ensure_future(next(worker))
        try:
            if self._runs_workflows:
                self._client.temporal = worker.client
                async with system_worker(worker.client), joinable(worker.client, self._executions):
                    await self._register(running)
                    await running
            else:
                self.registered.set()
                async with joinable(worker.client, self._executions):
                    await running
        except BaseException:
            if not running.done():
                await asyncio.gather(worker.shutdown(), running, return_exceptions=True)
            raise
        finally:
            self._executions.close()
            self._threads.close()

    async def _register(self, running: asyncio.Future[None]) -> None:
        registering = asyncio.ensure_future(self._client.sync(changed_only=True))
        either: list[asyncio.Future[Any]] = [registering, running]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if registering.done():
            listed = registering.result()
            self.registered.set()
            count = len(listed.workflows)
            logger.info("app %r is registered with %d workflow%s", listed.id, count, "s" * (count != 1))
        else:
            registering.cancel()
            await asyncio.gather(registering, return_exceptions=True)  # why the worker has ended, it says itself

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


def _facts(config: WorkerConfig) -> list[str]:
    """What is so of a worker, and its runs must know."""
    deployment = config.get("deployment_config")
    facts = {
        IS_VERSIONED: deployment is not None and deployment.use_worker_versioning,
        HAS_STORAGE: config["client"].data_converter.external_storage is not None,
        IS_ENCRYPTED: encrypts(config["client"].data_converter),
    }
    return [fact for fact, is_so in facts.items() if is_so]


# --- the system workflows ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Shared:
    """A worker for the system workflows, the event loop that runs it, and how many use it."""

    changing: PerLoop[asyncio.Lock] = field(default_factory=lambda: PerLoop(asyncio.Lock))
    loop: asyncio.AbstractEventLoop | None = None
    worker: Worker | None = None
    running: asyncio.Future[None] | None = None
    users: int = 0

    @property
    def is_served(self) -> bool:
        return self.users > 0 and self.loop is not None and not self.loop.is_closed()

    async def stop(self) -> None:
        """Shut the worker down; in the loop that runs it."""
        assert self.worker is not None and self.running is not None
        await self.worker.shutdown()
        await self.running


_shared: WeakKeyDictionary[ServiceClient, dict[str, _Shared]] = WeakKeyDictionary()
"""By connection and namespace."""


@asynccontextmanager
async def system_worker(temporal: temporalio.client.Client) -> AsyncIterator[None]:
    """Serves the system workflows of the namespace, which every app's worker helps to do.

    Workers of one process and namespace that share a connection share this worker, as Temporal takes one for each task
    queue.
    """
    shared = _shared.setdefault(temporal.service_client, {}).setdefault(temporal.namespace, _Shared())
    async with shared.changing.get():
        if not shared.is_served:
            shared.loop, shared.users = asyncio.get_running_loop(), 0
            heartbeats = Heartbeats()
            shared.worker = Worker(
                temporal,
                task_queue=SYSTEM_TASK_QUEUE,
                workflows=SYSTEM_WORKFLOWS,
                activities=SYSTEM_ACTIVITIES,
                interceptors=[heartbeats, *([tracing.of_worker()] if tracing.is_traced(temporal) else [])],
                unsandboxed_workflow_runner=WatchedRunner(PlainRunner(), ()),
                max_cached_workflows=100,
                max_concurrent_workflow_tasks=20,
                max_concurrent_activities=20,
                # Temporal's 10 s are how long a start waits after another worker was killed.
                sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
            )
            heartbeats.attach(shared.worker)
            shared.running = asyncio.ensure_future(shared.worker.run())
        shared.users += 1
    try:
        yield
    finally:
        async with shared.changing.get():
            shared.users -= 1
            if shared.users == 0 and shared.loop is asyncio.get_running_loop():
                await shared.stop()
            elif shared.users == 0 and shared.loop is not None and shared.loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(shared.stop(), shared.loop))
