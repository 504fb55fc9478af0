"""Dispatch of events: starts runs, and publishes events to waiting runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

import temporalio.client
from temporalio.common import MetricMeter
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from ..events import FINISHED, SYSTEM_EVENTS, ReceivedEvent, SendEventResult, StartedRun
from ..expressions.expression import warn_over_budget
from ..metrics import EVENTS_MATCHED, EVENTS_SENT, EVENTS_UNMATCHED, EXPRESSIONS_OVER_BUDGET, STARTS_REFUSED, meter_of
from ..observability.tracing import sending
from ..rpc import first_of
from ..start_request import StartRequest, start_run
from ..types import JSON
from ..wire.limits import summary
from ..wire.names import START_SIGNAL
from ..wire.start import Origin
from .catalog.reading import Catalog, Match, Snapshot
from .inngest_bridge import is_bridged, unmarked
from .pace import Pace
from .topics.client import Topics

_logger = logging.getLogger("steporal.events")

Start: TypeAlias = tuple[str, Match]
"""Run that an event starts: the event's id, and the workflow."""

CONCURRENCY = 64
"""Limit of concurrent calls to Temporal in one dispatch."""


def _started(event: ReceivedEvent, match: Match) -> StartedRun:
    return StartedRun.of(match.app, match.workflow, event.id)


class Dispatcher:
    """Sends events into one Temporal namespace."""

    def __init__(self, temporal: temporalio.client.Client) -> None:
        self._temporal = temporal
        self.catalog: Catalog = Catalog(temporal)
        self._topics = Topics(temporal)
        self._meter = meter_of(temporal)

    async def dispatch(self, events: Sequence[ReceivedEvent]) -> SendEventResult:
        """Start the runs that events start, and publish the events to the runs that wait for them.

        Sending an event again with the same id starts nothing twice and wakes no later wait.

        Returns:
            The ids of the events, the runs that they have started, now or when they were sent before, and the events
            whose name runs wait for, so that a topic exists. A run that Temporal refuses to start for good is not
            included; other runs and the sender are not affected.

        Raises:
            RPCError: Temporal returned an error, or could not be reached; some runs may have been started.
        """
        snapshot = await self.catalog.read([FINISHED, *(event.name for event in events)])
        listened = snapshot.is_listened(FINISHED)
        ids = [event.id for event in events]
        bridged = [is_bridged(event) for event in events]
        events = [unmarked(event) for event in events]
        encoded, starts, pace = [], [], Pace()
        for event, was_bridged in zip(events, bridged, strict=True):
            data = event.model_dump(mode="json")
            encoded.append(data)
            starts += [(event, match) for match in await self._matches(snapshot, data, was_bridged, pace)]
            await pace.keep()
        waiting, refused = iter(starts), set[Start]()

        async def start_some() -> None:
            for event, match in waiting:  # an iterator that all of these tasks share
                if not await self._start(event, match, listened):
                    refused.add((event.id, match))

        try:
            with sending(self._temporal, events):
                async with asyncio.TaskGroup() as group:
                    publishing = group.create_task(self._publish(encoded))
                    for _ in range(min(CONCURRENCY, len(starts))):
                        group.create_task(start_some())
            awaited = publishing.result().result()
        except BaseExceptionGroup as error:
            raise first_of(error) from None  # each of them is the error of one call, so one is sufficient
        starts = [(event, match) for event, match in starts if (event.id, match) not in refused]
        if self._meter is not None:
            _count(self._meter, snapshot, events, starts, awaited)
        return SendEventResult(
            ids=ids,
            runs=[_started(event, match) for event, match in starts],
            awaited=[id for id, event in zip(ids, events, strict=True) if event.id in awaited],
        )

    async def _publish(self, events: Sequence[dict[str, JSON]]) -> asyncio.Task[set[str]]:
        """Publish events to topics; return the finished task, whose error must not cancel the starts."""
        publishing = asyncio.create_task(self._topics.publish(events))
        try:
            await asyncio.wait([publishing])
        except asyncio.CancelledError:
            publishing.cancel()
            await asyncio.wait([publishing])
            raise
        return publishing

    async def _matches(self, snapshot: Snapshot, event: Mapping[str, JSON], bridged: bool, pace: Pace) -> list[Match]:
        """Return the workflows that start on an event, each once, whichever of its triggers matches first."""
        matches: dict[Match, None] = {}
        for match, entry in snapshot.candidates(event["name"], bridged=bridged):
            if match in matches:
                continue
            judgement = snapshot.judge(match, entry, event)
            if judgement.is_over_budget:
                self._over_budget(match, entry.if_exp or "")
            await pace.keep()
            if judgement.is_true:
                matches[match] = None
        return list(matches)

    def _over_budget(self, match: Match, source: str) -> None:
        warn_over_budget(source, f"a trigger of workflow {match.workflow!r}")
        if self._meter is not None:
            EXPRESSIONS_OVER_BUDGET.add(self._meter, task_queue=match.task_queue, workflow_type=match.workflow)

    async def is_finish_listened(self) -> bool | None:
        """Return whether runs must send an event when they finish; None if the catalog cannot be read now."""
        try:
            return (await self.catalog.read([FINISHED])).is_listened(FINISHED)
        except RPCError:
            return None

    async def _start(self, event: ReceivedEvent, match: Match, listened: bool) -> bool:
        """Start a run; return False if Temporal would reject it in every attempt."""
        request = StartRequest(
            app=match.app,
            workflow=match.workflow,
            workflow_id=_started(event, match).workflow_id,
            task_queue=match.task_queue,
            origin=Origin.of_event(event, listened),
            data=event.data,
            summary=summary(f"started by {event.name}"),
            start_signal=START_SIGNAL,
        )
        try:
            await start_run(self._temporal, request)
        except WorkflowAlreadyStartedError:
            return True  # the event was sent before
        except RPCError as err:
            if err.status != RPCStatusCode.INVALID_ARGUMENT:
                raise
            self._refused(event, match, err)
            return False
        return True

    def _refused(self, event: ReceivedEvent, match: Match, error: RPCError) -> None:
        _logger.error(
            "event %r with id %r does not start workflow %r of app %r, because Temporal rejects the start: %s; correct "
            "the workflow's registration, and send the event again",
            event.name,
            event.id,
            match.workflow,
            match.app,
            error.message,
        )
        if self._meter is not None:
            STARTS_REFUSED.add(self._meter, task_queue=match.task_queue, workflow_type=match.workflow)


def _count(
    meter: MetricMeter,
    snapshot: Snapshot,
    events: Sequence[ReceivedEvent],
    starts: Sequence[tuple[ReceivedEvent, Match]],
    awaited: Collection[str],
) -> None:
    matched = {event.id for event, _ in starts}
    for event in events:
        name = snapshot.trigger_for(event.name)
        EVENTS_SENT.add(meter, event=name)
        if event.id not in matched and event.id not in awaited and event.name not in SYSTEM_EVENTS:
            EVENTS_UNMATCHED.add(meter, event=name)
    for event, match in starts:
        EVENTS_MATCHED.add(meter, event=snapshot.trigger_for(event.name), workflow_type=match.workflow)
