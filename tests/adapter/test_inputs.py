"""What runs are given: an instance of the schema, or JSON that fits it; and what a captured context has of it."""

from __future__ import annotations

import asyncio
import math
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pydantic
import pytest
from apps import data_kinds as kinds
from pydantic import AfterValidator, BaseModel, Field, NameEmail, SecretStr
from recording import Workers
from typing_extensions import TypedDict
from waiting import until_received

import steporal
from steporal import Context, InvalidInputError, RunFailedError, Step, WorkflowExt, event_trigger
from steporal.wire.run_input import decode_input, encode_input

pytestmark = pytest.mark.outside_runs


class Login(BaseModel):
    user: str
    token: SecretStr


class Ticket(BaseModel):
    seat: int
    key: UUID = Field(default_factory=uuid4)
    bought: datetime = Field(default_factory=lambda: datetime.now(BERLIN.tzinfo))


class Opening(TypedDict):
    at: datetime


Later = Annotated[datetime, AfterValidator(lambda at: at.replace(year=at.year + 1))]

BERLIN = datetime(2026, 5, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))


def echo_of(app: steporal.Client, schema: Any, **ext: Any) -> steporal.Workflow[Any, Any]:
    """A workflow that returns its input, by way of a step that captured the context."""

    async def handler(ctx: Context[Any], step: Step) -> Any:
        if ext:
            await step.sleep("long", "2s")
        data = ctx.input.data
        differs = await step.run("compare", lambda: kinds.difference(ctx.input.data, data))
        return [data, differs]

    options = WorkflowExt(**ext) if ext else None
    return app.workflow(id="echo", input_schema=schema, ext=options)(handler)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (kinds.CamelOut, kinds.CamelOut(first_name="Ann")),
        (kinds.OldName, kinds.OldName.model_validate({"userName": "ann"})),
        (kinds.Masked, kinds.Masked(number="4111111111111111")),
        (kinds.Excluded, kinds.Excluded(text="a", internal="kept")),
        (kinds.Total, kinds.Total(net=1)),
        (kinds.Taxed, kinds.Taxed(amount=100)),
        (kinds.Split, kinds.Split.model_validate({"tags": "a,b"})),
        (kinds.Owner, kinds.Owner(pets=[kinds.Dog(name="R", breed="pug")])),
        (kinds.Animal, kinds.Dog(name="R", breed="pug")),
        (kinds.Patch, kinds.Patch(name="x")),
        (kinds.Animal, kinds.Animal.model_construct()),
        (kinds.Scaled, kinds.Scaled(2, 3)),
        (list[kinds.Masked], [kinds.Masked(number="4111111111111111")]),
        (dict[str, kinds.Masked], {"a": kinds.Masked(number="4111111111111111")}),
        (kinds.Masked | None, kinds.Masked(number="4111111111111111")),
        (float, math.nan),
        (datetime, BERLIN),
        (Opening, {"at": BERLIN}),
        (None, BERLIN),
        (None, {"orders": {kinds.Pair(1, kinds.Shade.DARK)}}),
        (kinds.Lenient, kinds.Lenient(n=1)),
        (None, [kinds.Lenient(n=1)]),
        (kinds.Careless, kinds.Careless(n=1)),
        (Annotated[tuple[float, datetime], "a note"], (1, BERLIN)),
        (
            Annotated[kinds.Pair, Field(description="what pydantic cannot write")],
            kinds.Pair(NameEmail("A", "a@example.com"), 1),
        ),
    ],
)
async def test_an_instance_of_the_schema_arrives_as_itself(
    app: steporal.Client, workers: Workers, schema: Any, value: Any
) -> None:
    workflow = echo_of(app, schema)
    async with workers(app):
        data, differs = await (await workflow.start(value)).result()
    assert kinds.difference(data, value) is None
    assert differs is None


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        (kinds.Taxed, {"amount": 100}, kinds.Taxed(amount=100)),
        (kinds.Owner, {"pets": [{"name": "a", "breed": "lost"}]}, kinds.Owner(pets=[kinds.Animal(name="a")])),
        (
            kinds.Owner,
            {"pets": [kinds.Dog(name="R", breed="pug")]},
            kinds.Owner(pets=[kinds.Dog(name="R", breed="pug")]),
        ),
        (Opening, {"at": "2026-01-01T00:00:00"}, {"at": datetime(2026, 1, 1)}),
        (Later, BERLIN, BERLIN.replace(year=2027)),
        (Later, "2026-01-01T00:00:00", datetime(2027, 1, 1)),
        (tuple[int, int], (1, 2), (1, 2)),
        (list[int], (1, 2), [1, 2]),
    ],
)
async def test_what_is_no_instance_of_the_schema_is_validated_once(
    app: steporal.Client, workers: Workers, schema: Any, value: Any, expected: Any
) -> None:
    workflow = echo_of(app, schema)
    async with workers(app):
        data, differs = await (await workflow.start(value)).result()
    assert kinds.difference(data, expected) is None
    assert differs is None


