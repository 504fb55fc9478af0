"""Waits for signals, as a run hands them on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from steporal.runtime import signal_inbox
from steporal.runtime.signal_inbox import SignalInbox
from steporal.wire.mailbox_wait import Wait
from steporal.wire.names import CLOSE_MAILBOX, OPEN_MAILBOX
from steporal.wire.waits import Waits

WAIT = Wait(signal="go", workflow_id="app/order/1", run_id="run", key="go", until=1e10)


@pytest.mark.parametrize("slow", [OPEN_MAILBOX, CLOSE_MAILBOX])
async def test_a_wait_that_is_cancelled_twice_closes_its_mailbox(monkeypatch: pytest.MonkeyPatch, slow: str) -> None:
    told: list[str] = []
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def tell(activity: str, argument: Any, what: str) -> Any:
        if activity == slow:
            begun.set()
            await may_end.wait()
        told.append(activity)
        return {"wait": WAIT.model_dump(mode="json"), "run_id": "mailbox"} if activity == OPEN_MAILBOX else False

    async def until_received(wait: Wait, shortest: Any) -> bool:
        begun.set()
        return await asyncio.Future()

    monkeypatch.setattr(signal_inbox, "_update_mailbox", tell)
    inbox = SignalInbox(Waits())
    monkeypatch.setattr(inbox, "_until_received", until_received)
    waiting = asyncio.create_task(inbox.wait("go", WAIT, replace=False))
    for _ in range(3):
        await begun.wait()
        begun.clear()
        waiting.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        begun.set()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert told == [OPEN_MAILBOX, CLOSE_MAILBOX]
    assert not inbox.state()["waits"]
