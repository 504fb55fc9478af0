"""Subscriptions of a run to events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from datetime import timedelta
from typing import Any, Literal

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import FailureError

from ..types import JSON
from ..values.converter import from_raw, to_raw
from ..wire.limits import summary
from ..wire.names import SUBSCRIBE_RUN, UNSUBSCRIBE_RUN
from .branches import out_of_body
from .identity import run_id
from .inbox import Box, Inbox

_TIMEOUT = timedelta(seconds=30)


class Subscriptions:
    """The subscriptions of one run.

    Args:
        inbox: The events that were delivered for them.
        started_by: Returns the event that started the run.

    Attributes:
        inbox: See above.
        cancelling: The topics, or parts of topics, that hold a subscription to an event that cancels the run, by key.
    """

    def __init__(self, inbox: Inbox, started_by: Callable[[], dict[str, Any]]) -> None:
        self._started_by = started_by
        self.cancelling: dict[str, tuple[str, ...]] = {}
        self._ending: dict[asyncio.Task[None], str] = {}
        self._served: set[asyncio.Task[None]] = set()
        self.inbox = inbox

    @property
    def is_busy(self) -> bool:
        """True while a subscription is being ended, or made in the background."""
        return bool(self._ending or self._served)

    def serve(self, subscribe: Coroutine[Any, Any, None]) -> None:
        """Subscribe in the background."""
        task = asyncio.create_task(subscribe, context=out_of_body())
        self._served.add(task)
        task.add_done_callback(self._served.discard)

    async def subscribe(
        self, key: str, kind: Literal["once", "each"], topics: tuple[str, ...], source: str | None, until: float
    ) -> Box:
        """Hear of all events from now on; the box that they come into.

        Args:
            key: What the run calls the subscription.
            kind: Whether of one event, or of each.
            topics: Names and patterns of events.
            source: An expression that must be true.
            until: When it ends, in seconds since the epoch.

        Raises:
            FailureError: Temporal could not be reached often enough.
        """
        # The topics take the end of an earlier one with this key for the end of this one, if it comes later.
        while ending := [task for task, ended in self._ending.items() if ended == key]:
            await asyncio.wait(ending)
        box = self.inbox.open(key, topics, until)
        box.parts = await self._subscribe(key, kind, topics, source, until)
        return box

    async def cancel_on(self, key: str, topics: tuple[str, ...], source: str | None, until: float) -> None:
        """Be cancelled by an event from now on; the arguments are those of :meth:`subscribe`."""
        self.cancelling[key] = topics
        parts = await self._subscribe(key, "cancel", topics, source, until)
        self.cancelling[key] = tuple(parts.get(topic, topic) for topic in topics)

    async def _subscribe(
        self,
        key: str,
        kind: Literal["once", "each", "cancel"],
        topics: tuple[str, ...],
        source: str | None,
        until: float,
    ) -> dict[str, str]:
        """Subscribe; return the part that holds the subscription for each topic in parts."""
        started_by = self._started_by()
        answer = await self._update_topics(
            SUBSCRIBE_RUN,
            {
                "topics": list(topics),
                "subscription": {
                    "workflow_id": workflow.info().workflow_id,
                    "run_id": run_id(),
                    "key": key,
                    "kind": kind,
                    "source": source,
                    "event": started_by if source and "event" in source else {},
                    "until": until,
                    "ignored": started_by["id"] if kind == "cancel" else None,
                },
            },
            f"subscribe to {' or '.join(topics)}",
        )
        return dict(answer.get("parts", {})) if isinstance(answer, dict) else {}

    def unsubscribe(self, key: str, topics: Iterable[str] | None = None) -> None:
        """Hear no more of some topics, or of any; in the background, and at the latest when the run ends."""
        box = self.inbox.close(key)
        left = tuple(topics) if topics is not None else box.topics if box else ()
        left = box.places(left) if box is not None else left
        if left:
            task = asyncio.create_task(self._end({key: left}), context=out_of_body())
            self._ending[task] = key
            task.add_done_callback(self._ending.pop)

    async def end(self) -> None:
        """Hear no more of anything, as the run ends."""
        left = {key: box.places(box.topics) for key, box in self.inbox.boxes.items()} | self.cancelling
        self.inbox.boxes.clear()
        self.cancelling.clear()
        if left:
            await self._end(left)
        if self._ending:
            await asyncio.wait(self._ending)

    async def _end(self, left: dict[str, tuple[str, ...]]) -> None:
        by_place: dict[str, list[str]] = {}
        for key, places in left.items():
            for place in places:
                by_place.setdefault(place, []).append(key)
        info = workflow.info()
        argument: dict[str, JSON] = {"workflow_id": info.workflow_id, "run_id": run_id(), "keys": by_place}
        try:
            await self._update_topics(UNSUBSCRIBE_RUN, argument, f"unsubscribe from {' and '.join(by_place)}")
        except FailureError:
            workflow.logger.warning("could not unsubscribe from %s; the topics find out by themselves", list(by_place))

    async def _update_topics(self, activity: str, argument: JSON, what: str) -> JSON:
        answer = await workflow.execute_local_activity(
            activity,
            to_raw(argument),
            result_type=RawValue,
            schedule_to_close_timeout=timedelta(minutes=10),
            start_to_close_timeout=_TIMEOUT,
            retry_policy=RetryPolicy(maximum_interval=timedelta(seconds=10)),
            summary=summary(what),
        )
        return from_raw(answer)
