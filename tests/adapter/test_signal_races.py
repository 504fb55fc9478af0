"""Signals that are sent at the moment when a wait ends: what senders are told and what runs receive always agree."""

from __future__ import annotations

import asyncio
import random
from itertools import count
from typing import Any

import pytest
from recording import Workers

import steporal
from steporal import Context, Step
from steporal.events import new_ulid

WAITS = 12


async def by_timeout(step: Step, name: str, milliseconds: int) -> Any:
    return await step.wait_for_signal("wait", signal=name, timeout=milliseconds)


async def by_wait_for(step: Step, name: str, milliseconds: int) -> Any:
    try:
        return await asyncio.wait_for(step.wait_for_signal("wait", signal=name, timeout="1h"), milliseconds / 1000)
    except TimeoutError:
        return None


async def by_a_lost_race(step: Step, name: str, milliseconds: int) -> Any:
    wait = asyncio.create_task(step.wait_for_signal("wait", signal=name, timeout="1h"))
    pause = asyncio.create_task(step.sleep("pause", milliseconds))
    await asyncio.wait([wait, pause], return_when=asyncio.FIRST_COMPLETED)
    wait.cancel()
    pause.cancel()
    result, _ = await asyncio.gather(wait, pause, return_exceptions=True)
    return None if isinstance(result, asyncio.CancelledError) else result


async def by_a_failed_group(step: Step, name: str, milliseconds: int) -> Any:
    async def fail() -> None:
        await step.sleep("pause", milliseconds)
        raise ValueError("the group fails")

    try:
        async with asyncio.TaskGroup() as group:
            wait = group.create_task(step.wait_for_signal("wait", signal=name, timeout="1h"))
            group.create_task(fail())
    except ExceptionGroup:
        pass
    return None if wait.cancelled() else wait.result()


@pytest.mark.parametrize("wait", [by_timeout, by_wait_for, by_a_lost_race, by_a_failed_group])
async def test_what_was_sent_at_the_end_of_a_wait_was_received_once_or_by_nobody(
    app: steporal.Client, workers: Workers, wait: Any
) -> None:
    name = f"race/{new_ulid()}"
    chance = random.Random()

    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        received = []
        for _ in range(WAITS):
            signal = await wait(step, name, ctx.random.randint(15, 60))
            if signal is not None:
                received.append(signal.data)
        return received

    async with workers(app):
        run = await handler.start()
        result = asyncio.create_task(run.result())
        received_by: dict[int, str | None] = {}

        async def send(number: int) -> None:
            received_by[number] = (await app.send_signal(name, number)).run_id

        sending = []
        while not result.done():
            sending.append(asyncio.create_task(send(len(sending))))
            await asyncio.sleep(chance.uniform(0.01, 0.12))
        await asyncio.gather(*sending)
        received = await result
    assert len(received) == len(set(received))
    assert set(received) == {number for number, run_id in received_by.items() if run_id == run.run_id}
    assert set(received_by.values()) <= {run.run_id, None}


async def test_runs_that_wait_for_one_name_after_another_receive_what_was_sent_to_them(
    app: steporal.Client, workers: Workers
) -> None:
    name = f"race/{new_ulid()}"
    chance = random.Random()

    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        signal = await step.wait_for_signal("wait", signal=name, timeout=ctx.random.randint(15, 60))
        return [signal and signal.data]

    sent: dict[int, str] = {}

    async def send_all() -> None:
        for number in count():
            run_id = (await app.send_signal(name, number)).run_id
            if run_id is not None:
                sent[number] = run_id
            if is_over.is_set():
                return
            await asyncio.sleep(chance.uniform(0.0, 0.08))

    is_over = asyncio.Event()
    async with workers(app):
        sending = asyncio.create_task(send_all())
        received = {}
        for _ in range(WAITS):
            run = await handler.start()
            (data,) = await run.result()
            if data is not None:
                received[data] = run.run_id
        is_over.set()
        await sending  # the sender may hear later than the run
    assert sent == received


async def test_a_sent_signal_that_arrives_while_a_run_is_terminated_counts_for_nobody_else(
    app: steporal.Client, workers: Workers
) -> None:
    name = f"race/{new_ulid()}"
    chance = random.Random()

    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        signal = await step.wait_for_signal("wait", signal=name, timeout="1h", on_conflict="replace")
        return [signal and signal.data]

    async with workers(app):
        for number in range(WAITS):
            gone = await handler.start()
            sending = asyncio.create_task(app.send_signal(name, f"{number} a"))
            await asyncio.sleep(chance.uniform(0.0, 0.1))
            if not sending.done() or (await sending).run_id is None:
                await asyncio.gather(gone.temporal.terminate(), return_exceptions=True)
            first = (await sending).run_id
            assert first in (None, gone.run_id)
            run = await handler.start()
            async with asyncio.timeout(60):
                while (last := (await app.send_signal(name, f"{number} b")).run_id) is None:
                    await asyncio.sleep(0.01)
            if last == gone.run_id:  # it was not terminated in time
                continue
            assert last == run.run_id
            assert await run.result() == [f"{number} b"]
