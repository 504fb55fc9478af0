"""Differences between a client and the catalog: missing triggers, and what a registration drops."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence

from ...app import App
from ...events import ReceivedEvent
from ...expressions.expression import compile_expression
from ..pace import Pace
from .defined import list_of
from .listing import AppList, Entry
from .reading import Catalog, Snapshot
from .shards import keys_of

logger: logging.Logger = logging.getLogger("steporal")

PATIENCE_SECONDS = 2.0
"""Time that the first affected event waits for a worker to register; a starting worker needs a fraction of it."""

_PAUSE_SECONDS = 0.1

_Trigger = tuple[str, str, str | None]
"""A workflow's id, and the event and expression of its trigger."""


class Registration:
    """Finds events that would not start a workflow of their own client, because no worker has registered it.

    Args:
        app: The app that sends.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._defined = 0
        self._own: dict[str, list[_Trigger]] = {}
        self._has_waited = False
        self._warned: set[tuple[str, str]] = set()

    async def wait(self, catalog: Catalog, events: Sequence[ReceivedEvent]) -> None:
        """Wait, once and for a limited time, until the catalog has the triggers that events match; then warn."""
        names = {event.name for event in events if self._triggers(event.name)}
        if not names:
            return
        concerned = [event for event in events if event.name in names]
        missing = await self._missing(await catalog.read(names), concerned)
        if not missing:
            return
        missing = await self._missing(await catalog.read(names, fresh=True), concerned)
        until = time.monotonic() + (0 if self._has_waited else PATIENCE_SECONDS)
        while missing and time.monotonic() < until:
            self._has_waited = True
            await asyncio.sleep(_PAUSE_SECONDS)
            missing = await self._missing(await catalog.read(names, fresh=True), concerned)
        self._warn(missing, catalog.namespace)

    async def _missing(self, snapshot: Snapshot, events: Sequence[ReceivedEvent]) -> dict[str, str]:
        """Return the workflows that events would start if they were registered, each with the name of an event."""
        unlisted = {name: self._unlisted(snapshot, name) for name in {event.name for event in events}}
        return await _matching(unlisted, events) if any(unlisted.values()) else {}

    def _unlisted(self, snapshot: Snapshot, name: str) -> list[_Trigger]:
        listed = {
            (match.workflow, entry.event, entry.if_exp)
            for match, entry in snapshot.candidates(name)
            if match.app == self._app.id
        }
        return [trigger for trigger in self._triggers(name) if trigger not in listed]

    def _triggers(self, name: str) -> list[_Trigger]:
        """Return the client's own triggers for events of a name."""
        defined = len(self._app.workflows) + len(self._app.sinks)
        if self._defined != defined:
            self._defined, self._own = defined, {}
            for listed, entry in list_of(self._app).events():
                if entry.event is not None:
                    self._own.setdefault(entry.event, []).append((listed.id, entry.event, entry.if_exp))
        return [trigger for key in keys_of(name) for trigger in self._own.get(key, ())]

    def _warn(self, missing: dict[str, str], namespace: str) -> None:
        for workflow, event in missing.items():
            if (workflow, event) not in self._warned:
                self._warned.add((workflow, event))
                logger.warning(
                    "event %r does not start workflow %r: app %r has not registered that trigger in namespace %r; "
                    "start a worker, or run `steporal sync module:client`",
                    event,
                    workflow,
                    self._app.id,
                    namespace,
                )


async def _matching(triggers: Mapping[str, Sequence[_Trigger]], events: Sequence[ReceivedEvent]) -> dict[str, str]:
    matching: dict[str, str] = {}
    pace = Pace()
    for event in events:
        data = event.model_dump(mode="json")
        for workflow, _, if_exp in triggers[event.name]:
            if workflow not in matching:
                if if_exp is None or compile_expression(if_exp).matches(event=data):
                    matching[workflow] = event.name
                await pace.keep()
    return matching


# --- dropped registrations -----------------------------------------------------------------------------------------


def warn_of_dropped(before: AppList | None, now: AppList) -> None:
    """Log the workflows and triggers of an app that a client does not define, and so are no longer registered."""
    if before is None:
        return
    _warn_of_dropped_triggers(before, now)
    defined = {listed.id for listed in now.workflows}
    dropped = [listed.id for listed in before.workflows if listed.id not in defined]
    if not dropped:
        return
    effect = (
        f"app {now.id!r}: {_names(dropped)} no longer registered. Events and schedules no longer start "
        f"{_it(dropped)}, even if a worker that has the code is still up"
    )
    others = sorted(set(before.modules) - set(now.modules))
    if not others or not now.modules:
        logger.warning("%s", effect)
        return
    logger.warning(
        "%s. The app was registered from module %s before, and now from module %s. If both are in use, give each "
        "client its own id, or define all workflows on one client that both modules import",
        effect,
        ", ".join(map(repr, others)),
        ", ".join(map(repr, now.modules)),
    )


def _names(workflows: Sequence[str]) -> str:
    names = ", ".join(map(repr, workflows))
    return f"workflow {names} is" if len(workflows) == 1 else f"workflows {names} are"


def _it(workflows: Sequence[str]) -> str:
    return "it" if len(workflows) == 1 else "them"


def _warn_of_dropped_triggers(before: AppList, now: AppList) -> None:
    kept = {listed.id: set(listed.triggers) for listed in now.workflows}
    for listed in before.workflows:
        dropped = [entry for entry in listed.triggers if listed.id in kept and entry not in kept[listed.id]]
        if dropped:
            logger.warning(
                "app %r: workflow %r no longer starts on %s",
                now.id,
                listed.id,
                ", ".join(_described(entry) for entry in dropped),
            )


def _described(entry: Entry) -> str:
    if entry.event is None:
        return f"the schedule {entry.cron!r}"
    return f"event {entry.event!r}" + (f" if {entry.if_exp}" if entry.if_exp else "")
