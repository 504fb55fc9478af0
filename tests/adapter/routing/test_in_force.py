"""Which of an app's lists is in force, and how it stays so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import temporalio.client
from temporalio.api.deployment.v1 import WorkerDeploymentVersion as Version
from temporalio.api.workflowservice.v1 import (
    DescribeWorkerDeploymentVersionRequest,
    SetWorkerDeploymentCurrentVersionRequest,
)
from temporalio.client import WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.service import RPCError
from temporalio.worker import Worker, WorkerDeploymentConfig

import steporal
from steporal import Context, Step, event_trigger
from steporal.errors import CatalogFullError, NotInForceError
from steporal.events import new_ulid
from steporal.routing.catalog import confirming, registering, shards
from steporal.routing.catalog.arbiter import FORM, Claim, Standing, arbiter_id
from steporal.routing.catalog.defined import list_of
from steporal.routing.catalog.listing import AppList
from steporal.routing.catalog.reading import Catalog
from steporal.routing.catalog.registering import Registrar, Source, revision_of
from steporal.routing.catalog.shard_store import Shards
from steporal.routing.catalog.shards import apps_in, parts_of, shard_id, shard_of_event
from steporal.values.converter import to_raw
from steporal.wire.names import ARBITER, LIST_KEY, STANDING_KEY, VERSION_KEY
from steporal.worker.plugin import SteporalPlugin
from steporal.worker.serving import registry_worker, system_worker

pytestmark = pytest.mark.outside_runs


@pytest.fixture
def name() -> str:
    """The id of an app, and the name of the event that starts its workflow."""
    return f"app-{new_ulid()}"


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers confirm their list all the time, instead of every minute."""
    monkeypatch.setattr(confirming, "CONFIRM_SECONDS", 0.5)
    monkeypatch.setattr(confirming, "SOON_SECONDS", 0.5)


def revision(name: str, number: int, *, workflow: str | None = None) -> steporal.Client:
    """An app whose event starts a workflow that is named by the revision."""
    client = steporal.Client(name, revision=number)

    @client.workflow(id=workflow or f"r{number}", triggers=[event_trigger(name)])
    async def handler(ctx: Context[Any], step: Step) -> None: ...

    return client


@asynccontextmanager
async def serving(
    client: steporal.Client, temporal: temporalio.client.Client, **options: Any
) -> AsyncIterator[SteporalPlugin]:
    """A worker with a connection of its own, as a process has it; once it knows whether its list is in force."""
    config = temporal.service_client.config
    connection = await temporalio.client.Client.connect(config.target_host, namespace=temporal.namespace)
    plugin = client.plugin()
    worker = Worker(connection, task_queue=client.task_queue, plugins=[plugin], **options)
    async with worker:
        await asyncio.wait_for(plugin.registered.wait(), 60)
        yield plugin


async def starts(temporal: temporalio.client.Client, name: str) -> list[str]:
    """The workflows that the event starts now."""
    return [match.workflow for match in (await Catalog(temporal).read([name])).matches({"name": name, "data": {}})]


async def until_starts(temporal: temporalio.client.Client, name: str, *workflows: str) -> None:
    async with asyncio.timeout(60):
        while await starts(temporal, name) != list(workflows):
            await asyncio.sleep(0.05)


async def until_in_force(plugin: SteporalPlugin, is_in_force: bool = True) -> None:
    async with asyncio.timeout(60):
        while (not plugin.why_not_in_force) != is_in_force:
            await asyncio.sleep(0.05)


# --- revisions -----------------------------------------------------------------------------------------------------


