"""How many requests one worker has in flight to one host."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from .problems import HostBusyError

AT_ONCE = 16
WAITING = 16
"""More than this do not wait here, as each of them would keep one of the worker's slots for activities."""


@dataclass(slots=True)
class _Host:
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    users: int = 0


class HostSlots:
    """Bounds the requests to each host."""

    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}

    @asynccontextmanager
    async def slot(self, name: str) -> AsyncIterator[None]:
        """Wait for a slot of a host, and hold it.

        Raises:
            HostBusyError: Too many wait already; says to come again in some seconds.
        """
        host = self._hosts.setdefault(name, _Host())
        if host.users >= AT_ONCE + WAITING:
            later = timedelta(seconds=random.uniform(1, 5))
            raise HostBusyError(
                f"this worker has {AT_ONCE} requests to {name} in flight, and {WAITING} that wait", later
            )
        host.users += 1
        try:
            async with host.slots:
                yield
        finally:
            host.users -= 1
            if host.users == 0:
                del self._hosts[name]
