"""What is delivered to a run, and to which of its waits."""

from __future__ import annotations

from typing import Any

from steporal.runtime.inbox import Inbox


def event(id: str) -> dict[str, Any]:
    return {"name": "paid", "id": id, "data": {}}


def ids(inbox: Inbox, key: str) -> list[str]:
    return [event["id"] for event in inbox.boxes[key].events]


def test_what_comes_twice_is_there_once_and_for_each_wait_that_had_begun() -> None:
    inbox = Inbox()
    for key in ("a", "b"):
        inbox.open(key, ("paid",), 0)
    for key in ("a", "a", "b", "a"):
        inbox.deliver(key, event("1"))
    assert (ids(inbox, "a"), ids(inbox, "b")) == (["1"], ["1"])


def test_what_has_come_before_a_wait_has_begun_is_not_for_it_also_if_it_is_delivered_again() -> None:
    inbox = Inbox()
    inbox.open("a", ("paid",), 0)
    inbox.deliver("a", event("1"))
    inbox.deliver("b", event("2"))  # to a wait that is over, or not yet begun
    inbox.close("a")
    inbox.open("b", ("paid",), 0)
    for id in ("1", "2", "3"):
        inbox.deliver("b", event(id))
    assert ids(inbox, "b") == ["3"]


def test_a_wait_goes_on_with_what_it_had() -> None:
    inbox, next_one = Inbox(), Inbox()
    inbox.open("a", ("paid",), 0)
    for id in ("1", "2"):
        inbox.deliver("a", event(id))
    next_one.restore(inbox.state(), inbox.came())
    for id in ("2", "3"):
        next_one.deliver("a", event(id))
    assert ids(next_one, "a") == ["1", "2", "3"]


def test_an_event_that_came_in_an_earlier_execution_is_not_for_a_wait_that_begins_later() -> None:
    inbox, next_one = Inbox(), Inbox()
    inbox.open("a", ("paid",), 0)
    inbox.deliver("a", event("1"))
    inbox.close("a")
    next_one.restore(inbox.state(), inbox.came())
    next_one.open("b", ("paid",), 0)
    for id in ("1", "2"):
        next_one.deliver("b", event(id))
    assert ids(next_one, "b") == ["2"]


def test_events_of_the_past_come_in_their_order_before_those_that_the_body_has_not_seen() -> None:
    inbox = Inbox()
    box = inbox.open("a", ("paid",), 0)
    for id in ("4", "5"):
        inbox.deliver("a", event(id))
    for id in ("1", "2"):
        inbox.put("a", event(id))
    taken = [box.take()]
    inbox.put("a", event("3"))
    taken += [box.take() for _ in range(4)]
    assert [each and each["id"] for each in taken] == ["1", "2", "3", "4", "5"]
