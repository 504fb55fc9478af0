"""What processes log as JSON: a line is an object, and says of which run and step it is."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

from commands import Steporal

WriteApp = Callable[[str], str]

TALKING = """
    import logging

    @client.workflow(id=f"talk-{APP}", triggers=[event_trigger(f"{APP}.said")], max_attempts=2)
    async def talk(ctx, step):
        ctx.logger.info("the body begins", extra={"order": 7})

        def work():
            ctx.logger.info("the step runs")
            logging.getLogger("mine").info("a library speaks")
            if ctx.attempt == 0:
                raise ValueError("out of luck")

        await step.run("work", work)
        await step.sleep("rest", "10ms")
        ctx.logger.info("the body has rested")
        if ctx.attempt == 0:
            raise RuntimeError("again")
    """


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


async def test_each_line_is_an_object_that_says_whose_it_is(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(TALKING)
    settings = {"STEPORAL_LOG_FORMAT": "json", "STEPORAL_MAX_CACHED_WORKFLOWS": "0"}
    async with run.running("worker", "app", **settings) as worker:
        await worker.until("serving")
        sent = await run("send", f"{app}.said", "--data", '{"word": "confidential"}', "--json")
        [workflow_id] = sent.data["runs"]
        await worker.until('"message":"the body has rested"', times=2)  # an attempt each, though each task replays all
        worker.signal(signal.SIGTERM)
        ended = await worker.ended()
    lines = lines_of(ended.err)
    assert "confidential" not in ended.err
    for line in lines:
        assert {"time", "level", "logger", "message"} <= line.keys()
    of_run = {"app": app, "workflow": f"talk-{app}", "workflow_id": workflow_id, "event_id": sent.data["ids"][0]}
    [begins] = [line for line in lines if line["message"] == "the body begins"]  # the second attempt was there before
    assert (begins["attempt"], begins["order"]) == (1, 7)
    rested = [line for line in lines if line["message"] == "the body has rested"]
    assert [line["attempt"] for line in rested] == [1, 2]
    assert all(of_run.items() <= line.items() and line["run_id"] for line in (begins, *rested))
    steps = [line for line in lines if line["message"] == "the step runs"]
    assert [(line["step_id"], line["attempt"]) for line in steps] == [("work", 1), ("work", 2)]
    assert all(of_run.items() <= line.items() and line["run_id"] == begins["run_id"] for line in steps)
    [failure] = [line for line in lines if "ValueError: out of luck" in line.get("exception", "")]
    assert (failure["level"], failure["step_id"], failure["workflow_id"]) == ("warning", "work", workflow_id)
    again = next(line for line in lines if line["message"].startswith("attempt 1 of 2 of the body"))
    assert (again["level"], again["attempt"]) == ("warning", 1)
    assert next(line for line in lines if line["message"] == "a library speaks")["app"] == app


async def test_an_error_is_a_line_as_others(offline: Steporal) -> None:
    offline.write("app.py", "import steporal\nclient = steporal.Client('shop')\n")
    ended = await offline("worker", "app", "--log-format", "json")
    [line] = lines_of(ended.err)
    assert (ended.status, line["level"]) == (1, "error")
    assert line["message"].startswith("no Temporal server answers at '127.0.0.1:1'")


async def test_the_gateway_logs_so_too(run: Steporal, write_app: WriteApp) -> None:
    app = write_app("")
    arguments = ["gateway", "app", "--port", "0", "--log-format", "json"]
    async with run.running(*arguments, STEPORAL_EVENT_KEYS="a-secret-key-of-tests") as process:
        await process.until("gateway at http://127.0.0.1:")
        process.signal(signal.SIGTERM)
        ended = await process.ended()
    assert ended.status == 0
    assert {line["app"] for line in lines_of(ended.err)} == {app}
    assert "a-secret-key-of-tests" not in ended.err
