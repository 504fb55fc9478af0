"""Differences between a client and the catalog: triggers that are missing in it, and what a registration drops."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..events import ReceivedEvent, event_matches
from .catalog import App, Catalog, Snapshot
from .expressions import compile_expression
from .pace import Pace

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
        missing = await self._missing(await catalog.read(), events)
        if not missing:
            return
        missing = await self._missing(await catalog.read(fresh=True), events)
        until = time.monotonic() + (0 if self._has_waited else PATIENCE_SECONDS)
        while missing and time.monotonic() < until:
            self._has_waited = True
            await asyncio.sleep(_PAUSE_SECONDS)
            missing = await self._missing(await catalog.read(fresh=True), events)
        self._warn(missing)

    async def _missing(self, snapshot: Snapshot, events: Sequence[ReceivedEvent]) -> dict[str, str]:
        """The workflows that events would start if they were registered, each with the name of such an event."""
        unlisted = self._unlisted(snapshot)
        return {} if not unlisted else await _matching(unlisted, events)

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


async def _matching(triggers: Sequence[_Trigger], events: Sequence[ReceivedEvent]) -> dict[str, str]:
    found: dict[str, str] = {}
    pace = Pace()
    for event in events:
        data = event.model_dump(mode="json")
        for workflow, pattern, if_exp in triggers:
            if workflow not in found and event_matches(pattern, event.name):
                if if_exp is None or compile_expression(if_exp).matches(event=data):
                    found[workflow] = event.name
                await pace.keep()
    return found


# --- what a registration drops -------------------------------------------------------------------------------------


def module_of(handler: Callable[..., Any]) -> str:
    """The module that defines a handler; of a script, with the name of its file."""
    code = getattr(handler, "__code__", None)
    if handler.__module__ == "__main__" and code is not None:
        return f"__main__ of {Path(code.co_filename).name}"
    return handler.__module__


def warn_of_dropped(before: App | None, now: App) -> None:
    """Log which workflows of an app are no longer registered, as the client that registers does not define them."""
    if before is None:
        return
    defined = {listed.id for listed in now.workflows}
    dropped = [listed.id for listed in before.workflows if listed.id not in defined]
    if not dropped:
        return
    effect = (
        f"app {now.id!r}: {_names(dropped)} no longer registered. Events and schedules start {_it(dropped)} no more, "
        "even if a worker that has the code is still up"
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
