"""Run a worker until it is told to stop, and then let its running steps finish."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import temporalio.client
from rich.markup import escape
from temporalio.api.workflowservice.v1 import DescribeWorkerDeploymentRequest
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.service import RPCError
from temporalio.worker import Worker, WorkerDeploymentConfig

from steporal.durations import format_duration
from steporal.errors import TemporalCallError
from steporal.wire.names import SYSTEM_TASK_QUEUE

from .health import Check, Connected, serving_health
from .leaving import leave_at_once
from .output import say
from .problems import Failure, Mistake
from .task_queues import Queues, measured

if TYPE_CHECKING:
    import steporal
    from steporal.worker.plugin import SteporalPlugin

STOP_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]  # Windows has no SIGHUP


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """The flags of ``steporal worker``; what is None is left to Temporal's own default."""

    task_queue: str | None = None
    max_concurrent_steps: int | None = None
    max_concurrent_workflow_tasks: int | None = None
    max_cached_workflows: int | None = None
    graceful_timeout: timedelta = timedelta(seconds=30)
    deployment: str | None = None
    build_id: str | None = None
    health_host: str = "127.0.0.1"
    health_port: int = 0

    def for_temporal(self, client: steporal.Client) -> dict[str, Any]:
        """The arguments of ``temporalio.worker.Worker``."""
        given = {
            "max_concurrent_activities": self.max_concurrent_steps,
            "max_concurrent_workflow_tasks": self.max_concurrent_workflow_tasks,
            "max_cached_workflows": self.max_cached_workflows,
            "deployment_config": self._deployment_config(client),
        }
        return {
            "task_queue": self.task_queue or client.task_queue,
            "graceful_shutdown_timeout": self.graceful_timeout,
            **{name: value for name, value in given.items() if value is not None},
        }

    def task_queues_of(self, client: steporal.Client) -> Queues:
        """Those that the worker serves."""

        async def served() -> set[str]:
            return {self.task_queue or client.task_queue, SYSTEM_TASK_QUEUE}

        return served

    def deployment_of(self, client: steporal.Client) -> str:
        """The name of the deployment of Worker Versioning.

        Raises:
            Mistake: Temporal does not take it.
        """
        name = self.deployment or client.id
        if "." in name:
            raise Mistake(f"a deployment's name has no '.', as {name!r} has; give another one by --deployment NAME")
        return name

    def _deployment_config(self, client: steporal.Client) -> WorkerDeploymentConfig | None:
        """Runs are pinned to the version that they were started with; parked ones follow the current one."""
        if self.build_id is None:
            return None
        return WorkerDeploymentConfig(
            WorkerDeploymentVersion(self.deployment_of(client), self.build_id),
            use_worker_versioning=True,
            default_versioning_behavior=VersioningBehavior.PINNED,
        )


