"""Registration of an app's list, and confirmation that it is in force."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import temporalio.client
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, DescribeTaskQueueResponse
from temporalio.client import RPCTimeoutOrCancelledError, WithStartWorkflowOperation, WorkflowUpdateFailedError
from temporalio.common import RawValue, WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from ...app import App
from ...closures.own_code import OwnCode
from ...errors import CatalogFullError, TemporalCallError
from ...rpc import bounded
from ...values.converter import dumps, to_raw
from ...wire.names import ARBITER, CATALOG_FULL, REGISTER
from ..messages import TASK_TIMEOUT
from . import schedules
from .arbiter import MAX_LIST_BYTES, Claim, Standing, arbiter_id, standing_of
from .defined import list_of
from .differences import warn_of_dropped
from .listing import AppList
from .reading import Catalog
from .shard_store import Shards, is_placed, plain_converter
from .shards import field_of, parts_of

logger: logging.Logger = logging.getLogger("steporal")

_RPC_TIMEOUT = timedelta(seconds=10)

GONE_AFTER = timedelta(seconds=90)
"""Time after which a worker counts as gone. A worker polls at least once a minute; Temporal lists it for five."""

GRACE = timedelta(minutes=5)
"""Time that a list registered by ``steporal sync`` waits for workers that serve it."""

_TRIES, _PAUSE_SECONDS = 5, 0.5
"""Tries of the update: the workflow may end at that moment, because the app was removed, or its task may fail."""

_PASSING = (RPCStatusCode.NOT_FOUND, RPCStatusCode.ABORTED, RPCStatusCode.FAILED_PRECONDITION)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a registration.

    Attributes:
        app: The list.
        why_not: The reason why the list is not in force; empty if it is.
    """

    app: AppList
    why_not: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Process that registers a list.

    Attributes:
        revision: The revision of its code.
        started: The start of the process, in milliseconds since the epoch.
        version: Its Worker Deployment Version, ``{deployment}.{build}``; empty without Worker Versioning.
        is_worker: Whether it is a worker, and not ``steporal sync``.
    """

    revision: int
    started: int
    version: str = ""
    is_worker: bool = True

    @classmethod
    def of(cls, app: App, *, version: str = "", is_worker: bool = True) -> Source:
        """Return a description of this process, as of now."""
        now = time.time()
        return cls(revision=revision_of(app), started=round(now * 1000), version=version, is_worker=is_worker)


def revision_of(app: App) -> int:
    """Return the revision of an app's code: as set by the user, otherwise the time when its newest module changed."""
    if app.revision is not None:
        return app.revision
    handlers = [workflow.handler for workflow in app.workflows.values()]
    files = OwnCode(handlers).files() | {handler.__code__.co_filename for handler in handlers}
    return max((_modified(file) for file in files), default=0)


def _modified(file: str) -> int:
    try:
        return int(os.stat(file).st_mtime)
    except OSError:  # a handler made by exec, or a module in an archive
        return 0


