"""What a run keeps of sent events."""

from __future__ import annotations

import json

import pytest

from steporal import SendEventResult, StartedRun
from steporal.wire.sent_events import pack, unpack

ALL = [StartedRun.of("shop", "order", id) for id in "abc"]


@pytest.mark.parametrize(
    "result",
    [
        SendEventResult(ids=[]),
        SendEventResult(ids=["a", "b", "c"]),
        SendEventResult(ids=["a", "b", "c"], runs=ALL, awaited=["a", "b", "c"]),
        SendEventResult(ids=["a", "b", "c"], runs=[ALL[1]], awaited=["c"]),
        SendEventResult(ids=["a", "b"], runs=[ALL[0], StartedRun.of("mail", "order", "a"), ALL[1]]),
        SendEventResult(ids=["a", "a"], runs=[ALL[0], ALL[0]], awaited=["a", "a"]),
    ],
)
def test_a_result_comes_back_as_it_was(result: SendEventResult) -> None:
    assert unpack([json.loads(json.dumps(pack(result)))]) == result


def test_batches_become_one_result() -> None:
    first = SendEventResult(ids=["a", "b"], runs=ALL[:2], awaited=["b"])
    second = SendEventResult(ids=["c"], runs=ALL[2:])
    assert unpack([pack(first), pack(second)]) == SendEventResult(ids=["a", "b", "c"], runs=ALL, awaited=["b"])


def test_what_starts_and_wakes_nothing_is_as_large_as_its_ids() -> None:
    assert pack(SendEventResult(ids=["a", "b"])) == {"ids": ["a", "b"]}


def test_a_run_for_each_of_many_events_adds_little_to_their_ids() -> None:
    ids = [f"01M8MTBBNFR6YH7QGEBYMH7{n:03}" for n in range(1000)]
    runs = [StartedRun.of("shop", "order", id) for id in ids]
    packed = json.dumps(pack(SendEventResult(ids=ids, runs=runs, awaited=ids)))
    assert len(packed) < len(json.dumps(ids)) + 100
