"""step.wait_for_signal, step.send_signal and client.send_signal."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Any

import pydantic
import pytest
import temporalio.client
from pydantic import BaseModel
from recording import Workers
from temporalio.common import RawValue
from temporalio.worker import Replayer

import steporal
from steporal import (
    Context,
    InvalidArgumentError,
    InvalidInputError,
    PayloadTooLargeError,
    RunFailedError,
    SendSignalError,
    SignalConflictError,
    Step,
    UnserializableError,
)
from steporal.events import new_ulid
from steporal.routing import mailbox_client
from steporal.routing.mailbox import Claim, mailbox_id
from steporal.routing.mailbox_client import Mailboxes, OpenMailbox
from steporal.values.converter import from_raw, to_raw
from steporal.wire.mailbox_wait import Wait
from steporal.wire.names import MAILBOX, TAKE
from steporal_workers.devserver import dev_server


class Decision(BaseModel):
    approved: bool
    by: str


Positive = Annotated[int, pydantic.Field(gt=0)]


@pytest.fixture
def name() -> str:
    """A signal's name that no other test uses."""
    return f"approval/{new_ulid()}"


async def until_open(app: steporal.Client, name: str, run: steporal.Run[Any] | None = None) -> OpenMailbox:
    """Wait until a run waits for a signal."""
    mailboxes = Mailboxes(app.temporal)
    async with asyncio.timeout(60):
        while (held := await mailboxes.find(name)) is None or (run and held.wait.run_id != run.run_id):
            await asyncio.sleep(0.03)
    return held


async def until_closed(app: steporal.Client, name: str) -> None:
    """Wait until no run waits for a signal."""
    mailboxes = Mailboxes(app.temporal)
    async with asyncio.timeout(60):
        while await mailboxes.find(name) is not None:
            await asyncio.sleep(0.03)


def waiter(app: steporal.Client, id: str = "waits") -> steporal.Workflow[Any, Any]:
    """A workflow whose runs wait for the signal that is their input, and return its data."""

    @app.workflow(id=id)
    async def handler(ctx: Context[Any], step: Step) -> Any:
        signal = await step.wait_for_signal("approval", signal=ctx.input.data, timeout="1h")
        return signal and signal.data

    return handler


# --- receiving -----------------------------------------------------------------------------------------------------