class Registrar:
    """Registers the list of an app.

    Args:
        app: The app.
        temporal: A connection.
        source: This process.
    """

    def __init__(self, app: App, temporal: temporalio.client.Client, source: Source) -> None:
        self._app = app
        self._temporal = temporal
        self._source = source

    async def confirm(self, *, thorough: bool = False, take_over: bool = False) -> Outcome:
        """Make sure that the list is in force, if it should be. If it already is, this only reads.

        Args:
            thorough: Whether to check each shard and each schedule.
            take_over: Whether to replace any other list.

        Raises:
            CatalogFullError: The list is too large, or does not fit into the catalog.
            TemporalCallError: The placement was rejected.
            RPCError: Temporal returned an error, or could not be reached.
        """
        temporal, listed = self._temporal, list_of(self._app)
        registered = await Catalog(temporal).read_app(listed.id)
        if registered is None and not listed.workflows:
            return Outcome(listed)
        if registered is not None and registered.standing is None and not take_over:
            return Outcome(listed, "a later version of Steporal has registered the app")
        standing = None if registered is None else registered.standing
        claim = await self._claim(listed, thorough=thorough, take_over=take_over)
        if self._source.version and standing is not None and not take_over:
            current = await self._current_version()
            if current != self._source.version:
                return Outcome(
                    listed, f"version {self._source.version!r} is not the current version, {_named(current)}"
                )
            claim = claim.model_copy(update={"is_current": True})
        if registered is not None and standing is not None and claim.digest == standing.digest:
            is_complete = not registered.is_stale and await self._is_placed(listed)
            claim = claim.model_copy(update={"repair": not is_complete})
        if not claim.changes(standing):
            return Outcome(listed)
        if standing is not None and not claim.prevails(standing):
            why_not = await self._why_not(standing)
            if why_not:
                return Outcome(listed, why_not)
            claim = claim.model_copy(update={"over": standing.generation})
        decided = await self._register(claim)
        if decided is not None and decided.digest != claim.digest:
            return Outcome(listed, f"a list of revision {decided.revision} was registered at the same time")
        if registered is not None and registered.app is not None:
            warn_of_dropped(registered.app, listed)
        return Outcome(listed)

    async def _claim(self, listed: AppList, *, thorough: bool, take_over: bool) -> Claim:
        starts = schedules.starts_of(listed)
        size = len(dumps(listed.model_dump(mode="json", exclude_defaults=True)))
        if size > MAX_LIST_BYTES:
            raise CatalogFullError(
                f"app {listed.id!r} is too large to register: its list of {len(listed.workflows):,} workflows has "
                f"{size:,} bytes, but the maximum is {MAX_LIST_BYTES:,}; define some of its workflows in another app"
            )
        return Claim(
            app=listed,
            digest=digest_of(listed),
            schedules_digest=await schedules.digest(self._temporal, starts.values()),
            revision=self._source.revision,
            started=self._source.started,
            version=self._source.version,
            from_worker=self._source.is_worker,
            take_over=take_over,
            thorough=thorough,
        )

    async def _is_placed(self, listed: AppList) -> bool:
        temporal, parts = self._temporal, parts_of(listed)
        memos = await bounded(Shards(temporal).read, parts)
        converter = plain_converter(temporal.data_converter)
        for part, memo in zip(parts.values(), memos, strict=True):
            if not await is_placed(converter, field_of(memo, listed.id), part):
                return False
        return True

    # --- other lists in force --------------------------------------------------------------------------------------

    async def _why_not(self, standing: Standing) -> str:
        """Return why another list stays in force; empty if no worker serves it any more."""
        if standing.version:
            current = await self._current_version()
            return (
                current and f"the list of version {standing.version!r} is in force, because that is the current version"
            )
        since = datetime.fromtimestamp(standing.since / 1000, UTC)
        is_served = any(worker.digest == standing.digest for worker in await workers_of(self._temporal, self._app.id))
        if not is_served and (standing.from_worker or datetime.now(UTC) - since > GRACE):
            return ""
        whose = "served by other workers" if is_served else "registered by `steporal sync`"
        if standing.revision > self._source.revision:
            return (
                f"a list of revision {standing.revision} is in force, {whose}; this is revision {self._source.revision}"
            )
        return f"another list of the same revision, {standing.revision}, is in force, {whose}"

    async def _current_version(self) -> str:
        """Return the Worker Deployment Version that gets new runs; empty if workers without a version do."""
        described = await _describe(self._temporal, self._app.task_queue)
        current = described.versioning_info.current_deployment_version
        return f"{current.deployment_name}.{current.build_id}" if current.build_id else ""

    # --- write -----------------------------------------------------------------------------------------------------

    async def _register(self, claim: Claim) -> Standing | None:
        """Send the claim to the app's workflow, and wait until it is decided and placed."""
        for _ in range(_TRIES - 1):
            try:
                return await self._update(claim)
            except RPCError as err:
                if err.status not in _PASSING:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)
        return await self._update(claim)

    async def _update(self, claim: Claim) -> Standing | None:
        start: WithStartWorkflowOperation[object, None] = WithStartWorkflowOperation(
            ARBITER,
            id=arbiter_id(claim.app.id),
            task_queue=arbiter_id(claim.app.id),
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            task_timeout=TASK_TIMEOUT,
            static_summary=f"registration of app {claim.app.id}"[:200],
        )
        try:
            answer = await self._temporal.execute_update_with_start_workflow(
                REGISTER,
                to_raw(claim.model_dump(mode="json", exclude_defaults=True)),
                start_workflow_operation=start,
                result_type=RawValue,
            )
        except WorkflowUpdateFailedError as err:
            if isinstance(err.cause, ApplicationError) and err.cause.type == CATALOG_FULL:
                raise CatalogFullError(err.cause.message) from None
            why = err.cause.message if isinstance(err.cause, ApplicationError) else err.cause
            raise TemporalCallError(f"registering app {claim.app.id!r}: {why}") from err
        except (RPCError, RPCTimeoutOrCancelledError):
            # The start operation also keeps the error, and asyncio would log it if nothing retrieved it.
            await asyncio.gather(start.workflow_handle(), return_exceptions=True)
            raise
        return standing_of(answer)


# --- workers of an app ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListedWorker:
    """Worker of an app, as Temporal lists it.

    Attributes:
        digest: The digest of its list.
        revision: The revision of its code.
        identity: Its identity in Temporal.
    """

    digest: str
    revision: str
    identity: str


async def workers_of(temporal: temporalio.client.Client, app: str) -> list[ListedWorker]:
    """Return the workers of an app that have polled in the last minute and a half."""
    described = await _describe(temporal, arbiter_id(app))
    oldest = datetime.now(UTC) - GONE_AFTER
    workers = []
    for poller in described.pollers:
        digest, _, rest = poller.identity.partition(":")
        revision, _, identity = rest.partition(":")
        if revision.isdigit() and poller.last_access_time.ToDatetime(tzinfo=UTC) > oldest:
            workers.append(ListedWorker(digest, revision, identity))
    return workers


async def _describe(temporal: temporalio.client.Client, task_queue: str) -> DescribeTaskQueueResponse:
    return await temporal.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=temporal.namespace,
            task_queue=TaskQueue(name=task_queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        ),
        timeout=_RPC_TIMEOUT,
    )


def digest_of(listed: AppList) -> str:
    """Return the digest of a list."""
    return hashlib.sha256(dumps(listed.model_dump(mode="json", exclude_defaults=True))).hexdigest()[:16]


def label_of(listed: AppList, source: Source) -> str:
    """Return the label of a process's list, which is part of its identity when it polls."""
    return f"{digest_of(listed)}:{source.revision}"


def _named(version: str) -> str:
    return f"which is {version!r}" if version else "as no version is current"