async def run_worker(
    client: steporal.Client,
    temporal: temporalio.client.Client,
    options: WorkerOptions,
    *,
    beside: Callable[[asyncio.Event], AbstractAsyncContextManager[object]] | None = None,
    first: Callable[[steporal.Client, temporalio.client.Client], Awaitable[None]] | None = None,
) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; then drain. A second signal ends the process at once.

    Args:
        client: Whose workflows are served.
        temporal: The connection.
        options: The flags.
        beside: What runs as long as the worker serves, such as the gateway; given what is set when it stops.
        first: What `steporal dev` does before its worker serves; such a worker stops without a word.

    Raises:
        Failure: The worker cannot start, or cannot go on.
    """
    client.temporal = temporal
    plugin = client.plugin()
    worker = Worker(temporal, plugins=[plugin], **options.for_temporal(client))
    async with AsyncExitStack() as stack:
        stop = stack.enter_context(stop_signals())
        if first is not None and await _is_stopped(first(client, temporal), stop):
            return
        if beside is not None:
            await stack.enter_async_context(beside(stop))
        await stack.enter_async_context(measured(client, temporal, "worker", options.task_queues_of(client)))
        if options.health_port:
            checks = _checks(client, temporal, plugin, worker, stop)
            notes = {"triggers in force": _in_force(plugin)}
            health = serving_health(options.health_host, options.health_port, checks, notes)
            await stack.enter_async_context(health)
        running = asyncio.create_task(worker.run())
        announcing = asyncio.create_task(_announce(client, temporal, plugin, options))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([running, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            if first is None:
                patience = format_duration(options.graceful_timeout)
                say(f"stopping: running steps have {patience} to finish; another signal ends them at once")
            await worker.shutdown()
        for task in (announcing, stopped):
            task.cancel()
        await asyncio.gather(announcing, stopped, return_exceptions=True)  # why it failed, the worker says, too
        try:
            await running
        except (RPCError, RuntimeError, TemporalCallError) as err:
            raise Failure(f"the worker cannot go on: {err}") from err
    if first is None:
        say("stopped")


async def _is_stopped(operation: Awaitable[None], stop: asyncio.Event) -> bool:
    """Perform an operation, and tell whether a signal has cut it short."""
    performing, stopped = asyncio.ensure_future(operation), asyncio.create_task(stop.wait())
    await asyncio.wait([performing, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if performing.done():
        performing.result()
        return False
    performing.cancel()
    await asyncio.gather(performing, return_exceptions=True)
    return True


def _checks(
    client: steporal.Client,
    temporal: temporalio.client.Client,
    plugin: SteporalPlugin,
    worker: Worker,
    stop: asyncio.Event,
) -> dict[str, Check]:
    """What a worker is ready by."""

    async def registered() -> str | None:
        return None if plugin.registered.is_set() else plugin.why_not_registered

    async def polling() -> str | None:
        if stop.is_set():
            return "the worker is stopping"
        return None if worker.is_running else "the worker is not running"

    async def able_to_run_steps() -> str | None:
        return plugin.out_of_steps()

    return {
        "connected": Connected(temporal),
        "registered": registered,
        "polling": polling,
        "able to run steps": able_to_run_steps,
    }


def _in_force(plugin: SteporalPlugin) -> Check:
    """Return what says why the triggers of another list of the app are in force."""

    async def in_force() -> str | None:
        return plugin.why_not_in_force or None

    return in_force


async def _announce(
    client: steporal.Client, temporal: temporalio.client.Client, plugin: SteporalPlugin, options: WorkerOptions
) -> None:
    await plugin.registered.wait()
    say(describe(client, temporal, options))
    if options.build_id is not None and not await _is_current(
        temporal, options.deployment_of(client), options.build_id
    ):
        name, build = shlex.quote(options.deployment_of(client)), shlex.quote(options.build_id)
        say(
            "  [yellow]not the current version[/]: Temporal gives it no new runs until you run "
            f"`temporal worker deployment set-current-version --deployment-name {name} --build-id {build}`"
        )


async def _is_current(temporal: temporalio.client.Client, deployment: str, build_id: str) -> bool:
    """Whether new runs are given to a version; known as soon as the worker has polled."""
    request = DescribeWorkerDeploymentRequest(namespace=temporal.namespace, deployment_name=deployment)
    try:
        described = await temporal.workflow_service.describe_worker_deployment(request)
    except RPCError:  # the worker has not polled yet
        return False
    routing = described.worker_deployment_info.routing_config
    return routing.current_deployment_version.build_id == build_id


def describe(client: steporal.Client, temporal: temporalio.client.Client, options: WorkerOptions) -> str:
    """What a worker serves, and where."""
    queue = options.task_queue or client.task_queue
    where = f"namespace {temporal.namespace!r} at {temporal.service_client.config.target_host}"
    lines = [f"[bold green]serving[/] app [bold]{escape(client.id)}[/] on task queue {escape(queue)}, {escape(where)}"]
    if options.build_id is not None:
        lines.append(f"  as build {escape(options.build_id)} of deployment {escape(options.deployment_of(client))}")
    if queue != client.task_queue:
        return "\n".join([*lines, f"  steps only; the app's workflows run on task queue {escape(client.task_queue)}"])
    for workflow in client.workflows:
        triggers = ", ".join(_trigger(trigger) for trigger in workflow.triggers)
        lines.append(f"  {escape(workflow.id)}" + (f" [dim]←[/] {escape(triggers)}" if triggers else ""))
    for sink in client.sinks.values():
        events = ", ".join(_trigger(trigger) for trigger in sink.triggers)
        lines.append(f"  {escape(sink.id)} [dim]←[/] {escape(events)} [dim]→[/] {escape(sink.origin)}")
    if not client.workflows and not client.sinks:
        lines.append("  [yellow]no workflows[/]: the module defines none with @client.workflow")
    return "\n".join(lines)


def _trigger(trigger: steporal.EventTrigger | steporal.CronTrigger) -> str:
    from steporal import EventTrigger

    if isinstance(trigger, EventTrigger):
        return trigger.event if trigger.if_exp is None else f"{trigger.event} if {trigger.if_exp}"
    return f"cron {trigger.schedule}"


# --- signals -------------------------------------------------------------------------------------------------------


@contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """An event that the first signal to stop sets; a second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def heard(number: int) -> None:
        if stop.is_set():
            leave_at_once(128 + number)
        stop.set()

    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number in STOP_SIGNALS:
        _listen(loop, number, heard)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            if sys.platform != "win32":
                loop.remove_signal_handler(number)
            signal.signal(number, handler)


def _listen(loop: asyncio.AbstractEventLoop, number: int, heard: Callable[[int], None]) -> None:
    if sys.platform == "win32":  # its event loops have no signal handlers
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(heard, number))
    else:
        loop.add_signal_handler(number, heard, number)
