"""`steporal doctor`: whether an installation is right."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from typing import Any, cast
from uuid import uuid4

import pytest
import temporalio.client
from commands import Steporal
from temporalio.api.workflowservice.v1 import DescribeNamespaceResponse
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker, WorkerDeploymentConfig

import steporal
from steporal.operations.doctor import app as app_checks
from steporal.operations.doctor import server as checks
from steporal.operations.doctor.app import backlog, workers
from steporal.operations.doctor.checks import verdict_of
from steporal.operations.doctor.verdicts import Subject, Verdict
from steporal_workers.devserver import DevServer
from steporal_workers.doctor.gateway import GatewaySettings, gateway_keys

WriteApp = Callable[[str], str]

KEYS = {"STEPORAL_EVENT_KEYS": "an-event-key-of-24-chars", "STEPORAL_API_KEYS": "an-api-key-of-22-chars"}

APP = """
    @client.workflow(id=f"echo-{APP}", triggers=[event_trigger(f"{APP}.said")])
    async def echo(ctx, step):
        return 1
    """
CRON = """
    @client.workflow(id=f"daily-{APP}", triggers=[cron_trigger("0 9 * * *")])
    async def daily(ctx, step):
        return 1
    """


async def found(steporal: Steporal, *arguments: str, **variables: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit status, and what each check says."""
    ended = await steporal("doctor", "app", "--json", *arguments, **variables)
    return ended.status, {row["check"]: row for row in ended.data}


async def test_of_an_installation_that_is_right_all_is_good(
    run: Steporal, server: DevServer, write_app: WriteApp
) -> None:
    write_app(APP + CRON)
    async with run.worker("app"):
        status, rows = await found(run, **KEYS)
        table = await run("doctor", "app", **KEYS)
    assert status == 0
    assert {row["state"] for name, row in rows.items() if name != "search attributes"} == {"good"}
    assert rows["server"]["said"].endswith(f" at {server.address}")
    assert rows["catalog"]["said"] == "2 workflows are registered as in the code"
    assert rows["clock"]["said"] == "within 2 s of the server's"
    assert (table.status, table.out.count("good")) == (0, sum(row["state"] == "good" for row in rows.values()))


async def test_without_a_server_it_says_only_that(offline: Steporal) -> None:
    offline.write("app.py", "import steporal\nclient = steporal.Client('shop')\n")
    status, rows = await found(offline)
    assert (status, list(rows)) == (1, ["server"])
    assert "no Temporal server answers at '127.0.0.1:1'" in rows["server"]["said"]
    assert "--address HOST:PORT" in rows["server"]["remedy"]


async def test_without_a_namespace_it_says_only_that(run: Steporal, write_app: WriteApp) -> None:
    write_app(APP)
    status, rows = await found(run, "--namespace", "nowhere")
    assert (status, list(rows)) == (1, ["namespace"])
    assert rows["namespace"]["said"] == "there is no namespace 'nowhere'"