async def test_a_run_that_was_parked_still_has_its_input(app: steporal.Client, workers: Workers) -> None:
    workflow, value = echo_of(app, kinds.Masked, park_after="1s"), kinds.Masked(number="4111111111111111")
    async with workers(app):
        data, differs = await (await workflow.start(value)).result()
    assert (data, differs) == (value, None)


async def test_defaults_that_are_new_each_time_are_made_where_a_run_is_started(
    app: steporal.Client, workers: Workers
) -> None:
    @app.workflow(id="buy", input_schema=Ticket, ext=WorkflowExt(park_after="1s"))
    async def buy(ctx: Context[Ticket], step: Step) -> bool:
        kept = await step.run("keep", lambda: ctx.input.data)
        await step.sleep("night", "2s")
        return kept == ctx.input.data

    async with workers(app):
        assert await (await buy.start({"seat": 4})).result()


async def test_a_run_whose_schema_makes_another_input_each_time_fails_and_names_the_fields(
    app: steporal.Client, workers: Workers
) -> None:
    name = f"bought.{uuid4()}"

    @app.workflow(id="buy", input_schema=Ticket, triggers=[event_trigger(name)])
    async def buy(ctx: Context[Ticket], step: Step) -> int:
        return ctx.input.data.seat

    async with workers(app):
        sent = await app.send_event(
            [
                {"name": name, "data": {"seat": 4}},
                {"name": name, "data": {"seat": 5, "key": str(uuid4()), "bought": "2026-05-01T12:00:00Z"}},
            ]
        )
        unfit, fit = [await app.get_run(run.workflow_id, buy) for run in sent.runs]
        with pytest.raises(RunFailedError, match="'key', 'bought' with a new value each time") as failed:
            await unfit.result()
        assert failed.value.name == "InvalidInputError"
        assert await fit.result() == 5


async def test_a_type_that_makes_another_value_each_time_it_reads_a_result_or_a_signal_is_refused(
    app: steporal.Client, workers: Workers
) -> None:
    signal = f"ticket {uuid4()}"

    @app.workflow(id="buy", max_attempts=1)
    async def buy(ctx: Context[Any], step: Step) -> list[str]:
        errors = []
        try:
            await step.run("buy", lambda: {"seat": 4, "bought": "2026-05-01"}, output_type=Ticket)
        except steporal.StepError as err:
            errors.append(err.message)
        try:
            await step.wait_for_signal("sold", signal=signal, schema=Ticket, timeout="1h")
        except InvalidInputError as err:
            errors.append(str(err))
        return errors

    async with workers(app):
        run = await buy.start()
        await until_received(app, signal, {"seat": 4, "bought": "2026-05-01"})
        result, received = await run.result()
    assert "fills in 'key' with a new value each time it reads the result" in result
    assert f"fills in 'key' with a new value each time it reads signal {signal!r}" in received


async def test_an_invoked_run_is_given_and_returns_values_as_they_are(app: steporal.Client, workers: Workers) -> None:
    child = echo_of(app, kinds.Masked)

    @app.workflow(id="parent")
    async def parent(ctx: Context[Any], step: Step) -> Any:
        data, _ = await step.invoke_workflow("child", workflow=child, data=kinds.Masked(number="4111111111111111"))
        return [type(data).__name__, data.number]

    async with workers(app):
        assert await (await parent.start()).result() == ["Masked", "4111111111111111"]


async def test_what_the_body_changes_in_its_input_is_seen_by_steps(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="changes", input_schema=kinds.Tree)
    async def changes(ctx: Context[kinds.Tree], step: Step) -> Any:
        ctx.input.data.value = "changed"
        return await step.run("look", lambda: ctx.input.data.value)

    async with workers(app):
        assert await (await changes.start(kinds.Tree(value="first"))).result() == "changed"


