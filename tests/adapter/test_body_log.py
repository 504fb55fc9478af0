"""A body runs from the top again and again; what it logs is logged once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from recording import Workers

import steporal
from steporal import Context, Step, WorkflowExt


class Lines(logging.Handler):
    """What bodies have logged, with the attempt."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[str, int]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append((record.getMessage(), record.attempt))  # type: ignore[attr-defined]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The lines of this test's bodies."""
    logger, lines = logging.getLogger("steporal.workflow"), Lines()
    before = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(lines)
    logger.setLevel(before)


async def test_a_line_is_there_once_however_often_the_body_has_come_to_it(
    app: steporal.Client, workers: Workers, lines: Lines
) -> None:
    @app.workflow(id="talks", ext=WorkflowExt(park_after="1s"), retry=steporal.RetryPolicy(timedelta(milliseconds=1)))
    async def talks(ctx: Context[Any], step: Step) -> None:
        log = ctx.logger.info
        log("begins")
        await step.run("first", lambda: None)
        log("first is done")

        async def branch(name: str) -> None:
            log(f"{name} begins")
            await step.run(f"step of {name}", lambda: None)
            log(f"{name} goes to sleep")
            await step.sleep(f"sleep of {name}", "2500ms")  # it is parked meanwhile, and begins again
            log(f"{name} has slept")

        await asyncio.gather(branch("left"), branch("right"))
        log("both are done")
        if ctx.attempt == 0:
            raise RuntimeError("once more")

    async with workers(app):
        run = await talks.start()
        await run.result()
        assert (
            await run.temporal.describe()
        ).raw_description.workflow_execution_info.first_run_id != run.temporal.run_id

    first_attempt = [
        "begins",
        "first is done",
        *(f"{name} begins" for name in ("left", "right")),
        *(f"{name} goes to sleep" for name in ("left", "right")),
        *(f"{name} has slept" for name in ("left", "right")),
        "both are done",
    ]
    said = [text for text, attempt in lines.said if attempt == 1 and not text.startswith("attempt ")]
    assert sorted(said) == sorted(first_attempt)
    # The second attempt says what comes after the last of the steps that are done.
    last = [text for text in said if text.endswith("has slept")][-1]
    assert [text for text, attempt in lines.said if attempt == 2] == [last, "both are done"]
    assert [text[:38] for text, _ in lines.said if text.startswith("attempt ")] == [
        "attempt 1 of 4 of the body of workflow"
    ]
