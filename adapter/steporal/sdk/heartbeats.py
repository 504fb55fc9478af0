"""Heartbeats of running activities, sent from a thread.

A step function that blocks the event loop must not make Temporal consider its worker lost. The SDK's
``activity.heartbeat()`` creates a task on the event loop, so it sends nothing while the loop is blocked, and no other
thread can call it. In the end, that task calls the SDK's bridge to Temporal's core, which works from any thread: it
passes the heartbeat to core, and core sends it from its own threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import temporalio.worker
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.bridge.proto import ActivityHeartbeat

BEATS_PER_TIMEOUT = 3

FIRST_BEAT_SECONDS = 1.0
"""Delay of the first heartbeat: most steps end sooner, and cost no heartbeat."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0

Record = Callable[[bytes, Sequence[Payload]], None]

_record: ContextVar[Record | None] = ContextVar("steporal_record_heartbeat", default=None)
_pulse: ContextVar[Pulse | None] = ContextVar("steporal_pulse", default=None)


@dataclass(slots=True, eq=False)
class Pulse:
    """Heartbeats of one activity.

    Attributes:
        task_token: The activity's task token.
        record: Passes a heartbeat to Temporal's core.
        interval: The seconds between two heartbeats.
        due: The time when the next heartbeat is due, on the monotonic clock.
        details: The payloads of the heartbeats.
    """

    task_token: bytes
    record: Record
    interval: float
    due: float
    details: Sequence[Payload] = field(default_factory=tuple)


class Heartbeats(temporalio.worker.Interceptor):
    """Lets the activities of one worker send heartbeats from a thread."""

    def __init__(self) -> None:
        self._worker: temporalio.worker.Worker | None = None

    def attach(self, worker: temporalio.worker.Worker) -> None:
        """Set the worker whose activities send heartbeats."""
        self._worker = worker

    def intercept_activity(
        self, next: temporalio.worker.ActivityInboundInterceptor
    ) -> temporalio.worker.ActivityInboundInterceptor:
        """See base class."""
        return _WithHeartbeats(next, self._record)

    def _record(self, task_token: bytes, details: Sequence[Payload]) -> None:
        if self._worker is not None:
            heartbeat = ActivityHeartbeat(task_token=task_token, details=details)
            self._worker._bridge_worker.record_activity_heartbeat(heartbeat)


class _WithHeartbeats(temporalio.worker.ActivityInboundInterceptor):
    def __init__(self, next: temporalio.worker.ActivityInboundInterceptor, record: Record) -> None:
        super().__init__(next)
        self._recorder = record

    def init(self, outbound: temporalio.worker.ActivityOutboundInterceptor) -> None:
        super().init(_KeepingDetails(outbound))

    async def execute_activity(self, input: temporalio.worker.ExecuteActivityInput) -> Any:
        _record.set(self._recorder)
        return await super().execute_activity(input)


class _KeepingDetails(temporalio.worker.ActivityOutboundInterceptor):
    """Keeps a step's ``activity.heartbeat()`` without details from deleting those of the heartbeat before it."""

    def heartbeat(self, *details: Any) -> None:
        pulse = _pulse.get()
        if details or pulse is None:
            super().heartbeat(*details)
        else:
            pulse.record(pulse.task_token, pulse.details)


@contextmanager
def beating(details: Sequence[Payload] = (), *, at_once: bool = False) -> Iterator[Pulse | None]:
    """Send heartbeats for the current activity while the context lasts.

    Args:
        details: The payloads of the heartbeats.
        at_once: Whether to send the first heartbeat at once.

    Yields:
        The activity's pulse; None if the activity has no heartbeat timeout, or its worker has no :class:`Heartbeats`.
    """
    info, record = activity.info(), _record.get()
    if info.heartbeat_timeout is None or record is None:
        yield None
        return
    interval = info.heartbeat_timeout.total_seconds() / BEATS_PER_TIMEOUT
    first = 0.0 if at_once else min(interval, FIRST_BEAT_SECONDS)
    pulse = Pulse(info.task_token, record, interval, time.monotonic() + first, details)
    _sender.add(pulse)
    token = _pulse.set(pulse)
    try:
        yield pulse
    finally:
        _pulse.reset(token)
        _sender.remove(pulse)


class _Sender:
    """Thread that sends the heartbeats of a process."""

    def __init__(self) -> None:
        self._pulses: dict[Pulse, None] = {}
        self._changed = threading.Condition()
        self._wakes_at = float("inf")
        self._thread: threading.Thread | None = None

    def add(self, pulse: Pulse) -> None:
        with self._changed:
            self._pulses[pulse] = None
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="steporal-heartbeats", daemon=True)
                self._thread.start()
            elif pulse.due < self._wakes_at:
                self._changed.notify()

    def remove(self, pulse: Pulse) -> None:
        with self._changed:
            self._pulses.pop(pulse, None)

    def _run(self) -> None:
        while True:
            for pulse in self._wait_for_due():
                try:
                    pulse.record(pulse.task_token, pulse.details)
                except Exception:  # the worker has shut down in the meantime
                    self.remove(pulse)

    def _wait_for_due(self) -> list[Pulse]:
        with self._changed:
            now = time.monotonic()
            next_due = min((pulse.due for pulse in self._pulses), default=float("inf"))
            self._wakes_at = next_due if next_due < now + _LONGEST_PAUSE else now + _LONGEST_PAUSE
            if not self._pulses:
                self._wakes_at = float("inf")
                self._changed.wait()
            else:
                self._changed.wait(max(self._wakes_at - now, _SHORTEST_PAUSE))
            now = time.monotonic()
            due = [pulse for pulse in self._pulses if pulse.due <= now]
            for pulse in due:
                pulse.due = now + pulse.interval
            return due


_sender = _Sender()
