"""What each edit does to runs that are parked and to runs that are busy: the table of docs/changing-code.md."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pydantic
import pytest
from recording import Workers
from waiting import until_waiting

import steporal
from steporal import Context, RunFailedError, Step
from steporal.events import new_ulid
from steporal.operations.recover import RecoverOptions
from steporal_workers.recover import run_recover

RAN: dict[str, list[str]] = {}
"""The steps that have run, by the name of their run's signal."""


def note(run: str, step_id: str, result: Any) -> Any:
    RAN.setdefault(run, []).append(step_id)
    return result


class Body:
    """What a handler of these tests is made of; it notes the steps that run."""

    def __init__(self, step: Step, signal: str) -> None:
        self._step = step
        self._signal = signal

    async def run(self, step_id: str, result: Any = None) -> Any:
        return await self._step.run(step_id, note, self._signal, step_id, result)

    async def wait(self, timeout: str = "1h") -> Any:
        received = await self._step.wait_for_signal("go", signal=self._signal, timeout=timeout)
        return received and received.data

    async def sleep(self, step_id: str) -> None:
        await self._step.sleep(step_id, "1ms")


Handler = Callable[[Body], Awaitable[Any]]


async def before(body: Body) -> Any:
    one, two = await body.run("a", 1), await body.run("b", 2)
    return [one, two, await body.wait(), await body.run("c", 3)]


async def added_after(body: Body) -> Any:
    one, two = await body.run("a", 1), await body.run("b", 2)
    return [one, two, await body.wait(), await body.run("new", 9), await body.run("c", 3)]


async def added_before(body: Body) -> Any:
    one, new, two = await body.run("a", 1), await body.run("new", 9), await body.run("b", 2)
    return [one, new, two, await body.wait(), await body.run("c", 3)]


async def removed(body: Body) -> Any:
    return [await body.run("b", 2), await body.wait(), await body.run("c", 3)]


async def wait_removed(body: Body) -> Any:
    return [await body.run("a", 1), await body.run("b", 2), await body.run("c", 3)]


async def reordered(body: Body) -> Any:
    two, one = await body.run("b", 2), await body.run("a", 1)
    return [one, two, await body.wait(), await body.run("c", 3)]


async def renamed(body: Body) -> Any:
    one, two = await body.run("A", 10), await body.run("b", 2)
    return [one, two, await body.wait(), await body.run("c", 3)]


async def other_timeout(body: Body) -> Any:
    one, two = await body.run("a", 1), await body.run("b", 2)
    return [one, two, await body.wait("2m"), await body.run("c", 3)]


async def other_arithmetic(body: Body) -> Any:
    one, two = await body.run("a", 1), await body.run("b", 2)
    return [one + two, await body.wait(), await body.run("c", 30)]


@dataclass(frozen=True)
class Edit:
    """An edit.

    Attributes:
        after: The new body.
        result: What a run returns that was started with the old one.
        new: The steps that run with the new one.
        is_stuck: Whether a busy run does not fit it.
    """

    after: Handler
    result: Any
    new: tuple[str, ...] = ("c",)
    is_stuck: bool = True


EDITS = [
    Edit(before, [1, 2, "go", 3], is_stuck=False),
    Edit(added_after, [1, 2, "go", 9, 3], ("new", "c"), is_stuck=False),
    Edit(added_before, [1, 9, 2, "go", 3], ("new", "c")),
    Edit(removed, [2, "go", 3]),
    Edit(wait_removed, [1, 2, 3]),
    Edit(reordered, [1, 2, "go", 3]),
    Edit(renamed, [10, 2, "go", 3], ("A", "c")),
    Edit(other_timeout, [1, 2, "go", 3], is_stuck=False),
    Edit(other_arithmetic, [3, "go", 30], is_stuck=False),
]


def version_of(app_id: str, bodies: dict[str, Handler], park_after: str) -> steporal.Client:
    """An app with a workflow for each body."""
    app = steporal.Client(app_id, park_after=park_after)
    for id, body in bodies.items():

        def define(id: str, body: Handler) -> None:
            @app.workflow(id=id)
            async def handler(ctx: Context[Any], step: Step) -> Any:
                return await body(Body(step, f"{app_id}/{id}"))

        define(id, body)
    return app


@pytest.mark.needs_cache("each edit comes with a new worker, which has none anyway")
@pytest.mark.parametrize("state", ["parked", "busy"])
async def test_what_each_edit_does(
    workers: Workers, other_app: steporal.Client, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edits = {edit.after.__name__: edit for edit in EDITS}
    app_id = f"edits {new_ulid()}"
    old = version_of(app_id, dict.fromkeys(edits, before), "1s" if state == "parked" else "never")
    new = version_of(app_id, {id: edit.after for id, edit in edits.items()}, "never")
    async with workers(other_app), asyncio.timeout(90):  # it serves the mailboxes
        async with workers(old):
            runs = {}
            for workflow in old.workflows:  # one after the other: without a cache, the SDK repeats local activities
                run = runs[workflow.id] = await workflow.start(None)
                await until_waiting(run)
                while state == "parked" and (await run.temporal.describe()).run_id == run.run_id:
                    await asyncio.sleep(0.05)
        workers.drop(*[run.workflow_id for run in runs.values()])
        for id, run in runs.items():
            assert (await other_app.send_signal(f"{app_id}/{id}", "go")).run_id == run.run_id
        assert await run_recover(new, workers.temporal, RecoverOptions(), as_json=True) == 0
        report = json.loads(capsys.readouterr().out)
        stuck = {id for id, edit in edits.items() if edit.is_stuck and state == "busy"}
        assert {found["workflow"] for found in report["stuck"]} == stuck
        async with workers(new):
            assert {id: await run.result() for id, run in runs.items()} == {
                id: edit.result for id, edit in edits.items()
            }
    ran = {id: tuple(RAN[f"{app_id}/{id}"]) for id in edits}
    assert ran == {id: ("a", "b", *edit.new) for id, edit in edits.items()}


class Old(pydantic.BaseModel):
    amount: int


class WithDefault(Old):
    currency: str = "EUR"


class WithoutDefault(Old):
    currency: str


@pytest.mark.parametrize("edited", [WithDefault, WithoutDefault])
async def test_a_field_that_was_added_to_the_schema_of_a_parked_run(workers: Workers, edited: type[Old]) -> None:
    app_id = f"schema {new_ulid()}"

    def version(schema: type[Old]) -> steporal.Client:
        app = steporal.Client(app_id, park_after="1s")

        @app.workflow(id="order", input_schema=schema)
        async def handler(ctx: Context[Any], step: Step) -> Any:
            await step.sleep("night", "3s")
            return ctx.input.data.model_dump()

        return app

    old, new = version(Old), version(edited)
    async with asyncio.timeout(60):
        async with workers(old):
            run = await old.workflows[0].start({"amount": 3})
            while (await run.temporal.describe()).run_id == run.run_id:
                await asyncio.sleep(0.05)
        workers.drop(run.workflow_id)
        async with workers(new):
            if edited is WithDefault:
                assert await run.result() == {"amount": 3, "currency": "EUR"}
            else:
                with pytest.raises(RunFailedError, match="currency: Field required") as failed:
                    await run.result()
                assert failed.value.name == "InvalidInputError"
