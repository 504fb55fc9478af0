"""`steporal runs`: find runs, look at them, end them, and run them again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from commands import Ended, Steporal
from waiting import until_waiting

import steporal
from steporal_workers.devserver import DevServer, dev_server

WriteApp = Callable[[str], str]

CODE = """
    fails = Path("fails")

    def charge():
        if fails.exists():
            raise ValueError("no money")
        return {"charged": 9.5}

    @client.workflow(id=f"order-{APP}", triggers=[event_trigger(f"{APP}.placed")])
    async def order(ctx, step):
        await step.run("reserve", lambda: "x" * 500)
        await step.run("charge", charge, max_attempts=2, retry=steporal.RetryPolicy(initial_interval=RETRY))
        signal = await step.wait_for_signal("approval", signal=f"{APP}/{ctx.input.data['n']}", timeout="1h")
        await step.ext.send_event("tell", {"name": f"{APP}.shipped"})
        return signal and signal.data
    """
SHIP = """
    @client.workflow(id=f"ship-{APP}", triggers=[event_trigger(f"{APP}.shipped")])
    async def ship(ctx, step): ...
    """
CODE = "    from datetime import timedelta\n    RETRY = timedelta(milliseconds=10)\n" + CODE


@pytest.fixture(scope="session")
async def indexed() -> AsyncIterator[DevServer]:
    """A dev server whose namespace has the search attributes."""
    async with dev_server(search_attributes=True) as running:
        yield running


@pytest.fixture(params=[True, False], ids=["indexed", "plain"])
def either(request: pytest.FixtureRequest, server: DevServer, indexed: DevServer, run: Steporal) -> DevServer:
    """A server with search attributes, and one without: what works with them works without."""
    chosen = indexed if request.param else server
    run.environment["TEMPORAL_ADDRESS"] = chosen.address
    return chosen


async def listed(run: Steporal, *arguments: str, count: int = 1) -> list[dict[str, Any]]:
    """The runs that a list has, as soon as it has so many; Temporal lists a run some moments after its start."""
    async with asyncio.timeout(30):
        while True:
            ended = await run("runs", "list", *arguments, "--json")
            assert ended.status == 0, ended.err
            if len(ended.data) >= count:
                return list(ended.data)


async def shown(run: Steporal, id: str) -> dict[str, Any]:
    ended = await run("runs", "show", id, "--json")
    assert ended.status == 0, ended.err
    return dict(ended.data)


async def test_runs_are_listed(run: Steporal, write_app: WriteApp, either: DevServer) -> None:
    app = write_app(CODE)
    workflow = f"order-{app}"
    async with run.worker("app"):
        client = steporal.Client(app, temporal=either.client)
        sent = await client.send_event([{"name": f"{app}.placed", "data": {"n": n}} for n in (1, 2)])
        (await run("start", workflow, "--input", '{"n": 3}')).out.strip()
        first = await client.get_run(f"{app}/{workflow}/{sent.ids[0]}")
        await until_waiting(first)
        await listed(run, "--app", app, count=3)
        assert (await client.send_signal(f"{app}/1", "yes")).run_id == (await first.temporal.describe()).run_id
        await first.result()

        async def ids(*filters: str, count: int = 1) -> set[str]:
            return {found["event_id"] for found in await listed(run, "--app", app, *filters, count=count)}

        assert await ids("--status", "completed") == {sent.ids[0]}
        assert await ids("--event", f"{app}.placed", count=2) == set(sent.ids)
        assert await ids("--event", f"{app}.*", "--status", "running") == {sent.ids[1]}
        assert await ids("--event-id", sent.ids[1]) == {sent.ids[1]}
        assert len(await ids("--workflow", workflow, "--since", "1h", count=3)) == 3
        assert await ids("--workflow", "no such", count=0) == set()
        ended = await run("runs", "list", "--workflow", workflow.upper())
        assert f"no workflow {workflow.upper()!r} is registered" in ended.err
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        assert await ids("--since", tomorrow, count=0) == set()
        assert await ids("--where", f"WorkflowId = '{first.workflow_id}'") == {sent.ids[0]}
        (found,) = await listed(run, "--event-id", sent.ids[0])
        assert (found["workflow"], found["status"], found["event"]) == (workflow, "completed", f"{app}.placed")
        assert found["started"] < found["ended"]
        ended = await run("runs", "list", "--app", app, "--limit", "2")
        assert (ended.status, "the last 2; --limit N shows more" in ended.err) == (0, True)
        assert all(word in ended.out for word in (workflow, "running", "inngest/function.invoked"))
    for ended in await asyncio.gather(
        run("runs", "list", "--where", "Nonsense"),
        run("runs", "list", "--since", "yesterday"),
        run("runs", "list", "--status", "parked"),
    ):
        assert ended.status in (1, 2)
    ended = await run("runs", "list", "--where", "Nonsense")
    assert "Temporal does not accept --where 'Nonsense'" in ended.err


async def test_a_run_is_shown(run: Steporal, write_app: WriteApp, server: DevServer) -> None:
    app = write_app(CODE.replace("milliseconds=10", "hours=1"))
    (run.folder / "fails").touch()
    async with run.worker("app") as worker:
        client = steporal.Client(app, temporal=server.client)
        (event_id,) = (await client.send_event({"name": f"{app}.placed", "data": {"n": 1}})).ids
        id = f"{app}/order-{app}/{event_id}"
        await worker.until("no money")
        async with asyncio.timeout(20):
            while not (found := await shown(run, id))["steps"][1]["failed_before"]:
                pass
        assert (found["status"], found["event"]["name"], found["input"]) == ("running", f"{app}.placed", {"n": 1})
        reserve, charge = found["steps"]
        assert (reserve["id"], reserve["state"], reserve["result"]) == ("reserve", "completed", "x" * 500)
        assert (charge["state"], charge["attempts"]) == ("running", 2)
        assert charge["failed_before"] == "ValueError: no money"
        assert datetime.fromisoformat(charge["next_attempt"]) > datetime.now(UTC) + timedelta(minutes=50)
        ended = await run("runs", "show", id)
        assert re.search(r"✓ reserve .*\bms .* x{59}…", ended.out)
        assert re.search(r"… charge .* failed: ValueError: no money, again at 20", ended.out)

    (run.folder / "fails").unlink()
    write_app(CODE + SHIP)
    async with run.worker("app"):
        client = steporal.Client(app, temporal=server.client)
        one = await client.start_workflow(steporal.reference(app, f"order-{app}"), {"n": 2})
        await until_waiting(one)
        found = await shown(run, one.run_id)  # ctx.run_id is as good
        (waits,) = found["waits"]
        assert (waits["step"], waits["kind"], waits["for"]) == ("approval", "signal", [f"{app}/2"])
        assert waits["since"] < waits["until"]
        ended = await run("runs", "show", one.workflow_id)
        assert re.search(rf"approval +│ waits for signal {app}/2 +│ 20[^│]+ │ 20", ended.out)
        async with run.running("runs", "show", one.workflow_id, "--watch") as watching:
            await asyncio.sleep(1)
            assert (await run("runs", "send-signal", f"{app}/2", "--data", '"fine"')).status == 0
            assert "completed in" in (await watching.ended()).out
        found = await shown(run, one.workflow_id)
        assert (found["status"], found["result"], found["waits"]) == ("completed", "fine", [])
        assert [(step["id"], step["kind"], step["state"]) for step in found["steps"]] == [
            ("reserve", "step", "completed"),
            ("charge", "step", "completed"),
            ("approval", "signal", "completed"),
            ("tell", "event", "completed"),
        ]
        assert found["steps"][2]["result"] == "fine"
        assert found["steps"][3]["sent"][0]["name"] == f"{app}.shipped"
        told = found["steps"][3]["result"]
        assert told["runs"] == [
            {
                "app": app,
                "workflow": f"ship-{app}",
                "workflow_id": f"{app}/ship-{app}/{told['ids'][0]}",
                "event_id": told["ids"][0],
            }
        ]
        text = " ".join((await run("runs", "show", one.workflow_id, COLUMNS="300")).out.split())
        assert f"{told['ids'][0]}; started {app}/ship-{app}/{told['ids'][0]}" in text
        assert (await run("runs", "show", id, "--watch", "--json")).status == 2


async def test_a_run_that_continued_as_new_is_shown_as_one(
    run: Steporal, write_app: WriteApp, server: DevServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = write_app("""
    client = steporal.Client(APP, park_after="1s")

    @client.workflow(id=f"child-{APP}")
    async def child(ctx, step):
        return await step.run("work", lambda: "child")

    @client.workflow(id=f"long-{APP}")
    async def long(ctx, step):
        listener = await step.ext.listen("listen", event=f"{APP}.heard", timeout="1h")
        await step.run("one", lambda: 1, local=True)
        first, second, _ = await asyncio.gather(
            listener.next("next"),
            step.ext.wait_for_event("event", event=f"{APP}.sent", timeout="1h"),
            step.invoke_workflow("invoke", workflow=child),
        )
        lost = asyncio.create_task(step.wait_for_signal("lost", signal=APP, timeout="1h"))
        await step.sleep("nap", "50ms")
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)
        return [first.data, second.data]
    """)
    async with run.worker("app"):
        client = steporal.Client(app, temporal=server.client)
        one = await client.start_workflow(steporal.reference(app, f"long-{app}"))
        latest = await client.get_run(one.workflow_id)
        async with asyncio.timeout(30):
            while (await latest.temporal.describe()).run_id == one.run_id:
                await asyncio.sleep(0.05)
        found = await shown(run, one.run_id)
        assert (found["is_parked"], found["executions"]) == (True, 2)
        (row,) = await listed(run, "--workflow", f"long-{app}")
        assert (row["workflow_id"], row["run_id"]) == (found["workflow_id"], found["run_id"])
        assert (await run("runs", "show", row["run_id"])).out.startswith("run ")
        assert {(wait["step"], *wait["for"]) for wait in found["waits"]} == {
            ("next", f"{app}.heard"),
            ("event", f"{app}.sent"),
        }
        assert all(wait["since"] for wait in found["waits"])
        await client.send_event([{"name": f"{app}.heard", "data": {"n": 1}}, {"name": f"{app}.sent", "data": {"n": 2}}])
        assert await latest.result() == [{"n": 1}, {"n": 2}]
    found = await shown(run, one.workflow_id)
    assert (found["status"], found["is_parked"], found["run_id"]) == ("completed", False, one.run_id)
    assert {step["id"]: (step["kind"], step["state"], step["result"]) for step in found["steps"]} == {
        "listen": ("listen", "completed", None),
        "one": ("local", "completed", 1),
        "next": ("next", "completed", {"n": 1}),
        "event": ("wait", "completed", {"n": 2}),
        "invoke": ("invoke", "completed", "child"),
        "nap": ("sleep", "completed", None),
        "lost": ("signal", "cancelled", None),
    }


async def test_results(run: Steporal, write_app: WriteApp, server: DevServer) -> None:
    app = write_app("""
    @client.workflow(id=f"waits-{APP}")
    async def waits(ctx, step):
        return [await step.wait_for_signal("go", signal=APP, timeout="1h"), 1 / ctx.input.data]
    """)
    async with run.worker("app"):
        client = steporal.Client(app, temporal=server.client)
        waits = steporal.reference(app, f"waits-{app}")
        good = await client.start_workflow(waits, 2)
        await until_waiting(good)
        ended = await run("runs", "result", good.workflow_id)
        assert (ended.status, "has not ended; --wait waits" in ended.err) == (1, True)
        async with run.running("runs", "result", good.workflow_id, "--wait") as waiting:
            await asyncio.sleep(0.5)
            await client.send_signal(app, "go")
            assert (await waiting.ended()).data == [{"signal": app, "data": "go"}, 0.5]
        ended = await run("runs", "result", good.run_id, "--json")
        assert ended.data == {
            "workflow_id": good.workflow_id,
            "run_id": good.run_id,
            "result": [{"signal": app, "data": "go"}, 0.5],
        }
    ended = await run("runs", "cancel", f"steporal.app/{app}")
    assert (ended.status, "is not a run: it is Steporal's own workflow" in ended.err) == (1, True)
    ended = await run("runs", "result", "nope")
    assert (ended.status, "there is no run 'nope' in namespace 'default'" in ended.err) == (1, True)


async def test_a_failed_run_is_run_again(run: Steporal, write_app: WriteApp, server: DevServer) -> None:
    app = write_app(CODE)
    (run.folder / "fails").touch()
    async with run.worker("app"):
        client = steporal.Client(app, temporal=server.client)
        (event_id,) = (await client.send_event({"name": f"{app}.placed", "data": {"n": 1}})).ids
        id = f"{app}/order-{app}/{event_id}"
        ended = await run("runs", "result", id, "--wait")
        assert (ended.status, "ValueError: no money" in ended.err) == (1, True)
        ended = await run("runs", "rerun", id, "--from", "chrage")
        assert (ended.status, "did you mean 'charge'?; it has 'reserve', 'charge'" in ended.err) == (2, True)
        (run.folder / "fails").unlink()
        ended = await run("runs", "rerun", id, "--from", "charge", "--input", '{"n": 5}')
        assert (ended.status, "kept from the original run: reserve" in ended.err) == (0, True)
        again = ended.out.strip()
        await until_waiting(await client.get_run(again))
        assert (await client.send_signal(f"{app}/5", "done")).run_id is not None
        assert (await run("runs", "result", again, "--wait")).data == "done"
        found = await shown(run, again)
    assert found["rerun_of"]["workflow_id"] == id
    assert [(step["id"], step["started"] is None) for step in found["steps"][:2]] == [
        ("reserve", True),
        ("charge", False),
    ]


async def test_runs_are_ended(run: Steporal, write_app: WriteApp, either: DevServer) -> None:
    app = write_app("""
    @client.workflow(id=f"waits-{APP}")
    async def waits(ctx, step):
        await step.wait_for_signal("go", signal=ctx.run_id, timeout="1h")
    """)
    async with run.worker("app"):
        client = steporal.Client(app, temporal=either.client)
        waits = steporal.reference(app, f"waits-{app}")
        runs = [await client.start_workflow(waits) for _ in range(6)]
        for one in runs:
            await until_waiting(one)
        await listed(run, "--app", app, count=6)

        async def status(one: steporal.Run[Any]) -> str:
            described = await one.temporal.describe()
            assert described.status is not None
            return described.status.name

        async def until(one: steporal.Run[Any], wanted: str) -> None:
            async with asyncio.timeout(20):
                while await status(one) != wanted:
                    await asyncio.sleep(0.05)

        assert (await run("runs", "cancel", runs[0].workflow_id, runs[1].run_id)).status == 0
        await until(runs[0], "CANCELED")
        await until(runs[1], "CANCELED")
        ended = await run("runs", "cancel", runs[0].workflow_id)
        assert (ended.status, "has already ended: cancelled" in ended.err) == (1, True)
        assert (await run("runs", "terminate", runs[2].workflow_id, "--reason", "enough")).status == 0
        assert (await shown(run, runs[2].workflow_id))["error"] == "the run was terminated: enough"
        ended = await run("runs", "result", runs[2].workflow_id)
        assert (ended.status, "enough" in ended.err) == (1, True)

        async with asyncio.timeout(20):
            while len(await listed(run, "--app", app, "--status", "running", count=0)) != 3:
                pass
        where = f"WorkflowId = '{runs[3].workflow_id}'"
        ended = await run("runs", "cancel", "--where", where, stdin="n\n")
        assert (ended.status, "cancel 1 open run in namespace 'default'?" in ended.err) == (2, True)
        assert await status(runs[3]) == "RUNNING"
        ended = await run("runs", "cancel", "--where", where, stdin="y\n")
        assert (ended.status, "temporal batch describe --job-id" in ended.err) == (0, True)
        await until(runs[3], "CANCELED")
        ended = await run(
            "runs", "terminate", "--app", app, "--where", "ExecutionStatus = 'Running'", "--yes", "--json"
        )
        assert ended.status == 0 and ended.data["count"] >= 2
        await until(runs[4], "TERMINATED")
        await until(runs[5], "TERMINATED")

    def is_usage(ended: Ended) -> bool:
        return ended.status == 2 and "takes ids of runs, or flags that select runs" in ended.err

    assert is_usage(await run("runs", "terminate"))
    assert is_usage(await run("runs", "terminate", "x", "--where", "y"))


def test_the_query_of_a_batch_leaves_the_systems_own_runs_alone() -> None:
    from steporal.operations.queries import _of_apps
    from steporal.routing.catalog.listing import AppList, Listed
    from steporal.routing.catalog.reading import Snapshot

    shop = AppList(id="shop", task_queue="it's", workflows=(Listed(id="order"),))
    assert _of_apps(Snapshot.of(shop), None, is_indexed=False, namespace="n") == "TaskQueue IN ('it\\'s')"
    assert _of_apps(Snapshot.of(), None, is_indexed=False, namespace="n") == "WorkflowType NOT STARTS_WITH 'steporal.'"
    indexed = _of_apps(Snapshot.of(shop), None, is_indexed=True, namespace="n")
    assert indexed == "(TaskQueue IN ('it\\'s') OR SteporalApp IS NOT NULL)"
