"""Runs that are run again, from their beginning or from a step on (`steporal runs rerun`)."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pydantic
import pytest
import temporalio.client
from apps import data_kinds
from http_server import http_server
from recording import Workers
from temporalio.api.enums.v1 import EventType
from test_recovery import recovered, unedited, version_of
from waiting import until_waiting

import steporal
from steporal import Context, RunFailedError, Step, StepError, WorkflowExt, cron_trigger, event_trigger
from steporal.operations.errors import RequestError
from steporal.operations.rerun import SAME
from steporal_workers.runs.rerun import run_rerun


async def edited(step: Step) -> None:
    await step.run("new at the top", lambda: None)


async def rerun(
    run: steporal.Run[Any], capsys: pytest.CaptureFixture[str], from_step: str | None = None, data: Any = SAME
) -> tuple[steporal.Run[Any], list[str]]:
    """A run that runs another one again, and the steps that it has kept."""
    capsys.readouterr()
    await run_rerun(run._client, run.workflow_id, from_step=from_step, data=data, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["rerun_of"] == {"workflow_id": run.workflow_id, "run_id": run.run_id, "from": from_step}
    handle = run._client.get_workflow_handle(told["workflow_id"], first_execution_run_id=told["run_id"])
    client = steporal.Client("x", temporal=run._client)
    again = await client.get_run(told["workflow_id"])
    assert handle.first_execution_run_id != run.run_id
    again.run_id = told["run_id"]
    return again, told["kept_steps"]


async def test_everything_is_done_again_with_the_same_input(
    app: steporal.Client, workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[Any] = []

    @app.workflow(id="order", triggers=[event_trigger("order.placed")])
    async def order(ctx: Context[Any], step: Step) -> Any:
        await step.run("work", lambda: ran.append(ctx.input.id))
        origin = ctx.input
        return [origin.data, origin.name, origin.type, origin.time.isoformat(), origin.id, ctx.run_id]

    async with workers(app):
        (event_id,) = (await app.send_event({"name": "order.placed", "data": {"n": 1}, "ts": 1_700_000_000_000})).ids
        run = await app.get_run(f"{app.id}/order/{event_id}")
        first = await run.result()
        run.run_id = first[-1]
        again, kept = await rerun(run, capsys)
        second = await again.result()
        with_other_input, _ = await rerun(run, capsys, data={"n": 2})
        third = await with_other_input.result()
        described = await again.temporal.describe()
    assert kept == []
    assert first[:4] == second[:4] == [{"n": 1}, "order.placed", "event", "2023-11-14T22:13:20+00:00"]
    assert third[0] == {"n": 2}
    assert len({first[4], second[4], third[4]}) == len({first[5], second[5], third[5]}) == 3
    assert again.workflow_id == f"{app.id}/order/{second[4]}"
    assert ran == [first[4], second[4], third[4]]
    assert await described.static_summary() == f"rerun of {run.workflow_id}"


async def test_finished_steps_before_a_step_are_not_done_again(
    app: steporal.Client, workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []
    charging = asyncio.Event()

    @app.workflow(id="child")
    async def child(ctx: Context[Any], step: Step) -> Any:
        return await step.run("work", lambda: ran.append("child") or ctx.input.data)  # type: ignore[func-returns-value]

    @app.workflow(id="order")
    async def order(ctx: Context[Any], step: Step) -> Any:
        one = await step.run("one", lambda: ran.append("one") or {"n": 1})  # type: ignore[func-returns-value]
        try:
            await step.run("fails", lambda: 1 / 0, max_attempts=1)
        except StepError as err:
            failed = err.name
        await step.sleep("nap", "10ms")
        invoked = await step.invoke_workflow("invoke", workflow=child, data="invoked")

        async def slow() -> str:
            ran.append("slow")
            await charging.wait()
            return "slow"

        async def after_slow() -> str:
            ran.append("last of the group")
            await charging.wait()
            return "last"

        async def charge(amount: Any) -> str:
            ran.append("charge")
            charging.set()
            return f"charged {amount}"

        async def branch() -> str:
            await step.run("quick", lambda: ran.append("quick"))
            return await step.run("charge", charge, ctx.input.data)

        group = await asyncio.gather(step.run("slow", slow), step.run("last", after_slow), branch())
        sent = await step.ext.send_event("tell", {"name": f"{app.id}.told"})
        return [[one, invoked], failed, group, sent.ids, ctx.run_id, str(ctx.uuid4())]

    async with workers(app):
        run = await order.start("a")
        first = await run.result()
        ran.clear()
        again, kept = await rerun(run, capsys, "charge", "b")
        second = await again.result()
        assert kept == ["one", "fails", "nap", "invoke", "quick"]  # not what was under way beside it
        assert sorted(ran) == ["charge", "last of the group", "slow"]
        ran.clear()
        third_run, kept = await rerun(again, capsys, "tell")
        third = await third_run.result()
        assert sorted(kept) == sorted(["one", "fails", "nap", "invoke", "quick", "slow", "last", "charge"])
        assert ran == []
    assert first[:2] == second[:2] == third[:2] == [[{"n": 1}, "invoked"], "ZeroDivisionError"]
    assert (first[2][2], second[2][2], third[2][2]) == ("charged a", "charged b", "charged b")
    for own in (3, 4):  # ids of events that are sent again, the run's id
        assert len({str(result[own]) for result in (first, second, third)}) == 3
    assert first[5] == second[5] == third[5], "the random numbers are those that the kept steps were given"


class Request(pydantic.BaseModel):
    by_key: dict[str, UUID]
    _token: Any = None


def ways_to_write(ids: list[str]) -> list[Any]:
    """What bodies make of the ids of their run, to give it to a step."""
    run_id, workflow_id, event_id = ids
    request = Request(by_key={workflow_id: UUID(run_id)})
    request._token = (event_id, b"of " + event_id.encode())
    return [
        run_id[:8],
        f"order-{run_id[:4]}-{event_id[-6:]}",
        UUID(run_id).hex,
        run_id.upper(),
        f"https://{event_id.lower()}.example.com/{workflow_id}",
        quote(workflow_id, safe=""),
        [run_id.split("-")[0], run_id.split("-")[-1]],
        PurePosixPath("files", run_id, event_id),
        {run_id: {event_id}},
        deque([bytearray(run_id.encode())]),
        request,
        json.dumps({"id": run_id, "short": event_id[-8:]}),
    ]


async def test_a_kept_step_that_was_given_what_the_body_computed_of_an_id_is_another_call(
    app: steporal.Client, workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    @app.workflow(id="order")
    async def order(ctx: Context[Any], step: Step) -> None:
        key = sha256(ctx.run_id.encode()).hexdigest()
        await step.run("charge", lambda: ran.append(key))
        await step.run("ship", lambda: ran.append("ship"))

    async with workers(app):
        run = await order.start()
        await run.result()
        ran.clear()
        again, kept = await rerun(run, capsys, "ship")
        assert kept == ["charge"]
        text = await until_stuck(again)
        assert "'charge' has become another call: its result was made by run of" in text
        assert (
            "the step a value that it computes from the run's ids, rerun from this step, or from an earlier one" in text
        )
        assert ran == []
        await again.temporal.terminate()
        from_its_step, _ = await rerun(run, capsys, "charge")
        await from_its_step.result()
        workers.drop(again.workflow_id)
    assert len(ran) == 2


async def until_stuck(run: steporal.Run[Any]) -> str:
    """Wait until a workflow task of a run has failed, and return why."""
    while True:
        async for event in run.temporal.fetch_history_events():
            if event.HasField("workflow_task_failed_event_attributes"):
                return str(event.workflow_task_failed_event_attributes.failure.message)
        await asyncio.sleep(0.05)


async def test_kept_steps_may_have_been_given_the_ids_of_their_run(
    app: steporal.Client, workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    @app.workflow(id="echo")
    async def echo(ctx: Context[Any], step: Step) -> Any:
        return ctx.input.data

    @app.workflow(id="order")
    async def order(ctx: Context[Any], step: Step) -> list[Any]:
        ids = [ctx.run_id, ctx.ext.workflow_id, ctx.input.id]
        for n in range(2):
            await step.run("charge", lambda key: ran.append("charge"), f"{ctx.run_id}/charge/{n}")
        for number, written in enumerate(ways_to_write(ids)):
            await step.run(f"written {number}", lambda: ran.append(f"written {written}"))
        await step.run("at", lambda at: ran.append("at"), [ctx.input.time, ctx.now(), *ids])
        await step.invoke_workflow("echo", workflow=echo, data={"of": ids})
        await step.ext.send_event("tell", {"name": f"{app.id}.told", "data": {"of": ids}})
        await step.send_signal("signal", signal=f"nobody/{ctx.run_id}", data=ids)
        await step.wait_for_signal("none", signal=f"none/{ctx.run_id}", timeout="10ms")
        await step.run("first", lambda: ran.append("first"))
        await step.run("mark", lambda: ran.append(f"mark {ids[0]}"))
        await step.run("second", lambda: ran.append("second"))
        return ids

    async with workers(app):
        run = await order.start()
        first = await run.result()
        assert (run.workflow_id, run.event_id) == (first[1], first[2])
        ran.clear()
        again, kept = await rerun(run, capsys, "first")
        second = await again.result()
        written = [f"written {number}" for number in range(len(ways_to_write(first)))]
        assert kept == ["charge", "charge:1", *written, "at", "echo", "tell", "signal", "none"]
        assert ran == ["first", f"mark {second[0]}", "second"]
        ran.clear()
        third_run, kept = await rerun(again, capsys, "second")
        third = await third_run.result()
        assert kept[-2:] == ["first", "mark"]  # the first of the ids of the run before, the others of that before it
        assert ran == ["second"]
    assert len({*first, *second, *third}) == 9


async def test_a_run_that_continued_as_new_is_run_again_from_the_step_that_failed(
    app: steporal.Client, workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    @app.workflow(id="order", ext=WorkflowExt(park_after="1s"))
    async def order(ctx: Context[Any], step: Step) -> Any:
        began = ctx.now()
        await step.run("reserve", lambda: ran.append("reserve"))
        listener = await step.ext.listen("listen", event=f"{app.id}.heard", timeout="1h")
        first = await listener.next("first", timeout="1h")
        paid = await step.wait_for_signal("paid", signal=ctx.run_id, timeout="1h")
        second = await listener.next("second", timeout="1h")
        await step.run("ship", lambda: 1 / ctx.input.data, max_attempts=1)
        third = await listener.next("third", timeout="10s")
        assert first and second and third and paid
        return [first.data["n"], second.data["n"], third.data["n"], paid.data, ctx.now() >= began]

    async with workers(app), asyncio.timeout(60):
        run = await order.start(0)
        latest = await app.get_run(run.workflow_id)
        while (await latest.temporal.describe()).run_id == run.run_id:
            await asyncio.sleep(0.05)
        await app.send_event([{"name": f"{app.id}.heard", "data": {"n": n}} for n in (1, 2)])
        while (await app.send_signal(run.run_id, "paid")).run_id is None:
            await asyncio.sleep(0.05)
        with pytest.raises(RunFailedError):
            await run.result()
        ran.clear()
        again, kept = await rerun(run, capsys, "ship", 4)
        await until_waiting(again)
        await app.send_event({"name": f"{app.id}.heard", "data": {"n": 3}})
        assert await again.result() == [1, 2, 3, "paid", True]
        assert "reserve" in kept and "paid" in kept and "listen" not in kept
        assert ran == []


async def test_nothing_that_the_run_before_waited_for_comes_along(
    app: steporal.Client, workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    @app.workflow(id="child")
    async def child(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event("go", event=f"{app.id}.go", timeout="1h")
        return event and event.data["to"]

    @app.workflow(id="waits", ext=WorkflowExt(park_after="1s"))
    async def waits(ctx: Context[Any], step: Step) -> Any:
        await step.run("before", lambda: None)
        return await asyncio.gather(
            step.invoke_workflow("child", workflow=child),
            step.wait_for_signal("signal", signal=f"{app.id} {ctx.run_id}", timeout="1h"),
            step.ext.wait_for_event("event", event=f"{app.id}.go", timeout="1h"),
        )

    async with workers(app), asyncio.timeout(60):
        run = await waits.start(None)
        while (await app.temporal.get_workflow_handle(run.workflow_id).describe()).run_id == run.run_id:
            await asyncio.sleep(0.05)
        again, kept = await rerun(run, capsys, "child")  # while the run before still waits
        assert kept == ["before"]
        await until_waiting(again, 2)
        for each in (run, again):
            while (await app.send_signal(f"{app.id} {each.run_id}", each.run_id)).run_id is None:
                await asyncio.sleep(0.05)
        children = [
            found async for found in app.temporal.list_workflows(f"TaskQueue = '{app.id}' AND WorkflowType = 'child'")
        ]
        while len(children) < 2:
            children = [
                found
                async for found in app.temporal.list_workflows(f"TaskQueue = '{app.id}' AND WorkflowType = 'child'")
            ]
        for found in children:
            await until_waiting(await app.get_run(found.id))
        await app.send_event({"name": f"{app.id}.go", "data": {"to": "all"}})
        for each in (run, again):
            result = await (await app.get_run(each.workflow_id)).result()
            assert (result[0], result[1]["data"], result[2]["data"]) == ("all", each.run_id, {"to": "all"})


async def test_a_run_that_was_run_again_from_a_step_can_be_recovered(
    app: steporal.Client, workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def define(app: steporal.Client, edit: Any) -> steporal.Workflow[Any, Any]:
        @app.workflow(id="order")
        async def order(ctx: Context[Any], step: Step) -> Any:
            await edit(step)
            await step.run("one", lambda: ran.append("one"))
            sent = await step.ext.send_event("tell", {"name": f"{app.id}.told"})
            await step.wait_for_signal("wait", signal=ctx.run_id, timeout="1h")
            return [sent.ids, str(ctx.uuid4()), ctx.now().year > 2000]

        return order

    old, new = version_of(app.id), version_of(app.id)
    order = define(old, unedited)
    define(new, edited)
    async with workers(old), asyncio.timeout(60):
        run = await order.start(None)
        await until_waiting(run)
        again, kept = await rerun(run, capsys, "tell")
        assert kept == ["one"]
        await until_waiting(again)
        while (await old.send_signal(run.run_id)).run_id is None:
            await asyncio.sleep(0.05)
        await run.result()
    workers.drop(run.workflow_id, again.workflow_id)
    await recovered(new, again, workers)
    async with workers(new), asyncio.timeout(60):
        while (await new.send_signal(again.run_id)).run_id is None:
            await asyncio.sleep(0.05)
        result = await again.result()
        sent = [
            json.loads(event.activity_task_completed_event_attributes.result.payloads[0].data)["ids"]
            for event in (
                await run._client.get_workflow_handle(again.workflow_id, run_id=again.run_id).fetch_history()
            ).events
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED
        ]
    assert sent == [result[0]]
    assert ran == ["one"]
    assert result[2]


async def test_a_step_that_a_run_does_not_have(
    app: steporal.Client, workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    @app.workflow(id="order")
    async def order(ctx: Context[Any], step: Step) -> Any:
        await step.run("reserve", lambda: None)
        await step.run("ship", lambda: 1 / 0, max_attempts=1)

    async with workers(app):
        run = await order.start(None)
        with pytest.raises(RunFailedError):
            await run.result()
        with pytest.raises(RequestError, match=r"no step 'shipp'; did you mean 'ship'\?; it has 'reserve', 'ship'"):
            await rerun(run, capsys, "shipp")


async def test_local_steps_after_the_step_are_done_again_though_they_are_recorded_together(
    app: steporal.Client, workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    @app.workflow(id="order")
    async def order(ctx: Context[Any], step: Step) -> Any:
        for id in ("reserve", "price", "note"):
            await step.run(id, lambda id=id: ran.append(id), local=True)  # type: ignore[misc]

    async with workers(app):
        run = await order.start(None)
        await run.result()
        for from_step, kept_before in (("reserve", []), ("price", ["reserve"]), ("note", ["reserve", "price"])):
            ran.clear()
            again, kept = await rerun(run, capsys, from_step)
            await again.result()
            assert kept == kept_before
            assert ran == [id for id in ("reserve", "price", "note") if id not in kept_before]


async def test_a_run_of_a_schedule_is_run_again_with_the_time_that_it_was_for(
    app: steporal.Client, workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    @app.workflow(id="tick", triggers=[cron_trigger("@every 1s")])
    async def tick(ctx: Context[Any], step: Step) -> Any:
        return [ctx.input.data, ctx.input.type, ctx.input.ext.cron]

    async with workers(app):
        async with asyncio.timeout(20):
            found: list[temporalio.client.WorkflowExecution] = []
            while not found:
                query = f"TaskQueue = '{app.id}' AND ExecutionStatus = 'Completed'"
                found = [run async for run in app.temporal.list_workflows(query)]
        run = await app.get_run(found[0].id)
        run.run_id = found[0].run_id
        again, _ = await rerun(run, capsys)
        assert await again.result() == await run.result()


async def test_a_delivery_is_run_again_with_the_same_event_id(
    app: steporal.Client, workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    async with http_server() as receiver:
        sink = app.event_sink(f"{app.id}.placed", receiver.url, allow_private=True)
        async with workers(app):
            (event_id,) = (await app.send_event({"name": f"{app.id}.placed", "data": {"n": 1}})).ids
            run = await app.get_run(f"{app.id}/{sink.id}/{event_id}")
            assert (await run.result())["status"] == 200
            run.run_id = (await run.temporal.describe()).run_id
            with pytest.raises(RequestError, match="it has none"):
                await rerun(run, capsys, "POST")
            again, _ = await rerun(run, capsys)
            assert (await again.result())["status"] == 200
        assert again.workflow_id != run.workflow_id
        first, second = receiver.asked
        assert first.json() == second.json()
        assert first.headers["webhook-id"] == second.headers["webhook-id"] == event_id


async def test_a_run_that_is_run_again_is_given_the_same_value(
    app: steporal.Client, workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    @app.workflow(id="masked", input_schema=data_kinds.Masked)
    async def masked(ctx: Context[data_kinds.Masked], step: Step) -> str:
        return ctx.input.data.number

    async with workers(app):
        run = await masked.start(data_kinds.Masked(number="4111111111111111"))
        assert await run.result() == "4111111111111111"
        again, _ = await rerun(run, capsys)
        assert await again.result() == "4111111111111111"
        other, _ = await rerun(run, capsys, data={"number": "42"})
        assert await other.result() == "42"
