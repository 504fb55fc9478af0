"""Triggers of this process's client that the catalog does not have."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..events import ReceivedEvent, event_matches
from .catalog import Catalog, Snapshot
from .expressions import compile_expression

if TYPE_CHECKING:
    from ..client import Client

logger = logging.getLogger("steporal")

PATIENCE_SECONDS = 2.0
"""How long the first event that needs it waits for a worker to register; one that is starting takes a fraction."""

_PAUSE_SECONDS = 0.1

_Trigger = tuple[str, str, str | None]
"""A workflow's id, and the event and expression of its trigger."""


class Registration:
    """Finds events that would not start a workflow of their own client, as no worker has registered it.

    Args:
        client: The client that sends.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._complete: tuple[Snapshot, int] | None = None
        self._has_waited = False
        self._warned: set[tuple[str, str]] = set()

    async def wait(self, catalog: Catalog, events: Sequence[ReceivedEvent]) -> None:
        """Wait until the catalog has the triggers that events match, for a while and once; then warn."""
        missing = self._missing(await catalog.read(), events)
        if not missing:
            return
        missing = self._missing(await catalog.read(fresh=True), events)
        until = time.monotonic() + (0 if self._has_waited else PATIENCE_SECONDS)
        while missing and time.monotonic() < until:
            self._has_waited = True
            await asyncio.sleep(_PAUSE_SECONDS)
            missing = self._missing(await catalog.read(fresh=True), events)
        self._warn(missing)

    def _missing(self, snapshot: Snapshot, events: Sequence[ReceivedEvent]) -> dict[str, str]:
        """The workflows that events would start if they were registered, each with the name of such an event."""
        unlisted = self._unlisted(snapshot)
        return {} if not unlisted else dict(_matching(unlisted, events))

    def _unlisted(self, snapshot: Snapshot) -> list[_Trigger]:
        defined = len(self._client.workflows) + len(self._client.sinks)
        if self._complete is not None and self._complete[0] is snapshot and self._complete[1] == defined:
            return []
        app = snapshot.apps.get(self._client.id)
        workflows = () if app is None else app.workflows
        listed = {(each.id, entry.event, entry.if_exp) for each in workflows for entry in each.triggers}
        unlisted = [trigger for trigger in self._triggers() if trigger not in listed]
        if not unlisted:
            self._complete = snapshot, defined
        return unlisted

    def _triggers(self) -> Iterable[_Trigger]:
        for listed in self._client.listed().workflows:
            for entry in listed.triggers:
                if entry.event is not None:
                    yield listed.id, entry.event, entry.if_exp

    def _warn(self, missing: dict[str, str]) -> None:
        for workflow, event in missing.items():
            if (workflow, event) not in self._warned:
                self._warned.add((workflow, event))
                logger.warning(
                    "event %r does not start workflow %r: app %r has not registered that trigger in namespace %r; "
                    "start a worker, or run `steporal sync module:client`",
                    event,
                    workflow,
                    self._client.id,
                    self._client.temporal.namespace,
                )


def _matching(triggers: Sequence[_Trigger], events: Sequence[ReceivedEvent]) -> Iterable[tuple[str, str]]:
    for event in events:
        for workflow, pattern, if_exp in triggers:
            if event_matches(pattern, event.name) and (
                if_exp is None or compile_expression(if_exp).matches(event=event.model_dump(mode="json"))
            ):
                yield workflow, event.name
