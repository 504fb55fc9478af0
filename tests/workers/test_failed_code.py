"""The line of the user's code that failed: in the log, in `start --wait`, in `runs show` and in `runs result`."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from commands import Ended, Steporal

WriteApp = Callable[[str], str]

CODE = """
    def charge(n):
        return 1 // n

    @client.workflow(id=f"step-{APP}", max_attempts=2, retry=RETRY)
    async def in_step(ctx, step):
        return await step.run("charge", lambda: charge(0))

    @client.workflow(id=f"library-{APP}", max_attempts=1)
    async def in_library(ctx, step):
        return await step.run("parse", lambda: json.loads("no"))

    @client.workflow(id=f"body-{APP}", max_attempts=2, retry=RETRY)
    async def in_body(ctx, step):
        await step.run("a", lambda: 1)
        {}["x"]
    """
RETRY = """
    import json
    from datetime import timedelta
    RETRY = steporal.RetryPolicy(initial_interval=timedelta(milliseconds=10))
    """
MACHINERY = ("temporalio", "asyncio", "concurrent/futures", "steporal/")


def error_of(ended: Ended) -> list[str]:
    """The lines of a command's error."""
    assert ended.status == 1
    return ended.err[ended.err.index("error:") :].splitlines()


async def test_a_failed_step_is_five_lines_with_the_line_that_raised(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(RETRY + CODE)
    async with run.worker("app"):
        ended = await run("start", f"step-{app}", "--id", f"one-{app}", "--wait")
        assert error_of(ended) == [
            f"error: run 'one-{app}' failed: ZeroDivisionError: integer division or modulo by zero",
            "  app.py:18 in charge",
            "    return 1 // n",
            "  step 'charge' failed after 2 attempts",
            f"  all lines: steporal runs show one-{app} --stack",
        ]
        assert error_of(await run("runs", "result", f"one-{app}")) == error_of(ended)


async def test_a_failed_body_is_five_lines_with_the_line_that_raised(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(RETRY + CODE)
    async with run.worker("app"):
        ended = await run("start", f"body-{app}", "--id", f"body-{app}", "--wait")
        assert error_of(ended) == [
            f"error: run 'body-{app}' failed: KeyError: 'x'",
            "  app.py:31 in in_body",
            '    {}["x"]',
            "  the body failed after 2 attempts",
            f"  all lines: steporal runs show body-{app} --stack",
        ]


async def test_an_error_in_a_library_is_shown_at_the_line_that_called_the_library(
    run: Steporal, write_app: WriteApp
) -> None:
    app = write_app(RETRY + CODE)
    async with run.worker("app"):
        ended = await run("start", f"library-{app}", "--id", f"library-{app}", "--wait")
        assert error_of(ended)[1:3] == [
            "  app.py:26 in <lambda>",
            '    return await step.run("parse", lambda: json.loads("no"))',
        ]
        shown = await run("runs", "show", f"library-{app}", "--stack")
        assert "in raw_decode" in shown.out


async def test_programs_get_the_failed_step_with_its_stack(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(RETRY + CODE)
    async with run.worker("app"):
        error = (await run("start", f"step-{app}", "--wait", "--json")).data["error"]
    assert error["name"] == "StepError"
    assert (error["step"]["id"], error["step"]["name"], error["step"]["attempts"]) == ("charge", "ZeroDivisionError", 2)
    assert "in charge" in error["step"]["stack"]
    assert not any(word in error["stack"] + error["step"]["stack"] for word in MACHINERY)


@pytest.mark.parametrize(("workflow", "where"), [("step", "app.py:18 in charge"), ("body", "app.py:31 in in_body")])
async def test_runs_show_has_the_line_above_the_steps_and_all_lines_on_request(
    run: Steporal, write_app: WriteApp, workflow: str, where: str
) -> None:
    app = write_app(RETRY + CODE)
    async with run.worker("app"):
        await run("start", f"{workflow}-{app}", "--id", f"{workflow}-{app}", "--wait")
        shown = (await run("runs", "show", f"{workflow}-{app}")).out
        assert shown.index(where) < shown.index("attempts │" if "attempts │" in shown else "attempts ┃")
        whole = (await run("runs", "show", f"{workflow}-{app}", "--stack")).out
        place, line = where.partition(" ")[0].split(":")
        assert f'/{place}", line {line}, in ' in whole
        assert not any(word in whole for word in MACHINERY)


async def test_the_log_names_the_step_the_run_and_the_line(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(RETRY + CODE)
    async with run.worker("app") as worker:
        await run("start", f"step-{app}", "--id", f"step-{app}", "--wait")
        await run("start", f"body-{app}", "--id", f"body-{app}", "--wait")
        await worker.until(f"run 'body-{app}' failed")
        said = worker.said
    error = "ZeroDivisionError: integer division or modulo by zero\n  app.py:18 in charge\n    return 1 // n\n"
    assert f"step 'charge' of run 'step-{app}' failed on attempt 1 of 2: {error}" in said
    assert f"step 'charge' of run 'step-{app}' failed on attempt 2 of 2: {error}" in said
    assert f"run 'step-{app}' failed: StepError: step 'charge' failed after 2 attempts" in said
    assert said.count("raised KeyError: 'x'; the next starts in 10ms\n  app.py:31 in in_body\n    {}[\"x\"]\n") == 1
    assert f"run 'body-{app}' failed: KeyError: 'x'\n  app.py:31 in in_body\n" in said
    assert "Traceback" not in said


async def test_the_log_has_the_stack_trace_at_level_debug(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(RETRY + CODE)
    async with run.worker("app", "--log-level", "debug") as worker:
        await run("start", f"library-{app}", "--wait")
        await worker.until("in raw_decode")


async def test_a_log_for_programs_has_the_users_frames_as_the_exception(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(RETRY + CODE)
    async with run.worker("app", "--log-format", "json") as worker:
        await run("start", f"step-{app}", "--wait")
        await worker.until("failed on attempt 2 of 2")
        lines = [json.loads(line) for line in worker.said.splitlines() if "failed on attempt" in line]
    assert [line["step_id"] for line in lines] == ["charge", "charge"]
    assert all("in charge" in line["exception"] for line in lines)
    assert not any(word in line["exception"] for line in lines for word in ("_activity.py", "asyncio", "reporting.py"))


async def test_an_id_that_was_used_before_says_how_to_look_at_its_run(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(RETRY + CODE)
    async with run.worker("app"):
        assert (await run("start", f"body-{app}", "--id", f"a run of {app}")).status == 0
        ended = await run("start", f"body-{app}", "--id", f"a run of {app}")
    assert ended.status == 1
    assert f"a run with the id 'a run of {app}' was started before; `steporal runs show 'a run of {app}'`" in ended.err
