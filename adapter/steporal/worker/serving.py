"""Workers for the system workflows, which the processes of all apps serve in addition to their own workflows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import temporalio.client
from temporalio.service import ServiceClient
from temporalio.worker import Worker

from ..loops import PerLoop
from ..observability import tracing
from ..routing.catalog.arbiter import AppWorkflow, arbiter_id
from ..routing.catalog.placing import REGISTRY_ACTIVITIES
from ..routing.catalog.shard_store import without_converter
from ..routing.catalog.shards import ShardWorkflow
from ..routing.mailbox import MailboxWorkflow
from ..routing.topics.delivery import SYSTEM_ACTIVITIES
from ..routing.topics.directory import DirectoryWorkflow
from ..routing.topics.late import LateWorkflow
from ..routing.topics.topic import TopicWorkflow
from ..sandbox.task_failures import WatchedRunner
from ..sdk.eviction import PlainRunner
from ..sdk.heartbeats import Heartbeats
from ..wire.names import SHARDS_TASK_QUEUE, SYSTEM_TASK_QUEUE

SYSTEM_WORKFLOWS: list[type] = [
    ShardWorkflow,
    AppWorkflow,
    DirectoryWorkflow,
    TopicWorkflow,
    LateWorkflow,
    MailboxWorkflow,
]


@dataclass(slots=True)
class _Shared:
    """Worker for a task queue, with the event loop that runs it and the number of its users."""

    changing: PerLoop[asyncio.Lock] = field(default_factory=lambda: PerLoop(asyncio.Lock))
    loop: asyncio.AbstractEventLoop | None = None
    worker: Worker | None = None
    running: asyncio.Future[None] | None = None
    users: int = 0

    @property
    def is_served(self) -> bool:
        return self.users > 0 and self.loop is not None and not self.loop.is_closed()

    async def stop(self) -> None:
        """Shut down the worker, in the loop that runs it."""
        assert self.worker is not None and self.running is not None
        await self.worker.shutdown()
        await self.running


_shared: WeakKeyDictionary[ServiceClient, dict[tuple[str, str], _Shared]] = WeakKeyDictionary()
"""Shared workers by connection, namespace and task queue."""


@asynccontextmanager
async def together(*managers: AbstractAsyncContextManager[None]) -> AsyncIterator[None]:
    """Enter context managers one after the other, and exit them all at once.

    A worker needs half a minute to stop if Temporal accepts its calls but does not respond, and a process has only
    five.
    """
    entered: list[AbstractAsyncContextManager[None]] = []
    try:
        for manager in managers:
            await manager.__aenter__()
            entered.append(manager)
        yield
    finally:
        leaving = [manager.__aexit__(None, None, None) for manager in entered]
        errors = [end for end in await asyncio.gather(*leaving, return_exceptions=True) if end]
        for error in errors[:1]:
            assert isinstance(error, BaseException)
            raise error


@asynccontextmanager
async def system_worker(temporal: temporalio.client.Client) -> AsyncIterator[None]:
    """Serve the topics, their directory, the mailboxes and the shards of the catalog of a namespace."""
    async with together(
        _serving(temporal, SHARDS_TASK_QUEUE, partial(_worker, without_converter(temporal), workflows=[ShardWorkflow])),
        _serving(temporal, SYSTEM_TASK_QUEUE, partial(_topics_worker, temporal)),
    ):
        yield


@asynccontextmanager
async def registry_worker(temporal: temporalio.client.Client, app: str, label: str) -> AsyncIterator[None]:
    """Serve the workflow that holds an app's list.

    Args:
        temporal: The connection.
        app: The app.
        label: The part of the worker's identity that describes this process's list.
    """
    make = partial(
        _worker,
        temporal,
        workflows=[AppWorkflow],
        activities=REGISTRY_ACTIVITIES,
        identity=f"{label}:{temporal.identity}",
        max_concurrent_activity_task_polls=1,
    )
    async with _serving(temporal, arbiter_id(app), make):
        yield


def _topics_worker(temporal: temporalio.client.Client, task_queue: str) -> Worker:
    return _worker(
        temporal,
        task_queue,
        workflows=[DirectoryWorkflow, TopicWorkflow, LateWorkflow, MailboxWorkflow],
        activities=SYSTEM_ACTIVITIES,
        interceptors=[tracing.of_worker()] if tracing.is_traced(temporal) else [],
        max_concurrent_workflow_task_polls=5,
        max_cached_workflows=100,
        # With Temporal's default of 10 s, a start would wait that long after another worker was killed.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
    )


def _worker(
    temporal: temporalio.client.Client, task_queue: str, *, interceptors: list[Any] | None = None, **options: Any
) -> Worker:
    heartbeats = Heartbeats()
    options.setdefault("max_concurrent_workflow_task_polls", 2)
    # Registrations seldom change, and their histories are short: replaying one costs less than waiting for the worker
    # that had it in its cache, and that may have stopped.
    options.setdefault("max_cached_workflows", 0)
    worker = Worker(
        temporal,
        task_queue=task_queue,
        interceptors=[heartbeats, *(interceptors or [])],
        unsandboxed_workflow_runner=WatchedRunner(PlainRunner(), ()),
        max_concurrent_workflow_tasks=20,
        max_concurrent_activities=20,
        **options,
    )
    heartbeats.attach(worker)
    return worker


@asynccontextmanager
async def _serving(
    temporal: temporalio.client.Client, task_queue: str, make: Callable[[str], Worker]
) -> AsyncIterator[None]:
    """Serve a task queue.

    Workers of one process and namespace that share a connection share this worker, because Temporal accepts only one
    for each task queue.
    """
    of_connection = _shared.setdefault(temporal.service_client, {})
    shared = of_connection.setdefault((temporal.namespace, task_queue), _Shared())
    async with shared.changing.get():
        if not shared.is_served:
            shared.loop, shared.users = asyncio.get_running_loop(), 0
            shared.worker = make(task_queue)
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
