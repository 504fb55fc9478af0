"""What sending one event does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import temporalio.client
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from ..events import ReceivedEvent
from ..runtime.compiled import START_SIGNAL
from ..runtime.limits import summary
from ..runtime.start import Origin
from .catalog import Catalog, Match

CONCURRENCY = 64
"""Calls to Temporal that one dispatch has in flight."""


class Dispatcher:
    """Sends events into one Temporal namespace."""

    def __init__(self, temporal: temporalio.client.Client) -> None:
        self._temporal = temporal
        self.catalog = Catalog(temporal)

    async def dispatch(self, events: Sequence[ReceivedEvent]) -> None:
        """Start the runs that events start. Sending an event again, by its id, starts nothing twice.

        Raises:
            RPCError: Temporal refused, or could not be reached; some runs may have been started.
        """
        snapshot = await self.catalog.read()
        starts = [(event, match) for event in events for match in snapshot.matches(event.model_dump(mode="json"))]
        # Waiting runs hear of an event through its topic: that call belongs here.
        slots = asyncio.Semaphore(CONCURRENCY)

        async def start(event: ReceivedEvent, match: Match) -> None:
            async with slots:
                await self._start(event, match)

        try:
            async with asyncio.TaskGroup() as group:
                for event, match in starts:
                    group.create_task(start(event, match))
        except BaseExceptionGroup as group_error:
            raise group_error.exceptions[0] from None  # each is a call's own error, and one says it all

    async def _start(self, event: ReceivedEvent, match: Match) -> None:
        try:
            await self._temporal.start_workflow(
                match.workflow,
                args=Origin.of_event(event).arguments(event.data),
                id=f"{match.workflow}/{event.id}",
                task_queue=match.task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                start_signal=START_SIGNAL,
                static_summary=summary(f"started by {event.name}"),
            )
        except WorkflowAlreadyStartedError:
            pass  # the event was sent before
