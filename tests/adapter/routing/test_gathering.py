"""Messages to one receiver gather while a call is under way."""

from __future__ import annotations

import asyncio

import pytest

from steporal.routing.batching import MAX_BATCH_BYTES, Batcher


class Receiver:
    """Takes calls one at a time, each when it is let."""

    def __init__(self) -> None:
        self.calls: list[list[object]] = []
        self.may_answer = asyncio.Semaphore(0)

    async def __call__(self, messages: list[object]) -> bool:
        self.calls.append(messages)
        await self.may_answer.acquire()
        if "bad" in messages:
            raise ValueError("refused")
        return True


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


async def put(line: Batcher[object], receiver: Receiver, *messages: object, size: int = 1) -> asyncio.Task[bool]:
    task = asyncio.create_task(line.put(messages, size, receiver))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def test_the_first_goes_at_once_and_what_comes_meanwhile_goes_together(receiver: Receiver) -> None:
    line = Batcher[object](10)
    tasks = [await put(line, receiver, n) for n in range(4)]
    assert receiver.calls == [[0]]
    receiver.may_answer.release()
    assert await tasks[0]
    receiver.may_answer.release()
    assert await asyncio.gather(*tasks) == [True] * 4
    assert receiver.calls == [[0], [1, 2, 3]]
    assert line.is_idle


async def test_a_call_has_so_many_messages_and_so_many_bytes_and_those_of_one_sender_stay_together(
    receiver: Receiver,
) -> None:
    line = Batcher[object](3)
    tasks = [
        await put(line, receiver, "first"),
        await put(line, receiver, "a", "b"),
        await put(line, receiver, "c", "d"),
        await put(line, receiver, "e", "f", "g", "h"),
        await put(line, receiver, "large", size=MAX_BATCH_BYTES),
        await put(line, receiver, "i"),
    ]
    for _ in range(6):
        receiver.may_answer.release()
    await asyncio.gather(*tasks)
    assert receiver.calls == [["first"], ["a", "b"], ["c", "d"], ["e", "f", "g", "h"], ["large"], ["i"]]


async def test_a_call_that_fails_fails_those_that_were_in_it_alone(receiver: Receiver) -> None:
    line = Batcher[object](10)
    first, bad, with_it = [await put(line, receiver, message) for message in ("first", "bad", "with it")]
    receiver.may_answer.release()
    await first
    later = await put(line, receiver, "later")
    for _ in range(2):
        receiver.may_answer.release()
    with pytest.raises(ValueError, match="refused"):
        await bad
    with pytest.raises(ValueError, match="refused"):
        await with_it
    assert await later


async def test_a_sender_that_is_cancelled_takes_nobody_with_it(receiver: Receiver) -> None:
    line = Batcher[object](10)
    first, second = [await put(line, receiver, n) for n in range(2)]
    first.cancel()
    for _ in range(2):
        receiver.may_answer.release()
    assert await second
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_sender_that_is_cancelled_while_it_waits_holds_up_nobody(receiver: Receiver) -> None:
    line = Batcher[object](10)
    tasks = [await put(line, receiver, n) for n in range(4)]
    tasks[2].cancel()
    await asyncio.sleep(0)
    for _ in range(2):
        receiver.may_answer.release()
    assert [await tasks[n] for n in (0, 1, 3)] == [True] * 3
    assert tasks[2].cancelled()
    assert receiver.calls == [[0], [1, 2, 3]], "what it has put in may have been sent already, too"
    assert line.is_idle


async def test_senders_end_when_the_call_is_cancelled_and_the_next_one_begins_anew(receiver: Receiver) -> None:
    """As a loop does with all of its tasks when it ends."""
    line, others = Batcher[object](2), asyncio.all_tasks()
    tasks = [await put(line, receiver, n) for n in range(5)]
    (calling,) = asyncio.all_tasks() - others - {*tasks}
    calling.cancel()
    async with asyncio.timeout(5):
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in ended] == [asyncio.CancelledError] * 5
    assert line.is_idle
    receiver.may_answer.release()
    assert await (await put(line, receiver, "next"))
    assert receiver.calls == [[0], ["next"]]
