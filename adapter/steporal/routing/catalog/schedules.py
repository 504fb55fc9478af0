"""Cron triggers as Temporal schedules."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import temporalio.client
from temporalio.api.common.v1 import Payload
from temporalio.client import (
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.common import RawValue
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode

from ...observability.search_attributes import has_all
from ...rpc import bounded
from ...start_request import StartRequest
from ...triggers import CronTrigger
from ...values.converter import from_raw
from ...values.encrypted import is_current
from ...wire.limits import summary
from ...wire.names import SCHEDULE_ID
from ...wire.start import SCHEDULED, Origin
from ...wire.workflow_ids import escaped, workflow_id_of
from .listing import AppList

_MIN_CATCHUP = timedelta(seconds=10)
"""Smallest catch-up window that Temporal accepts."""


@dataclass(frozen=True, slots=True)
class CronStart:
    """Workflow that a cron trigger starts."""

    app: str
    workflow: str
    task_queue: str
    trigger: CronTrigger

    @property
    def id(self) -> str:
        """Schedule's id: with another jitter, it stays the same schedule, which is updated."""
        return f"{prefix_of(self.app)}{escaped(self.workflow)}/{_digest(self.trigger.described)}"

    @property
    def run_id_prefix(self) -> str:
        """Prefix of its runs' workflow ids, to which Temporal appends the time.

        If two schedules of a workflow are due at the same time, they start two runs.
        """
        return workflow_id_of(self.app, self.workflow, f"cron-{_digest(self.id)}")

    @property
    def catchup_window(self) -> timedelta:
        """Time after its due time in which a run may still be started: until the next one is due.

        So after an outage of Temporal, only the last due run is started. By default, Temporal starts all runs at once
        that were due within a year; for a schedule that is due every minute, these are sixty after an hour.
        """
        return max(self.trigger.shortest_period, _MIN_CATCHUP)

    def schedule(self, *, indexed: bool) -> Schedule:
        """Return the Temporal schedule. Runs may overlap.

        Args:
            indexed: Whether the runs set their own search attributes. If a schedule had attributes and someone removed
                them from the namespace, the schedule would start no runs, and could not be described.
        """
        request = StartRequest(
            app=self.app,
            workflow=self.workflow,
            workflow_id=self.run_id_prefix,
            task_queue=self.task_queue,
            origin=Origin("cron", "", SCHEDULED, cron=self.trigger.schedule, indexed=indexed or None),
            data=None,
            summary=summary(f"started by {self.trigger.described}"),
        )
        return Schedule(
            action=ScheduleActionStartWorkflow(
                request.workflow,
                args=request.arguments(),
                id=request.workflow_id,
                task_queue=self.task_queue,
                static_summary=request.summary,
            ),
            spec=ScheduleSpec(
                cron_expressions=list(self.trigger.expressions),
                time_zone_name=self.trigger.timezone,
                jitter=self.trigger.jitter,
            ),
            policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.ALLOW_ALL, catchup_window=self.catchup_window),
        )


def prefix_of(app: str) -> str:
    """Return the prefix of the ids of an app's schedules."""
    return f"{SCHEDULE_ID}{escaped(app)}/"


def starts_of(app: AppList) -> dict[str, CronStart]:
    """Return the starts of the cron triggers in an app's list, by the schedule's id."""
    starts = [
        CronStart(app.id, listed.id, app.task_queue, _trigger(entry.cron, entry.timezone, entry.jitter))
        for listed in app.workflows
        for entry in listed.triggers
        if entry.cron is not None
    ]
    return {start.id: start for start in starts}


def _trigger(cron: str, timezone: str | None, jitter: float | None) -> CronTrigger:
    return CronTrigger(cron, timezone, None if jitter is None else timedelta(seconds=jitter))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


_FORM = 3
"""Format of schedules: if it changes, workers update existing schedules."""


async def digest(temporal: temporalio.client.Client, starts: Iterable[CronStart]) -> str:
    """Return a digest of the schedules that this version makes; empty without schedules."""
    parts = sorted(map(repr, starts))
    if not parts:
        return ""
    return hashlib.sha256(f"{_FORM} {await has_all(temporal)} {parts}".encode()).hexdigest()[:16]


async def existing(temporal: temporalio.client.Client, app: str) -> list[str]:
    """Return the ids of all schedules of an app that Temporal lists."""
    prefix = prefix_of(app)
    return [listed.id async for listed in await temporal.list_schedules(page_size=1000) if listed.id.startswith(prefix)]


async def apply(temporal: temporalio.client.Client, wanted: Mapping[str, CronStart], known: Iterable[str]) -> None:
    """Create and update the wanted schedules, and delete those of ``known`` that are not wanted.

    Raises:
        RPCError: Temporal rejected one, or could not be reached; others may have been updated.
    """
    await bounded(partial(_put, temporal), wanted.values())
    await bounded(partial(_delete, temporal), set(known) - set(wanted))


async def _put(temporal: temporalio.client.Client, start: CronStart) -> None:
    schedule = start.schedule(indexed=await has_all(temporal))

    async def changed(existing: ScheduleUpdateInput) -> ScheduleUpdate | None:
        """Return the update, or None if nothing differs: an update could undo that somebody has just paused it."""
        current = existing.description.schedule
        is_same = await _comparable(current, temporal.data_converter) == await _comparable(
            schedule, DataConverter.default
        )
        if is_same and all(is_current(temporal.data_converter, payload) for payload in _payloads(current)):
            return None
        schedule.state = current.state  # a paused schedule stays paused
        return ScheduleUpdate(schedule=schedule)

    try:
        await temporal.create_schedule(start.id, schedule)
    except ScheduleAlreadyRunningError:
        await temporal.get_schedule_handle(start.id).update(changed)


async def _comparable(schedule: Schedule, converter: DataConverter) -> tuple[object, ...]:
    """Return the properties in which two schedules with the same id can differ."""
    action = schedule.action
    queue = action.task_queue if isinstance(action, ScheduleActionStartWorkflow) else None
    payloads = _payloads(schedule)
    values = [from_raw(raw) for raw in await converter.decode(payloads, [RawValue] * len(payloads))]
    zone, jitter = schedule.spec.time_zone_name or "UTC", schedule.spec.jitter or timedelta(0)
    return queue, values, zone, jitter, schedule.policy.overlap, schedule.policy.catchup_window


def _payloads(schedule: Schedule) -> list[Payload]:
    """Return the arguments of the runs that a schedule starts, in their stored form."""
    action = schedule.action
    args = action.args if isinstance(action, ScheduleActionStartWorkflow) else []
    return [arg.payload if isinstance(arg, RawValue) else arg for arg in args]


async def _delete(temporal: temporalio.client.Client, schedule_id: str) -> None:
    try:
        await temporal.get_schedule_handle(schedule_id).delete()
    except RPCError as err:
        if err.status != RPCStatusCode.NOT_FOUND:
            raise
