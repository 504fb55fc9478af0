"""What cannot be right is an error where it is defined, which names the workflow and the value."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

import steporal
from steporal import ConnectError, Context, DefinitionError, RetryPolicy, Step, cron_trigger, event_trigger
from steporal.values.type_names import shown


async def handler(ctx: Context[Any], step: Step) -> None:
    return None


def not_async(ctx: Context[Any], step: Step) -> None:
    return None


async def no_parameters() -> None:
    return None


async def one_parameter(ctx: Context[Any]) -> None:
    return None


async def three_parameters(ctx: Context[Any], step: Step, db: Any) -> None:
    return None


async def keyword_only(ctx: Context[Any], step: Step, *, db: Any) -> None:
    return None


async def swapped(step: Step, ctx: Context[Any]) -> None:
    return None


async def without_context(step: Any, _: Any) -> None:
    return None


async def context_last(s: Any, context: Any) -> None:
    return None


@pytest.fixture
def client() -> steporal.Client:
    return steporal.Client("shop")


def test_a_workflow_is_what_the_decorator_returns(client: steporal.Client) -> None:
    workflow = client.workflow(id="process-order", triggers=[event_trigger("order.placed")])(handler)
    assert (workflow.id, workflow.app, workflow.max_attempts) == ("process-order", "shop", 4)
    assert workflow.handler is handler
    assert client.get_workflow("process-order") is workflow
    assert client.workflows == [workflow]
    assert repr(workflow) == "<Workflow 'process-order' of 'shop'>"


@pytest.mark.parametrize("wrong", [swapped, without_context, context_last])
def test_a_handler_that_takes_the_step_first_is_refused(client: steporal.Client, wrong: Any) -> None:
    says = rf"workflow 'swaps', '{wrong.__name__}', takes .*; swap them: `async def {wrong.__name__}\("
    with pytest.raises(DefinitionError, match=says):
        client.workflow(id="swaps")(wrong)
    with pytest.raises(DefinitionError, match="workflow 'fails-failure'"):
        client.workflow(id="fails", ext=steporal.WorkflowExt(on_failure=wrong))(handler)


def test_a_handler_may_name_its_parameters_as_it_likes(client: steporal.Client) -> None:
    async def short(c: Any, s: Any) -> None: ...
    async def unused(_: Any, __: Any) -> None: ...
    async def longer(context: Any, steps: Any) -> None: ...
    async def no_step(ctx: Any, _step: Any) -> None: ...

    for named in (short, unused, longer, no_step):
        client.workflow(id=named.__name__)(named)
    assert len(client.workflows) == 4


@pytest.mark.parametrize("wrong", [not_async, no_parameters, one_parameter, three_parameters, keyword_only])
def test_a_handler_with_another_signature_is_refused(client: steporal.Client, wrong: Any) -> None:
    with pytest.raises(DefinitionError, match=rf"workflow 'process-order', '{wrong.__name__}'.*ctx.*step"):
        client.workflow(id="process-order")(wrong)
    assert client.workflows == []


@pytest.mark.parametrize("wrong", ["handler", None, 3])
def test_a_handler_that_is_no_function_is_refused(client: steporal.Client, wrong: Any) -> None:
    with pytest.raises(DefinitionError, match=f"'process-order' is {wrong!r}"):
        client.workflow(id="process-order")(wrong)


def test_a_handler_that_yields_is_refused(client: steporal.Client) -> None:
    async def numbers(ctx: Context[Any], step: Step) -> Any:
        yield 1

    with pytest.raises(DefinitionError, match=r"'process-order'.*numbers', yields, .*return its result instead"):
        client.workflow(id="process-order")(numbers)


def test_a_partial_is_refused(client: steporal.Client) -> None:
    async def more(number: int, ctx: Context[Any], step: Step) -> None: ...

    with pytest.raises(DefinitionError, match=r"'process-order' is functools.partial.*no name to be found by"):
        client.workflow(id="process-order")(functools.partial(more, 1))


def test_a_decorated_handler_is_fine(client: steporal.Client) -> None:
    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def wrapper(ctx: Context[Any], step: Step) -> Any:
            return await function(ctx, step)

        return wrapper

    client.workflow(id="logged")(logged(handler))


def test_two_workflows_with_one_id_are_refused(client: steporal.Client) -> None:
    client.workflow(id="process-order")(handler)
    with pytest.raises(
        DefinitionError, match=r"'shop' has a workflow 'process-order' already, test_definition.handler"
    ):
        client.workflow(id="process-order")(handler)


def test_two_clients_may_have_workflows_with_one_id(client: steporal.Client) -> None:
    client.workflow(id="process-order")(handler)
    steporal.Client("warehouse").workflow(id="process-order")(handler)


@pytest.mark.parametrize("wrong", ["", "  ", None, 3, "x" * 256, "é" * 128])
def test_an_id_is_a_text_of_up_to_255_bytes(client: steporal.Client, wrong: Any) -> None:
    with pytest.raises(DefinitionError, match="'shop'"):
        client.workflow(id=wrong)(handler)
    with pytest.raises(DefinitionError, match=re.escape(shown(wrong))):
        steporal.Client(wrong)


def test_ids_of_system_workflows_are_reserved(client: steporal.Client) -> None:
    with pytest.raises(DefinitionError, match=r"'steporal\.catalog'.*system"):
        client.workflow(id="steporal.catalog")(handler)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heartbeat_timeout": "500ms"}, "heartbeat_timeout is '500ms'; the minimum is 1s"),
        ({"heartbeat_timeout": 2.5}, "heartbeat_timeout is 2.5 (float)"),
        ({"code_timeout": "soon"}, "code_timeout is 'soon'"),
    ],
)
def test_a_timeout_that_cannot_be_right_is_refused(
    client: steporal.Client, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DefinitionError, match=re.escape(f"workflow 'a': {message}")):
        client.workflow(id="a", ext=steporal.WorkflowExt(**options))(handler)
    with pytest.raises(DefinitionError, match=re.escape(f"client 'b': {message}")):
        steporal.Client("b", **options)


def test_timeouts_of_a_workflow_are_the_clients_where_it_sets_none() -> None:
    client = steporal.Client("shop", heartbeat_timeout="1m", code_timeout="1h")
    workflow = client.workflow(id="a")(handler)
    own = client.workflow(id="b", ext=steporal.WorkflowExt(heartbeat_timeout="5s", code_timeout=0))(handler)
    assert (workflow.heartbeat_timeout, workflow.code_timeout) == (timedelta(minutes=1), timedelta(hours=1))
    assert (own.heartbeat_timeout, own.code_timeout) == (timedelta(seconds=5), timedelta(0))


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "3", None])
def test_max_attempts_is_at_least_one(client: steporal.Client, wrong: Any) -> None:
    if wrong is not None:
        with pytest.raises(DefinitionError, match=f"workflow 'a' is {wrong!r}"):
            client.workflow(id="a", max_attempts=wrong)(handler)
    with pytest.raises(DefinitionError, match=f"client 'b' is {wrong!r}"):
        steporal.Client("b", max_attempts=wrong)


def test_options_of_the_client_hold_for_its_workflows() -> None:
    retry = RetryPolicy(initial_interval=timedelta(seconds=5))
    client = steporal.Client("shop", max_attempts=7, retry=retry)
    workflow = client.workflow(id="a")(handler)
    own = client.workflow(id="b", max_attempts=2, retry=RetryPolicy())(handler)
    assert (workflow.max_attempts, workflow.retry) == (7, retry)
    assert (own.max_attempts, own.retry) == (2, RetryPolicy())


@pytest.mark.parametrize(
    ("retry", "says"),
    [
        (3, "steporal.RetryPolicy"),
        (timedelta(seconds=1), "steporal.RetryPolicy"),
        (RetryPolicy(maximum_attempts=3), "max_attempts=3"),
        (RetryPolicy(backoff_coefficient=0.5), "[Bb]ackoff coefficient"),
        (RetryPolicy(initial_interval=timedelta(seconds=-1)), "[Ii]nitial interval"),
    ],
)
def test_a_retry_policy_that_cannot_be_is_refused(client: steporal.Client, retry: Any, says: str) -> None:
    with pytest.raises(DefinitionError, match=rf"workflow 'a'.*{says}"):
        client.workflow(id="a", retry=retry)(handler)


@pytest.mark.parametrize("schema", [BaseModel, dict[str, int], int | None, list[Any]])
def test_an_input_schema_is_anything_that_pydantic_takes(client: steporal.Client, schema: Any) -> None:
    client.workflow(id="a", input_schema=schema)(handler)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("schema", [3, "Order", object(), open])
def test_an_input_schema_that_pydantic_does_not_take_is_refused(client: steporal.Client, schema: Any) -> None:
    with pytest.raises(DefinitionError, match="input_schema of workflow 'a'"):
        client.workflow(id="a", input_schema=schema)(handler)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("triggers", ["order.placed", ["order.placed"], event_trigger("order.placed"), 3, [None]])
def test_triggers_are_a_list_of_triggers(client: steporal.Client, triggers: Any) -> None:
    with pytest.raises(DefinitionError, match=r"triggers of workflow 'a'.*event_trigger\("):
        client.workflow(id="a", triggers=triggers)(handler)


def test_a_trigger_stands_once_in_a_list(client: steporal.Client) -> None:
    with pytest.raises(DefinitionError, match=r"workflow 'a'.*order\.placed.*twice"):
        client.workflow(id="a", triggers=[event_trigger("order.placed"), event_trigger("order.placed")])(handler)
    client.workflow(
        id="b", triggers=[event_trigger("order.placed"), event_trigger("order.placed", if_exp="event.data.vip")]
    )(handler)


def test_two_schedules_that_differ_in_jitter_alone_are_refused(client: steporal.Client) -> None:
    triggers = [cron_trigger("@daily", jitter="5m"), cron_trigger("@daily", timezone="UTC")]
    with pytest.raises(DefinitionError, match=r"'@daily \(UTC\)' twice, with different jitter"):
        client.workflow(id="a", triggers=triggers)(handler)


class Placed(BaseModel):
    order_id: str


class Tick(BaseModel):
    cron: str
    scheduledAt: datetime


class Checked(BaseModel):
    cron: str

    @field_validator("cron")
    @classmethod
    def check(cls, cron: str) -> str:
        raise ValueError("nothing is right")


@pytest.mark.parametrize("schema", [Placed, list[int], int, dict[str, int]])
def test_a_schedule_whose_data_never_fits_the_input_schema_is_refused(client: steporal.Client, schema: Any) -> None:
    triggers = [event_trigger("order.placed"), cron_trigger("@daily")]
    with pytest.raises(DefinitionError, match=r"'a' has cron_trigger\('@daily'\).*input_schema that it never fits: "):
        client.workflow(id="a", input_schema=schema, triggers=triggers)(handler)


@pytest.mark.parametrize("schema", [Tick, Placed | Tick, dict[str, str], Any, Checked, None])
def test_a_schedule_whose_data_may_fit_the_input_schema_is_fine(client: steporal.Client, schema: Any) -> None:
    client.workflow(id="a", input_schema=schema, triggers=[cron_trigger("@daily")])(handler)


def test_a_workflow_has_at_most_ten_triggers(client: steporal.Client) -> None:
    client.workflow(id="ten", triggers=[event_trigger(f"e{n}") for n in range(10)])(handler)
    with pytest.raises(DefinitionError, match="'eleven' has 11 triggers"):
        client.workflow(id="eleven", triggers=[event_trigger(f"e{n}") for n in range(11)])(handler)


@pytest.mark.parametrize("name", ["", None, 3, "inngest/function.invoked", "steporal/x", "a.*.b", "*"])
def test_an_event_name_that_cannot_be_is_refused(name: Any) -> None:
    with pytest.raises(DefinitionError, match=re.escape(repr(name))):
        event_trigger(name)


@pytest.mark.parametrize("expression", ["event.data.", "event.data.amount >", "1 +", ")", "", "nobody.data == 1"])
def test_an_expression_that_cannot_be_is_refused(expression: str) -> None:
    with pytest.raises(DefinitionError, match=r"event_trigger\('order\.placed'\)"):
        event_trigger("order.placed", if_exp=expression)


@pytest.mark.parametrize("schedule", ["", "* * * *", "61 * * * *", "every day", "@never", "0 9 * * FOO", None, 5])
def test_a_cron_schedule_that_cannot_be_is_refused(schedule: Any) -> None:
    with pytest.raises(DefinitionError, match=re.escape(repr(schedule))):
        cron_trigger(schedule)


def test_a_time_zone_that_is_none_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"'0 9 \* \* \*'.*'Europe/Bielefeld'"):
        cron_trigger("0 9 * * *", timezone="Europe/Bielefeld")


@pytest.mark.parametrize("jitter", [-1, "soon", 1.5, True])
def test_a_jitter_that_is_no_duration_is_refused(jitter: Any) -> None:
    with pytest.raises(DefinitionError, match=rf"'0 9 \* \* \*'.*{re.escape(repr(jitter))}"):
        cron_trigger("0 9 * * *", jitter=jitter)


def test_a_definition_error_is_a_value_error() -> None:
    assert issubclass(DefinitionError, ValueError)


def test_a_client_that_is_not_connected_says_so() -> None:
    with pytest.raises(ConnectError, match=r"'shop' is not connected.*client\.connect"):
        _ = steporal.Client("shop").temporal


def test_an_unknown_workflow_of_a_client_is_a_key_error(client: steporal.Client) -> None:
    with pytest.raises(KeyError, match="nothing"):
        client.get_workflow("nothing")


def test_the_task_queue_is_the_clients_id_unless_given() -> None:
    assert steporal.Client("shop").task_queue == "shop"
    assert steporal.Client("shop", task_queue="shop-eu").task_queue == "shop-eu"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda c: c.workflow(_handler),
            "@client.workflow on '_handler' has no arguments; pass an id for the workflow",
        ),
        (lambda c: c.workflow("order"), "takes only keyword arguments, but received 'order'; write id='order'"),
        (lambda c: c.workflow(), "@client.workflow has no id"),
        (
            lambda c: c.workflow(id="o", retries=3),
            "has no option 'retries'; write max_attempts=.*retries=3 is max_attempts=4",
        ),
        (lambda c: c.workflow(id="o", cancel_on=[]), r"write ext=WorkflowExt\(cancel_on="),
        (lambda c: c.workflow(id="o", trigger=None), r"write triggers=\[...\], a list"),
        (lambda c: c.workflow(id="o", max_atempts=3), "has no option 'max_atempts'; did you mean 'max_attempts'?"),
        (
            lambda c: c.workflow(id="o", colour=1),
            "its options are id, input_schema, triggers, max_attempts, retry, ext",
        ),
    ],
)
def test_a_wrong_call_of_workflow_says_what_to_write(call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(steporal.DefinitionError, match=message):
        call(steporal.Client("shop"))


async def _handler(ctx: Any, step: Any) -> None: ...
