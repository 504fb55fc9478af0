"""What a handler is given: ctx."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel
from recording import Workers

import steporal
from steporal import Context, Step


class Order(BaseModel):
    order_id: str
    amount: float = 1.0


async def test_the_input_is_an_instance_of_its_schema(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="typed", input_schema=Order)
    async def handler(ctx: Context[Order], step: Step) -> str:
        return f"{type(ctx.input.data).__name__} {ctx.input.data.order_id} {ctx.input.data.amount}"

    async with workers(app):
        assert await (await handler.start(Order(order_id="a"))).result() == "Order a 1.0"
        assert await (await app.start_workflow(handler, {"order_id": "b", "amount": 2})).result() == "Order b 2.0"


@pytest.mark.parametrize(
    ("schema", "data"),
    [
        (list[int], [1, 2]),
        (dict[str, Order], {"a": Order(order_id="x")}),
        (int | None, None),
        (datetime, datetime(2026, 1, 1, tzinfo=UTC)),
        (UUID, UUID(int=1)),
        (tuple[int, str], (1, "a")),
    ],
)
async def test_an_input_schema_is_anything_that_pydantic_takes(
    app: steporal.Client, workers: Workers, schema: Any, data: Any
) -> None:
    @app.workflow(id="typed", input_schema=schema)
    async def handler(ctx: Context[Any], step: Step) -> bool:
        return bool(ctx.input.data == data and type(ctx.input.data) is type(data))

    async with workers(app):
        assert await (await handler.start(data)).result() is True


async def test_without_a_schema_the_input_is_plain_json(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="plain")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        return ctx.input.data

    async with workers(app):
        assert await (await handler.start()).result() is None
        assert await (await handler.start({"a": [1, None, "😀"]})).result() == {"a": [1, None, "😀"]}


async def test_a_run_that_was_started_directly_says_so(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="direct")
    async def handler(ctx: Context[Any], step: Step) -> list[str]:
        return [ctx.input.type, ctx.input.name, ctx.input.id, ctx.run_id, ctx.ext.workflow_id, ctx.ext.task_queue]

    async with workers(app):
        run = await handler.start()
        assert await run.result() == [
            "invoke",
            "inngest/function.invoked",
            run.event_id,
            run.run_id,
            run.workflow_id,
            app.task_queue,
        ]
        assert run.workflow_id == f"{app.id}/direct/{run.event_id}"


async def test_time_and_chance_are_replayed(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="chance")
    async def handler(ctx: Context[Any], step: Step) -> list[Any]:
        before = [ctx.now().isoformat(), ctx.random.random(), str(ctx.uuid4())]
        # An argument that differs on replay would go unnoticed, an activity's id would not.
        await step.run(f"{before}", lambda: None)
        return before

    async with workers(app, max_cached_workflows=0):
        now, chance, uuid = await (await handler.start()).result()
    assert abs((datetime.fromisoformat(now) - datetime.now(UTC)).total_seconds()) < 30
    assert 0 <= chance < 1
    assert re.fullmatch(r"[0-9a-f-]{36}", uuid)


async def test_the_logger_names_the_run_and_is_silent_on_replay(
    app: steporal.Client, workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    @app.workflow(id="logs")
    async def handler(ctx: Context[Any], step: Step) -> None:
        ctx.logger.info("before the step")
        await step.run("log", lambda: ctx.logger.info("in the step"))
        ctx.logger.info("after the step")

    with caplog.at_level(logging.INFO):
        async with workers(app, max_cached_workflows=0):
            run = await handler.start()
            await run.result()
    ours = [record for record in caplog.records if record.name.startswith("steporal.") and record.args == ()]
    mine = [record for record in ours if record.message.endswith("the step")]
    assert [record.message for record in mine] == ["before the step", "in the step", "after the step"]
    assert run.workflow_id in str(mine[0].__dict__)
    assert run.workflow_id in str(mine[1].__dict__)


async def test_the_result_has_the_type_that_the_handler_names(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="result")
    async def handler(ctx: Context[Any], step: Step) -> Order:
        return await step.run("load", lambda: Order(order_id="a"))

    async with workers(app):
        assert await (await handler.start()).result() == Order(order_id="a")


async def test_a_run_is_found_again_by_its_id(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="again")
    async def handler(ctx: Context[Any], step: Step) -> Order:
        return Order(order_id="a")

    async with workers(app):
        run = await handler.start(id="order a")
        assert run.workflow_id == "order a"
        again = await app.get_run("order a", handler)
        assert await again.result() == Order(order_id="a")


async def test_a_taken_run_id_is_an_error(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="once")
    async def handler(ctx: Context[Any], step: Step) -> None:
        return None

    run_id = f"{app.id} once"
    async with workers(app):
        await (await handler.start(id=run_id)).result()
        with pytest.raises(steporal.AlreadyStartedError, match=re.escape(repr(run_id))):
            await handler.start(id=run_id)
