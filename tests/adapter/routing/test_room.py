"""How often senders look at whether a topic has room."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
import temporalio.client
from temporalio.service import RPCError, RPCStatusCode

from steporal.routing.topics import client as topics_client
from steporal.routing.topics import late
from steporal.routing.topics.late import CHECKED_BYTES, Room

TEMPORAL: Any = Mock()


class Looks:
    """The looks at topics, and what they find."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at: list[str] = []
        self.finds: bool | RPCError = True
        monkeypatch.setattr(late, "has_room", self)

    async def __call__(self, temporal: object, receiver: str) -> bool:
        self.at.append(receiver)
        if isinstance(self.finds, RPCError):
            raise self.finds
        return self.finds


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


async def test_a_topic_is_looked_at_after_each_megabyte(looks: Looks) -> None:
    room = Room()
    for _ in range(20):
        assert await room.is_left(TEMPORAL, "a", CHECKED_BYTES // 4)
    assert 5 <= len(looks.at) <= 7


async def test_a_full_topic_is_looked_at_each_time_until_it_has_room(looks: Looks) -> None:
    room, looks.finds = Room(), False
    assert not await room.is_left(TEMPORAL, "a", CHECKED_BYTES)
    assert not await room.is_left(TEMPORAL, "a", 1)
    looks.finds = True
    assert await room.is_left(TEMPORAL, "a", 1)
    assert await room.is_left(TEMPORAL, "a", 1)
    assert len(looks.at) == 3


async def test_a_look_that_fails_is_made_again(looks: Looks) -> None:
    room, looks.finds = Room(), RPCError("busy", RPCStatusCode.RESOURCE_EXHAUSTED, b"")
    for _ in range(2):
        with pytest.raises(RPCError, match="busy"):
            await room.is_left(TEMPORAL, "a", CHECKED_BYTES)
    assert len(looks.at) == 2


async def test_many_topics_in_turn_are_looked_at_too(monkeypatch: pytest.MonkeyPatch, looks: Looks) -> None:
    """What is sent to more topics than a process remembers is not forgotten."""
    monkeypatch.setattr(late, "_MAX_CHECKED", 10)
    room, sent = Room(), dict.fromkeys(map(str, range(30)), 0)
    for _ in range(20):
        for topic in sent:
            looks.at.clear()
            await room.is_left(TEMPORAL, topic, CHECKED_BYTES // 4)
            sent[topic] = 0 if looks.at else sent[topic] + CHECKED_BYTES // 4
            assert sent[topic] < CHECKED_BYTES
    assert len(room._sent) == 10


async def test_topics_that_were_full_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch, looks: Looks) -> None:
    monkeypatch.setattr(late, "_MAX_CHECKED", 10)
    room, looks.finds = Room(), False
    for number in range(100):
        assert not await room.is_left(TEMPORAL, str(number), CHECKED_BYTES)
    assert len(room._sent) == 10
    looks.at.clear()
    assert not await room.is_left(TEMPORAL, "0", 1), "it may still be full"
    assert looks.at == ["0"]


@pytest.mark.parametrize("status", list(RPCStatusCode), ids=lambda status: status.name)
async def test_an_event_is_sent_late_only_if_the_topic_has_no_room(
    temporal: temporalio.client.Client, status: RPCStatusCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise an event that was not sent for a moment would arrive after the next one of its sender."""
    late_events: list[Any] = []

    async def refused(*_: Any) -> bool:
        raise RPCError("refused", status, b"")

    async def publish_later(_: Any, letter: Any) -> str:
        late_events.append(letter)
        return ""

    monkeypatch.setattr(topics_client, "signalled", refused)
    monkeypatch.setattr(topics_client, "publish_later", publish_later)
    topics = topics_client.Topics(temporal)
    has_no_room = status.name in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION")
    if has_no_room:
        assert await topics._publish("steporal.topic/x", [{"name": "x"}])
    else:
        with pytest.raises(RPCError):
            await topics._publish("steporal.topic/x", [{"name": "x"}])
    assert len(late_events) == has_no_room
