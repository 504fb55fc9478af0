"""What sending one event does."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

import temporalio.client
from temporalio.common import MetricMeter, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from ..events import SYSTEM_EVENTS, ReceivedEvent, SendEventResult, StartedRun
from ..metrics import EVENTS_MATCHED, EVENTS_SENT, EVENTS_UNMATCHED, EXPRESSIONS_OVER_BUDGET, meter_of
from ..runtime.limits import summary
from ..runtime.start import START_SIGNAL, Origin
from ..search_attributes import of_run, start_indexed
from ..tracing import sending
from ..types import JSON
from .bridges import is_bridged, unmarked
from .catalog import Catalog, Match, Snapshot
from .expressions import warn_over_budget
from .pace import Pace
from .publish import Topics

FINISHED = "inngest/function.finished"
FAILED = "inngest/function.failed"

CONCURRENCY = 64
"""Calls to Temporal that one dispatch has in flight."""


def _started(event: ReceivedEvent, match: Match) -> StartedRun:
    return StartedRun.of(match.app, match.workflow, event.id)


class Dispatcher:
    """Sends events into one Temporal namespace."""

    def __init__(self, temporal: temporalio.client.Client) -> None:
        self._temporal = temporal
        self.catalog = Catalog(temporal)
        self._topics = Topics(temporal)
        self._meter = meter_of(temporal)

    async def dispatch(self, events: Sequence[ReceivedEvent]) -> SendEventResult:
        """Start the runs that events start, and tell those that wait for them.

        Sending an event again, by its id, starts nothing twice and wakes no later wait.

        Returns:
            The ids of the events, the runs that they have started, now or when they were sent before, and the events
            whose topic runs, as some run waits for their name.

        Raises:
            RPCError: Temporal refused, or could not be reached; some runs may have been started.
        """
        snapshot = await self.catalog.read()
        listened = snapshot.is_listened(FINISHED)
        ids = [event.id for event in events]
        bridged = [is_bridged(event) for event in events]
        events = [unmarked(event) for event in events]
        encoded, starts, pace = [], [], Pace()
        for event, came in zip(events, bridged, strict=True):
            data = event.model_dump(mode="json")
            encoded.append(data)
            starts += [(event, match) for match in await self._matches(snapshot, data, came, pace)]
            await pace.keep()
        slots = asyncio.Semaphore(CONCURRENCY)

        async def start(event: ReceivedEvent, match: Match) -> None:
            async with slots:
                await self._start(event, match, listened)

        try:
            with sending(self._temporal, events):
                async with asyncio.TaskGroup() as group:
                    publishing = group.create_task(self._publish(encoded))
                    for event, match in starts:
                        group.create_task(start(event, match))
            heard = publishing.result().result()
        except BaseExceptionGroup as error:
            raise first_of(error) from None  # each is a call's own error, and one says it all
        if self._meter is not None:
            _count(self._meter, snapshot, events, starts, heard)
        return SendEventResult(
            ids=ids,
            runs=[_started(event, match) for event, match in starts],
            awaited=[id for id, event in zip(ids, events, strict=True) if event.id in heard],
        )

    async def _publish(self, events: Sequence[dict[str, JSON]]) -> asyncio.Task[set[str]]:
        """Send events to topics; return the finished task, whose error must not cancel the starts."""
        publishing = asyncio.create_task(self._topics.publish(events))
        try:
            await asyncio.wait([publishing])
        except asyncio.CancelledError:
            publishing.cancel()
            await asyncio.wait([publishing])
            raise
        return publishing

    async def _matches(self, snapshot: Snapshot, event: Mapping[str, JSON], came: bool, pace: Pace) -> list[Match]:
        """The workflows that start on an event, each once, whichever of its triggers matches first."""
        found: dict[Match, None] = {}
        for match, entry in snapshot.candidates(event["name"], bridged=came):
            if match in found:
                continue
            judgement = snapshot.judge(match, entry, event)
            if judgement.is_over_budget:
                self._over_budget(match, entry.if_exp or "")
            await pace.keep()
            if judgement.is_true:
                found[match] = None
        return list(found)

    def _over_budget(self, match: Match, source: str) -> None:
        warn_over_budget(source, f"a trigger of workflow {match.workflow!r}")
        if self._meter is not None:
            EXPRESSIONS_OVER_BUDGET.add(self._meter, task_queue=match.task_queue, workflow_type=match.workflow)

    async def is_finish_listened(self) -> bool | None:
        """Whether runs have to tell that they have finished; None if the catalog cannot be read now."""
        try:
            return (await self.catalog.read()).is_listened(FINISHED)
        except RPCError:
            return None

    async def _start(self, event: ReceivedEvent, match: Match, listened: bool) -> None:
        origin = Origin.of_event(event, listened)
        try:
            await start_indexed(
                self._temporal,
                of_run(match.app, match.workflow, event.name, event.id),
                lambda attributes: self._temporal.start_workflow(
                    match.workflow,
                    args=origin.arguments(event.data),
                    id=_started(event, match).workflow_id,
                    task_queue=match.task_queue,
                    id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    start_signal=START_SIGNAL,
                    search_attributes=attributes,
                    static_summary=summary(f"started by {event.name}"),
                    static_details=origin.details(),
                ),
            )
        except WorkflowAlreadyStartedError:
            pass  # the event was sent before


def _count(
    meter: MetricMeter,
    snapshot: Snapshot,
    events: Sequence[ReceivedEvent],
    starts: Sequence[tuple[ReceivedEvent, Match]],
    heard: Collection[str],
) -> None:
    matched = {event.id for event, _ in starts}
    for event in events:
        name = snapshot.trigger_for(event.name)
        EVENTS_SENT.add(meter, event=name)
        if event.id not in matched and event.id not in heard and event.name not in SYSTEM_EVENTS:
            EVENTS_UNMATCHED.add(meter, event=name)
    for event, match in starts:
        EVENTS_MATCHED.add(meter, event=snapshot.trigger_for(event.name), workflow_type=match.workflow)


def first_of(error: BaseException) -> BaseException:
    """The first error in groups of errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
