"""Sending of events for one app, through any connection."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import temporalio.client

from ..app import App
from ..events import ReceivedEvent, SendEventResult
from .catalog.differences import Registration
from .dispatch import Dispatcher


class Sending:
    """Sends events for an app.

    Args:
        app: The app.
    """

    def __init__(self, app: App) -> None:
        self._registration = Registration(app)
        self._dispatchers: WeakKeyDictionary[temporalio.client.Client, Dispatcher] = WeakKeyDictionary()

    def dispatcher(self, temporal: temporalio.client.Client) -> Dispatcher:
        """Return the dispatcher of a connection; it caches the catalog."""
        existing = self._dispatchers.get(temporal)
        return existing if existing is not None else self._dispatchers.setdefault(temporal, Dispatcher(temporal))

    async def dispatch(self, temporal: temporalio.client.Client, events: Sequence[ReceivedEvent]) -> SendEventResult:
        """Send events once a worker has registered the app's triggers for them, or after a timeout."""
        dispatcher = self.dispatcher(temporal)
        await self._registration.wait(dispatcher.catalog, events)
        return await dispatcher.dispatch(events)
