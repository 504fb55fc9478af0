"""What there is outside a run: topics, mailboxes, invoked runs, and the activities that ask them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from steporal.routing.topics.topic import topics_of
from steporal.wire.names import (
    CLOSE_MAILBOX,
    DELIVER,
    ENDED,
    FIND_END,
    FIND_MAILBOX,
    FIND_WORKFLOW,
    OPEN_MAILBOX,
    RELEASE_MAILBOXES,
    SEND_EVENT,
    SEND_SIGNAL,
    SUBSCRIBE_RUN,
    UNSUBSCRIBE_RUN,
)

SIGNALLED = "steporal.signalled"

Signal = Callable[[str, Any], bool]
"""Sends a Temporal signal to the run; False if it has ended."""


@dataclass(slots=True)
class Topic:
    """Who waits for an event name or pattern, and which events it has seen."""

    waiting: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Mailbox:
    """The mailbox of one wait for a signal.

    Attributes:
        run_id: Its own.
        wait: Who waits.
        end: ``received`` or ``closed`` when it is over.
    """

    run_id: str
    wait: dict[str, Any]
    end: str = ""

    def is_for(self, wait: dict[str, Any]) -> bool:
        return bool((self.wait["run_id"], self.wait["key"]) == (wait["run_id"], wait["key"]))


@dataclass(slots=True)
class Child:
    """An invoked run.

    Attributes:
        data: Its input: ``{"label", "seconds", "fails"}``.
        outcome: How it has ended, as runs report it; None while it goes on.
        reports_to: Who wants to hear of its end.
    """

    id: str
    run_id: str
    data: dict[str, Any]
    outcome: Any = None
    reports_to: list[dict[str, str]] = field(default_factory=list)

    @property
    def result(self) -> str:
        return f"{self.data['label']} has ended"


class World:
    """Topics, mailboxes, and invoked runs.

    Args:
        signal: Sends a signal to the run.
    """

    def __init__(self, signal: Signal) -> None:
        self._signal = signal
        self._topics: dict[str, Topic] = {}
        self._mailboxes: dict[str, Mailbox] = {}
        self._closed: dict[str, Mailbox] = {}
        self.children: dict[str, Child] = {}
        self._made = 0

    # --- events ----------------------------------------------------------------------------------------------------

    def publish(self, event: dict[str, Any]) -> None:
        """An event is sent: those who wait hear of it."""
        for name in topics_of(event["name"]):
            topic = self._topics.get(name)
            if topic is None or event["id"] in topic.seen:
                continue
            topic.seen.add(event["id"])
            for subscription in list(topic.waiting.values()):
                if subscription["kind"] == "once":
                    del topic.waiting[subscription["key"]]
                self._signal(DELIVER, {"key": subscription["key"], "run_id": subscription["run_id"], "event": event})

    def _subscribe(self, asked: dict[str, Any]) -> Any:
        subscription = asked["subscription"]
        for name in asked["topics"]:
            self._topics.setdefault(name, Topic()).waiting[subscription["key"]] = subscription
        told = {name: subscription[name] for name in ("key", "kind", "until")}
        return {**told, "topics": asked["topics"]}

    def _unsubscribe(self, asked: dict[str, Any]) -> Any:
        for name, keys in asked["keys"].items():
            for key in keys:
                self._topics.setdefault(name, Topic()).waiting.pop(key, None)

    # --- signals ---------------------------------------------------------------------------------------------------

    def send(self, signal: str, data: Any) -> str | None:
        """Send a signal to whoever waits for it; returns the run's id."""
        mailbox = self._mailboxes.get(signal)
        return None if mailbox is None else self._send_to(mailbox, signal, data)

    def _send_to(self, mailbox: Mailbox, signal: str, data: Any) -> str | None:
        if mailbox.end:
            return None
        wait = mailbox.wait
        told = {"key": wait["key"], "run_id": wait["run_id"], "signal": signal, "data": data}
        is_told = self._signal(SIGNALLED, told)
        self._close(signal, mailbox, "received" if is_told else "gone")
        return str(wait["run_id"]) if is_told else None

    def _close(self, signal: str, mailbox: Mailbox, end: str) -> None:
        mailbox.end = mailbox.end or end
        self._closed[mailbox.run_id] = mailbox
        self._mailboxes.pop(signal, None)

    def _open_mailbox(self, asked: dict[str, Any]) -> Any:
        wait = asked["wait"]
        if asked.get("is_received"):
            return {"run_id": "", "wait": wait, "step": asked.get("step")}
        mailbox = self._mailboxes.get(wait["signal"])
        if mailbox is None:
            self._made += 1
            mailbox = self._mailboxes[wait["signal"]] = Mailbox(f"mailbox {self._made}", wait)
        elif asked["replace"] and not mailbox.is_for(wait):
            mailbox.wait = wait
        return {"run_id": mailbox.run_id, "wait": mailbox.wait, "step": asked.get("step")}

    def _find_by_run(self, run_id: str) -> Mailbox | None:
        here = (mailbox for mailbox in self._mailboxes.values() if mailbox.run_id == run_id)
        return next(here, None) or self._closed.get(run_id)

    def _close_mailbox(self, asked: dict[str, Any]) -> Any:
        wait, mailbox = asked["wait"], self._find_by_run(asked["run_id"])
        if mailbox is None or not mailbox.is_for(wait):
            return False
        if not mailbox.end:
            self._close(wait["signal"], mailbox, "closed")
        return mailbox.end == "received"

    def _release_mailboxes(self, asked: dict[str, Any]) -> Any:
        for wait in asked["waits"]:
            mailbox = self._mailboxes.get(wait["signal"])
            if mailbox is not None and mailbox.is_for(wait):
                self._close(wait["signal"], mailbox, "closed")

    def _find_mailbox(self, asked: dict[str, Any]) -> Any:
        mailbox = self._mailboxes.get(asked["signal"])
        return None if mailbox is None else mailbox.run_id

    # --- invoked runs ----------------------------------------------------------------------------------------------

    def report(self, child_id: str, parent: dict[str, str]) -> bool:
        """Somebody wants to hear of the end of a run; False if it has ended."""
        child = self.children.get(child_id)
        if child is None or child.outcome is not None:
            return False
        if parent not in child.reports_to:
            child.reports_to.append(parent)
        return True

    def end_child(self, child: Child) -> None:
        """An invoked run ends, and reports it to those who have asked."""
        child.outcome = [child.result]
        if child.data["fails"]:
            child.outcome = {
                "name": "Declined",
                "message": f"{child.data['label']} failed",
                "stack": "",
                "attempts": 1,
                "cause": None,
            }
        for parent in child.reports_to:
            self._signal(ENDED, {"run_id": parent["run_id"], "child": child.id, "outcome": child.outcome})

    def _find_end(self, asked: dict[str, Any]) -> Any:
        return self.children[asked["workflow_id"]].outcome

    # --- activities ------------------------------------------------------------------------------------------------

    def perform(self, kind: str, asked: dict[str, Any]) -> Any:
        """Perform an activity that is not a step function's."""
        return {
            SUBSCRIBE_RUN: self._subscribe,
            UNSUBSCRIBE_RUN: self._unsubscribe,
            OPEN_MAILBOX: self._open_mailbox,
            CLOSE_MAILBOX: self._close_mailbox,
            RELEASE_MAILBOXES: self._release_mailboxes,
            FIND_MAILBOX: self._find_mailbox,
            FIND_WORKFLOW: lambda asked: {"task_queue": "elsewhere"},
            FIND_END: self._find_end,
            SEND_EVENT: self._send_events,
            SEND_SIGNAL: self._send_signal,
        }[kind](asked)

    def _send_events(self, asked: dict[str, Any]) -> Any:
        for event in asked["events"]:
            self.publish(event)
        return {"ids": [event["id"] for event in asked["events"]]}

    def _send_signal(self, asked: dict[str, Any]) -> Any:
        mailbox = self._find_by_run(asked["mailbox"])
        return None if mailbox is None else self._send_to(mailbox, asked["signal"], asked["data"])


def label_of(kind: str, asked: dict[str, Any]) -> tuple[str, float]:
    """What an effect is called that is not a step function's, and how long it takes."""
    if kind == SEND_EVENT:
        first = asked["events"][0]
        data = first["data"]
        return f"event {first['name']} {first['id']}", data.get("seconds", 1.0)
    data = asked["data"]
    return f"signal {asked['signal']} {asked['id']}", data["seconds"] if isinstance(data, dict) else 1.0
