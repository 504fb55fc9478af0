"""`steporal send`, `steporal signal` and `steporal start`."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from commands import Steporal
from waiting import until_waiting

import steporal
from steporal_workers.devserver import DevServer

WriteApp = Callable[[str], str]

GREET = """
    class Person(BaseModel):
        name: str

    @client.workflow(id=f"greet-{APP}", input_schema=Person, triggers=[event_trigger(f"{APP}.came")])
    async def greet(ctx, step):
        return await step.run("greet", lambda: f"hello {ctx.input.data.name}")

    @client.workflow(id=f"break-{APP}")
    async def broken(ctx, step):
        raise steporal.NonRetryableError("out of order")
    """


async def test_an_event_starts_the_workflows_that_it_triggers(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(GREET)
    await run("sync", "app")
    ended = await run("send", f"{app}.came", "--data", '{"name": "Ada"}', "--id", f"{app}-1")
    assert (ended.status, ended.out) == (0, f"{app}-1\n")
    assert f"→ {app}/greet-{app}/{app}-1" in ended.err


async def test_what_an_event_started_is_there_as_json(run: Steporal, server: DevServer, write_app: WriteApp) -> None:
    app = write_app(GREET)
    async with run.worker("app"):
        ended = await run("send", f"{app}.came", "--data", '{"name": "Ada"}', "--json")
        assert len(ended.data["ids"]) == 1
        [workflow_id] = ended.data["runs"]
        assert workflow_id == f"{app}/greet-{app}/{ended.data['ids'][0]}"
        assert await server.client.get_workflow_handle(workflow_id).result() == "hello Ada"


async def test_an_event_that_starts_nothing_says_so(run: Steporal) -> None:
    ended = await run("send", "nobody.cares")
    assert ended.status == 0
    assert "no workflow has a trigger for 'nobody.cares'" in ended.err


LISTEN = """
    @client.workflow(id=f"wait-{APP}")
    async def wait(ctx, step):
        paid = await step.ext.wait_for_event("paid", event=f"{APP}.paid", match="data.order", timeout="1h")
        return paid.data["by"]

    @client.workflow(id=f"stop-{APP}", ext=steporal.WorkflowExt(cancel_on=[steporal.CancelOn(f"{APP}.stop")]))
    async def stopped(ctx, step):
        await step.sleep("long", "1d")
    """


async def test_an_event_that_a_run_waits_for_names_the_run(
    run: Steporal, server: DevServer, write_app: WriteApp
) -> None:
    app = write_app(LISTEN)
    async with run.worker("app"):
        for kind in ("wait", "stop"):
            await run("start", f"{kind}-{app}", "--id", f"{app}-{kind}", "--input", '{"order": 1}')
            handle = server.client.get_workflow_handle(f"{app}-{kind}")
            await until_waiting(steporal.Run(server.client, handle, "", None))
        other = await run("send", f"{app}.paid", "--data", '{"order": 2}')
        paid = await run("send", f"{app}.paid", "--data", '{"order": 1, "by": "Ada"}')
        stop = await run("send", f"{app}.stop", "--json")
        assert await server.client.get_workflow_handle(f"{app}-wait").result() == "Ada"
    assert "no run waits for it" in other.err
    assert f"→ {app}-wait, which waits for '{app}.paid', receives it" in paid.err
    assert "no workflow" not in paid.err
    assert stop.data["woken"] == [f"{app}-stop"]
    assert stop.data["runs"] == []


async def test_an_event_that_a_run_waits_for_while_no_worker_is_up_says_so(
    run: Steporal, server: DevServer, write_app: WriteApp
) -> None:
    app = write_app(LISTEN)
    async with run.worker("app"):
        await run("start", f"wait-{app}", "--id", f"{app}-wait", "--input", '{"order": 1}')
        handle = server.client.get_workflow_handle(f"{app}-wait")
        await until_waiting(steporal.Run(server.client, handle, "", None))
    ended = await run("send", f"{app}.paid", "--data", '{"order": 1}')
    assert f"runs wait for '{app}.paid'; no worker is up to decide which of them receive it" in ended.err


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ('{"a": \n oops}', "Expecting value at line 2, column 2"),
        ('{"a": NaN}', "NaN is not a number in JSON"),
        ("{'a': 1}", "at line 1, column 2, near \"{'a': 1}\""),
        ("", "Expecting value at line 1, column 1"),
    ],
)
async def test_bad_json_is_answered_with_its_position(offline: Steporal, data: str, said: str) -> None:
    ended = await offline("send", "order.placed", "--data", data)
    assert ended.status == 2
    assert "--data is not valid JSON: " in ended.err
    assert said in ended.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["order.placed", "--data", "[1]"], "data is [1]; it takes a JSON object"),
        (["inngest/x"], "names that start with 'inngest/' are reserved"),
        (["order.placed", "--ts", "5"], "ts is 5; it takes an int of milliseconds since the epoch"),
        (["order.placed", "--ts", "tomorrow"], "--ts is 'tomorrow'; use milliseconds since the epoch, or a time"),
        (["order.placed", "--ts", "2030-01-01T00:00:00"], "use milliseconds since the epoch, or a time such as"),
    ],
)
async def test_an_event_that_cannot_be_sent_is_answered_with_the_field(
    run: Steporal, arguments: list[str], said: str
) -> None:
    ended = await run("send", *arguments)
    assert ended.status == 2
    assert said in ended.err


async def test_data_comes_from_standard_input_and_from_files(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(GREET)
    run.write("person.json", '{"name": "Grace"}')
    async with run.worker("app"):
        from_stdin = await run("start", f"greet-{app}", "--input", "-", "--wait", stdin='{"name": "Ada"}')
        from_file = await run("start", f"greet-{app}", "--input", "@person.json", "--wait")
    assert from_stdin.data == "hello Ada"
    assert from_file.data == "hello Grace"


async def test_a_file_that_does_not_exist_is_named(offline: Steporal) -> None:
    ended = await offline("start", "x", "--input", "@nowhere.json")
    assert ended.status == 2
    assert "nowhere.json cannot be read" in ended.err


async def test_starting_prints_the_runs_id(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(GREET)
    await run("sync", "app")
    ended = await run("start", f"greet-{app}", "--input", '{"name": "Ada"}', "--id", f"{app}-run")
    assert (ended.status, ended.out) == (0, f"{app}-run\n")


async def test_starting_a_run_twice_with_one_id_fails(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(GREET)
    await run("sync", "app")
    await run("start", f"greet-{app}", "--id", f"{app}-run")
    ended = await run("start", f"greet-{app}", "--id", f"{app}-run")
    assert ended.status == 1
    assert f"a run with the id '{app}-run' was started before" in ended.err


async def test_waiting_for_a_run_that_fails_exits_with_its_error(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(GREET)
    async with run.worker("app"):
        ended = await run("start", f"break-{app}", "--wait")
        as_json = await run("start", f"break-{app}", "--wait", "--json")
    assert ended.status == as_json.status == 1
    assert "failed: NonRetryableError: out of order" in ended.err
    assert as_json.data["error"]["name"] == "NonRetryableError"
    assert as_json.data["error"]["message"] == "out of order"


async def test_who_stops_waiting_is_told_that_the_run_goes_on(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(GREET)
    await run("sync", "app")
    async with run.running("start", f"greet-{app}", "--id", f"{app}-run", "--wait") as waiting:
        await waiting.until("waiting for its result")
        waiting.signal(signal.SIGINT)
        ended = await waiting.ended()
    assert ended.status == 130
    assert ended.err.endswith(f"{app}-run continues\n")


async def test_input_that_does_not_fit_fails_the_run(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(GREET)
    async with run.worker("app"):
        ended = await run("start", f"greet-{app}", "--input", '{"nam": "Ada"}', "--wait")
    assert ended.status == 1
    assert "name: Field required" in ended.err


async def test_with_the_client_input_that_does_not_fit_starts_nothing(
    run: Steporal, server: DevServer, write_app: WriteApp
) -> None:
    app = write_app(GREET)
    await run("sync", "app")
    wrong = await run("start", f"greet-{app}", "--input", '{"nam": "Ada"}', "--client", "app", "--id", f"{app}-wrong")
    assert wrong.status == 2
    assert f"the input of workflow 'greet-{app}' does not fit its input_schema: name: Field required" in wrong.err
    with pytest.raises(steporal.RunNotFoundError):
        await steporal.Client(app, temporal=server.client).get_run(f"{app}-wrong")
    right = await run("start", f"greet-{app}", "--input", '{"name": "Ada"}', "--client", "app", "--id", f"{app}-right")
    assert right.status == 0
    again = await run("runs", "rerun", f"{app}-right", "--input", "{}", "--client", "app")
    assert (again.status, "does not fit its input_schema" in again.err) == (2, True)


async def test_a_workflow_that_is_unknown_is_answered_with_near_ones(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(GREET)
    await run("sync", "app")
    ended = await run("start", f"gret-{app}")
    assert ended.status == 2
    assert f"no app in namespace 'default' has a workflow 'gret-{app}'; did you mean 'greet-{app}'" in ended.err


async def test_an_app_that_is_unknown_is_answered_with_near_ones(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(GREET)
    await run("sync", "app")
    ended = await run("start", f"greet-{app}", "--app", f"{app}x")
    assert ended.status == 2
    assert f"no app '{app}x' is registered in namespace 'default'; did you mean" in ended.err


async def test_a_workflow_that_several_apps_have_needs_the_app(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(GREET)
    twin = (run.folder / "app.py").read_text().replace(f'Client("{app}")', f'Client("{app}-twin")')
    run.write("twin.py", twin.replace(f"Client('{app}')", f"Client('{app}-twin')"))
    await run("sync", "app")
    await run("sync", "twin")
    ended = await run("start", f"greet-{app}")
    assert ended.status == 2
    assert f"several apps have a workflow 'greet-{app}'; choose one: --app {app} or --app {app}-twin" in ended.err
    chosen = await run("start", f"greet-{app}", "--app", f"{app}-twin", "--json")
    assert chosen.data["app"] == f"{app}-twin"


WAIT = """
    @client.workflow(id=f"wait-{APP}")
    async def waits(ctx, step):
        async def say():
            Path("waits").touch()

        waiting = asyncio.create_task(step.wait_for_signal("approval", signal=f"{APP}/approve", timeout="1h"))
        await step.sleep("until it waits", 300)
        await step.run("say", say)
        signal = await waiting
        return [signal.data, ctx.run_id]
    """


async def test_a_signal_resumes_the_run_that_waits_and_prints_its_id(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(WAIT)
    async with run.worker("app"), run.running("start", f"wait-{app}", "--wait", "--json") as started:
        await run.until_exists("waits")
        ended = await run("signal", f"{app}/approve", "--data", '{"by": "Ada"}')
        data, run_id = (await started.ended()).data["result"]
        again = await run("signal", f"{app}/approve", "--json")
    assert (ended.status, ended.out) == (0, f"{run_id}\n")
    assert data == {"by": "Ada"}
    assert (again.status, again.data) == (1, {"signal": f"{app}/approve", "run_id": None})


async def test_a_signal_that_nobody_waits_for_fails(run: Steporal) -> None:
    ended = await run("signal", "nobody/cares")
    assert (ended.status, ended.out) == (1, "")
    assert "no run in namespace 'default' waits for signal 'nobody/cares'" in ended.err


@pytest.mark.parametrize(
    ("name", "data", "said"), [("", "1", "cannot be empty"), ("a", "{a}", "--data is not valid JSON")]
)
async def test_a_signal_that_cannot_be_sent_is_a_mistake(run: Steporal, name: str, data: str, said: str) -> None:
    ended = await run("signal", name, "--data", data)
    assert ended.status == 2
    assert said in ended.err