async def test_a_signal_resumes_the_run_that_waits_and_its_sender_gets_the_runs_id(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        signal = await step.wait_for_signal("approval", signal=name, timeout="1h")
        assert signal is not None
        return [type(signal) is steporal.ReceivedSignal, signal.signal, signal.data]

    async with workers(app):
        run = await handler.start()
        await until_open(app, name)
        sent = await app.send_signal(name, {"ok": [1, "a", None]})
        assert sent == steporal.SendSignalResult(run_id=run.run_id)
        assert await run.result() == [True, name, {"ok": [1, "a", None]}]
        await until_closed(app, name)


async def test_a_signal_that_nobody_waits_for_is_received_by_nobody(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    async with workers(app):
        assert (await app.send_signal(name, 1)).run_id is None


async def test_no_signal_in_time_is_none(
    app: steporal.Client, workers: Workers, name: str, skipping: temporalio.client.Client
) -> None:
    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        started = ctx.now()
        signal = await step.wait_for_signal("approval", signal=name, timeout="3d")
        return [signal, (ctx.now() - started).days]

    async with workers(app):
        app.temporal = skipping
        assert await (await handler.start()).result() == [None, 3]
        assert (await app.send_signal(name)).run_id is None


async def test_a_wait_until_the_past_is_over_at_once(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        await step.sleep("a little", 5)
        return [
            await step.wait_for_signal("a", signal=name, timeout=ctx.input.time),
            await step.wait_for_signal("b", signal=name, timeout=0),
        ]

    async with workers(app):
        run = await handler.start()
        assert await run.result() == [None, None]
        types = [event.event_type for event in (await run.temporal.fetch_history()).events]
    assert temporalio.api.enums.v1.EventType.EVENT_TYPE_MARKER_RECORDED not in types[:8]


async def test_the_data_is_validated_by_the_schema(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        signal = await step.wait_for_signal("approval", signal=name, timeout="1h", schema=Decision)
        assert signal is not None
        numbers = await step.wait_for_signal("numbers", signal=f"{name}/numbers", timeout="1h", schema=list[int])
        assert numbers is not None
        return [type(signal.data).__name__, signal.data.by, numbers.data]

    async with workers(app):
        run = await handler.start()
        await until_open(app, name)
        await app.send_signal(name, Decision(approved=True, by="Ada"))
        await until_open(app, f"{name}/numbers")
        await app.send_signal(f"{name}/numbers", [1, 2])
        assert await run.result() == ["Decision", "Ada", [1, 2]]


async def test_data_that_does_not_fit_is_refused_to_its_sender_and_the_wait_goes_on(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> str:
        signal = await step.wait_for_signal("approval", signal=name, timeout="1h", schema=Decision)
        assert signal is not None
        return signal.data.by

    async with workers(app):
        run = await handler.start()
        await until_open(app, name)
        for data in ({"approved": "perhaps"}, None, "yes"):
            with pytest.raises(
                InvalidInputError, match=f"step 'approval' of run '{re.escape(run.workflow_id)}', which"
            ) as refused:
                await app.send_signal(name, data)
        with pytest.raises(InvalidInputError, match=r"approved: .*; by: Field required") as refused:
            await app.send_signal(name, {"approved": "perhaps"})
        assert repr(name) in str(refused.value)
        assert (await app.send_signal(name, {"approved": True, "by": "Ada"})).run_id == run.run_id
        assert await run.result() == "Ada"
        assert (await app.send_signal(name, {"approved": "perhaps"})).run_id is None


async def test_a_run_that_sends_data_that_does_not_fit_has_a_step_error(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        signal = await step.wait_for_signal("numbers", signal=name, timeout="1h", schema=list[int])
        return signal and signal.data

    @app.workflow(id="sends")
    async def sends(ctx: Context[Any], step: Step) -> str | None:
        try:
            await step.send_signal("wrong", signal=name, data=["a"])
        except steporal.StepError as err:
            await step.send_signal("right", signal=name, data=[1, 2])
            return f"{err.name} {err.attempts}: {err.message}"
        return None

    async with workers(app):
        run = await waits.start()
        await until_open(app, name)
        told = await (await sends.start()).result()
        assert await run.result() == [1, 2]
    assert told is not None
    assert told.startswith("InvalidInputError 1: ")
    assert "0: Input should be" in told


async def test_a_type_that_a_variable_of_the_module_holds_is_checked_for_the_sender(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        signal = await step.wait_for_signal("number", signal=name, timeout="1h", schema=Positive)
        return signal and signal.data

    async with workers(app):
        run = await waits.start()
        await until_open(app, name)
        with pytest.raises(InvalidInputError, match="greater than 0"):
            await app.send_signal(name, -1)
        await app.send_signal(name, 1)
        assert await run.result() == 1


async def test_a_step_captures_a_signal_whatever_its_schema(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> Any:
        signal = await step.wait_for_signal("number", signal=name, timeout="1h", schema=Positive)
        assert signal
        return [await step.run("captured", lambda: signal.data), (await step.run("given", lambda s: s, signal)).data]

    async with workers(app):
        run = await waits.start()
        await until_open(app, name)
        await app.send_signal(name, 1)
        assert await run.result() == [1, 1]


async def test_a_parked_run_is_not_disturbed_by_data_that_does_not_fit(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="waits", ext=steporal.WorkflowExt(park_after="1s"))
    async def waits(ctx: Context[Any], step: Step) -> Any:
        signal = await step.wait_for_signal("approval", signal=name, timeout="1h", schema=Decision)
        return signal and signal.data.by

    async with workers(app):
        run = await waits.start()
        latest = app.temporal.get_workflow_handle(run.workflow_id)
        async with asyncio.timeout(60):
            while (parked := await latest.describe()).run_id == run.run_id:
                await asyncio.sleep(0.05)
        with pytest.raises(InvalidInputError):
            await app.send_signal(name, {"approved": "perhaps"})
        assert (await latest.describe()).run_id == parked.run_id
        assert (await app.send_signal(name, {"approved": True, "by": "Ada"})).run_id == run.run_id
        assert await run.result() == "Ada"


async def test_data_that_only_the_run_can_check_is_an_error_in_the_body_and_final(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    entered = []

    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        entered.append(ctx.attempt)

        class Local(pydantic.BaseModel):
            approved: bool
            by: str

        try:
            await step.wait_for_signal("approval", signal=name, timeout="1h", schema=Local)
        except InvalidInputError:
            await step.run("clean up", lambda: None)
            raise

    async with workers(app):
        run = await handler.start()
        await until_open(app, name)
        assert (await app.send_signal(name, {"approved": "perhaps"})).run_id == run.run_id
        with pytest.raises(RunFailedError, match=r"step 'approval'.*approved: .*; by: Field required") as failed:
            await run.result()
    assert failed.value.name == "InvalidInputError"
    assert set(entered) == {0}


async def test_a_mailbox_whose_wait_ends_while_data_is_checked_ends(
    app: steporal.Client, other_app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> None: ...

    async with workers(other_app):
        mailboxes = Mailboxes(other_app.temporal)
        until = time.time() + 1  # no worker checks data for the app
        wait = Wait(signal=name, workflow_id="w", run_id="r", key="k", until=until, data_type="m:T", task_queue="none")
        held = await mailboxes.open(wait, replace=False)
        assert await mailboxes.send(name, held.run_id, to_raw(1), id="1") is None
        assert await mailboxes.close(wait, held.run_id) is False


async def test_the_second_of_two_signals_is_received_by_nobody(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    handler = waiter(app)
    async with workers(app):
        run = await handler.start(name)
        await until_open(app, name)
        sent = await asyncio.gather(*[app.send_signal(name, number) for number in range(30)])
        received = [number for number, result in enumerate(sent) if result.run_id == run.run_id]
        assert [result.run_id for result in sent].count(None) == 29
        assert [await run.result()] == received


async def test_a_run_receives_signals_one_after_the_other(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        received = []
        for _ in range(3):
            signal = await step.wait_for_signal("next", signal=name, timeout="1h")
            assert signal is not None
            received.append(signal.data)
        return received

    async with workers(app):
        run = await handler.start()
        for number in range(3):
            async with asyncio.timeout(60):
                while (await app.send_signal(name, number)).run_id is None:
                    await asyncio.sleep(0.03)
        assert await run.result() == [0, 1, 2]


async def test_a_body_that_fails_does_not_lose_a_signal(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        waiting = asyncio.create_task(step.wait_for_signal("while it waits", signal=f"{name}/1", timeout="1h"))
        if ctx.attempt == 0:
            await asyncio.sleep(0.05)
            raise RuntimeError("while it waits")
        first = await waiting
        second = await step.wait_for_signal("then", signal=f"{name}/2", timeout="1h")
        if ctx.attempt == 0:
            raise RuntimeError("after it was received")
        return [first and first.data, second and second.data]

    async with workers(app):
        run = await handler.start()
        for number in (1, 2):
            await until_open(app, f"{name}/{number}")
            assert (await app.send_signal(f"{name}/{number}", number)).run_id == run.run_id
        assert await run.result() == [1, 2]


async def test_a_run_whose_worker_is_restarted_receives(app: steporal.Client, workers: Workers, name: str) -> None:
    handler = waiter(app)
    async with workers(app):
        run = await handler.start(name)
        await until_open(app, name)
    sending = asyncio.create_task(app.send_signal(name, "back"))
    async with workers(app):
        assert (await sending).run_id == run.run_id
        assert await run.result() == "back"


async def test_a_signal_that_comes_while_the_runs_worker_is_down_is_received(
    app: steporal.Client, other_app: steporal.Client, workers: Workers, name: str
) -> None:
    handler = waiter(app)
    async with workers(other_app):
        async with workers(app):
            run = await handler.start(name)
            await until_open(app, name)
        assert (await app.send_signal(name, "for later")).run_id == run.run_id
        async with workers(app):
            assert await run.result() == "for later"


# --- who waits -----------------------------------------------------------------------------------------------------


async def test_a_second_run_that_waits_is_an_error_that_names_both(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    first = waiter(app)

    @app.workflow(id="second")
    async def second(ctx: Context[Any], step: Step) -> Any:
        try:
            await step.wait_for_signal("me too", signal=name, timeout="1h")
        except SignalConflictError as err:
            return [err.step_id, err.name, err.message]

    async with workers(app):
        run = await first.start(name)
        await until_open(app, name)
        other = await second.start()
        step_id, kind, message = await other.result()
        assert (step_id, kind) == ("me too", "SignalConflictError")
        for named in (name, run.workflow_id, run.run_id, other.workflow_id, other.run_id, "'approval'"):
            assert named in message
        assert (await app.send_signal(name, "still here")).run_id == run.run_id
        assert await run.result() == "still here"


async def test_a_run_that_has_received_is_in_nobodys_way(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        first = await step.wait_for_signal("approval", signal=name, timeout="1h")
        second = await step.invoke_workflow("next", workflow=following, data=name)
        return [first and first.data, second]

    following = waiter(app, "following")

    async with workers(app):
        run = await handler.start()
        for number in range(2):
            async with asyncio.timeout(60):
                while (await app.send_signal(name, number)).run_id is None:
                    await asyncio.sleep(0.03)
        assert await run.result() == [0, 1]


async def test_two_waits_of_one_run_for_one_signal_are_a_conflict_too(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        await asyncio.gather(
            step.wait_for_signal("one", signal=name, timeout="1h"),
            step.wait_for_signal("two", signal=name, timeout="1h"),
        )

    async with workers(app):
        with pytest.raises(RunFailedError, match="SignalConflictError"):
            await (await handler.start()).result()
        await until_closed(app, name)


async def test_a_run_can_take_anothers_place_whose_wait_goes_on_to_its_timeout(
    app: steporal.Client, workers: Workers, name: str, skipping: temporalio.client.Client
) -> None:
    @app.workflow(id="first")
    async def first(ctx: Context[Any], step: Step) -> Any:
        signal = await step.wait_for_signal("approval", signal=name, timeout="1s")
        return [signal and signal.data]

    @app.workflow(id="second")
    async def second(ctx: Context[Any], step: Step) -> Any:
        signal = await step.wait_for_signal("approval", signal=name, timeout="1h", on_conflict="replace")
        return [signal and signal.data]

    async with workers(app):
        earlier = await first.start()
        await until_open(app, name, earlier)
        later = await second.start()
        await until_open(app, name, later)
        assert await earlier.result() == [None]
        assert (await app.send_signal(name, "for the second")).run_id == later.run_id
        assert await later.result() == ["for the second"]


async def test_opening_a_mailbox_again_for_the_same_wait_changes_nothing(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    handler = waiter(app)
    async with workers(app):
        run = await handler.start(name)
        held = await until_open(app, name)
        mailboxes = Mailboxes(app.temporal)
        for replace in (False, True):
            assert await mailboxes.open(held.wait, replace=replace) == held
        assert (await app.send_signal(name, 1)).run_id == run.run_id
        assert await run.result() == 1
        assert await mailboxes.close(held.wait, held.run_id) is True
        assert await mailboxes.close(held.wait.model_copy(update={"key": "another"}), held.run_id) is False


async def test_a_wait_whose_place_was_taken_cannot_be_replaced_again(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    waiter(app)
    async with workers(app):
        mailboxes = Mailboxes(app.temporal)
        first, second, third = (
            Wait(signal=name, workflow_id=f"run {n}", run_id=f"run {n}", key="approval", until=time.time() + 600)
            for n in range(3)
        )
        held = await mailboxes.open(first, replace=False)
        mailbox = app.temporal.get_workflow_handle(mailbox_id(name))

        async def take(wait: Wait) -> Any:
            claim = Claim(wait=wait, instead_of=first).model_dump(mode="json")
            return from_raw(await mailbox.execute_update(TAKE, to_raw(claim), result_type=RawValue))

        assert await take(second) is True
        assert await take(third) is False, "the second waits there now"
        assert (await until_open(app, name)).wait == second
        await mailboxes.close(second, held.run_id)


async def test_of_many_runs_that_take_each_others_place_one_receives(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        signal = await step.wait_for_signal("approval", signal=name, timeout="3s", on_conflict="replace")
        return [signal and signal.data]

    # Without a cache, the SDK evicts runs whose local activities are under way, and their tasks time out.
    async with workers(app, max_cached_workflows=100):
        runs = await asyncio.gather(*[handler.start() for _ in range(8)])
        await until_open(app, name)
        async with asyncio.timeout(2):
            sent = await app.send_signal(name, "won")
        assert sent.run_id in {run.run_id for run in runs}
        results = {run.run_id: (await run.result())[0] for run in runs}
    # Who came after the signal may wait in vain.
    assert {run_id: data for run_id, data in results.items() if data} == {sent.run_id: "won"}


@pytest.mark.parametrize("end", ["terminate", "cancel"])
async def test_the_place_of_a_run_that_is_gone_is_taken(
    app: steporal.Client, workers: Workers, name: str, end: str
) -> None:
    handler = waiter(app)
    async with workers(app):
        gone = await handler.start(name)
        await until_open(app, name, gone)
        await (gone.temporal.terminate() if end == "terminate" else gone.cancel())
        with pytest.raises(RunFailedError):
            await gone.result()
        run = await handler.start(name)
        await until_open(app, name, run)
        assert (await app.send_signal(name, "mine")).run_id == run.run_id
        assert await run.result() == "mine"


async def test_a_signal_to_a_run_that_was_terminated_is_received_by_nobody(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    handler = waiter(app)
    async with workers(app):
        gone = await handler.start(name)
        await until_open(app, name)
        await gone.temporal.terminate()
        assert (await app.send_signal(name, 1)).run_id is None
        await until_closed(app, name)


async def test_a_wait_that_loses_a_race_frees_the_name(app: steporal.Client, workers: Workers, name: str) -> None:
    def fail() -> None:
        raise ValueError("no")

    async def is_free() -> bool:
        return await Mailboxes(app.temporal).find(name) is None

    @app.workflow(id="races")
    async def races(ctx: Context[Any], step: Step) -> Any:
        async def race(step_id: str) -> None:
            approval = asyncio.create_task(step.wait_for_signal(step_id, signal=name, timeout="1h"))
            pause = asyncio.create_task(step.sleep("pause", 50))
            _, lost = await asyncio.wait([approval, pause], return_when=asyncio.FIRST_COMPLETED)
            for task in lost:
                task.cancel()

        await race("approval")
        await race("again, in the same run")  # at once: its own earlier wait is no conflict
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(step.wait_for_signal("wait_for", signal=name, timeout="1h"), 0.05)
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(step.wait_for_signal("group", signal=name, timeout="1h"))
                group.create_task(step.run("fail", fail, max_attempts=1))
        return await step.run("look", lambda: is_free())

    async with workers(app):
        assert await (await races.start()).result() is True


async def test_a_run_that_ends_while_it_waits_frees_the_names(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="ends")
    async def ends(ctx: Context[Any], step: Step) -> str:
        tasks = [
            asyncio.create_task(step.wait_for_signal(f"wait {n}", signal=f"{name}/{n}", timeout="1h")) for n in range(5)
        ]
        await step.sleep("a little", 50)
        return f"leaves {len(tasks)} waits"

    async with workers(app):
        assert await (await ends.start()).result() == "leaves 5 waits"
        for number in range(5):
            await until_closed(app, f"{name}/{number}")


# --- sending -------------------------------------------------------------------------------------------------------


async def test_a_step_sends_a_signal(app: steporal.Client, workers: Workers, name: str) -> None:
    handler = waiter(app)

    @app.workflow(id="sends")
    async def sends(ctx: Context[Any], step: Step) -> Any:
        first = await step.send_signal("approve", signal=name, data=Decision(approved=True, by="Ada"))
        second = await step.send_signal("approve", signal=name)
        return [type(first) is steporal.SendSignalResult, first.run_id, second.run_id]

    async with workers(app):
        run = await handler.start(name)
        await until_open(app, name)
        assert await (await sends.start()).result() == [True, run.run_id, None]
        assert await run.result() == {"approved": True, "by": "Ada"}


async def test_sending_again_after_a_lost_answer_returns_the_same_and_reaches_no_other_run(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    handler = waiter(app)
    async with workers(app):
        run = await handler.start(name)
        mailbox = await until_open(app, name)
        mailboxes = Mailboxes(app.temporal)
        data = temporalio.common.RawValue(app.temporal.data_converter.payload_converter.to_payloads([1])[0])
        assert await mailboxes.send(name, mailbox.run_id, data, id="once") == run.run_id
        assert await run.result() == 1
        later = await handler.start(name)
        await until_open(app, name, later)
        assert await mailboxes.send(name, mailbox.run_id, data, id="once") == run.run_id
        assert await mailboxes.send(name, mailbox.run_id, data, id="twice") is None
        await app.send_signal(name, 2)
        assert await later.result() == 2


async def test_a_signal_is_as_large_as_a_payload_can_be(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> int:
        signal = await step.wait_for_signal("approval", signal=name, timeout="1h")
        assert signal is not None
        return len(signal.data)

    async with workers(app):
        run = await handler.start()
        await until_open(app, name)
        assert (await app.send_signal(name, "x" * 2_080_000)).run_id == run.run_id
        assert await run.result() == 2_080_000


@pytest.fixture
async def passing_workers(max_cached_workflows: int) -> AsyncIterator[Workers]:
    """Workers on a server of their own: when they are gone, nobody serves the mailboxes."""
    async with dev_server() as server:
        started = Workers(server.client, max_cached_workflows)
        yield started
        await started.replay()


async def test_a_sender_is_told_where_no_worker_is_up(
    app: steporal.Client, passing_workers: Workers, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = waiter(app)
    async with passing_workers(app):
        await handler.start(name)
        await until_open(app, name)
    monkeypatch.setattr(mailbox_client, "ANSWER_TIMEOUT", timedelta(milliseconds=300))
    with pytest.raises(SendSignalError, match="no worker answered within"):
        await app.send_signal(name)


async def test_a_sender_that_is_cancelled_is_cancelled(
    app: steporal.Client, passing_workers: Workers, name: str
) -> None:
    handler = waiter(app)
    async with passing_workers(app):
        await handler.start(name)
        await until_open(app, name)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await app.send_signal(name)


async def test_a_sender_is_told_where_temporal_cannot_be_reached(name: str) -> None:
    lazy = await temporalio.client.Client.connect("127.0.0.1:1", lazy=True)
    with pytest.raises(SendSignalError, match="Temporal did not accept signal"):
        await steporal.Client("offline", temporal=lazy).send_signal(name)


# --- what can be said ----------------------------------------------------------------------------------------------

NAMES = ["smile 😀 👨‍👩‍👧", "a/b:c#d?e=f&g%20h", "日本語 العربية", " spaces ", "line\nbreak\ttab", "..", "x" * 800]


@pytest.mark.parametrize("text", NAMES, ids=range(len(NAMES)))
async def test_any_text_is_a_name(app: steporal.Client, workers: Workers, text: str) -> None:
    handler = waiter(app)
    async with workers(app):
        signal = f"{text}{new_ulid()}{text[:10]}"
        run = await handler.start(signal)
        await until_open(app, signal)
        assert (await app.send_signal(signal, text)).run_id == run.run_id
        assert await run.result() == text


BAD_NAMES = [
    ("", "empty"),
    (" ", "empty"),
    (5, "5 (int)"),
    (None, "None"),
    ("x" * 901, "901 bytes"),
    ("\ud800", "Unicode"),
]


@pytest.mark.parametrize(("signal", "said"), BAD_NAMES, ids=range(len(BAD_NAMES)))
async def test_a_name_that_is_none_is_refused_before_anything_is_sent(signal: Any, said: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        await steporal.Client("offline").send_signal(signal)
    assert said in str(refused.value)


async def test_data_that_cannot_be_sent_is_refused() -> None:
    client = steporal.Client("offline")
    with pytest.raises(UnserializableError, match="the data of signal 'a' cannot be sent: object"):
        await client.send_signal("a", object())
    with pytest.raises(PayloadTooLargeError, match="the data of signal 'a' has"):
        await client.send_signal("a", "x" * 3_000_000)


BAD_CALLS: list[tuple[str, dict[str, Any], str, str]] = [
    ("wait_for_signal", {"signal": "", "timeout": 1}, "InvalidArgumentError", "signal is ''"),
    ("wait_for_signal", {"signal": 5, "timeout": 1}, "InvalidArgumentError", "signal is 5"),
    ("wait_for_signal", {"signal": "a", "timeout": -1}, "InvalidArgumentError", "timeout"),
    ("wait_for_signal", {"signal": "a", "timeout": "soon"}, "InvalidArgumentError", "soon"),
    ("wait_for_signal", {"signal": "a", "timeout": 1, "on_conflict": "x"}, "InvalidArgumentError", "'replace'"),
    ("wait_for_signal", {"signal": "a", "timeout": 1, "schema": "Decision"}, "InvalidArgumentError", "schema"),
    ("wait_for_signal", {"signal": "a", "timeout": 1, "schema": 5}, "InvalidArgumentError", "schema"),
    ("send_signal", {"signal": "x" * 2000}, "InvalidArgumentError", "2,000 bytes"),
    ("send_signal", {"signal": "a", "data": object()}, "UnserializableError", "the data of signal 'a'"),
    ("send_signal", {"signal": "a", "data": "x" * 3_000_000}, "PayloadTooLargeError", "the data of signal 'a'"),
]


@pytest.mark.parametrize(("method", "options", "kind", "said"), BAD_CALLS, ids=range(len(BAD_CALLS)))
async def test_a_call_that_cannot_be_right_fails_the_run_at_once_and_names_the_step(
    app: steporal.Client, workers: Workers, method: str, options: dict[str, Any], kind: str, said: str
) -> None:
    @app.workflow(id="mistaken")
    async def handler(ctx: Context[Any], step: Step) -> None:
        await getattr(step, method)("the step", **options)

    async with workers(app):
        with pytest.raises(RunFailedError, match="step 'the step'") as failed:
            await (await handler.start()).result()
    assert failed.value.name == kind
    assert said in failed.value.message


# --- mailboxes as workflows ----------------------------------------------------------------------------------------


async def test_mailboxes_say_why_they_ended_and_replay(app: steporal.Client, workers: Workers, name: str) -> None:
    handler = waiter(app)

    @app.workflow(id="takes")
    async def takes(ctx: Context[Any], step: Step) -> Any:
        await step.wait_for_signal("take", signal=ctx.input.data, timeout="1h", on_conflict="replace")

    async def handle(run_id: str) -> temporalio.client.WorkflowHandle[Any, Any]:
        return app.temporal.get_workflow_handle(mailbox_id(name), run_id=run_id, result_type=temporalio.common.RawValue)

    ends = {}
    async with workers(app):
        await handler.start(name)
        taken = await until_open(app, name)
        run = await takes.start(name)
        await until_open(app, name, run)
        await app.send_signal(name, 1)
        ends["received"] = taken.run_id

        run = await handler.start(name)
        ends["closed"] = (await until_open(app, name, run)).run_id
        await run.cancel()
        await until_closed(app, name)

        run = await handler.start(name)
        ends["gone"] = (await until_open(app, name, run)).run_id
        await run.temporal.terminate()
        await app.send_signal(name, 1)

        histories = []
        for why, run_id in ends.items():
            mailbox = await handle(run_id)
            assert from_raw(await mailbox.result())["why"] == why
            histories.append(await mailbox.fetch_history())
    replayer = Replayer(workflows=[], plugins=[app.plugin()])
    for history in histories:
        assert history.events[0].workflow_execution_started_event_attributes.workflow_type.name == MAILBOX
        await replayer.replay_workflow(history)
