"""Durations and deadlines, as users write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steporal.durations import MAX_DURATION, delay_of, format_duration, parse_deadline, parse_duration

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

MILLISECONDS = st.integers(min_value=0, max_value=MAX_DURATION // MILLISECOND)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (timedelta(hours=1), timedelta(hours=1)),
        (timedelta(microseconds=1), timedelta(microseconds=1)),
        (0, timedelta(0)),
        (1_500, timedelta(seconds=1.5)),
        ("0s", timedelta(0)),
        ("90s", timedelta(seconds=90)),
        ("250ms", timedelta(milliseconds=250)),
        ("5m", timedelta(minutes=5)),
        ("1h30m", timedelta(minutes=90)),
        ("1m5ms", timedelta(minutes=1, milliseconds=5)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(days=14)),
        ("1w2d3h4m5s6ms", timedelta(weeks=1, days=2, hours=3, minutes=4, seconds=5, milliseconds=6)),
        (MAX_DURATION, MAX_DURATION),
    ],
)
def test_a_duration_is_a_timedelta_or_milliseconds_or_text(written: Any, meant: timedelta) -> None:
    assert parse_duration(written) == meant


@pytest.mark.parametrize("value", [1.5, 2.0, True, False, None, b"5s", [5], NOW])
def test_another_type_is_a_type_error(value: Any) -> None:
    with pytest.raises(
        TypeError, match=rf"^timeout is {re.escape(repr(value))}.*it takes a timedelta, an int of milli"
    ):
        parse_duration(value, what="timeout")


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "5",
        "s",
        "1.5h",
        "1,5h",
        "-5s",
        "+5s",
        " 5s",
        "5 s",
        "5S",
        "5s\n",
        "1h 30m",
        "1m1h",
        "1s1s",
        "1y",
        "soon",
    ],
)
def test_text_that_is_no_duration_is_a_value_error(value: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^timeout is {re.escape(repr(value))}.*it takes a timedelta, an int of milli"
    ):
        parse_duration(value, what="timeout")


@pytest.mark.parametrize("value", ["٣s", "1e3s"])
def test_numbers_are_of_ascii_digits(value: str) -> None:
    with pytest.raises(ValueError, match=rf"^duration is '{value}'"):
        parse_duration(value)


@pytest.mark.parametrize("value", [-1, -(10**30), timedelta(seconds=-1), timedelta(microseconds=-1)])
def test_a_negative_duration_is_a_value_error(value: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"^timeout is {re.escape(repr(value))}.*it takes a timedelta, an int of milli"
    ):
        parse_duration(value, what="timeout")


@pytest.mark.parametrize("value", ["1.5h", "1,5h"])
def test_a_fraction_is_told_how_to_be_written(value: str) -> None:
    with pytest.raises(ValueError, match=r'write "1h30m".*timedelta'):
        parse_duration(value)


@pytest.mark.parametrize("value", [NOW, NOW.replace(tzinfo=None)])
def test_a_datetime_is_sent_to_sleep_until(value: datetime) -> None:
    with pytest.raises(TypeError, match=r"datetime.*use sleep_until"):
        parse_duration(value)


@pytest.mark.parametrize(
    "value",
    [10**30, "5201w5300d", "9" * 15 + "w", "9" * 5_000 + "s", timedelta.max, MAX_DURATION + timedelta.resolution],
)
def test_more_than_a_century_is_a_value_error(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^duration is .*the maximum is a century"):
        parse_duration(value)


def test_a_duration_under_the_minimum_is_a_value_error() -> None:
    assert parse_duration("1s", minimum=timedelta(seconds=1)) == timedelta(seconds=1)
    with pytest.raises(ValueError, match=r"^timeout is '999ms'; the minimum is 1s$"):
        parse_duration("999ms", what="timeout", minimum=timedelta(seconds=1))


@given(st.text())
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    try:
        assert parse_duration(text) >= timedelta(0)
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(minutes=90), "1h30m"),
        (timedelta(milliseconds=250), "250ms"),
        (timedelta(days=7), "7d"),
        (timedelta(days=1, seconds=1), "1d1s"),
        (timedelta(milliseconds=1, microseconds=999), "1ms"),
    ],
)
def test_a_duration_is_shown_as_people_write_it(duration: timedelta, text: str) -> None:
    assert format_duration(duration) == text


@given(MILLISECONDS)
def test_what_is_shown_is_read_as_the_same(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds * MILLISECOND)) == milliseconds * MILLISECOND


@given(MILLISECONDS)
def test_a_number_means_as_many_milliseconds_as_text_does(milliseconds: int) -> None:
    assert parse_duration(milliseconds) == parse_duration(f"{milliseconds}ms")


def test_a_deadline_is_returned_in_utc() -> None:
    deadline = parse_deadline(datetime(2026, 1, 1, 14, tzinfo=timezone(timedelta(hours=2))))
    assert (deadline, deadline.tzinfo) == (NOW, UTC)


def test_a_naive_deadline_is_told_how_to_be_aware() -> None:
    naive = NOW.replace(tzinfo=None)
    with pytest.raises(
        ValueError, match=rf"^until is {re.escape(repr(naive))}.*naive.*replace\(tzinfo=timezone\.utc\)"
    ):
        parse_deadline(naive, what="until")


@pytest.mark.parametrize("value", [None, 5, "2026-01-01T12:00:00Z", NOW.date(), timedelta(1)])
def test_what_is_no_datetime_is_no_deadline(value: Any) -> None:
    with pytest.raises(TypeError, match=rf"^until is {re.escape(repr(value))}.*it takes an aware datetime"):
        parse_deadline(value, what="until")


@pytest.mark.parametrize(
    "value",
    [
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=5))),
    ],
)
def test_a_deadline_that_utc_does_not_have_is_a_value_error(value: datetime) -> None:
    with pytest.raises(ValueError, match=r"^until is .*outside the years 1 to 9999"):
        parse_deadline(value, what="until")


@pytest.mark.parametrize(
    ("value", "delay"),
    [
        ("90s", timedelta(seconds=90)),
        (250, timedelta(milliseconds=250)),
        (NOW + timedelta(hours=1), timedelta(hours=1)),
        (NOW, timedelta(0)),
        (NOW - timedelta(days=1), timedelta(0)),
    ],
)
def test_a_delay_is_never_negative(value: Any, delay: timedelta) -> None:
    assert delay_of(value, now=NOW) == delay
