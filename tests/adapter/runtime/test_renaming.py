"""Ids of a rerun that are read as those of the run before."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest

from steporal.closures import renaming
from steporal.closures.renaming import MOST_REPLACED, renames
from steporal.events import new_ulid


def run_id(chance: random.Random, at: int) -> str:
    """An id as Temporal makes them: a time in milliseconds, and then chance."""
    return str(UUID(int=at << 80 | 7 << 76 | chance.getrandbits(12) << 64 | 2 << 62 | chance.getrandbits(62)))


def ways_to_write(run: str, workflow: str, event: str) -> list[str]:
    return [
        run,
        run[:8],
        run[:13],
        run[-12:].upper(),
        run.upper(),
        UUID(run).hex,
        UUID(run).hex.upper()[-9:],
        json.dumps([run.split("-")[0], run.split("-")[-1]]),
        json.dumps({"id": run, "short": event[-8:]}),
        json.dumps({run: event}),
        f"order-{run[:4]}-{event[-6:]}",
        f"files/{run}/{event}",
        f"https://{event.lower()}.example.com/{workflow}",
        quote(workflow, safe=""),
    ]


def test_whatever_a_body_writes_of_its_ids_is_read_back() -> None:
    """Also where an id ends in digits, which are the same in small letters and in capitals."""
    chance = random.Random(20261130)
    for _ in range(300):
        at = 1_796_048_961_000 + chance.randrange(10**7)
        before, now = (
            (run_id(chance, moment), f"shop/order/{event}", event)
            for moment, event in ((at, new_ulid()), (at + chance.choice((50, 70_000)), new_ulid()))
        )
        readings = list(renames(dict(zip(now, before, strict=True))))
        for written, expected in zip(ways_to_write(*now), ways_to_write(*before), strict=True):
            assert any(rename(written) == expected for rename in readings), (written, expected)


@pytest.mark.parametrize(("own", "text"), [("ab" * 200, "ab" * 250_000), ("a" * 900, "a" * 500_000)])
def test_a_text_that_repeats_an_id_of_a_sender_costs_no_more_than_another(own: str, text: str) -> None:
    """Compiling an alternative for each part of the id, and trying each at each place, would take minutes."""
    with counting_replacements() as replaced:
        for rename in renames({own: "b" * len(own)}):
            assert rename(f"{own} {text[:-1]}").startswith("b" * len(own))
    assert max(replaced) <= MOST_REPLACED


@contextmanager
def counting_replacements() -> Iterator[list[int]]:
    """For each text: how many names are looked for in it, times its length."""
    counts: list[int] = []
    real = renaming.re.sub

    def sub(pattern: str, by: Any, text: str) -> str:
        counts.append((pattern.count("|") + 1) * len(text))
        return real(pattern, by, text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renaming.re, "sub", sub)
        yield counts
