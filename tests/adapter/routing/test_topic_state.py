"""What a topic leaves to its next execution fits into what Temporal takes, whatever senders choose for ids and data."""

from __future__ import annotations

import base64
import random
from typing import Any
from unittest.mock import Mock

import pytest
from temporalio import workflow

from steporal.routing.topics import topic, topic_state
from steporal.routing.topics.lanes import Matched
from steporal.routing.topics.subscription import Index, Subscription
from steporal.values.converter import size_of
from steporal.wire.limits import MAX_PAYLOAD_BYTES

_SOURCE = "async.data.key == event.data.key"


def text(chance: random.Random, length: int) -> str:
    """A text that cannot be compressed by more than a quarter."""
    return base64.b64encode(chance.randbytes(length)).decode()[:length]


def subscription(chance: random.Random, number: int, *, id_length: int, value_length: int) -> Subscription:
    """The wait of a run that an event with an id and a value of some lengths has started."""
    return Subscription(
        workflow_id=f"shop/process-order/{text(chance, id_length)}",
        run_id=text(chance, 36),
        key="wait for payment",
        kind="once",
        source=_SOURCE,
        event={"data": {"key": text(chance, value_length)}} if value_length else {"data": {"key": number}},
        until=1.7e9 + number,
        ignored=text(chance, id_length),
    )


def full(chance: random.Random, **lengths: int) -> Index:
    """Waits, as many as a topic takes."""
    index = Index()
    while index.size < topic._MAX_WAITS_BYTES and index.packed < topic._MAX_PACKED_BYTES:
        index.add(subscription(chance, len(index.all), **lengths))
    return index


@pytest.mark.parametrize("id_length, value_length", [(26, 0), (26, 40), (26, 1_500), (400, 0), (400, 100_000)])
def test_a_full_topic_fits_into_the_next_execution(id_length: int, value_length: int) -> None:
    chance = random.Random(1)
    index = full(chance, id_length=id_length, value_length=value_length)
    state: dict[str, Any] = {
        "subscriptions": [each.model_dump(mode="json", exclude_defaults=True) for each in index.all.values()],
        "remembered": [topic._short(text(chance, 400)) for _ in range(topic._MAX_SEEN_IDS)],
    }
    assert size_of(topic_state.state_payload(state)) <= MAX_PAYLOAD_BYTES


def test_a_topic_has_room_for_the_ordinary_waits_of_a_part() -> None:
    assert len(full(random.Random(1), id_length=26, value_length=0).all) > topic._WAITS_PER_PART


def test_waits_that_end_leave_their_room() -> None:
    chance, index = random.Random(1), Index()
    for number in range(50):
        index.add(subscription(chance, number % 10, id_length=26, value_length=900))
    for id in list(index.all):
        index.remove(id)
    assert (index.size, index.packed) == (0, 0)


def test_a_long_id_of_an_event_is_remembered_by_its_digest() -> None:
    ulid, long = "01M8MSAT4KXTTFBBH0G2D5P2N3", "i" * 400
    assert topic._short(ulid) == ulid
    assert len(topic._short(long)) == len(topic._short("é" * 200)) == 32
    assert topic._short(long) != topic._short(long + "i")


def matched(listeners: int, events: int, **more: Any) -> topic.TopicWorkflow:
    """A topic that has matched events with each of some listeners, and has delivered none yet."""
    found = topic.TopicWorkflow()
    waits = [
        Subscription(workflow_id=f"shop/listens/{number}", run_id="r", key="items", kind="each", until=1e9, **more)
        for number in range(listeners)
    ]
    for wait in waits:
        found._index.add(wait)
    for number in range(events):
        event = {"id": str(number), "name": "tick", "data": {"n": number}, "ts": 1}
        for wait in waits:
            found._send(Matched(wait, event, 80, 1.0))
    return found


def test_deliveries_that_take_too_long_to_write_are_made_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A workflow task has two seconds, and what it cannot do in them it tries for ever."""
    monkeypatch.setattr(workflow.unsafe, "is_replaying", lambda: False)  # no workflow runs here
    assert matched(100, 200)._state_that_fits() is not None
    written = Mock(side_effect=AssertionError("nothing is written"))
    many = matched(100, 201)
    many._handover_state = written  # type: ignore[method-assign]
    assert many._state_that_fits() is None


def test_a_delivery_is_handed_on_without_what_its_wait_was_compared_with() -> None:
    source, large = "async.data.key == event.data.key", {"data": {"key": text(random.Random(1), 10_000)}}
    state = matched(10, 500, source=source, event=large)._state_that_fits()
    assert state is not None
    read = topic_state.restored_state(state)
    assert len(read.matched) == 5_000
    assert {(each.kind, each.source, len(each.event)) for each, _, _ in read.matched} == {("each", None, 0)}
    assert [len(each.event) for each in read.subscriptions] == [1] * 10
