"""Waits, as one execution of a run hands them to the next."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steporal.wire.limits import FAR_FUTURE
from steporal.wire.mailbox_wait import Wait
from steporal.wire.waits import (
    EventWait,
    InvokeWait,
    NextWait,
    SignalWait,
    TimedWait,
    Waiting,
    moments_of,
    read_waiting,
    timers_of,
    waiting_json,
)

MOMENTS = st.floats(min_value=0, max_value=FAR_FUTURE, allow_nan=False)
TEXTS = st.text(max_size=20)
MAILBOX_WAITS = st.builds(Wait, signal=TEXTS, workflow_id=TEXTS, run_id=TEXTS, key=TEXTS, until=MOMENTS)
WAITS: st.SearchStrategy[Waiting] = st.one_of(
    st.builds(TimedWait, st.sampled_from(["sleep", "backoff", "timer", "asyncio", "start"]), MOMENTS),
    st.builds(EventWait, MOMENTS),
    st.builds(NextWait, MOMENTS, TEXTS),
    st.builds(SignalWait, MOMENTS, MAILBOX_WAITS, TEXTS),
    st.builds(
        InvokeWait,
        st.none() | MOMENTS,
        TEXTS,
        st.floats(min_value=0.001, max_value=1e6),
        st.none() | MOMENTS,
        st.booleans(),
    ),
)
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(WAITS)
def test_a_wait_is_read_as_it_was_written(waiting: Waiting) -> None:
    assert read_waiting(json.loads(json.dumps(waiting_json(waiting)))) == waiting
    assert read_waiting(waiting) is waiting


@given(WAITS)
def test_a_wait_has_a_timer_if_there_is_a_time_at_which_it_needs_attention(waiting: Waiting) -> None:
    assert timers_of(waiting) == bool(list(moments_of(waiting)))


@given(WAITS, st.data())
def test_a_forged_wait_is_refused_or_is_a_wait(waiting: Waiting, data: st.DataObject) -> None:
    forged: Any = waiting_json(waiting)
    forged[data.draw(st.sampled_from([*forged]))] = data.draw(JSONS)
    try:
        read = read_waiting(forged)
    except ValueError:
        return
    assert all(0 <= moment <= FAR_FUTURE for moment in moments_of(read))
    json.dumps(waiting_json(read), allow_nan=False)


@pytest.mark.parametrize("forged", [None, [], "sleep", {}, {"kind": "sleep"}, {"kind": ["sleep"], "until": 1}])
def test_what_is_not_a_wait_is_refused(forged: Any) -> None:
    with pytest.raises(ValueError, match=r"kind|until"):
        read_waiting(forged)
