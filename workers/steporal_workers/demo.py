"""Demo: an order, a sign-up and an expense pass through their workflows, on an embedded dev server.

Run it by ``make demo`` or ``steporal demo``; ``KEEP=1`` leaves the server up.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import temporalio.client
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from temporalio.worker import Worker

from steporal.history.reading import FactReader
from steporal.history.timeline import StepEntry, Timeline

from .devserver import dev_server, stops_with
from .output import console
from .problems import Mistake
from .worker import stop_signals

if TYPE_CHECKING:
    import steporal
    from steporal.routing.catalog.reading import Snapshot

SHOP = "examples.shop.app"
APPROVAL = "examples.approval.app"

ORDER = {"order_id": "A-1001", "email": "ada@example.com", "items": {"teapot": 1, "cup": 4}}
SIGN_UP = {"email": "grace@example.com", "name": "Grace"}
EXPENSE = {"expense_id": "E-7", "amount": 1200.0, "by": "ada@example.com"}
ANSWER = {"approved": True, "by": "grace@example.com"}

_RESULT_WIDTH = 60
_WHAT = {"sleep": "sleeps", "wait": "waits", "signal": "waits", "invoke": "invokes", "listen": "listens"}


async def run_demo(*, keep: bool = False) -> None:
    """Run the demo on a dev server, and stop everything; with ``keep``, only after a signal."""
    shop, approval = _example(SHOP), _example(APPROVAL)
    clients: list[steporal.Client] = [shop.client, approval.client]
    out = console()
    # The demo prints failed attempts; their tracebacks belong in a worker's log.
    logging.getLogger("temporalio").setLevel(logging.CRITICAL)
    with stop_signals() as stop:
        async with dev_server(ui=True, search_attributes=True) as server, stops_with(server, stop):
            out.print(f"[bold green]Temporal dev server[/] at {server.address}, its UI at [bold]{server.ui_url}[/]")
            async with AsyncExitStack() as stack:
                for client in clients:
                    await stack.enter_async_context(_working(client, server.client, out))
                showing = asyncio.create_task(_show(shop, approval, out))
                stopping = asyncio.create_task(stop.wait())
                await asyncio.wait([showing, stopping], return_when=asyncio.FIRST_COMPLETED)
                if showing.done():
                    showing.result()
                    if keep:
                        _explain(out, server.address, server.ui_url)
                        await stopping
                for task in (showing, stopping):
                    task.cancel()
        out.print(
            "[bold green]Everything is stopped.[/] With KEEP=1 it stays up, so that you can look at Temporal's UI."
        )


def _example(name: str) -> ModuleType:
    import importlib

    for folder in (Path.cwd(), Path(__file__).resolve().parents[2]):
        if (folder / "examples" / "shop" / "app.py").is_file():
            sys.path.insert(0, str(folder))
            return importlib.import_module(name)
    raise Mistake("the demo needs the examples of the repository; run it in a clone")


@asynccontextmanager
async def _working(client: steporal.Client, temporal: temporalio.client.Client, out: Console) -> AsyncIterator[None]:
    client.temporal = temporal
    plugin = client.plugin()
    async with Worker(temporal, task_queue=client.task_queue, plugins=[plugin]):
        await plugin.registered.wait()
        ids = ", ".join(workflow.id for workflow in client.workflows)
        out.print(f"[bold green]Worker[/] of app [bold]{client.id}[/]: {ids}")
        yield


def _explain(out: Console, address: str, ui_url: str | None) -> None:
    out.print(f"\nStill up, until Ctrl-C: Temporal's UI at [bold]{ui_url}[/]. In another terminal:\n")
    out.print(f"  export TEMPORAL_ADDRESS={address}")
    out.print(f"  steporal send order.placed --data '{json.dumps(ORDER)}'\n", soft_wrap=True)


async def _show(shop: ModuleType, approval: ModuleType, out: Console) -> None:
    client: steporal.Client = shop.client
    printer = _Printer(client.temporal, await client.sending.dispatcher(client.temporal).catalog.read_all(), out)

    out.print("\n[bold underline]An event starts a workflow, whose event starts another[/]")
    sent = await client.send_event({"name": "order.placed", "data": ORDER})
    out.print(f"[cyan]event[/] order.placed {escape(_short(ORDER))}")
    orders = await printer.follow([run.workflow_id for run in sent.runs if run.workflow == "process-order"])

    out.print()
    out.print("[bold underline]A run is started directly; its two events start two more, one of which sleeps[/]")
    run = await client.start_workflow(shop.user_signup, shop.SignUp(**SIGN_UP))
    out.print(f"[cyan]start[/] user-signup {escape(_short(SIGN_UP))}")
    users = await printer.follow([run.workflow_id])

    out.print()
    out.print("[bold underline]A run waits for somebody's answer, which arrives through the HTTP gateway[/]")
    expense = await approval.expense.start(approval.Expense(**EXPENSE))
    out.print(f"[cyan]start[/] expense {escape(_short(EXPENSE))}")
    following = asyncio.create_task(printer.follow([expense.workflow_id]))
    await _answer(approval.client, out)
    expenses = await following

    out.print()
    out.print("[bold underline]What each run did, from Temporal's history[/]")
    for timeline in [*orders, *users, *expenses]:
        out.print(_table(timeline))


async def _answer(client: steporal.Client, out: Console) -> None:
    """Answer the expense through a gateway, with curl if it is installed."""
    from .gateway.app import create_app
    from .gateway.keys import Keys
    from .gateway.server import serving

    body = json.dumps({"signal": f"approval/{EXPENSE['expense_id']}", "data": ANSWER})
    async with serving(create_app(client, Keys.any()), "127.0.0.1", 0) as url:
        url += "/v1/signals"
        out.print(f"[cyan]curl[/] {url} --json '{escape(body)}'", soft_wrap=True)
        while "run_id" not in (response := await _post(url, body)):  # noqa: ASYNC110  # 404: the run does not wait yet
            await asyncio.sleep(0.05)
        out.print(f"  [dim]{escape(response.strip())}[/]", soft_wrap=True)


async def _post(url: str, body: str) -> str:
    if shutil.which("curl"):
        curl = await asyncio.create_subprocess_exec(
            *("curl", "--silent", url, "--header", "content-type: application/json", "--data", body),
            stdout=asyncio.subprocess.PIPE,
        )
        return (await curl.communicate())[0].decode()
    import httpx

    async with httpx.AsyncClient() as http:
        return (await http.post(url, content=body, headers={"content-type": "application/json"})).text


class _Printer:
    """Prints the progress of runs as it happens."""

    def __init__(self, temporal: temporalio.client.Client, snapshot: Snapshot, out: Console) -> None:
        self._temporal = temporal
        self._snapshot = snapshot
        self._out = out

    async def follow(self, workflow_ids: Iterable[str]) -> list[Timeline]:
        """Follow runs, and the runs that their events start, to their ends."""
        timelines: list[Timeline] = []
        async with asyncio.TaskGroup() as group:

            async def follow(workflow_id: str) -> None:
                reader = FactReader(self._temporal.data_converter)
                timeline = Timeline(workflow_id, reader.values)
                timelines.append(timeline)
                handle = self._temporal.get_workflow_handle(workflow_id)
                async for event in handle.fetch_history_events(wait_new_event=True):
                    fact = await reader.read(event)
                    ended = await timeline.add(fact) if fact is not None else None
                    if timeline.start and event.event_id == 1:
                        self._line(timeline.start, timeline, "[green]▶[/]", "started")
                    if ended:
                        self._print_step(timeline, ended)
                        for started in ended.started_runs(self._snapshot):
                            group.create_task(follow(started))
                if timeline.end:
                    self._print_end(timeline, timeline.end)

            for workflow_id in workflow_ids:
                group.create_task(follow(workflow_id))
        return timelines

    def _print_step(self, timeline: Timeline, step: StepEntry) -> None:
        assert step.end is not None
        text = " ".join(filter(None, [escape(step.id), _what(step)]))
        if step.attempts > 1:
            text += f" [yellow]on attempt {step.attempts}[/]; the one before: {escape(step.retried_after or '')}"
        self._line(step.end, timeline, _mark(step.state), text)

    def _print_end(self, timeline: Timeline, end: datetime) -> None:
        text = f"{timeline.state} in {_seconds(timeline.duration)}"
        self._line(end, timeline, "[green]■[/]" if timeline.state == "completed" else "[red]■[/]", text)

    def _line(self, at: datetime, timeline: Timeline, mark: str, text: str) -> None:
        clock = at.astimezone().strftime("%H:%M:%S.%f")[:-3]
        self._out.print(f"  [dim]{clock}[/]  [bold]{timeline.workflow:<14}[/] {mark} {text}", soft_wrap=True)


# --- summary of a run ----------------------------------------------------------------------------------------------


def _table(timeline: Timeline) -> Table:
    title = f"[bold]{escape(timeline.workflow_id)}[/]  {timeline.state} in {_seconds(timeline.duration)}"
    table = Table(title=title, title_justify="left", title_style="", expand=False)
    table.add_column("step")
    table.add_column("what")
    table.add_column("took", justify="right")
    table.add_column("attempts", justify="right")
    table.add_column("result")
    for step in timeline.steps:
        attempts = f"[yellow]{step.attempts}[/]" if step.attempts > 1 else str(step.attempts)
        name = f"{_mark(step.state)} {escape(step.id)}"
        table.add_row(name, _what(step), _seconds(step.duration), attempts, escape(_outcome(step)))
    table.add_section()
    ended = _short(timeline.result) if timeline.error is None else timeline.error
    table.add_row("the run", "", _seconds(timeline.duration), "", escape(ended))
    return table


def _outcome(step: StepEntry) -> str:
    if step.error is not None:
        return step.error
    if step.sent:
        return ", ".join(str(event["id"]) for event in step.sent)
    return "" if step.kind == "sleep" else _short(step.result)


def _what(step: StepEntry) -> str:
    if step.sent:
        return "sends " + ", ".join(escape(str(event["name"])) for event in step.sent)
    return _WHAT.get(step.kind, "")


def _mark(state: str) -> str:
    return {"completed": "[green]✓[/]", "failed": "[red]✗[/]", "running": "…"}[state]


def _seconds(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _RESULT_WIDTH else text[: _RESULT_WIDTH - 1] + "…"
