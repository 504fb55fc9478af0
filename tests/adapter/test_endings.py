"""What runs tell when they end: failure handlers, and the system events."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel
from recording import Workers
from waiting import until_waiting

import steporal
from steporal import (
    Context,
    DefinitionError,
    RunCancelledError,
    RunFailedError,
    RunFailure,
    Step,
    WorkflowExt,
    event_trigger,
)


class Order(BaseModel):
    order_id: str


class Told:
    """What the other workflow has been told."""

    def __init__(self) -> None:
        self._all: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def put(self, data: dict[str, Any]) -> None:
        self._all.put_nowait(data)

    async def next(self) -> dict[str, Any]:
        return await asyncio.wait_for(self._all.get(), 30)

    def is_empty(self) -> bool:
        return self._all.empty()


def listener(app: steporal.Client, ending: str, told: Told) -> None:
    """A workflow that starts on a system event of the app's runs."""
    source = f"event.data.app == {app.id!r} && event.data.workflow == 'ends'"

    @app.workflow(id=f"on-{ending}", triggers=[event_trigger(f"inngest/function.{ending}", source)])
    async def on_end(ctx: Context[Any], step: Step) -> None:
        def tell(data: dict[str, Any]) -> None:
            told.put(data)

        await step.run("tell", tell, {"id": ctx.input.id, **ctx.input.data})


async def test_a_failure_handler_gets_the_error_and_the_original_input(app: steporal.Client, workers: Workers) -> None:
    told = Told()

    async def on_failure(ctx: Context[RunFailure], step: Step) -> None:
        failure = ctx.input.data

        def tell() -> None:
            told.put(failure.model_dump())

        await step.run("tell", tell)

    @app.workflow(id="ends", input_schema=Order, max_attempts=2, ext=WorkflowExt(on_failure=on_failure))
    async def handler(ctx: Context[Order], step: Step) -> None:
        raise LookupError("no such order")

    async with workers(app):
        run = await handler.start({"order_id": "1"})
        with pytest.raises(RunFailedError):
            await run.result()
        failure = await told.next()
    assert failure["function_id"] == f"{app.id}-ends"
    assert (failure["run_id"], failure["workflow_id"]) == (run.run_id, run.workflow_id)
    assert (failure["error"]["name"], failure["error"]["message"]) == ("LookupError", "no such order")
    assert "raise LookupError" in failure["error"]["stack"]
    assert failure["event"]["data"] == {"order_id": "1"}
    assert told.is_empty()


async def test_a_run_that_finishes_tells_its_result_to_who_listens(app: steporal.Client, workers: Workers) -> None:
    told = Told()
    listener(app, "finished", told)

    @app.workflow(id="ends", triggers=[event_trigger(f"end {app.id}")])
    async def handler(ctx: Context[Any], step: Step) -> Any:
        return {"n": ctx.input.data["n"]}

    async with workers(app):
        await (await handler.start({"n": 1})).result()
        finished = await told.next()
        sent = await app.send_event({"name": f"end {app.id}", "data": {"n": 2}})
        by_event = await told.next()
        assert (await workers.temporal.get_workflow_handle(f"{app.id}/ends/{sent.ids[0]}").result()) == {"n": 2}
        handle = await workers.temporal.start_workflow("ends", {"n": 3}, id=f"n {app.id}", task_queue=app.task_queue)
        by_hand = await told.next()
    assert (finished["result"], by_event["result"], by_hand["result"]) == ({"n": 1}, {"n": 2}, {"n": 3})
    assert by_event["event"]["id"] == sent.ids[0]
    assert by_hand["workflow_id"] == handle.id


async def test_a_run_that_nobody_listens_to_does_nothing_more_when_it_ends(
    app: steporal.Client, workers: Workers
) -> None:
    @app.workflow(id="ends")
    async def handler(ctx: Context[Any], step: Step) -> None: ...

    async with workers(app):
        run = await handler.start()
        await run.result()
        history = await run.temporal.fetch_history()
    assert not any(event.HasField("activity_task_scheduled_event_attributes") for event in history.events)
    assert not any(event.HasField("marker_recorded_event_attributes") for event in history.events)


async def test_a_run_that_is_cancelled_tells_so(app: steporal.Client, workers: Workers) -> None:
    told = Told()
    listener(app, "cancelled", told)

    @app.workflow(id="ends")
    async def handler(ctx: Context[Any], step: Step) -> None:
        await step.sleep("wait", "1h")

    async with workers(app):
        run = await handler.start({"n": 1})
        await until_waiting(run)
        await run.cancel()
        with pytest.raises(RunCancelledError):
            await run.result()
        cancelled = await told.next()
    assert (cancelled["id"], cancelled["run_id"]) == (run.run_id, run.run_id)
    assert cancelled["event"]["data"] == {"n": 1}


async def test_a_failure_handler_that_fails_starts_nothing_more(app: steporal.Client, workers: Workers) -> None:
    told = Told()

    async def on_failure(ctx: Context[RunFailure], step: Step) -> None:
        def tell() -> None:
            told.put({})

        await step.run("tell", tell)
        raise RuntimeError("this too")

    @app.workflow(id="ends", max_attempts=1, ext=WorkflowExt(on_failure=on_failure))
    async def handler(ctx: Context[Any], step: Step) -> None:
        raise LookupError("no such order")

    async with workers(app):
        run = await handler.start()
        with pytest.raises(RunFailedError):
            await run.result()
        await told.next()
        failed = await app.get_run(f"{app.id}/ends-failure/{run.run_id}")
        with pytest.raises(RunFailedError, match="this too"):
            await failed.result()
        assert told.is_empty()


def test_a_failure_handler_that_cannot_be_one_is_refused(app: steporal.Client) -> None:
    def on_failure(ctx: Context[Any], step: Step) -> None: ...

    with pytest.raises(DefinitionError, match=r"'w-failure'.*is not async"):

        @app.workflow(id="w", ext=WorkflowExt(on_failure=on_failure))  # type: ignore[arg-type]
        async def handler(ctx: Context[Any], step: Step) -> None: ...
