"""A body that comes back is given what it was given before, in the same order: after a park, and in a new attempt."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pydantic
import pytest
from http_server import http_server
from recording import Workers
from temporalio import workflow
from waiting import LONG, MOST_PENDING, TIMER, until_received, until_waiting

import steporal
from steporal import Context, NonRetryableError, RetryPolicy, Step, StepError, WorkflowExt
from steporal.closures.calls import AnotherCallError, Call, check_call, is_other
from steporal.closures.digests import digest
from steporal.events import new_ulid
from steporal.operations.recover import RecoverOptions
from steporal.runtime.keys import Keys
from steporal_workers.recover import run_recover

SOON = RetryPolicy(initial_interval=timedelta(milliseconds=1))


async def executions_of(run: steporal.Run[Any]) -> int:
    """How many executions the run has had, if it has been parked and woken once at most."""
    described = await run.temporal.describe()
    return 1 + (described.raw_description.workflow_execution_info.first_run_id != described.run_id)


@pytest.mark.parametrize("interruption", ["park", "attempt"])
async def test_branches_that_use_the_same_ids_keep_their_results(
    app: steporal.Client, workers: Workers, interruption: str
) -> None:
    charged: list[int] = []

    async def charge(order: int) -> str:
        await asyncio.sleep(0.4 if order == 1 else 0)  # the second order overtakes the first
        charged.append(order)
        return f"receipt of order {order}"

    @app.workflow(id="orders", ext=WorkflowExt(park_after="1s"), retry=SOON)
    async def orders(ctx: Context[Any], step: Step) -> Any:
        async def handle(order: int) -> list[Any]:
            receipt = await step.run("charge", lambda: charge(order))
            label = await step.run("label", lambda: f"label of {receipt}")
            return [order, receipt, label]

        handled = await asyncio.gather(handle(1), handle(2))
        if interruption == "attempt" and ctx.attempt == 0:
            raise RuntimeError("once more")
        await step.sleep("night", "2500ms")
        return handled

    async with workers(app), asyncio.timeout(LONG):
        run = await orders.start(None)
        assert await run.result() == [
            [number, f"receipt of order {number}", f"label of receipt of order {number}"] for number in (1, 2)
        ]
        assert await executions_of(run) == 2
    assert sorted(charged) == [1, 2]


@pytest.mark.parametrize("interruption", ["park", "attempt"])
async def test_what_a_body_changes_in_a_value_that_it_was_given_is_changed_once(
    app: steporal.Client, workers: Workers, interruption: str
) -> None:
    name = f"row.{new_ulid()}"

    @app.workflow(id="rows")
    async def rows(ctx: Context[Any], step: Step) -> Any:
        return ["first"]

    @app.workflow(id="collects", ext=WorkflowExt(park_after="1s"), retry=SOON)
    async def collects(ctx: Context[Any], step: Step) -> Any:
        listener = await step.ext.listen("listen", event=name, timeout="1h")
        heard = await listener.next("next")
        event = await step.ext.wait_for_event("event", event=name, timeout="1h")
        signal = await step.wait_for_signal("signal", signal=name, timeout="1h")
        assert heard and event and signal
        given = [ctx.input.data, heard.data["rows"], event.data["rows"], signal.data]
        given.append(await step.run("rows", lambda: ["first"]))
        given.append(await step.invoke_workflow("invoke", workflow=rows))
        for each in given:
            each.append("second")
        seen = await step.run("look", lambda: given)
        if interruption == "attempt" and ctx.attempt == 0:
            raise RuntimeError("once more")
        await step.sleep("night", "2s")
        await step.sleep("another night", "2s")
        return [given == seen, given]

    async with workers(app), asyncio.timeout(LONG):
        run = await collects.start(["first"])
        for timers in (1, 2):
            await until_waiting(run, timers)
            await app.send_event({"name": name, "data": {"rows": ["first"]}})
        await until_received(app, name, ["first"])
        assert await run.result() == [True, [["first", "second"]] * 6]


async def test_a_race_that_was_decided_stays_decided(app: steporal.Client, workers: Workers) -> None:
    ordered: list[str] = []
    answer = asyncio.Event()

    async def ask(supplier: str) -> str:
        if supplier == "slow":
            await answer.wait()
        return supplier

    @app.workflow(id="race", ext=WorkflowExt(park_after="1s"))
    async def race(ctx: Context[Any], step: Step) -> Any:
        asked = [asyncio.create_task(step.run(f"ask {s}", lambda s=s: ask(s))) for s in ("slow", "quick")]
        (first,), _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        winner = first.result()
        await step.run(f"order from {winner}", lambda: ordered.append(winner))
        answer.set()
        everybody = await asyncio.gather(*asked)
        await step.sleep("delivery", "2500ms")  # both have answered when the body comes back
        return [winner, everybody]

    async with workers(app), asyncio.timeout(LONG):
        run = await race.start(None)
        assert await run.result() == ["quick", ["slow", "quick"]]
        assert await executions_of(run) == 2
    assert ordered == ["quick"]


@pytest.mark.parametrize("limit", [asyncio.wait_for, asyncio.timeout])
async def test_a_step_that_a_timeout_has_cancelled_never_begins_again(
    app: steporal.Client, workers: Workers, limit: Callable[..., Any]
) -> None:
    begun: list[str] = []

    async def charge() -> str:
        begun.append("charge")
        if len(begun) == 1:
            await asyncio.sleep(60)
        return "charged"

    @app.workflow(id="charge", ext=WorkflowExt(park_after="1s"))
    async def charge_in_time(ctx: Context[Any], step: Step) -> Any:
        try:
            if limit is asyncio.wait_for:
                outcome = await asyncio.wait_for(step.run("charge", lambda: charge()), 0.5)
            else:
                async with asyncio.timeout(0.5):
                    outcome = await step.run("charge", lambda: charge())
        except TimeoutError:
            outcome = await step.run("say so", lambda: "not charged")
        await step.sleep("night", "2500ms")
        return outcome

    async with workers(app), asyncio.timeout(LONG):
        run = await charge_in_time.start(None)
        assert await run.result() == "not charged"
        assert await executions_of(run) == 2
    assert begun == ["charge"]


async def test_a_run_parks_with_timers_of_asyncio_and_has_what_is_left_of_them(
    app: steporal.Client, workers: Workers
) -> None:
    @app.workflow(id="sleeps", ext=WorkflowExt(park_after="1s"))
    async def sleeps(ctx: Context[Any], step: Step) -> Any:
        began = ctx.now()
        await step.run("begin", lambda: None)
        try:
            async with asyncio.timeout(4):
                await asyncio.gather(asyncio.sleep(2), step.sleep("for long", "1h"))
        except TimeoutError:
            return (ctx.now() - began).total_seconds()

    async with workers(app), asyncio.timeout(LONG):
        run = await sleeps.start(None)
        assert 4 <= await run.result() < 20
        assert await executions_of(run) == 2


async def test_ctx_now_and_random_numbers_are_what_they_were(app: steporal.Client, workers: Workers) -> None:
    passes: list[list[Any]] = []

    @app.workflow(id="draws", ext=WorkflowExt(park_after="1s"))
    async def draws(ctx: Context[Any], step: Step) -> Any:
        drawn: list[Any] = [ctx.now(), ctx.uuid4()]
        passes.append(drawn)
        await step.run("one", lambda: None)
        drawn += [ctx.now(), ctx.random.random()]
        await step.sleep("night", "2500ms")

    async with workers(app), asyncio.timeout(LONG):
        await (await draws.start(None)).result()
    passes.sort(key=len)  # a body that is interrupted has drawn less
    assert len(passes) >= 2
    assert all(drawn == passes[-1][: len(drawn)] for drawn in passes)


@pytest.mark.parametrize("interruption", ["park", "attempt"])
async def test_sets_of_tasks_have_the_order_that_they_had(
    app: steporal.Client, workers: Workers, interruption: str
) -> None:
    """What serves the body is begun at other moments when the body comes back, or not at all; it counts for nothing."""
    heard = f"heard.{new_ulid()}"
    orders: list[str] = []

    @app.workflow(id="sets", ext=WorkflowExt(park_after="1s"), retry=SOON)
    async def sets(ctx: Context[Any], step: Step) -> None:
        order = ""
        async with await step.ext.listen("listen", event=heard, timeout="1h"):
            pass
        for number in range(12):  # a set is in another order where the numbers of its tasks pass the size of its table
            await step.run(f"part {number}", lambda: None)
            tasks = {asyncio.create_task(asyncio.sleep(0), name=name) for name in "abcdef"}
            order += "".join(task.get_name() for task in tasks)
            await asyncio.wait(tasks)
        orders.append(order)
        if interruption == "attempt" and ctx.attempt == 0:
            raise RuntimeError("once more")
        await step.sleep("night", "2500ms")

    async with workers(app), asyncio.timeout(LONG):
        await (await sets.start(None)).result()
    assert len(orders) > 1 and len(set(orders)) == 1, orders


async def test_tasks_have_the_names_that_the_body_gives_them_and_keep_them(
    app: steporal.Client, workers: Workers
) -> None:
    passes: list[list[str]] = []

    @app.workflow(id="names", ext=WorkflowExt(park_after="1s"))
    async def names(ctx: Context[Any], step: Step) -> list[str]:
        async with asyncio.TaskGroup() as group:
            named = [
                asyncio.create_task(asyncio.sleep(0), name="charge"),
                group.create_task(asyncio.sleep(0), name="2"),
            ]
            unnamed = [asyncio.ensure_future(asyncio.sleep(0)), group.create_task(asyncio.sleep(0))]
        passes.append([task.get_name() for task in (*named, *unnamed)])
        await step.sleep("night", "2500ms")
        return passes[-1]

    async with workers(app), asyncio.timeout(LONG):
        assert (await (await names.start(None)).result())[:2] == ["charge", "2"]
    assert len(passes) > 1
    assert all(each == passes[0] for each in passes)


async def test_a_branch_that_raised_before_its_step_does_not_get_the_result_of_another(
    app: steporal.Client, workers: Workers
) -> None:
    charged: list[str] = []

    def charge(order: str) -> str:
        charged.append(order)
        return f"{order} is charged"

    @app.workflow(id="pays", retry=SOON)
    async def pays(ctx: Context[Any], step: Step) -> list[str]:
        async def pay(order: str) -> str:
            if order == "a" and ctx.attempt == 0:
                raise RuntimeError("once more")
            return await step.run("charge", lambda: charge(order))

        return await asyncio.gather(pay("a"), pay("b"))

    async with workers(app), asyncio.timeout(LONG):
        assert await (await pays.start(None)).result() == ["a is charged", "b is charged"]
    assert sorted(charged) == ["a", "b"]


class KindOfStep:
    """A step with one id in two branches, and what it brings each of them."""

    name: str

    def __init__(self, name: str) -> None:
        self.name = name

    async def call(self, step: Step, order: str) -> Any:
        """Perform it for an order; return which order it was for."""

    async def meet(self, app: steporal.Client, run: steporal.Run[Any]) -> None:
        """Do what the step of each branch waits for."""


class WaitsForEvent(KindOfStep):
    async def call(self, step: Step, order: str) -> Any:
        event = await step.ext.wait_for_event(
            "paid", event=self.name, if_exp=f"async.data.order == '{order}'", timeout="1h"
        )
        return event and event.data["order"]

    async def meet(self, app: steporal.Client, run: steporal.Run[Any]) -> None:
        await until_waiting(run, 4)  # with the sleep of the first attempt, and the pause after it
        await app.send_event([{"name": self.name, "data": {"order": order}} for order in "ba"])


class WaitsForSignal(KindOfStep):
    async def call(self, step: Step, order: str) -> Any:
        received = await step.wait_for_signal("paid", signal=f"{self.name}/{order}", timeout="1h")
        return received and received.data

    async def meet(self, app: steporal.Client, run: steporal.Run[Any]) -> None:
        for order in "ba":
            await until_received(app, f"{self.name}/{order}", order)


class SendsSignal(KindOfStep):
    async def call(self, step: Step, order: str) -> Any:
        waiting = asyncio.create_task(step.wait_for_signal(order, signal=f"{self.name}/{order}", timeout="1h"))
        while (await step.send_signal("send", signal=f"{self.name}/{order}", data=order)).run_id is None:
            await asyncio.sleep(0.05)
        received = await waiting
        return received and received.data


class Invokes(KindOfStep):
    async def call(self, step: Step, order: str) -> Any:
        return await step.invoke_workflow("pay", workflow=steporal.reference(self.name, "echo"), data=order)


class Sleeps(KindOfStep):
    async def call(self, step: Step, order: str) -> Any:
        began = workflow.time()
        await step.sleep("pause", "1s" if order == "a" else "1ms")
        return order if (workflow.time() - began >= 1) == (order == "a") else f"{workflow.time() - began} s"


@pytest.mark.parametrize("kind", [WaitsForEvent, WaitsForSignal, SendsSignal, Invokes, Sleeps])
async def test_a_branch_that_raised_before_its_step_has_a_step_of_its_own_whatever_the_kind(
    app: steporal.Client, workers: Workers, kind: type[KindOfStep]
) -> None:
    meant = kind(app.id)

    @app.workflow(id="echo")
    async def echo(ctx: Context[Any], step: Step) -> Any:
        return ctx.input.data

    @app.workflow(id="pays", retry=SOON)
    async def pays(ctx: Context[Any], step: Step) -> list[str]:
        async def pay(order: str) -> Any:
            if order == "a" and ctx.attempt == 0:
                await asyncio.sleep(0.2)
                raise RuntimeError("once more")
            return await meant.call(step, order)

        return await asyncio.gather(pay("a"), pay("b"))

    async with workers(app, is_listed=True), asyncio.timeout(LONG):
        run = await pays.start(None)
        await meant.meet(app, run)
        assert await run.result() == ["a", "b"]


async def test_a_retry_of_the_body_reads_the_time_anew(app: steporal.Client, workers: Workers) -> None:
    """Nothing was begun with the time that was too early, so a body that waits for a time may come to it."""

    @app.workflow(id="opens", max_attempts=50, retry=RetryPolicy(timedelta(milliseconds=100), 1.0))
    async def opens(ctx: Context[Any], step: Step) -> str:
        await step.run("look", lambda: None)
        if ctx.now() < ctx.input.time + timedelta(seconds=1):
            raise RuntimeError("still closed")
        return "open"

    async with workers(app), asyncio.timeout(LONG):
        assert await (await opens.start(None)).result() == "open"


async def test_the_keys_of_ids_that_branches_share_name_the_branch(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="branches")
    async def branches(ctx: Context[Any], step: Step) -> None:
        async def branch() -> None:
            await step.run("work", lambda: None)
            await step.run("work", lambda: None)

        await asyncio.gather(branch(), branch())

    async with workers(app), asyncio.timeout(LONG):
        run = await branches.start(None)
        await run.result()
    history = await run.temporal.fetch_history()
    ids = [
        event.activity_task_scheduled_event_attributes.activity_id
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
    assert sorted(ids) == ["work", "work:1", "work@2", "work@2:1"]


# --- a result goes to the call that made it --------------------------------------------------------------------------


CHARGED: list[str] = []
"""The orders that were charged, and the app that did."""


@dataclass(frozen=True)
class Called:
    """What steps are called with in one version of the code, each kind in a workflow of its own.

    Attributes:
        order: What differs between versions.
        url: An HTTP server.
        topic: Names that no other test uses.
    """

    order: str
    url: str
    topic: str

    def charge(self, order: str) -> str:
        CHARGED.append(f"{order} of {self.topic}")
        return f"receipt of {order}"

    def note(self, order: str) -> str:
        return f"note of {order}"

    def refuse(self, order: str) -> None:
        raise NonRetryableError(f"no {order}")

    async def run(self, ctx: Context[Any], step: Step) -> Any:
        charge, order = self.charge, self.order
        return await step.run("do", lambda: charge(order))

    async def run_locally(self, ctx: Context[Any], step: Step) -> Any:
        return await step.run("do", self.note, self.order, local=True)

    async def run_in_vain(self, ctx: Context[Any], step: Step) -> Any:
        with pytest.raises(StepError) as refused:
            await step.run("do", self.refuse, self.order)
        return refused.value.message

    async def send_event(self, ctx: Context[Any], step: Step) -> Any:
        sent = await step.ext.send_event("do", {"name": self.topic, "data": {"order": self.order}})
        return len(sent.ids)

    async def send_event_with_an_id(self, ctx: Context[Any], step: Step) -> Any:
        sent = await step.ext.send_event("do", {"name": self.topic, "id": f"{self.topic} {self.order}"})
        return len(sent.ids)

    async def send_event_with_a_time(self, ctx: Context[Any], step: Step) -> Any:
        sent = await step.ext.send_event("do", {"name": self.topic, "ts": 1_000_000_000_000 + int(self.order[-1])})
        return len(sent.ids)

    async def send_signal(self, ctx: Context[Any], step: Step) -> Any:
        return (await step.send_signal("do", signal=f"nobody {self.topic}", data=self.order)).run_id

    async def capture_the_context(self, ctx: Context[Any], step: Step) -> Any:
        ctx.input.data["order"] = self.order
        return await step.run("do", lambda: f"parcel of {ctx.input.data['order']}")

    async def fetch(self, ctx: Context[Any], step: Step) -> Any:
        return (await step.ext.fetch("do", "POST", self.url, json=self.order)).status

    async def invoke_workflow(self, ctx: Context[Any], step: Step) -> Any:
        return await step.invoke_workflow("do", workflow=steporal.reference(self.topic, f"echo of {self.order}"))

    async def wait_for_event(self, ctx: Context[Any], step: Step) -> Any:
        return await step.ext.wait_for_event("do", event=f"{self.topic}/{self.order}", timeout="1ms")

    async def wait_for_signal(self, ctx: Context[Any], step: Step) -> Any:
        return await step.wait_for_signal("do", signal=f"{self.topic}/{self.order}", timeout="1ms")

    async def listen(self, ctx: Context[Any], step: Step) -> Any:
        async with await step.ext.listen("do", event=f"{self.topic}/{self.order}", timeout="1h"):
            return "listens"


RETURNED = {
    "run": "receipt of order 1",
    "run_locally": "note of order 1",
    "run_in_vain": "no order 1",
    "send_event": 1,
    "send_event_with_an_id": 1,
    "send_event_with_a_time": 1,
    "send_signal": None,
    "capture_the_context": "parcel of order 1",
    "fetch": 200,
    "invoke_workflow": "echo",
    "wait_for_event": None,
    "wait_for_signal": None,
    "listen": "listens",
}
"""What each kind returns."""

NOT_SEEN_IN_A_REPLAY = {"invoke_workflow", "wait_for_event", "wait_for_signal", "listen"}
"""Those whose results do not say what they were called with, and of which Temporal compares nothing that says it."""


@pytest.mark.needs_cache("each version comes with a new worker, which has none anyway")
@pytest.mark.parametrize("state", ["parked", "busy", "recovered"])
async def test_a_result_is_not_handed_to_another_call(
    workers: Workers, other_app: steporal.Client, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    app_id = f"edits {new_ulid()}"
    go = f"go {app_id}"

    def version(order: str, url: str, *, has_new_step: bool = False) -> steporal.Client:
        app = steporal.Client(app_id, park_after="1s" if state == "parked" else "never")
        called = Called(order, url, app_id)

        for id in ("echo of order 1", "echo of order 2"):

            @app.workflow(id=id)
            async def echo(ctx: Context[Any], step: Step) -> Any:
                return "echo"

        def define(kind: str) -> None:
            @app.workflow(id=kind)
            async def handler(ctx: Context[Any], step: Step) -> Any:
                if has_new_step:
                    await step.run("new", lambda: "makes it stuck")
                result = await getattr(called, kind)(ctx, step)
                await step.wait_for_signal("go", signal=f"{go} {kind}", timeout="1h")
                return result

        for kind in RETURNED:
            define(kind)
        return app

    async with http_server() as server, workers(other_app), asyncio.timeout(LONG):  # which serves the mailboxes
        has_new_step = state == "recovered"
        old = version("order 1", server.url)
        edited = version("order 2", server.url, has_new_step=has_new_step)
        corrected = version("order 1", server.url, has_new_step=has_new_step)
        kinds = [each for each in old.workflows if each.id in RETURNED]
        async with workers(old, is_listed=True):
            runs = {each.id: await each.start({}) for each in kinds}
            for run in runs.values():
                while not await (_is_parked(run) if state == "parked" else _waits_for_go(run)):
                    await asyncio.sleep(0.05)
        workers.drop(*[run.workflow_id for run in runs.values()])
        if state == "recovered":
            assert await run_recover(edited, workers.temporal, RecoverOptions(), as_json=True) == 0
            assert {found["workflow"] for found in json.loads(capsys.readouterr().out)["stuck"]} == set(runs)
        compared = set(runs) - NOT_SEEN_IN_A_REPLAY if state == "busy" else set(runs)
        async with workers(edited, is_listed=True):
            for kind in runs:
                await edited.send_signal(f"{go} {kind}", None)
            if state == "busy":  # Temporal compares the type of an invoked run
                while "echo of order 2" not in await _task_failure(runs["invoke_workflow"]):
                    await asyncio.sleep(0.05)
            for kind in compared:
                while "step 'do' has become another call" not in await _task_failure(runs[kind]):
                    await asyncio.sleep(0.05)
        async with workers(corrected, is_listed=True):
            assert {kind: await run.result() for kind, run in runs.items()} == RETURNED
    assert [each for each in CHARGED if app_id in each] == [f"order 1 of {app_id}"]


@pytest.mark.needs_cache("each version comes with a new worker, which has none anyway")
@pytest.mark.parametrize("edit", ["workflow", "data"])
@pytest.mark.parametrize("state", ["parked", "recovered"])
async def test_a_run_that_goes_on_with_an_invoked_run_hands_its_result_to_no_other_call(
    workers: Workers, other_app: steporal.Client, state: str, edit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    app_id = f"edits {new_ulid()}"

    def version(workflow: str, data: str, *, has_new_step: bool = False) -> steporal.Client:
        app = steporal.Client(app_id, park_after="1s" if state == "parked" else "never")

        def define(id: str) -> Any:
            @app.workflow(id=id)
            async def pack(ctx: Context[Any], step: Step) -> Any:
                await step.wait_for_signal("go", signal=f"{app_id} go", timeout="1h")
                return f"{id} of {ctx.input.data}"

            return pack

        invoked = {id: define(id) for id in ("pack", "wrap")}

        @app.workflow(id="order")
        async def order(ctx: Context[Any], step: Step) -> Any:
            if has_new_step:
                await step.run("new", lambda: "makes it stuck")
            return await step.invoke_workflow("do", workflow=invoked[workflow], data=data)

        return app

    async with workers(other_app), asyncio.timeout(LONG):
        old = version("pack", "order 1")
        is_recovered = state == "recovered"
        other = ("wrap", "order 1") if edit == "workflow" else ("pack", "order 2")
        edited = version(*other, has_new_step=is_recovered)
        corrected = version("pack", "order 1", has_new_step=is_recovered)
        async with workers(old):
            run = await next(each for each in old.workflows if each.id == "order").start(None)
            while not await (_is_parked(run) if state == "parked" else _has_invoked(run)):
                await asyncio.sleep(0.05)
        workers.drop(run.workflow_id)
        if is_recovered:
            assert await run_recover(edited, workers.temporal, RecoverOptions(), as_json=True) == 0
            assert len(json.loads(capsys.readouterr().out)["stuck"]) == 1
        async with workers(edited):
            while (await edited.send_signal(f"{app_id} go", None)).run_id is None:
                await asyncio.sleep(0.05)
            if (
                is_recovered and edit == "data"
            ):  # a history has the workflow of an invoked run, and no digest of its input
                assert await run.result() == "pack of order 1"
                return
            while "step 'do' has become another call" not in await _task_failure(run):
                await asyncio.sleep(0.05)
        async with workers(corrected):
            assert await run.result() == "pack of order 1"


async def _has_invoked(run: steporal.Run[Any]) -> bool:
    history = await run.temporal.fetch_history()
    return any(event.HasField("child_workflow_execution_started_event_attributes") for event in history.events)


@pytest.mark.parametrize("ids", [("charge", "ship"), ("charge", "charge")], ids=["ids of their own", "one id"])
async def test_a_step_in_flight_takes_other_values_from_a_new_attempt_only_where_its_id_is_its_own(
    app: steporal.Client, workers: Workers, ids: tuple[str, str]
) -> None:
    async def slow(number: int) -> int:
        await asyncio.sleep(1)
        return number

    @app.workflow(id="orders", retry=SOON)
    async def orders(ctx: Context[Any], step: Step) -> list[int]:
        attempt = ctx.attempt
        tasks = [
            asyncio.create_task(step.run(id, lambda number=number: slow(number)))
            for id, number in zip(ids, (0, attempt), strict=True)
        ]
        await step.sleep("begin", "100ms")
        if attempt == 0:
            raise RuntimeError("once more")
        return await asyncio.gather(*tasks)

    async with workers(app), asyncio.timeout(LONG):
        run = await orders.start(None)
        if len(set(ids)) > 1:
            assert await run.result() == [0, 0]
        else:
            workers.drop(run.workflow_id)
            while not (message := await _task_failure(run)):
                await asyncio.sleep(0.05)
            assert "step 'charge:1' has become another call" in message
            await run.temporal.terminate()


async def _is_parked(run: steporal.Run[Any]) -> bool:
    return (await run.temporal.describe()).run_id != run.run_id


async def _waits_for_go(run: steporal.Run[Any]) -> bool:
    history = await run.temporal.fetch_history()
    return any(b'"go"' in event.user_metadata.summary.data for event in history.events if event.event_type == TIMER)


async def _task_failure(run: steporal.Run[Any]) -> str:
    latest = run.temporal._client.get_workflow_handle(run.workflow_id)
    failures = [
        event.workflow_task_failed_event_attributes.failure.message
        async for event in latest.fetch_history_events()
        if event.HasField("workflow_task_failed_event_attributes")
    ]
    return failures[-1] if failures else ""


class Order(pydantic.BaseModel):
    id: str
    lines: list[str] = []


class Counted(pydantic.BaseModel):
    _count: int = 0


class Bare(pydantic.BaseModel):
    """The same, before it was edited."""


def counted(count: int) -> Counted:
    value = Counted()
    value._count = count
    return value


@pytest.mark.parametrize(
    "values",
    [
        ([1, 2], [2, 1]),
        (1, "1"),
        ({"a": 1}, {"a": 2}),
        ("ab", "a"),
        (["ab", "c"], ["a", "bc"]),
        (10**5000, 10**5000 + 1),
        (deque([{1}]), deque([{2}])),
        (pydantic.SecretStr("a"), pydantic.SecretStr("b")),
        (counted(1), counted(2)),
    ],
)
def test_other_values_have_another_digest(values: tuple[Any, Any]) -> None:
    assert digest(values[0]) != digest(values[1])


DIGEST = """
import json
from collections import deque
from steporal.closures.digests import digest
print(digest(deque([{"a", "b", "c", "d"}]), json))
"""


def test_a_digest_is_the_same_in_every_process() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert digests == {f"{digest(deque([{*'abcd'}]), json)}\n"}


def test_a_private_attribute_that_has_its_default_may_be_new() -> None:
    before = Call.of("run", "shop:charge", Bare())
    assert not is_other(before, Call.of("run", "shop:charge", counted(0)), gone)
    assert is_other(before, Call.of("run", "shop:charge", counted(1)), gone)


def test_the_order_of_a_set_and_of_a_dict_is_no_part_of_a_call() -> None:
    assert digest({"b", "a", "c"}) == digest({"c", "b", "a"})
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def still_there(named: str, *, exactly: bool = False) -> bool:
    return True


def gone(named: str, *, exactly: bool = False) -> bool:
    return False


FUNCTION = Call("run", "shop:charge", "values")


@pytest.mark.parametrize("before", ["order-1", "größe 日", "01JBEFORE"])
@pytest.mark.parametrize("value", ["receipt of {}", b"receipt of {}", bytearray(b"{}\xff")])
def test_ids_of_a_rerun_are_read_as_those_of_the_run_before_whatever_characters_they_have(
    value: Any, before: str
) -> None:
    def given(id: str) -> Any:
        return value.format(id) if isinstance(value, str) else value.replace(b"{}", id.encode())

    called = Call.of("run", "shop:charge", given("01JRERUN"), reruns=[{"01JRERUN": before}])
    for spelling in (before, before.upper(), before.replace("-", "")):
        assert not is_other(Call.of("run", "shop:charge", given(spelling)), called, lambda call: True)
    assert is_other(Call.of("run", "shop:charge", given("another")), called, lambda call: True)


@pytest.mark.parametrize(
    "called",
    [
        Call("run", "shop:charge", "other values"),
        Call("run", "shop:refund", "values"),
        Call("sleep"),
    ],
)
def test_another_call_is_refused(called: Call) -> None:
    with pytest.raises(AnotherCallError, match=r"step 'pay' has become another call: .*run of shop:charge"):
        check_call("pay", FUNCTION, called, still_there)


def test_another_kind_of_step_is_another_call_though_it_names_the_same() -> None:
    with pytest.raises(AnotherCallError, match="wait_for_signal of paid, but the body now calls next of paid"):
        check_call("wait", Call("wait_for_signal", "paid"), Call("next", "paid"), gone)


def test_a_function_that_was_renamed_is_the_same_call() -> None:
    check_call("pay", FUNCTION, Call("run", "shop:charge_card", "values"), gone)


def test_a_lambda_that_was_edited_is_the_same_call() -> None:
    recorded, called = (Call("run", "workflow order: <lambda>", "values", code) for code in ("old", "new"))
    check_call("pay", recorded, called, gone)
    with pytest.raises(AnotherCallError, match="at another place of the code"):
        check_call("pay", recorded, called, still_there)


# --- keys ------------------------------------------------------------------------------------------------------------


def test_an_id_is_its_own_key_where_it_is_used_first() -> None:
    keys = Keys()
    assert [keys.next("a", ""), keys.next("b", "1"), keys.next("b", "1")] == ["a", "b", "b:1"]


def test_a_further_use_in_another_branch_names_the_branch() -> None:
    keys = Keys()
    assert [keys.next("a", "1"), keys.next("a", "2"), keys.next("a", "2"), keys.next("a", "")] == [
        "a",
        "a@2",
        "a@2:1",
        "a@body",
    ]


def test_no_two_uses_have_one_key_whatever_the_ids_look_like() -> None:
    keys = Keys()
    ids = ["a", "a:1", "a", "a@2", "a:1"]
    found = [keys.next(id, branch) for id in ids for branch in ("", "2", "")]
    assert len(set(found)) == len(found)


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.needs_cache("each workflow task would be replayed with thousands of events")
@pytest.mark.takes_long
@pytest.mark.timeout(LONG * 4)
async def test_more_steps_than_the_server_takes_at_a_time_all_run(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="many")
    async def many(ctx: Context[Any], step: Step) -> int:
        return sum(await asyncio.gather(*(step.run("one", lambda: 1) for _ in range(MOST_PENDING + 100))))

    async with workers(app), asyncio.timeout(LONG * 3):
        assert await (await many.start(None)).result() == MOST_PENDING + 100


async def test_a_run_that_waits_for_its_events_time_is_parked(app: steporal.Client, workers: Workers) -> None:
    name = f"{app.id}.later"

    @app.workflow(id="later", triggers=[steporal.event_trigger(name)], ext=WorkflowExt(park_after="1s"))
    async def later(ctx: Context[Any], step: Step) -> str:
        return await step.run("work", lambda: "done")

    async with workers(app), asyncio.timeout(LONG):
        soon = int(time.time() * 1000) + 4_000
        sent = await app.send_event({"name": name, "data": {}, "ts": soon})
        run = await app.get_run(f"{app.id}/later/{sent.ids[0]}")
        assert await run.result() == "done"
        assert await executions_of(run) == 2


async def test_a_run_that_is_cancelled_before_its_events_time_never_begins(
    app: steporal.Client, workers: Workers
) -> None:
    name, ran = f"{app.id}.later", []

    @app.workflow(id="later", triggers=[steporal.event_trigger(name)], ext=WorkflowExt(park_after="1s"))
    async def later(ctx: Context[Any], step: Step) -> None:
        await step.run("work", lambda: ran.append("work"))

    async with workers(app), asyncio.timeout(LONG):
        in_an_hour = int(time.time() * 1000) + 3_600_000
        sent = await app.send_event({"name": name, "data": {}, "ts": in_an_hour})
        run = await app.get_run(f"{app.id}/later/{sent.ids[0]}")
        while await executions_of(run) == 1:
            await asyncio.sleep(0.05)
        await run.cancel()
        with pytest.raises(steporal.RunCancelledError):
            await run.result()
    assert ran == []


def test_in_a_rerun_a_call_with_its_own_ids_is_the_call_with_those_of_the_runs_before() -> None:
    first = Call.of("run", "shop:charge", ("key", "run-1/charge"), ("order", Order(id="event-1", lines=["run-1"])))
    second = Call.of("wait_for_signal", "paid/run-2")
    reruns = [{"run-3": "run-2", "event-3": "event-2"}, {"run-3": "run-1", "event-3": "event-1"}]

    def again(key: str) -> Call:
        order = Order(id="event-3", lines=["run-3"])
        return Call.of("run", "shop:charge", ("key", key), ("order", order), reruns=reruns)

    check_call("charge", first, again("run-3/charge"), still_there)
    check_call("wait", second, Call.of("wait_for_signal", "paid/run-3", reruns=reruns), still_there)
    with pytest.raises(AnotherCallError, match="rerun from this step, or from an earlier one"):
        check_call("charge", first, again("run-3/refund"), still_there)
