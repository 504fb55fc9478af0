"""Worker loop of a process: serves until a signal stops it, and then lets running steps finish."""

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
    """Flags of ``steporal worker``; None leaves a value to Temporal's default."""

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
        """Return the arguments for ``temporalio.worker.Worker``."""
        optional = {
            "max_concurrent_activities": self.max_concurrent_steps,
            "max_concurrent_workflow_tasks": self.max_concurrent_workflow_tasks,
            "max_cached_workflows": self.max_cached_workflows,
            "deployment_config": self._deployment_config(client),
        }
        return {
            "task_queue": self.task_queue or client.task_queue,
            "graceful_shutdown_timeout": self.graceful_timeout,
            **{name: value for name, value in optional.items() if value is not None},
        }

    def task_queues_of(self, client: steporal.Client) -> Queues:
        """Return a function that returns the task queues that the worker serves."""

        async def served() -> set[str]:
            return {self.task_queue or client.task_queue, SYSTEM_TASK_QUEUE}

        return served

    def deployment_of(self, client: steporal.Client) -> str:
        """Return the name of the deployment of Worker Versioning.

        Raises:
            Mistake: Temporal does not accept the name.
        """
        name = self.deployment or client.id
        if "." in name:
            raise Mistake(
                f"deployment name {name!r} is not valid: it contains a '.'; choose another: --deployment NAME"
            )
        return name

    def _deployment_config(self, client: steporal.Client) -> WorkerDeploymentConfig | None:
        """Pin runs to the version that they start with; parked runs move to the current version."""
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
        client: The app whose workflows the worker serves.
        temporal: The connection.
        options: The flags.
        beside: Runs as long as the worker serves, such as the gateway; receives the event that is set when it stops.
        first: Runs under `steporal dev` before the worker serves; such a worker prints nothing when it stops.

    Raises:
        Failure: The worker cannot start, or cannot continue.
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
                say(f"stopping: running steps have {patience} to finish; send another signal to stop at once")
            await worker.shutdown()
        for task in (announcing, stopped):
            task.cancel()
        await asyncio.gather(announcing, stopped, return_exceptions=True)  # the worker reports the same failure
        try:
            await running
        except (RPCError, RuntimeError, TemporalCallError) as err:
            raise Failure(f"the worker cannot continue: {err}") from err
    if first is None:
        say("stopped")


async def _is_stopped(operation: Awaitable[None], stop: asyncio.Event) -> bool:
    """Perform an operation, and return whether a signal has cut it short."""
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
    """Return the readiness checks of a worker."""

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
    """Return a check that fails if the triggers of another list of the app are in force."""

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
            "  [yellow]not the current version[/]: Temporal sends it no new runs until you run "
            f"`temporal worker deployment set-current-version --deployment-name {name} --build-id {build}`"
        )


async def _is_current(temporal: temporalio.client.Client, deployment: str, build_id: str) -> bool:
    """Return whether a version receives new runs; known as soon as the worker has polled."""
    request = DescribeWorkerDeploymentRequest(namespace=temporal.namespace, deployment_name=deployment)
    try:
        described = await temporal.workflow_service.describe_worker_deployment(request)
    except RPCError:  # the worker has not polled yet
        return False
    routing = described.worker_deployment_info.routing_config
    return routing.current_deployment_version.build_id == build_id


def describe(client: steporal.Client, temporal: temporalio.client.Client, options: WorkerOptions) -> str:
    """Return a description of the workflows that a worker serves, and where."""
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
    """Yield an event that the first signal to stop sets; a second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stop.is_set():
            leave_at_once(128 + number)
        stop.set()

    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number in STOP_SIGNALS:
        _listen(loop, number, on_signal)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            if sys.platform != "win32":
                loop.remove_signal_handler(number)
            signal.signal(number, handler)


def _listen(loop: asyncio.AbstractEventLoop, number: int, on_signal: Callable[[int], None]) -> None:
    if sys.platform == "win32":  # its event loops have no signal handlers
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(on_signal, number))
    else:
        loop.add_signal_handler(number, on_signal, number)
