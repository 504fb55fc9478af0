"""step.ext.wait_for_event: what wakes a run that waits, and what does not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import temporalio.client
from recording import Workers
from waiting import until_waiting

import steporal
from steporal import Context, RunFailedError, Step, event_trigger
from steporal.events import new_ulid
from steporal.routing.topics.client import Topics


@pytest.fixture
def name() -> str:
    """A name of events that no other test uses."""
    return f"paid.{new_ulid()}"


async def test_an_event_resumes_the_run_that_waits_for_it(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event("paid", event=name, timeout="1h")
        assert event is not None
        return [event.name, event.data, event.id, event.v, type(event) is steporal.ReceivedEvent]

    async with workers(app):
        run = await handler.start()
        await until_waiting(run)
        sent = await app.send_event({"name": name, "data": {"amount": 5}, "v": "2"})
        assert await run.result() == [name, {"amount": 5}, sent.ids[0], "2", True]


async def test_nothing_in_time_is_none(
    app: steporal.Client, workers: Workers, name: str, skipping: temporalio.client.Client
) -> None:
    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        started = ctx.now()
        event = await step.ext.wait_for_event("paid", event=name, timeout="3d")
        return [event, (ctx.now() - started).days]

    async with workers(app):
        app.temporal = skipping
        assert await (await handler.start()).result() == [None, 3]


async def test_a_wait_hears_of_what_matches_alone(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="waits", triggers=[event_trigger(f"start.{name}")])
    async def handler(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event("paid", event=name, match="data.order", timeout="1h")
        large = await step.ext.wait_for_event(
            "large", event=name, if_exp="async.data.order == event.data.order && async.data.amount > 10", timeout="1h"
        )
        assert event is not None and large is not None
        return [event.data["amount"], large.data["amount"]]

    async with workers(app):
        runs = {}
        for order in ("a", "b"):
            sent = await app.send_event({"name": f"start.{name}", "data": {"order": order}})
            runs[order] = await app.get_run(f"{app.id}/waits/{sent.ids[0]}", handler)
            await until_waiting(runs[order])
        await app.send_event({"name": name, "data": {"order": "b", "amount": 1}})
        await until_waiting(runs["b"], 2)
        await app.send_event([{"name": name, "data": {"order": "b", "amount": n}} for n in (2, 30)])
        assert await runs["b"].result() == [1, 30]
        await app.send_event({"name": name, "data": {"order": "a", "amount": 7}})
        await until_waiting(runs["a"], 2)
        await app.send_event({"name": name, "data": {"order": "a", "amount": 70}})
        assert await runs["a"].result() == [7, 70]


async def test_one_event_wakes_every_run_that_matches(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event("paid", event=name, timeout="1h")
        return event and event.id

    async with workers(app):
        runs = []
        for _ in range(10):
            runs.append(await handler.start())
            await until_waiting(runs[-1])
        sent = await app.send_event({"name": name})
        assert {await run.result() for run in runs} == {sent.ids[0]}


async def test_the_first_of_several_names_wins_and_the_others_are_heard_no_more(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        first = await step.ext.wait_for_event("first", event=[f"{name}.ok", f"{name}.bad"], timeout="1h")
        second = await step.ext.wait_for_event("second", event=f"{name}.*", timeout="1h")
        return [first and first.name, second and second.name]

    async with workers(app):
        run = await handler.start()
        await until_waiting(run)
        await app.send_event({"name": f"{name}.bad"})
        await until_waiting(run, 2)
        await app.send_event({"name": f"{name}.ok"})
        assert await run.result() == [f"{name}.bad", f"{name}.ok"]


async def test_an_event_that_is_sent_again_wakes_no_later_wait(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        return [
            event and event.id
            for event in [await step.ext.wait_for_event("paid", event=name, timeout="1h") for _ in range(3)]
        ]

    async with workers(app):
        run = await handler.start()
        for count in (1, 2, 3):
            await until_waiting(run, count)
            for again in ("a", "b", "c")[:count]:
                await app.send_event({"name": name, "id": f"{name} {again}"})
        assert await run.result() == [f"{name} {id}" for id in ("a", "b", "c")]


async def test_waits_beside_each_other_each_get_the_event_once(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        waits = [step.ext.wait_for_event("paid", event=name, timeout="1h") for _ in range(3)]
        return [event and event.id for event in await asyncio.gather(*waits)]

    async with workers(app):
        run = await handler.start()
        await until_waiting(run, 3)
        sent = await app.send_event({"name": name})
        assert await run.result() == sent.ids * 3


async def test_a_wait_that_loses_a_race_is_unsubscribed(
    app: steporal.Client, workers: Workers, name: str, temporal: temporalio.client.Client
) -> None:
    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        one = asyncio.create_task(step.ext.wait_for_event("one", event=f"{name}.one", timeout="1h"))
        two = asyncio.create_task(step.ext.wait_for_event("two", event=f"{name}.two", timeout="1h"))
        done, left = await asyncio.wait([one, two], return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        again = await step.ext.wait_for_event("again", event=f"{name}.one", timeout="1h")
        return [event and event.name for event in (*[task.result() for task in done], again)]

    async with workers(app):
        run = await handler.start()
        await until_waiting(run, 2)
        await app.send_event({"name": f"{name}.one"})
        await until_waiting(run, 3)
        topic = temporal.get_workflow_handle(f"steporal.topic/{name}.two")
        async with asyncio.timeout(60):
            while (await topic.query("steporal.subscriptions"))["count"]:
                await asyncio.sleep(0.01)
        await app.send_event({"name": f"{name}.one"})
        assert await run.result() == [f"{name}.one"] * 2


async def test_asyncios_timeout_ends_a_wait(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        try:
            await asyncio.wait_for(step.ext.wait_for_event("paid", event=name, timeout="1h"), 0.1)
        except TimeoutError:
            return "over"

    async with workers(app):
        assert await (await handler.start()).result() == "over"


async def test_a_body_that_is_attempted_again_keeps_what_it_has_received(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="waits", max_attempts=3)
    async def handler(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event("paid", event=name, timeout="1h")
        if ctx.attempt < 2:
            raise RuntimeError("no luck")
        return event and event.id

    async with workers(app):
        run = await handler.start()
        await until_waiting(run)
        sent = await app.send_event({"name": name})
        assert await run.result() == sent.ids[0]


async def test_an_event_that_comes_while_no_worker_is_up_is_there_when_one_is(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event("paid", event=name, timeout="1h")
        return event and event.id

    async with workers(app):
        run = await handler.start()
        await until_waiting(run)
    sent = await app.send_event({"name": name})
    async with workers(app):
        assert await run.result() == sent.ids[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"event": ""}, "name is ''"),
        ({"event": []}, "event is \\[\\]"),
        ({"event": ["a", 5]}, "name is 5"),
        ({"event": "a*b"}, "put the wildcard at the end"),
        ({"event": "inngest/other"}, "reserved"),
        ({"if_exp": "async.data.x =="}, "if_exp: the expression 'async.data.x =='"),
        ({"if_exp": 5}, "if_exp is 5"),
        ({"match": "data.x", "if_exp": "true"}, "both if_exp and match"),
        ({"match": "data x"}, "match is 'data x'"),
        ({"match": "event.data.id"}, "match is 'event.data.id'; .* both events have, from data, .*: 'data.id'"),
        ({"match": "order_id"}, "match is 'order_id'; .*: 'data.order_id'"),
        ({"if_exp": "async.data.id == A1"}, 'Put text in quotes: "A1"'),
        ({"if_exp": "async.dta.x == 1"}, "uses 'async.dta' \\(did you mean 'data'\\?\\)"),
        ({"timeout": "-1s"}, "timeout"),
        ({"timeout": 1.5}, "timeout"),
    ],
)
async def test_what_cannot_be_waited_for_is_said(
    app: steporal.Client, workers: Workers, options: dict[str, Any], message: str
) -> None:
    given = {"event": "a", "timeout": "1h", **options}

    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        await step.ext.wait_for_event("paid", **given)

    async with workers(app):
        with pytest.raises(RunFailedError, match=f"step 'paid': .*{message}") as raised:
            await (await handler.start()).result()
    assert raised.value.name == "InvalidArgumentError"


async def test_a_wait_that_begins_while_the_last_one_with_its_id_is_still_ended_hears_of_what_comes(
    app: steporal.Client, workers: Workers, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the topics both are one subscription: they must hear of the end of the first before the second begins."""
    unsubscribe = Topics.unsubscribe

    async def slowly(self: Topics, workflow_id: str, run_id: str, keys: Mapping[str, Sequence[str]]) -> None:
        await asyncio.sleep(0.5)
        await unsubscribe(self, workflow_id, run_id, keys)

    monkeypatch.setattr(Topics, "unsubscribe", slowly)

    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        if ctx.attempt == 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await step.ext.wait_for_event("paid", event=name, timeout="1h")
            raise steporal.RetryAfterError("from the top", 0)
        event = await step.ext.wait_for_event("paid", event=name, timeout="20s")
        return event and event.data

    async with workers(app):
        run = await handler.start()
        await until_waiting(run, 3)  # of the first wait: its own, and the timeout
        await app.send_event({"name": name, "data": {"n": 1}})
        assert await run.result() == {"n": 1}
