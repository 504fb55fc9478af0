"""Events, from those who send them to the runs that they start."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from recording import Workers
from temporalio.service import RPCError
from waiting import until_waiting

import steporal
from steporal import Context, RunFailedError, SentEvent, StartedRun, Step, event_trigger
from steporal.wire.workflow_ids import run_name


class Order(BaseModel):
    order_id: str
    amount: float = 1.0


@pytest.fixture
def name(app: steporal.Client) -> str:
    """An event name that no other test has."""
    return f"{app.id}/order.placed"


async def test_an_event_starts_a_workflow(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="process", input_schema=Order, triggers=[event_trigger(name)])
    async def process(ctx: Context[Order], step: Step) -> list[Any]:
        i = ctx.input
        return [i.data.order_id, i.type, i.name, i.id, i.ext.v, int(i.time.timestamp() * 1000)]

    now = int(datetime.now(UTC).timestamp() * 1000)
    async with workers(app):
        sent = await app.send_event({"name": name, "data": {"order_id": "a"}, "v": "2", "ts": now})
        run = await app.get_run(f"{app.id}/process/{sent.ids[0]}", process)
        assert await run.result() == ["a", "event", name, sent.ids[0], "2", now]


async def test_an_event_may_be_a_model(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="process", triggers=[event_trigger(name)])
    async def process(ctx: Context[Any], step: Step) -> Any:
        return ctx.input.data

    async with workers(app):
        sent = await app.send_event(SentEvent(name=name, data={"a": 1}, id=f"{app.id} one"))
        assert sent.ids == [f"{app.id} one"]
        assert await (await app.get_run(f"{app.id}/process/{sent.ids[0]}")).result() == {"a": 1}


async def test_ids_come_back_in_the_order_sent(app: steporal.Client, workers: Workers, name: str) -> None:
    async with workers(app):
        sent = await app.send_event([{"name": name}, {"name": name, "id": "mine"}, {"name": name}])
    first, mine, third = sent.ids
    assert mine == "mine"
    assert len(first) == len(third) == 26
    assert first != third


async def test_a_step_sends_events_that_start_other_workflows(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="process", triggers=[event_trigger(name)])
    async def process(ctx: Context[Any], step: Step) -> list[str]:
        sent = await step.ext.send_event("notify", [{"name": f"{name}.packed", "data": {"n": n}} for n in range(3)])
        return sent.ids

    @app.workflow(id="pack", triggers=[event_trigger(f"{name}.packed")])
    async def pack(ctx: Context[Any], step: Step) -> int:
        return int(ctx.input.data["n"])

    async with workers(app):
        ids = await (await process.start()).result()
        assert [await (await app.get_run(f"{app.id}/pack/{event_id}", pack)).result() for event_id in ids] == [0, 1, 2]


async def test_a_wildcard_takes_every_name_below_it(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="audit", triggers=[event_trigger(f"{app.id}/*")])
    async def audit(ctx: Context[Any], step: Step) -> str:
        return ctx.input.name

    async with workers(app):
        sent = await app.send_event([{"name": name}, {"name": f"{app.id}/a/b"}, {"name": f"{app.id}x/a"}])
        assert await (await app.get_run(f"{app.id}/audit/{sent.ids[0]}")).result() == name
        assert await (await app.get_run(f"{app.id}/audit/{sent.ids[1]}")).result() == f"{app.id}/a/b"
        assert not await exists(app, f"{app.id}/audit/{sent.ids[2]}")


async def test_an_expression_picks_events(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="large", triggers=[event_trigger(name, if_exp="event.data.amount > 100")])
    async def large(ctx: Context[Any], step: Step) -> float:
        return float(ctx.input.data["amount"])

    async with workers(app):
        small, big, neither = (
            await app.send_event(
                [{"name": name, "data": {"amount": 1}}, {"name": name, "data": {"amount": 101}}, {"name": name}]
            )
        ).ids
        assert await (await app.get_run(f"{app.id}/large/{big}")).result() == 101
        assert not await exists(app, f"{app.id}/large/{small}")
        assert not await exists(app, f"{app.id}/large/{neither}"), "a missing field is null, and null is not over 100"


async def test_a_workflow_starts_once_whichever_of_its_triggers_match(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(
        id="once",
        triggers=[
            event_trigger(name, if_exp="event.data.vip"),
            event_trigger(name),
            event_trigger(f"{app.id}/*"),
        ],
    )
    async def once(ctx: Context[Any], step: Step) -> str:
        return ctx.input.id

    async with workers(app):
        sent = await app.send_event({"name": name, "data": {"vip": True}})
        assert await (await app.get_run(f"{app.id}/once/{sent.ids[0]}")).result() == sent.ids[0]
        snapshot = await app.sending.dispatcher(app.temporal).catalog.read([name])
        assert [match.workflow for match in snapshot.matches({"name": name, "data": {"vip": True}})] == ["once"]


async def test_matching_many_events_lets_others_have_the_event_loop(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    """A gateway answers probes meanwhile."""
    for number in range(20):

        @app.workflow(
            id=f"never {number}",
            triggers=[event_trigger(name, if_exp=f"event.data.words.exists(w, w == {number})")],
        )
        async def never(ctx: Context[Any], step: Step) -> None:
            pass

    async with workers(app):
        events = [{"name": name, "data": {"words": [-1] * 4_000}} for _ in range(10)]
        sending = asyncio.create_task(app.send_event(events))
        turns: list[float] = []
        before = time.process_time()
        while not sending.done():
            await asyncio.sleep(0)
            turns.append(time.process_time() - before)
            before = time.process_time()
        assert not (await sending).runs
    assert sum(turns) > 1, "it is a lot of work"
    assert max(turns) < 0.5 < sum(turns) / 2


async def test_an_event_starts_every_workflow_that_has_it(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="first", triggers=[event_trigger(name)])
    async def first(ctx: Context[Any], step: Step) -> str:
        return "first"

    @app.workflow(id="second", triggers=[event_trigger(name)])
    async def second(ctx: Context[Any], step: Step) -> str:
        return "second"

    async with workers(app):
        (event_id,) = (await app.send_event({"name": name})).ids
        assert await (await app.get_run(f"{app.id}/first/{event_id}")).result() == "first"
        assert await (await app.get_run(f"{app.id}/second/{event_id}")).result() == "second"


@pytest.mark.parametrize("while_running", [True, False])
async def test_an_event_id_starts_a_workflow_at_most_once(
    app: steporal.Client, workers: Workers, name: str, while_running: bool
) -> None:
    runs = []
    may_end = asyncio.Event()

    @app.workflow(id="once", triggers=[event_trigger(name)])
    async def once(ctx: Context[Any], step: Step) -> int:
        async def count() -> int:
            runs.append(ctx.run_id)
            await may_end.wait()
            return len(runs)

        return await step.run("count", count)

    event = {"name": name, "id": f"{app.id} event"}
    async with workers(app):
        await app.send_event(event)
        run = await app.get_run(f"{app.id}/once/{app.id} event", once)
        if not while_running:
            may_end.set()
            await run.result()
        await app.send_event(event)
        await app.send_event([event, event])
        may_end.set()
        assert await run.result() == 1
    assert len(runs) == 1


async def test_a_step_sends_the_same_ids_when_its_activity_is_made_again(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="sender")
    async def sender(ctx: Context[Any], step: Step) -> list[list[str]]:
        if ctx.attempt == 0:
            first = await step.ext.send_event("send", [{"name": name}, {"name": name}])
            await step.run("remember", lambda: first.ids)
            raise RuntimeError("after it was sent")
        again = await step.ext.send_event("send", [{"name": name}, {"name": name}])
        return [await step.run("remember", lambda: again.ids), again.ids]

    async with workers(app):
        first, again = await (await sender.start()).result()
    assert first == again
    assert len(set(first)) == 2


async def test_an_event_with_a_ts_in_the_future_starts_its_body_then(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="later", triggers=[event_trigger(name)])
    async def later(ctx: Context[Any], step: Step) -> list[float]:
        return [ctx.now().timestamp(), ctx.input.time.timestamp()]

    when = datetime.now(UTC) + timedelta(milliseconds=300)
    event = {"name": name, "ts": int(when.timestamp() * 1000), "id": f"{app.id} later"}
    async with workers(app):
        await app.send_event(event)
        await app.send_event(event)  # a resend does not wake it
        started, ts = await (await app.get_run(f"{app.id}/later/{app.id} later", later)).result()
    assert started >= ts


async def test_five_thousand_events_in_one_call(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="one-of-many", triggers=[event_trigger(name, if_exp="event.data.n % 500 == 0")])
    async def one_of_many(ctx: Context[Any], step: Step) -> int:
        return int(ctx.input.data["n"])

    @app.workflow(id="sender")
    async def sender(ctx: Context[Any], step: Step) -> list[str]:
        sent = await step.ext.send_event("send", [{"name": name, "data": {"n": n}} for n in range(5_000)])
        return sent.ids

    async with workers(app):
        for ids in (
            (await app.send_event([{"name": name, "data": {"n": n}} for n in range(5_000)])).ids,
            await (await sender.start()).result(),
        ):
            assert len(set(ids)) == 5_000
            runs = [await app.get_run(f"{app.id}/one-of-many/{ids[n]}", one_of_many) for n in range(0, 5_000, 500)]
            assert [await run.result() for run in runs] == list(range(0, 5_000, 500))


async def test_an_event_starts_a_hundred_runs_in_one_call(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="each", triggers=[event_trigger(name)])
    async def each(ctx: Context[Any], step: Step) -> int:
        return int(ctx.input.data["n"])

    async with workers(app):
        sent = await app.send_event([{"name": name, "data": {"n": n}} for n in range(100)])
        runs = [await app.get_run(f"{app.id}/each/{event_id}", each) for event_id in sent.ids]
        assert await asyncio.gather(*[run.result() for run in runs]) == list(range(100))


async def test_apps_start_each_others_workflows(
    app: steporal.Client, other_app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="order", triggers=[event_trigger(name)])
    async def order(ctx: Context[Any], step: Step) -> str:
        return (await step.ext.send_event("pack", {"name": f"{name}.pack"})).ids[0]

    @other_app.workflow(id="pack", triggers=[event_trigger(f"{name}.pack")])
    async def pack(ctx: Context[Any], step: Step) -> list[str]:
        sent = await step.ext.send_event("packed", {"name": f"{name}.packed"})
        return [ctx.ext.task_queue, *sent.ids]

    @app.workflow(id="packed", triggers=[event_trigger(f"{name}.packed")])
    async def packed(ctx: Context[Any], step: Step) -> str:
        return ctx.ext.task_queue

    async with workers(app), workers(other_app):
        (event_id,) = (await other_app.send_event({"name": name})).ids
        pack_id = await (await app.get_run(f"{app.id}/order/{event_id}", order)).result()
        queue, packed_id = await (await app.get_run(f"{other_app.id}/pack/{pack_id}", pack)).result()
        assert queue == other_app.task_queue
        assert await (await app.get_run(f"{app.id}/packed/{packed_id}", packed)).result() == app.task_queue


async def test_an_event_sent_while_no_worker_is_up_starts_its_run_later(
    app: steporal.Client, other_app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="late", triggers=[event_trigger(name)])
    async def late(ctx: Context[Any], step: Step) -> str:
        return "served"

    async with workers(other_app):
        app.temporal = other_app.temporal
        await app.sync()
        (event_id,) = (await app.send_event({"name": name})).ids
        async with workers(app):
            assert await (await app.get_run(f"{app.id}/late/{event_id}", late)).result() == "served"


async def test_a_trigger_that_is_gone_from_the_list_starts_nothing(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="old", triggers=[event_trigger(name)])
    async def old(ctx: Context[Any], step: Step) -> None:
        return None

    deployed = steporal.Client(app.id)

    @deployed.workflow(id="new", triggers=[event_trigger(name)])
    async def new(ctx: Context[Any], step: Step) -> str:
        return "new"

    async with workers(app):
        pass
    async with workers(deployed):
        (event_id,) = (await deployed.send_event({"name": name})).ids
        assert await (await deployed.get_run(f"{deployed.id}/new/{event_id}", new)).result() == "new"
        assert not await exists(deployed, f"{deployed.id}/old/{event_id}")


async def test_a_worker_registers_its_app_by_itself(app: steporal.Client, workers: Workers, name: str) -> None:
    from temporalio.worker import Worker

    @app.workflow(id="registered", triggers=[event_trigger(name)])
    async def registered(ctx: Context[Any], step: Step) -> None:
        return None

    temporal = workers.temporal
    async with Worker(temporal, task_queue=app.task_queue, plugins=[app.plugin()]):
        catalog = steporal.Client("reader", temporal=temporal).sending.dispatcher(temporal).catalog
        while (registered := await catalog.read_app(app.id)) is None or (listed := registered.app) is None:
            await asyncio.sleep(0.01)
        assert [(w.id, w.triggers[0].event) for w in listed.workflows] == [("registered", name)]
        await workers.forget(app)


async def test_data_of_an_event_that_does_not_fit_the_schema_fails_the_run(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="strict", input_schema=Order, triggers=[event_trigger(name)])
    async def strict(ctx: Context[Order], step: Step) -> None:
        return None

    async with workers(app):
        (event_id,) = (await app.send_event({"name": name, "data": {"amount": "much"}})).ids
        with pytest.raises(RunFailedError) as failed:
            await (await app.get_run(f"{app.id}/strict/{event_id}", strict)).result()
    assert failed.value.name == "InvalidInputError"
    assert "'strict'" in failed.value.message
    assert "order_id: Field required" in failed.value.message


async def exists(client: steporal.Client, workflow_id: str) -> bool:
    """Whether a run was ever started with a workflow id."""
    try:
        await client.temporal.get_workflow_handle(workflow_id).describe()
    except RPCError:
        return False
    return True


async def test_the_runs_that_events_have_started_are_named(
    app: steporal.Client, other_app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="order", triggers=[event_trigger(name)])
    async def order(ctx: Context[Any], step: Step) -> str:
        return "order"

    @other_app.workflow(id="mail", triggers=[event_trigger(name, if_exp="event.data.mail")])
    async def mail(ctx: Context[Any], step: Step) -> str:
        return "mail"

    @app.workflow(id="sender")
    async def sender(ctx: Context[Any], step: Step) -> Any:
        sent = await step.ext.send_event("send", [{"name": name}, {"name": f"{name}.other"}])
        return [sent.ids, [run.model_dump() for run in sent.runs], sent.awaited]

    async with workers(app), workers(other_app):
        sent = await app.send_event([{"name": name, "data": {"mail": True}}, {"name": f"{name}.other"}, {"name": name}])
        first, _, third = sent.ids
        assert {(run.app, run.workflow_id, run.event_id) for run in sent.runs} == {
            (app.id, f"{app.id}/order/{first}", first),
            (other_app.id, f"{other_app.id}/mail/{first}", first),
            (app.id, f"{app.id}/order/{third}", third),
        }
        assert sent.awaited == []
        for run in sent.runs:
            assert await (await app.get_run(run.workflow_id)).result() == run.workflow
        again = await app.send_event({"name": name, "id": first, "data": {"mail": True}})
        assert {run.workflow_id for run in again.runs} == {f"{app.id}/order/{first}", f"{other_app.id}/mail/{first}"}
        (sent_id, _), runs, awaited = await (await sender.start()).result()
        assert runs == [StartedRun.of(app.id, "order", sent_id).model_dump()]
        assert awaited == []


async def test_events_that_runs_wait_for_are_named(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        paid = await step.ext.wait_for_event("paid", event=name, timeout="1h")
        return paid and paid.id

    @app.workflow(id="sender")
    async def sender(ctx: Context[Any], step: Step) -> list[str]:
        return (await step.ext.send_event("send", [{"name": f"{name}.other"}, {"name": name}])).awaited

    async with workers(app):
        run = await waits.start()
        await until_waiting(run)
        sent = await app.send_event([{"name": f"{name}.other"}, {"name": name}])
        assert sent.awaited == [sent.ids[1]]
        assert sent.runs == []
        assert await run.result() == sent.ids[1]
        assert len(await (await sender.start()).result()) == 1


async def test_an_event_waits_until_its_own_workflow_is_registered(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="order", triggers=[event_trigger(name)])
    async def order(ctx: Context[Any], step: Step) -> str:
        return "order"

    app.temporal = workers.temporal
    sending = asyncio.create_task(app.send_event({"name": name}))
    async with workers(app):
        (run,) = (await sending).runs
        assert await (await app.get_run(run.workflow_id)).result() == "order"


async def test_an_event_of_a_step_waits_until_its_own_workflow_is_registered(
    app: steporal.Client, workers: Workers, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.workflow(id="order", triggers=[event_trigger(name)])
    async def order(ctx: Context[Any], step: Step) -> str:
        return "order"

    @app.workflow(id="sender")
    async def sender(ctx: Context[Any], step: Step) -> list[StartedRun]:
        await step.run("begin", lambda: began.set())
        return (await step.ext.send_event("send", {"name": name})).runs

    began = threading.Event()

    async def register_later(**options: Any) -> Any:
        await asyncio.to_thread(began.wait)
        await asyncio.sleep(0.5)  # a worker runs steps while it registers
        return await steporal.Client.sync(app, **options)

    app.temporal = workers.temporal
    run = await sender.start()
    monkeypatch.setattr(app, "sync", register_later)
    async with workers(app):
        (started,) = await run.result()
        assert await (await app.get_run(started.workflow_id)).result() == "order"


async def test_an_event_whose_own_workflow_nobody_registers_is_warned_of_once(
    app: steporal.Client, workers: Workers, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    @app.workflow(id="order", triggers=[event_trigger(name, if_exp="event.data.n > 1")])
    async def order(ctx: Context[Any], step: Step) -> None: ...

    app.temporal = workers.temporal
    assert (await app.send_event({"name": name, "data": {"n": 1}})).runs == []
    assert caplog.messages == []
    for _ in range(2):
        assert (await app.send_event({"name": name, "data": {"n": 2}})).runs == []
    (said,) = caplog.messages
    assert f"event {name!r} does not start workflow 'order': app {app.id!r} has not registered that trigger" in said
    assert "start a worker" in said


async def test_a_trigger_that_the_running_workers_do_not_have_is_warned_of(
    app: steporal.Client, workers: Workers, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    newer = steporal.Client(app.id)
    for client in (app, newer):

        @client.workflow(id="order", triggers=[event_trigger(f"{name}.old")])
        async def order(ctx: Context[Any], step: Step) -> None: ...

    @newer.workflow(id="mail", triggers=[event_trigger(name)])
    async def mail(ctx: Context[Any], step: Step) -> None: ...

    async with workers(app):
        newer.temporal = app.temporal
        await newer.send_event([{"name": f"{name}.old"}, {"name": name}])
    (said,) = [message for message in caplog.messages if "does not start" in message]
    assert f"event {name!r} does not start workflow 'mail'" in said


async def test_workflows_of_two_apps_with_one_id_have_a_run_each(
    app: steporal.Client, other_app: steporal.Client, workers: Workers
) -> None:
    for client in (app, other_app):

        @client.workflow(id="notify", triggers=[event_trigger(f"created {app.id}")])
        async def notify(ctx: Context[Any], step: Step) -> Any:
            return ctx.ext.task_queue

    async with workers(app), workers(other_app):
        sent = await app.send_event({"name": f"created {app.id}"})
        assert {started.app for started in sent.runs} == {app.id, other_app.id}
        for started in sent.runs:
            assert await (await app.get_run(started.workflow_id)).result() == started.app


async def test_ids_with_slashes_are_no_other_ids(app: steporal.Client, workers: Workers) -> None:
    ids = [("a", "b/1"), ("a/b", "1"), ("a~1b", "1"), ("~", "a/b/1")]
    for id in dict.fromkeys(id for id, _ in ids):

        @app.workflow(id=id, triggers=[event_trigger(f"{id} {app.id}")])
        async def handler(ctx: Context[Any], step: Step) -> Any:
            return ctx.input.id

    async with workers(app):
        for id, event_id in ids:
            (started,) = (await app.send_event({"name": f"{id} {app.id}", "id": event_id})).runs
            assert (started.workflow, started.event_id) == (id, event_id)
            assert run_name(started.workflow_id) == (app.id, id, event_id)
            assert await (await app.get_run(started.workflow_id)).result() == event_id
