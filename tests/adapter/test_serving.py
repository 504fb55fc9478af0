"""The workers of a process stop at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from steporal.worker.serving import together


async def test_all_are_left_at_once() -> None:
    leaving, all_leave = [], asyncio.Event()

    @asynccontextmanager
    async def worker(name: str) -> AsyncIterator[None]:
        yield
        leaving.append(name)
        if len(leaving) == 3:
            all_leave.set()
        await all_leave.wait()

    async with asyncio.timeout(10), together(worker("a"), worker("b"), worker("c")):
        assert not leaving
    assert sorted(leaving) == ["a", "b", "c"]


async def test_those_that_were_entered_are_left_where_the_next_one_cannot_be() -> None:
    left = []

    @asynccontextmanager
    async def worker(name: str) -> AsyncIterator[None]:
        if name == "b":
            raise RuntimeError("b does not start")
        yield
        left.append(name)

    with pytest.raises(RuntimeError, match="b does not start"):
        async with together(worker("a"), worker("b"), worker("c")):
            pytest.fail("it was entered")
    assert left == ["a"]


async def test_an_error_of_one_is_raised_when_all_are_left() -> None:
    left = []

    @asynccontextmanager
    async def worker(name: str) -> AsyncIterator[None]:
        yield
        if name == "a":
            raise RuntimeError("a does not stop")
        await asyncio.sleep(0)
        left.append(name)

    with pytest.raises(RuntimeError, match="a does not stop"):
        async with together(worker("a"), worker("b")):
            pass
    assert left == ["b"]
