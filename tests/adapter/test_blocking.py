"""Async step functions that block the event loop of their worker."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import pytest
from recording import Workers

import steporal
from steporal import Context, Step
from steporal.activities.blocking import BLOCKED_SECONDS

pytestmark = pytest.mark.outside_runs

BLOCKED = BLOCKED_SECONDS + 3.0
"""Longer than the heartbeat timeout, and the 5 s after it in which Temporal's core gives an attempt up."""


@pytest.mark.takes_long
async def test_a_step_that_blocks_the_event_loop_begins_once_hurts_no_neighbour_and_is_named(
    app: steporal.Client, workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    begun: list[str] = []
    is_blocked = asyncio.Event()

    @app.workflow(id="blocks", ext=steporal.WorkflowExt(heartbeat_timeout="2s"))
    async def blocks(ctx: Context[Any], step: Step) -> list[str]:
        async def block() -> str:
            begun.append("block")
            is_blocked.set()
            time.sleep(BLOCKED)  # noqa: ASYNC251
            return "blocked"

        async def neighbour() -> str:
            begun.append("neighbour")
            await is_blocked.wait()
            await asyncio.sleep(0.1)
            return "waited"

        return list(
            await asyncio.gather(
                step.run("neighbour", neighbour, max_attempts=1), step.run("block", block, max_attempts=1)
            )
        )

    with caplog.at_level(logging.WARNING, "steporal"):
        async with workers(app):
            assert await (await blocks.start()).result() == ["waited", "blocked"]
    assert sorted(begun) == ["block", "neighbour"]
    (message,) = [r.getMessage() for r in caplog.records if "event loop" in r.getMessage()]
    line = block_line()
    assert message == (
        f"step 'block' (adapter/test_blocking.py:{line}) blocks the event loop: it has been at "
        f"adapter/test_blocking.py:{line + 3}, in block for over 5 s, and no other async step of this worker makes "
        "progress; write it as a plain def, which runs in a thread"
    )


def block_line() -> int:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.strip() == "async def block() -> str:")
