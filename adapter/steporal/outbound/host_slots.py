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
LONGEST_IN_ATTEMPTS = 6
"""After how many attempts the time to the next one, of up to 5 s at first, grows no more."""

WAITING = 16
"""More than this do not wait here, as each of them would keep one of the worker's slots for activities."""


@dataclass(slots=True)
class _Host:
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    users: int = 0


class HostSlots:
    """Bounds the requests to each host, and those to all hosts together.

    A host may have no more requests than are left for others. So one that does not answer keeps half of all, two keep
    three quarters, and a further one still gets some.

    Args:
        total: The requests that may be in flight or wait at a time.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._users = 0
        self._hosts: dict[str, _Host] = {}

    @asynccontextmanager
    async def slot(self, name: str, attempt: int = 1) -> AsyncIterator[None]:
        """Wait for a slot of a host, and hold it.

        Args:
            name: The host.
            attempt: Which attempt of the delivery it is. Each takes some of the worker's time, so the later ones come
                less often.

        Raises:
            HostBusyError: Too many wait already, or too few are left for others; says to come again in some seconds.
        """
        host = self._hosts.get(name) or _Host()
        later = timedelta(seconds=random.uniform(1, 5) * min(attempt, LONGEST_IN_ATTEMPTS))
        if host.users >= AT_ONCE + WAITING:
            raise HostBusyError(
                f"this worker has {AT_ONCE} requests to {name} in flight, and {WAITING} that wait", later
            )
        if host.users >= self._total - self._users:
            raise HostBusyError(
                f"this worker has {self._users} requests of sinks in flight, {host.users} of them to {name}, and keeps "
                "the rest for other hosts",
                later,
            )
        self._hosts[name] = host
        host.users += 1
        self._users += 1
        try:
            async with host.slots:
                yield
        finally:
            host.users -= 1
            self._users -= 1
            if host.users == 0:
                del self._hosts[name]
