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
from steporal.runtime.body_log import BodyLogger


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
    assert [text for text, attempt in lines.said if attempt == 2] == ["right has slept", "both are done"]
    assert [text[:38] for text, _ in lines.said if text.startswith("attempt ")] == [
        "attempt 1 of 4 of the body of workflow"
    ]


def test_the_first_attempt_speaks_at_once() -> None:
    logger = BodyLogger(lambda: 1, ())
    logger.begin()
    assert not logger.holds_back


def test_a_body_that_goes_on_speaks_when_it_is_where_it_was() -> None:
    logger = BodyLogger(lambda: 1, ["a"])
    logger.go_on()
    logger.reach("a", is_news=False)
    assert logger.holds_back, "what is between the last step and the wait was said, too"
    logger.is_there()
    assert not logger.holds_back


def test_a_wait_that_is_over_at_once_is_news() -> None:
    logger = BodyLogger(lambda: 1, ["a"])
    logger.go_on()
    logger.reach("a", is_news=False)
    logger.reach("sleep", is_news=True)
    assert not logger.holds_back


def test_a_new_attempt_speaks_when_it_has_passed_what_is_done() -> None:
    logger = BodyLogger(lambda: 2, ())
    logger.reach("a", is_news=True)
    logger.reach("b", is_news=True)
    logger.begin()
    assert logger.holds_back
    logger.reach("b", is_news=False)
    assert logger.holds_back
    logger.reach("a", is_news=False)
    assert not logger.holds_back


def test_a_new_attempt_that_goes_another_way_speaks_from_its_first_new_step_on() -> None:
    logger = BodyLogger(lambda: 2, ())
    logger.reach("a", is_news=True)
    logger.begin()
    logger.reach("instead of a", is_news=True)
    assert not logger.holds_back
