"""``steporal send``, ``steporal signal`` and ``steporal start``."""

from __future__ import annotations

import asyncio
import difflib
import shlex
from collections.abc import Sequence
from typing import Any

import temporalio.client
from rich.markup import escape

import steporal
from steporal.operations.inputs import check_input
from steporal.routing.catalog.reading import Snapshot
from steporal.routing.topics.client import Topics

from .output import print_json, print_line, say
from .problems import FailedRun, Failure, Mistake, failed_run_json
from .runs.progress import explained

_CLIENT_ID = "steporal"


async def send_event(temporal: temporalio.client.Client, event: dict[str, Any], *, as_json: bool) -> None:
    """Send an event, and print its id, the runs that it starts, and the waiting runs that it wakes or cancels."""
    sent = await steporal.Client(_CLIENT_ID, temporal=temporal).send_event(event)
    event_id, name = sent.ids[0], event["name"]
    runs = [run.workflow_id for run in sent.runs]
    woken = await Topics(temporal).woken(name, event_id) if sent.awaited else []
    if as_json:
        print_json({"ids": sent.ids, "runs": runs, "woken": woken})
        return
    print_line(event_id)
    for run in runs:
        say(f"  [green]→[/] {escape(run)}")
    for run in woken or ():
        say(f"  [green]→[/] {escape(run)}, which waits for {escape(repr(name))}, receives it")
    if woken is None:
        say(f"  runs wait for {escape(repr(name))}; no worker is up to decide which of them receive it")
    elif not runs and not woken:
        say(
            f"  no workflow has a trigger for {escape(repr(name))} that matches, and no run waits for it; "
            "`steporal catalog` shows all triggers"
        )


async def send_signal(temporal: temporalio.client.Client, signal: str, data: Any, *, as_json: bool) -> None:
    """Send a signal, and print the id of the run that received it.

    Raises:
        Failure: No run waits for it.
    """
    sent = await steporal.Client(_CLIENT_ID, temporal=temporal).send_signal(signal, data)
    if as_json:
        print_json({"signal": signal, "run_id": sent.run_id})
    if sent.run_id is None:
        raise Failure(f"no run in namespace {temporal.namespace!r} waits for signal {signal!r}")
    if not as_json:
        print_line(sent.run_id)


async def start_workflow(
    temporal: temporalio.client.Client,
    workflow_id: str,
    data: Any,
    *,
    definitions: steporal.Client | None = None,
    app: str | None,
    run_id: str | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Start a run of a workflow in the catalog, and print its id; or wait for it, and print its result.

    Raises:
        Mistake: The catalog lists no such workflow, or several.
        InvalidInputError: The input does not fit the ``input_schema`` in the client ``definitions``.
        Failure: The run failed.
    """
    client = steporal.Client(_CLIENT_ID, temporal=temporal)
    snapshot = await client.sending.dispatcher(temporal).catalog.read_all()
    app_id = _app_of(snapshot, workflow_id, app, temporal.namespace)
    check_input(definitions, app_id, workflow_id, data)
    try:
        run = await client.start_workflow(steporal.reference(app_id, workflow_id), data, id=run_id)
    except steporal.AlreadyStartedError:
        show = f"`steporal runs show {shlex.quote(run_id or '')}` shows it"
        raise Failure(f"a run with the id {run_id!r} was started before; {show}") from None
    started = {
        "app": app_id,
        "workflow": workflow_id,
        "workflow_id": run.workflow_id,
        "run_id": run.run_id,
        "event_id": run.event_id,
    }
    if not wait:
        print_json(started) if as_json else print_line(run.workflow_id)
        return
    if not as_json:
        say(f"started [bold]{escape(run.workflow_id)}[/] of app {escape(app_id)}; waiting for its result")
    try:
        async with explained(temporal, run.workflow_id):
            result = await run.result()
    except asyncio.CancelledError:
        say(f"[bold]{escape(run.workflow_id)}[/] continues")
        raise
    except steporal.RunFailedError as err:
        if as_json:
            print_json({**started, "error": failed_run_json(err)})
        raise FailedRun(err) from err
    print_json({**started, "result": result} if as_json else result)


def _app_of(snapshot: Snapshot, workflow_id: str, app: str | None, namespace: str) -> str:
    if app is not None and app not in snapshot.apps:
        raise Mistake(f"no app {app!r} is registered in namespace {namespace!r}{_near(app, list(snapshot.apps))}")
    apps = sorted(match.app for match in snapshot.with_id(workflow_id, app))
    if not apps:
        where = f"app {app!r}" if app else f"no app in namespace {namespace!r}"
        names = sorted({match.workflow for match in snapshot.workflows if app in (None, match.app)})
        message = f"{where} has {'no' if app else 'a'} workflow {workflow_id!r}"
        raise Mistake(message + _near(workflow_id, names))
    if len(apps) > 1:
        raise Mistake(f"several apps have a workflow {workflow_id!r}; choose one: --app {' or --app '.join(apps)}")
    return apps[0]


def _near(name: str, names: Sequence[str]) -> str:
    if not names:
        return "; nothing is registered yet: start a worker, or `steporal sync module:client`"
    close = difflib.get_close_matches(name, names, n=3)
    if close:
        return f"; did you mean {' or '.join(map(repr, close))}?"
    return f"; these are registered: {', '.join(map(repr, sorted(names)[:10]))}{', …' * (len(names) > 10)}"
