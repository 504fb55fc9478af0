"""Periodic confirmation that a worker's list is in force."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Protocol

import temporalio.client

from ...app import App
from ...connecting import sdk_errors
from ...errors import CatalogFullError
from ...metrics import LIST_IN_FORCE, meter_of
from .registering import Outcome, Registrar, Source

logger: logging.Logger = logging.getLogger("steporal")

CONFIRM_SECONDS = 60.0
"""Time between two confirmations, plus or minus a fifth, so that an app's workers do not all confirm at once."""

SOON_SECONDS = 5.0
SOON_FOR_SECONDS = 600.0
"""A worker that has started recently and whose list is not in force confirms more often: its version may become the
current one."""


class Shown(Protocol):
    """Status of a worker's list, as the worker shows it."""

    registered: asyncio.Event
    why_not_registered: str
    why_not_in_force: str


class Confirming:
    """Registers the list of a worker, and confirms it while the worker runs.

    Args:
        app: The app.
        temporal: The worker's connection.
        source: The worker.
        shown: The status to update.
    """

    def __init__(self, app: App, temporal: temporalio.client.Client, source: Source, shown: Shown) -> None:
        self._app = app
        self._meter = meter_of(temporal)
        self._registrar = Registrar(app, temporal, source)
        self._shown = shown
        self._last_message: str | None = None

    async def run(self) -> None:
        """Confirm periodically.

        Raises:
            TemporalCallError: The first registration failed.
            EncryptionError: The app's registration is encrypted with a key that this process does not have.
        """
        since = asyncio.get_running_loop().time()
        while True:
            await self._confirm()
            is_new = asyncio.get_running_loop().time() - since < SOON_FOR_SECONDS
            soon = is_new and self._shown.registered.is_set() and self._shown.why_not_in_force
            await asyncio.sleep((SOON_SECONDS if soon else CONFIRM_SECONDS) * random.uniform(0.8, 1.2))

    async def _confirm(self) -> None:
        try:
            with sdk_errors(f"registering app {self._app.id!r}"):
                outcome = await self._registrar.confirm()
        except CatalogFullError as err:
            self._refused(str(err))
        except Exception as err:
            if not self._shown.registered.is_set():
                raise
            self._warn(f"app {self._app.id!r}: cannot check whether its list is in force: {err}")
        else:
            self._show(outcome)

    def _show(self, outcome: Outcome) -> None:
        id, count = self._app.id, len(outcome.app.workflows)
        was_registered = self._shown.registered.is_set()
        self._shown.why_not_in_force = outcome.why_not
        self._shown.registered.set()
        self._measure(is_in_force=not outcome.why_not)
        if outcome.why_not:
            self._warn(
                f"app {id!r}: the triggers and schedules of this worker are not in force: {outcome.why_not}. "
                "The worker still executes runs that are started"
            )
        elif not was_registered or self._last_message:
            self._last_message = None
            logger.info("app %r is registered with %d workflow%s", id, count, "s" * (count != 1))

    def _refused(self, why: str) -> None:
        self._shown.why_not_registered = self._shown.why_not_in_force = why
        self._measure(is_in_force=False)
        self._warn(why)

    def _warn(self, message: str) -> None:
        if self._last_message != message:
            self._last_message = message
            logger.warning("%s", message)

    def _measure(self, *, is_in_force: bool) -> None:
        if self._meter is not None:
            LIST_IN_FORCE.set(self._meter, int(is_in_force), app=self._app.id)
