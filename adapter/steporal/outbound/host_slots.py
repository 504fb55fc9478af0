"""Limits of one worker's concurrent requests to a host."""

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
"""Number of attempts after which the time to the next one, up to 5 s at first, stops growing."""

WAITING = 16
"""Limit of waiting requests, because each of them keeps one of the worker's slots for activities."""


@dataclass(slots=True)
class _Host:
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    users: int = 0


class HostSlots:
    """Limits concurrent requests to each host, and to all hosts together.

    A host gets no more slots than are free for others. So one host that does not respond keeps half of all slots, two
    keep three quarters, and another host still gets some.

    Args:
        total: The limit of requests that are in flight or wait.
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
            attempt: The number of the delivery's attempt. Each attempt takes some of the worker's time, so later ones
                come less often.

        Raises:
            HostBusyError: Too many requests wait, or too few slots are left for others; retry after a few seconds.
        """
        host = self._hosts.get(name) or _Host()
        later = timedelta(seconds=random.uniform(1, 5) * min(attempt, LONGEST_IN_ATTEMPTS))
        if host.users >= AT_ONCE + WAITING:
            raise HostBusyError(
                f"this worker has {AT_ONCE} requests to {name} in flight, and {WAITING} more wait", later
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
