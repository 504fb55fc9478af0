"""Everything assembled: a client's workflows and activities as one Temporal plugin.

``steporal worker`` and a user's own ``Worker(..., plugins=[client.plugin()])`` are the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from functools import partial

import temporalio.client
import temporalio.worker
from temporalio.client import WorkflowHistory
from temporalio.converter import DataConverter
from temporalio.worker import (
    Replayer,
    ReplayerConfig,
    Worker,
    WorkerConfig,
    WorkflowReplayResult,
)

from ..activities.executions import LONGEST_THROTTLE, Executions, joinable
from ..activities.threads import StepThreads
from ..app import App
from ..closures.own_code import OwnCode
from ..connecting import Connection
from ..errors import DefinitionError
from ..metrics import STEPS_STUCK, meter_of
from ..observability import tracing
from ..outbound.delivery import delivery_class
from ..routing.catalog.confirming import Confirming
from ..routing.catalog.defined import list_of
from ..routing.catalog.registering import Source, label_of
from ..routing.sending import Sending
from ..runtime.compiled import workflow_class
from ..runtime.secrecy import IS_ENCRYPTED
from ..sandbox.runner import SteporalWorkflowRunner, beside_ours
from ..sandbox.task_failures import WatchedRunner, quiet_the_sdk
from ..sandbox.untrusted_starts import ArityRunner
from ..sdk.eviction import PlainRunner, evictable
from ..sdk.heartbeats import Heartbeats
from ..sdk.worker_versioning import IS_VERSIONED
from ..values.encrypted import encrypts
from ..wire.storage import HAS_STORAGE, check_storage, reads_only
from .activities import Activities
from .serving import SYSTEM_WORKFLOWS, registry_worker, system_worker, together

logger: logging.Logger = logging.getLogger("steporal")

DEFAULT_STEP_SLOTS = 100
"""Temporal's own default for activities that a worker runs at once."""


class SteporalPlugin(temporalio.worker.Plugin):
    """Adds a client's workflows and activities to a Temporal worker, or to a replayer.

    A worker on the client's task queue registers the client's workflows and triggers when it starts, and serves the
    system workflows beside its own. A worker on another task queue runs steps alone (``step.run(task_queue=...)``).

    Step functions that are not ``async`` run in the worker's ``activity_executor`` if that is a ``ThreadPoolExecutor``,
    which should have a thread for each of the worker's activity slots. Otherwise they run in threads of the plugin's.

    Attributes:
        registered: Set when the client's list is registered, or it is known that another one stays in force; at once
            where the worker runs steps alone.
        why_not_registered: Why ``registered`` is not set.
        why_not_in_force: Why another list of the app is in force; empty if the client's is.
    """

    def __init__(self, app: App, connection: Connection, sending: Sending) -> None:
        self._app = app
        self._connection = connection
        self._sending = sending
        self._threads: StepThreads | None = None
        self._slots: int | None = None
        self._executions = Executions()
        self._heartbeats = Heartbeats()
        self._runs_workflows = True
        self._version = ""
        self.registered: asyncio.Event = asyncio.Event()
        self.why_not_registered: str = f"app {app.id!r} has not registered yet"
        self.why_not_in_force: str = ""

    def name(self) -> str:
        """See base class."""
        return "steporal.SteporalPlugin"

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        """See base class."""
        activities = list(config.get("activities") or ())
        if any(getattr(a, "__self__", None).__class__ is Activities for a in activities):
            raise DefinitionError(
                "a worker takes the plugin of one steporal client; start a worker for each, on its own task queue"
            )
        check_storage(config["client"].data_converter, "the worker")
        if is_traced := tracing.is_traced(config["client"]):
            config["interceptors"] = [*(config.get("interceptors") or ()), tracing.of_worker(self._app.id)]
        self._configure_steps(config)
        assert self._threads is not None
        ours = Activities(self._app, self._sending, self._threads, self._executions, self._slots or DEFAULT_STEP_SLOTS)
        config["activities"] = [*activities, *ours.all()]
        self._runs_workflows = config.get("task_queue") == self._app.task_queue
        self._version = _version(config)
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
        config["workflow_runner"] = ArityRunner(self._runner(config.get("workflow_runner")))
        config["unsandboxed_workflow_runner"] = ArityRunner(PlainRunner())
        converter = config.get("data_converter") or DataConverter.default
        if converter is DataConverter.default:
            converter = self._connection.data_converter or converter
        config["data_converter"] = reads_only(converter)
        if tracing.has_plugin(before := config.get("interceptors") or ()):
            config["interceptors"] = [*before, tracing.of_worker(self._app.id)]
        return config

    def _workflow_classes(self) -> list[type]:
        workflows = [workflow_class(workflow) for workflow in self._app.workflows.values()]
        return workflows + [delivery_class(sink) for sink in self._app.sinks.values()]

    def _runner(self, others: temporalio.worker.WorkflowRunner | None) -> SteporalWorkflowRunner:
        own_code = OwnCode(workflow.handler for workflow in self._app.workflows.values())
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
                self._connection.temporal = worker.client
                await self._serve(worker, running)
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

    async def _serve(self, worker: Worker, running: asyncio.Future[None]) -> None:
        """Serve the system workflows beside the app's, and keep the client's list registered, until the worker ends."""
        app, temporal = self._app, worker.client
        source = Source.of(app, version=self._version)
        label = label_of(list_of(app), source)
        async with together(
            system_worker(temporal),
            registry_worker(temporal, app.id, label),
            joinable(temporal, self._executions),
        ):
            confirming = asyncio.ensure_future(self._keep_registered(temporal, source))
            await asyncio.wait([confirming, running], return_when=asyncio.FIRST_COMPLETED)
            if confirming.done():
                confirming.result()  # raises: it does not return
            confirming.cancel()
            await asyncio.gather(confirming, return_exceptions=True)  # why the worker has ended, it says itself
            await running

    async def _keep_registered(self, temporal: temporalio.client.Client, source: Source) -> None:
        """Register the client's list, and confirm it until this is cancelled."""
        await Confirming(self._app, temporal, source, self).run()

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


def _version(config: WorkerConfig) -> str:
    """Return a worker's Worker Deployment Version; empty without Worker Versioning."""
    deployment = config.get("deployment_config")
    if deployment is None or not deployment.use_worker_versioning:
        return ""
    return f"{deployment.version.deployment_name}.{deployment.version.build_id}"


def _facts(config: WorkerConfig) -> list[str]:
    """Return the properties of a worker that its runs depend on."""
    deployment = config.get("deployment_config")
    facts = {
        IS_VERSIONED: deployment is not None and deployment.use_worker_versioning,
        HAS_STORAGE: config["client"].data_converter.external_storage is not None,
        IS_ENCRYPTED: encrypts(config["client"].data_converter),
    }
    return [fact for fact, is_so in facts.items() if is_so]
