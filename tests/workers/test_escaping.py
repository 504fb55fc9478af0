"""What strangers have written does not reach the terminals of those who look at it."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable

import pytest
from commands import Steporal
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from steporal.observability.progress import PROGRESS, Progress
from steporal_workers.dev_log import DevFormatter
from steporal_workers.escaping import printable
from steporal_workers.logs import TextFormatter
from steporal_workers.output import console, print_json, print_line, say, warn
from steporal_workers.problems import Failure

WriteApp = Callable[[str], str]

HOSTILE = "I\x1b]0;title\x07\x1b[2J\x9b31m\x7f\u202eevil\u2069\ud800\r"
CONTROLS = re.compile(r"[^\n\t\x20-\x7e\xa0-\u061b\u061d-\u1fff\u2010-\u2027\u2070-\ud7ff\ue000-\U0010ffff]")


@pytest.mark.parametrize("code", [*range(9), *range(11, 32), *range(127, 160), 0x61C, 0x202E, 0x2066, 0x2028, 0xD800])
def test_a_control_is_shown_as_json_writes_it(code: int) -> None:
    assert printable(f"a{chr(code)}b") == f"a\\u{code:04x}b"


def test_what_people_write_is_left_alone() -> None:
    text = "äöü 中文 مرحبا 🎉 a\tb\nc \\ [bold] \u200d"
    assert printable(text) == text


def test_nothing_that_is_printed_has_a_control(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("id", "data")
    table.add_row(escape(HOSTILE), Text(HOSTILE))
    console().print(table)
    print_line(HOSTILE)
    print_json({HOSTILE: [HOSTILE]})
    say(f"[bold]{escape(HOSTILE)}[/]")
    warn(HOSTILE)
    Failure(HOSTILE, HOSTILE, HOSTILE).show()
    said = capsys.readouterr()
    assert not CONTROLS.findall(said.out + said.err)
    assert said.out.count("\\u001b]0;title") >= 5
    assert said.err.count("\\u001b]0;title") == 5


def logged(formatter: logging.Formatter, message: str, error: Exception | None = None, **extra: object) -> str:
    record = logging.makeLogRecord({"name": "a", "levelname": "INFO", "msg": message, **extra})
    record.exc_info = (type(error), error, error.__traceback__) if error else None
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    handler.handle(record)
    return stream.getvalue()


@pytest.mark.parametrize("formatter", [TextFormatter("%(levelname)s: %(message)s"), DevFormatter()])
def test_what_is_logged_has_no_control_and_feigns_no_entry(formatter: logging.Formatter) -> None:
    forged = f"{HOSTILE}\nERROR: forged"
    said = logged(formatter, forged, ValueError(forged))
    assert not CONTROLS.findall(said)
    assert "ERROR: forged" in said and not [line for line in said.splitlines() if line.startswith("ERROR: forged")]


def test_the_line_of_a_run_has_no_control() -> None:
    progress = Progress(
        workflow=HOSTILE, workflow_id=f"a/{HOSTILE}\nb", step=HOSTILE, state="failed", detail=f"{HOSTILE}\nforged"
    )
    said = logged(DevFormatter(), "", **{PROGRESS: progress})
    assert not CONTROLS.findall(said)
    assert not [line for line in said.splitlines()[1:] if not line.startswith("  ")]


async def test_a_sender_has_nothing_to_say_to_the_terminal_of_an_operator(run: Steporal, write_app: WriteApp) -> None:
    app = write_app("""
    @client.workflow(id=f"echo-{APP}", triggers=[event_trigger(f"{APP}.*")], max_attempts=1)
    async def echo(ctx, step):
        ctx.logger.warning("%s", ctx.input.data["text"])
        raise ValueError(ctx.input.data["text"])
    """)
    hostile = "I\x1b]0;title\x07\x1b[2J\x9b31m\u202eevil\nforged"
    async with run.worker("app") as worker:
        data = json.dumps({"text": hostile})
        sent = await run("send", f"{app}.{hostile}", "--id", hostile, "--data", data)
        assert sent.status == 0, sent.err
        result = await run("runs", "result", f"{app}/echo-{app}/{hostile}", "--wait")
        listed = await run("runs", "list", "--workflow", f"echo-{app}")
        shown = await run("runs", "show", f"{app}/echo-{app}/{hostile}", "--stack")
        as_json = await run("runs", "show", f"{app}/echo-{app}/{hostile}", "--json")
        said = worker.said
    assert "\\u001b]0;title" in re.sub(r"[\s│]", "", listed.out) and "\\u001b]0;title" in shown.out
    assert as_json.data["event"]["id"] == hostile
    for ended in (sent, result, listed, shown, as_json):
        assert not CONTROLS.findall(ended.out + ended.err)
    assert not CONTROLS.findall(said)
    assert "forged" in said and not [line for line in said.splitlines() if line.startswith("forged")]