async def test_an_old_revision_that_starts_later_takes_nothing_over(
    temporal: temporalio.client.Client, name: str, often: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(revision(name, 2), temporal) as new, serving(revision(name, 1), temporal) as old:
        assert new.why_not_in_force == ""
        assert old.why_not_in_force == ("a list of revision 2 is in force, served by other workers; this is revision 1")
        assert await starts(temporal, name) == ["r2"]
        told = [each.message for each in caplog.records if "not in force" in each.message]
        assert len(told) == 1
        assert told[0].startswith(f"app {name!r}: the triggers and schedules of this worker are not in force: a list")


async def test_a_new_revision_takes_over_and_the_old_one_shows_it(
    temporal: temporalio.client.Client, name: str, often: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(revision(name, 1), temporal) as old, serving(revision(name, 2), temporal) as new:
        assert new.why_not_in_force == ""
        assert await starts(temporal, name) == ["r2"]
        await until_in_force(old, False)
    assert f"app {name!r}: workflow 'r1' is no longer registered" in caplog.text


async def test_a_rollback_heals_once_no_worker_of_the_new_revision_polls(
    temporal: temporalio.client.Client, name: str, often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(revision(name, 2), temporal):
        pass
    async with serving(revision(name, 1), temporal) as old:
        assert "revision 2 is in force" in old.why_not_in_force, "Temporal lists a poller for a while"
        monkeypatch.setattr(registering, "GONE_AFTER", timedelta(0))
        await until_starts(temporal, name, "r1")
        await until_in_force(old)


async def test_the_same_revision_with_another_list_takes_over_by_starting_later(
    temporal: temporalio.client.Client, name: str
) -> None:
    first, second = revision(name, 1), revision(name, 1, workflow="another")
    async with serving(first, temporal), serving(second, temporal) as later:
        assert later.why_not_in_force == ""
        assert await starts(temporal, name) == ["another"]


async def test_sync_of_an_old_revision_is_refused_unless_it_takes_over(
    temporal: temporalio.client.Client, name: str, often: None
) -> None:
    async with serving(revision(name, 5), temporal) as new:
        old = revision(name, 3)
        old.temporal = temporal
        with pytest.raises(NotInForceError, match=r"was not registered: a list of revision 5 is in force"):
            await old.sync()
        assert await starts(temporal, name) == ["r5"]
        await old.sync(take_over=True)
        assert await starts(temporal, name) == ["r3"]
        await until_in_force(new, False)
        assert await starts(temporal, name) == ["r3"], "the list that was taken over does not come back"
        async with serving(revision(name, 6), temporal) as newer:
            assert newer.why_not_in_force == ""
            assert await starts(temporal, name) == ["r6"]


def test_the_revision_is_when_the_newest_module_was_changed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = revision(name, 7)
    assert revision_of(client.app) == 7
    client.revision = None
    assert revision_of(client.app) >= int(Path(__file__).stat().st_mtime)
    monkeypatch.setenv("STEPORAL_REVISION", "1042")
    assert revision_of(client.app) == 1042
    monkeypatch.setenv("STEPORAL_REVISION", "v1")
    with pytest.raises(steporal.DefinitionError, match=r"STEPORAL_REVISION is 'v1'; it takes a whole number"):
        revision_of(client.app)


# --- Worker Versioning ---------------------------------------------------------------------------------------------


async def make_current(temporal: temporalio.client.Client, name: str, build: str) -> None:
    service, namespace = temporal.workflow_service, temporal.namespace
    at = Version(deployment_name=name, build_id=build)
    while True:  # until it has polled
        try:
            await service.describe_worker_deployment_version(
                DescribeWorkerDeploymentVersionRequest(namespace=namespace, deployment_version=at)
            )
            await service.set_worker_deployment_current_version(
                SetWorkerDeploymentCurrentVersionRequest(
                    namespace=namespace, deployment_name=name, build_id=build, ignore_missing_task_queues=True
                )
            )
            return
        except RPCError:
            await asyncio.sleep(0.1)


def build(name: str, id: str) -> WorkerDeploymentConfig:
    return WorkerDeploymentConfig(WorkerDeploymentVersion(name, id), True, VersioningBehavior.PINNED)


async def test_a_canary_takes_over_when_it_becomes_the_current_version(
    temporal: temporalio.client.Client, name: str, often: None
) -> None:
    async with serving(revision(name, 1), temporal, deployment_config=build(name, "b1")) as old:
        await make_current(temporal, name, "b1")
        async with serving(revision(name, 2), temporal, deployment_config=build(name, "b2")) as canary:
            assert canary.why_not_in_force == f"version '{name}.b2' is not the current version, which is '{name}.b1'"
            assert await starts(temporal, name) == ["r1"]
            await make_current(temporal, name, "b2")
            await until_starts(temporal, name, "r2")
            await until_in_force(old, False)
            await make_current(temporal, name, "b1")  # a rollback
            await until_starts(temporal, name, "r1")
            await until_in_force(canary, False)


async def test_a_worker_without_versions_does_not_take_over_from_the_current_version(
    temporal: temporalio.client.Client, name: str
) -> None:
    async with serving(revision(name, 1), temporal, deployment_config=build(name, "b1")):
        await make_current(temporal, name, "b1")
        async with serving(revision(name, 2), temporal) as other:
            # The first worker has registered before there was a current version.
            assert "in force, because that is the current version" in other.why_not_in_force
            assert await starts(temporal, name) == ["r1"]


# --- what is lost comes back ---------------------------------------------------------------------------------------


async def test_a_shard_that_is_terminated_is_rebuilt(
    temporal: temporalio.client.Client, name: str, often: None
) -> None:
    async with serving(revision(name, 1), temporal):
        for number in parts_of(list_of(revision(name, 1).app)):
            await temporal.get_workflow_handle(shard_id(number)).terminate()
        await until_starts(temporal, name, "r1")


async def test_a_part_that_is_removed_or_overwritten_is_placed_again(
    temporal: temporalio.client.Client, name: str, often: None
) -> None:
    async with serving(revision(name, 1), temporal):
        store, number = Shards(temporal), shard_of_event(name)
        await store.place(number, name, round(time.time() * 1000) + 1000, None)
        await until_starts(temporal, name, "r1")
        field = dict(apps_in(await store.read(number)))[name]
        field.data = b"{}"
        await store.place(number, name, shards.generation_of(field), field)
        await until_starts(temporal, name, "r1")


async def test_a_generation_that_somebody_has_made_up_keeps_no_list_out(
    temporal: temporalio.client.Client, name: str, often: None
) -> None:
    number, field = shard_of_event(name), to_raw({"task_queue": "q"}).payload
    with pytest.raises(WorkflowUpdateFailedError):
        await Shards(temporal).place(number, name, 2**60, field)
    forged = {"generation": 2**60, "digest": "d", "revision": 2**60, "started": 0}
    await temporal.start_workflow(
        ARBITER, id=arbiter_id(name), task_queue=arbiter_id(name), memo={LIST_KEY: {}, STANDING_KEY: forged}
    )
    async with serving(revision(name, 1), temporal) as plugin:
        await until_in_force(plugin)
        await until_starts(temporal, name, "r1")


async def test_what_a_later_version_of_steporal_has_registered_is_left_alone(
    temporal: temporalio.client.Client, name: str
) -> None:
    await temporal.start_workflow(
        ARBITER,
        id=arbiter_id(name),
        task_queue=arbiter_id(name),
        memo={STANDING_KEY: {"of": "later"}, VERSION_KEY: FORM + 1},
    )
    async with serving(revision(name, 1), temporal) as plugin:
        assert plugin.why_not_in_force == "a later version of Steporal has registered the app"


async def test_an_apps_workflow_that_is_terminated_is_started_again(
    temporal: temporalio.client.Client, name: str, often: None
) -> None:
    async with serving(revision(name, 1), temporal):
        handle = temporal.get_workflow_handle(arbiter_id(name))
        await handle.terminate()
        async with asyncio.timeout(60):
            while (await handle.describe()).status != WorkflowExecutionStatus.RUNNING:
                await asyncio.sleep(0.05)
            while await Catalog(temporal).read_app(name) is None:
                await asyncio.sleep(0.05)
        assert await starts(temporal, name) == ["r1"]


async def test_of_several_that_register_at_once_all_know_which_is_in_force(
    temporal: temporalio.client.Client, name: str, often: None
) -> None:
    async with AsyncExitStack() as stack:
        numbers = (1, 3, 2)
        entering = (stack.enter_async_context(serving(revision(name, number), temporal)) for number in numbers)
        first, third, second = await asyncio.gather(*entering)
        await asyncio.gather(until_in_force(third), until_in_force(second, False), until_in_force(first, False))
        assert await starts(temporal, name) == ["r3"]


# --- what it costs -------------------------------------------------------------------------------------------------


async def history_lengths(temporal: temporalio.client.Client, client: steporal.Client) -> dict[str, int]:
    ids = [arbiter_id(client.id), *map(shard_id, parts_of(list_of(client.app)))]
    return {id: (await temporal.get_workflow_handle(id).describe()).history_length for id in ids}


async def test_a_worker_whose_list_has_not_changed_only_reads(
    temporal: temporalio.client.Client, name: str, often: None
) -> None:
    client = revision(name, 1)
    async with serving(client, temporal):
        pass
    before = await history_lengths(temporal, client)
    async with serving(client, temporal) as again:
        assert again.why_not_in_force == ""
        await asyncio.sleep(1.5)  # several confirmations
        assert await history_lengths(temporal, client) == before


async def test_an_app_without_workflows_is_removed_everywhere(temporal: temporalio.client.Client, name: str) -> None:
    client = revision(name, 1)
    async with serving(client, temporal):
        pass
    await steporal.Client(name, temporal=temporal).sync()
    for number in parts_of(list_of(client.app)):
        assert name not in dict(apps_in(await Shards(temporal).read(number)))
    async with asyncio.timeout(60):
        handle = temporal.get_workflow_handle(arbiter_id(name))
        while (await handle.describe()).status != WorkflowExecutionStatus.COMPLETED:
            await asyncio.sleep(0.05)
    assert await Catalog(temporal).read_app(name) is None
    async with serving(client, temporal):
        assert await starts(temporal, name) == ["r1"], "it can come back"


async def test_a_worker_that_the_catalog_refuses_runs_on_and_says_so(
    temporal: temporalio.client.Client, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(revision(name, 1), temporal):
        monkeypatch.setattr(shards, "MAX_SHARD_BYTES", 10)
        client = revision(name, 2)
        async with system_worker(temporal), registry_worker(temporal, name, "r2"):
            client.temporal = temporal
            with pytest.raises(CatalogFullError, match=f"app '{name}' does not fit into the catalog"):
                await Registrar(client.app, client.temporal, Source.of(client.app)).confirm()
        assert await starts(temporal, name) == ["r1"]
        config = temporal.service_client.config
        connection = await temporalio.client.Client.connect(config.target_host)
        plugin = client.plugin()
        async with Worker(connection, task_queue=name, plugins=[plugin]), asyncio.timeout(60):
            while "does not fit into the catalog" not in plugin.why_not_registered:
                await asyncio.sleep(0.05)
            assert not plugin.registered.is_set()
        assert caplog.text.count(f"app {name!r} does not fit into the catalog") >= 1


# --- the decision --------------------------------------------------------------------------------------------------


def claim(**given: Any) -> Claim:
    listed = AppList(id="shop", task_queue="shop")
    return Claim.model_validate({"app": listed, "digest": "mine", "revision": 5, "started": 50, **given})


def standing(**given: Any) -> Standing:
    return Standing.model_validate({"generation": 7, "digest": "other", "revision": 5, "started": 50, **given})


@pytest.mark.parametrize(
    ("mine", "in_force", "prevails"),
    [
        ({}, None, True),
        ({}, {"digest": "mine", "revision": 9}, True),
        ({"revision": 6}, {}, True),
        ({"revision": 4, "started": 99}, {}, False),
        ({"started": 51}, {}, True),
        ({"started": 50}, {}, False),
        ({"revision": 1, "over": 7}, {}, True),
        ({"revision": 1, "over": 6}, {}, False),
        ({"revision": 1, "take_over": True}, {"version": "shop.b1"}, True),
        ({"revision": 9}, {"version": "shop.b1"}, False),
        ({"revision": 9, "version": "shop.b2"}, {"version": "shop.b1"}, False),
        ({"revision": 1, "version": "shop.b2", "is_current": True}, {"version": "shop.b1", "revision": 9}, True),
        ({"revision": 1, "version": "shop.b2", "is_current": True}, {"revision": 9}, True),
    ],
)
def test_which_list_prevails(mine: dict[str, Any], in_force: dict[str, Any] | None, prevails: bool) -> None:
    assert claim(**mine).prevails(None if in_force is None else standing(**in_force)) is prevails
