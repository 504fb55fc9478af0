"""Subscriptions of a run: waits for one event, listeners, and events that cancel the run."""

from __future__ import annotations

from typing import Any

from ...runtime.inbox import Box, Inbox
from ...wire.memo import Outcome
from ...wire.run_state import RunState
from .steps import Steps
from .timers import Timers


class Subscriptions:
    """Subscriptions of a run, by the keys of their steps.

    Args:
        carried: The state that the execution begins with.
        steps: The run's steps.
        timers: The timers of the execution.

    Attributes:
        has_event: Whether a listener has received an event in this workflow task.
    """

    def __init__(self, carried: RunState, steps: Steps, timers: Timers) -> None:
        self._steps = steps
        self._timers = timers
        self._inbox = Inbox()
        self._inbox.restore(carried.boxes, carried.came)
        self._once = {key for key in carried.boxes if steps.kind(key) == "event"}
        self._cancelling = dict(carried.cancelling)
        self._unclaimed: dict[str, list[dict[str, Any]]] = {}  # events before the history shows the subscription
        self.has_event: bool = False

    def state(self) -> dict[str, Any]:
        """Return the fields of the state for another execution."""
        return {"boxes": self._inbox.state(), "came": self._inbox.came(), "cancelling": self._cancelling}

    def box(self, key: str) -> Box | None:
        """Return what a subscription has received and the body has not taken; None if there is no subscription."""
        return self._inbox.boxes.get(key)

    def is_once(self, key: str) -> bool:
        """Return whether a step waits for one event."""
        return key in self._once

    def begin(self, key: str, purpose: str, topics: list[str], until: float, parts: dict[str, str]) -> None:
        """Subscribe the run to events. Some may have arrived before, while the body subscribed."""
        if purpose == "cancel":
            self._cancelling[key] = [parts.get(topic, topic) for topic in topics]
            return
        if purpose == "once":
            self._steps.waits_for_event(key, topics)
            self._once.add(key)
            self._timers.cancelled.discard(key)
        else:
            self._steps.waits_for_event(key, topics, "listen")
            self._steps.finished(key, Outcome({"until": until}))
        self._inbox.open(key, tuple(topics), until).parts = parts
        for event in self._unclaimed.pop(key, ()):
            self.deliver(key, event)

    def deliver(self, key: str, event: dict[str, Any]) -> None:
        """Deliver an event to a subscription, and to the body unless it does not receive what happens."""
        box = self.box(key)
        if box is None:
            self._unclaimed.setdefault(key, []).append(event)
            return
        before = len(box.events)
        self._inbox.deliver(key, event)
        past = self._steps.past
        if not past.is_seen or len(box.events) == before:
            return
        if key not in self._once:
            self.has_event = True
            past.record("event", key, event=box.take())
        elif key not in self._timers.cancelled:
            self.end_wait(key, Outcome(event))
        else:
            self._close(key)

    def deliver_to_listeners(self) -> None:
        """Deliver what listeners received before this execution; an active body gets it, however soon it asks."""
        for key, box in self._inbox.boxes.items():
            while key not in self._once and (event := box.take()) is not None:
                self.has_event = True
                self._steps.past.record("event", key, event=event)

    def end_wait(self, key: str, outcome: Outcome) -> None:
        """End a wait for one event."""
        self._steps.remember(key, outcome)
        self._close(key)

    def end_wait_in_time(self, key: str) -> None:
        """End a wait whose timeout is over: with the event that has arrived, or without one."""
        box = self.box(key)
        self.end_wait(key, Outcome(box.events[0] if box and box.events else None))

    def _close(self, key: str) -> None:
        self._inbox.close(key)
        self._once.discard(key)