async def test_without_workers_nothing_is_polled_or_registered(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(APP + CRON)
    status, rows = await found(run)
    assert status == 1
    assert rows["workers"]["state"] == rows["catalog"]["state"] == rows["schedules"]["state"] == "bad"
    assert "no worker polls the task queue" in rows["workers"]["said"]
    assert repr(app) in rows["workers"]["said"]
    assert rows["workers"]["remedy"] == "start one: steporal worker app"
    assert rows["catalog"]["said"] == f"app {app!r} is not registered: no event starts its workflows"
    assert "`steporal sync app`" in rows["catalog"]["remedy"]
    assert rows["gateway keys"]["state"] == "warning"


async def test_a_catalog_that_is_not_as_the_code_is_told_by_names(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(APP + CRON)
    await run("sync", "app")
    write_app(APP.replace(".said", ".shouted"))
    status, rows = await found(run)
    assert rows["catalog"]["state"] == "warning"
    assert rows["catalog"]["said"] == (
        f"registered, but not in the code: 'daily-{app}'; registered with other triggers: 'echo-{app}'"
    )
    write_app(APP + APP.replace("echo", "more"))
    _, rows = await found(run)
    assert (rows["catalog"]["state"], rows["catalog"]["said"]) == ("bad", f"not registered: 'more-{app}'")
    assert status == 1  # of the workers


async def test_a_paused_schedule_is_told(run: Steporal, server: DevServer, write_app: WriteApp) -> None:
    app = write_app(CRON)
    await run("sync", "app")
    [schedule] = [found.id async for found in await server.client.list_schedules() if f"/{app}/" in found.id]
    await server.client.get_schedule_handle(schedule).pause()
    _, rows = await found(run)
    assert (rows["schedules"]["state"], rows["schedules"]["said"]) == ("warning", f"paused: {schedule!r}")
    assert f"--schedule-id {schedule!r}" in rows["schedules"]["remedy"]


# --- single checks -------------------------------------------------------------------------------------------------


@pytest.fixture
def subject(app: steporal.Client, temporal: temporalio.client.Client) -> Callable[..., Subject]:
    def make(**given: Any) -> Subject:
        namespace = {"namespace": DescribeNamespaceResponse()}
        return Subject(target="app", client=app, temporal=temporal, **(namespace | given))

    return make


def described(
    retention: timedelta = timedelta(days=3), blob: int = 2**21, memo: int = 2**21
) -> DescribeNamespaceResponse:
    response = DescribeNamespaceResponse()
    response.config.workflow_execution_retention_ttl.FromTimedelta(retention)
    response.namespace_info.limits.blob_size_limit_error = blob
    response.namespace_info.limits.memo_size_limit_error = memo
    return response


async def test_workers_of_which_none_takes_new_runs_are_told(
    subject: Callable[..., Subject], app: steporal.Client, temporal: temporalio.client.Client
) -> None:
    @app.workflow(id=f"nothing {app.id}")
    async def nothing(ctx: steporal.Context[Any], step: steporal.Step) -> None: ...

    version = WorkerDeploymentVersion(f"shop-{uuid4().hex}", "v1")
    config = WorkerDeploymentConfig(
        version, use_worker_versioning=True, default_versioning_behavior=VersioningBehavior.PINNED
    )
    async with Worker(temporal, task_queue=app.task_queue, plugins=[app.plugin()], deployment_config=config):
        async with asyncio.timeout(20):
            while "no worker polls" in (verdict := await workers(subject())).message:
                await asyncio.sleep(0.1)
    assert verdict.state == "bad"
    assert verdict.message == "no worker takes new runs: workers of 'v1' poll, and no version is current"
    assert f"--deployment-name {version.deployment_name} --build-id v1" in verdict.remedy


async def test_tasks_that_wait_for_workers_are_told(
    subject: Callable[..., Subject],
    app: steporal.Client,
    temporal: temporalio.client.Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert (await backlog(subject())).state == "good"
    handle = await temporal.start_workflow("waits", id=f"waits {app.id}", task_queue=app.task_queue)
    monkeypatch.setattr(app_checks, "_TOO_LONG", timedelta(0))
    async with asyncio.timeout(20):
        while (verdict := await backlog(subject())).state == "good":
            await asyncio.sleep(0.1)
    await handle.terminate()
    assert verdict.message.startswith("waiting for workers: 1 bodies, the first for ")


async def test_retention_is_how_long_an_event_id_is_known(subject: Callable[..., Subject]) -> None:
    verdict = await checks.retention(subject(namespace=described(timedelta(hours=12))))
    assert verdict.state == "warning"
    assert "kept for 12h" in verdict.message
    assert "in Inngest it is 1d" in verdict.message
    assert (await checks.retention(subject(namespace=described()))).state == "good"


async def test_limits_that_are_less_than_what_is_let_through_are_told(subject: Callable[..., Subject]) -> None:
    assert (await checks.payload_limits(subject(namespace=described()))).state == "good"
    small = await checks.payload_limits(subject(namespace=described(blob=1000)))
    assert small.state == "warning"
    assert "values over 1,000 bytes fail runs" in small.message
    assert "is 1,000 bytes" in (await checks.payload_limits(subject(namespace=described(memo=1000)))).message
    assert "does not report its limits" in (await checks.payload_limits(subject())).message


@pytest.mark.parametrize(
    ("ahead", "state", "said"),
    [
        (timedelta(seconds=10), "warning", " ahead"),
        (timedelta(seconds=-10), "warning", " behind"),
        (timedelta(minutes=10), "bad", "this machine's clock is 10m"),
    ],
)
async def test_a_clock_that_is_wrong_is_told(
    subject: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch, ahead: timedelta, state: str, said: str
) -> None:
    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + ahead

    monkeypatch.setattr(checks, "datetime", Wrong)
    verdict = await checks.clock(subject())
    assert verdict.state == state
    assert said in verdict.message


async def test_calls_that_are_forbidden_or_not_there_are_told(
    subject: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = {
        "create schedules": RPCError("read-only key", RPCStatusCode.PERMISSION_DENIED, b""),
        "start workflows by updates": RPCError("not here", RPCStatusCode.UNIMPLEMENTED, b""),
    }

    async def refusal(subject: Subject, name: str) -> RPCError | None:
        return refusals.get(name)

    monkeypatch.setattr(checks, "_refusal", refusal)
    forbidden, old = await checks.permissions(subject()), await checks.server(subject())
    assert (forbidden.state, forbidden.message) == ("bad", "not allowed: create schedules (read-only key)")
    assert old.state == "bad"
    assert old.message.endswith("does not support: start workflows by updates")


LONG = "x" * 16


@pytest.mark.parametrize(
    ("given", "state", "said"),
    [
        ({"event_keys": [LONG], "api_keys": [LONG + "y"]}, "good", "1 event keys, 1 API keys"),
        ({}, "warning", "a gateway does not start"),
        (
            {"event_keys": [LONG, "short"]},
            "bad",
            "event_keys have a key of fewer than 16 characters: no gateway starts",
        ),
        ({"event_keys": [LONG], "api_keys": [LONG]}, "warning", "an event key is also an API key"),
        ({"event_keys": [LONG], "insecure_any_key": True}, "warning", "open to everybody"),
    ],
)
async def test_keys_that_can_be_guessed_are_told(given: dict[str, Any], state: str, said: str) -> None:
    nothing = {"event_keys": (), "api_keys": (), "insecure_any_key": False}
    verdict = await gateway_keys(GatewaySettings(**(nothing | given)))
    assert verdict.state == state
    assert said in verdict.message
    assert LONG not in verdict.message


async def test_what_cannot_be_read_in_the_namespace_ends_one_check_and_not_the_command() -> None:
    async def check(subject: Subject) -> Verdict:
        raise KeyError("boxes")

    verdict = await verdict_of(check, cast(Subject, None))
    assert (verdict.state, "KeyError: 'boxes'" in verdict.message) == ("bad", True)