async def test_other_programs_see_the_input_as_pydantic_writes_it(app: steporal.Client, workers: Workers) -> None:
    workflow = echo_of(app, kinds.CamelOut)
    async with workers(app):
        run = await workflow.start(kinds.CamelOut(first_name="Ann"))
        await run.result()
        history = await run.temporal.fetch_history()
    arguments = history.events[0].workflow_execution_started_event_attributes.input.payloads
    assert arguments[0].data == b'{"firstName":"Ann"}'


async def test_a_class_in_a_function_is_a_schema_where_its_json_says_all(
    app: steporal.Client, workers: Workers
) -> None:
    class Local(BaseModel):
        n: int

    class Hiding(BaseModel):
        n: int
        hidden: int = pydantic.Field(default=1, exclude=True)

    async def handler(ctx: Context[Any], step: Step) -> int:
        n: int = ctx.input.data.n
        return n

    workflow = app.workflow(id="local", input_schema=Local)(handler)
    hiding = app.workflow(id="hiding", input_schema=Hiding)(handler)
    async with workers(app):
        assert await (await workflow.start(Local(n=5))).result() == 5
        assert await (await hiding.start(Hiding(n=5))).result() == 5
        with pytest.raises(InvalidInputError, match="Hiding cannot be sent, as it is defined inside a function"):
            await hiding.start(Hiding(n=5, hidden=2))


@pytest.mark.parametrize(
    ("schema", "value", "says"),
    [
        (Login, Login(user="a", token=SecretStr("hunter2")), "SecretStr at token cannot be sent"),
        (Login, {"user": "a", "token": "hunter2"}, "SecretStr at token cannot be sent"),
        (None, {"token": SecretStr("hunter2")}, "SecretStr at token cannot be sent"),
        (None, {"rows": [object()]}, r"object at rows\[0\] cannot be sent"),
        (kinds.Private, kinds.Private.model_construct(n=object()), "object at n cannot be sent"),
        (kinds.Total, kinds.Animal(name="a"), "instance of Total"),
        (datetime, [BERLIN], "does not fit its input_schema"),
    ],
)
async def test_an_input_that_cannot_be_sent_is_refused_before_anything_starts(
    app: steporal.Client, schema: Any, value: Any, says: str
) -> None:
    workflow = echo_of(app, schema)
    with pytest.raises(InvalidInputError, match=rf"the input of workflow 'echo' .*{says}") as refused:
        await workflow.start(value)
    assert "hunter2" not in str(refused.value)


async def test_what_a_workflow_of_another_app_is_given_is_plain_json(
    app: steporal.Client, other_app: steporal.Client, workers: Workers
) -> None:
    @other_app.workflow(id="other")
    async def other(ctx: Context[Any], step: Step) -> Any:
        return ctx.input.data

    there = steporal.reference(other_app.id, "other")
    async with workers(app), workers(other_app, is_listed=True):
        run = await app.start_workflow(there, kinds.CamelOut(first_name="Ann"))
        assert await run.result() == {"firstName": "Ann"}
        with pytest.raises(InvalidInputError, match="NaN"):
            await app.start_workflow(there, {"n": math.nan})
        with pytest.raises(InvalidInputError, match="shows as asterisks"):
            await app.start_workflow(there, {"token": SecretStr("hunter2")})


def test_a_class_that_this_worker_does_not_have_is_read_by_the_schema() -> None:
    sent = encode_input("w", kinds.Masked, kinds.Masked(number="4111111111111111"))
    assert sent.data == {"number": "****1111"}
    moved = {**sent.exact, "type": "apps.data_kinds:Gone"}
    assert decode_input("w", kinds.Masked, sent.data, moved) == kinds.Masked(number="4111111111111111")
    with pytest.raises(InvalidInputError, match="has no class 'Gone'"):
        decode_input("w", None, sent.data, moved, {"apps"})


async def test_two_runs_of_one_instance_are_independent(app: steporal.Client, workers: Workers) -> None:
    workflow, value = echo_of(app, kinds.Tree), kinds.Tree(value=[1])
    async with workers(app):
        first, second = await asyncio.gather(*[(await workflow.start(value)).result() for _ in range(2)])
    assert first == second == [value, None]
