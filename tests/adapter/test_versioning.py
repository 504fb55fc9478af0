"""Worker Versioning: a run stays with the version that it was started on, and moves on when it parks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from recording import Workers
from temporalio.api.deployment.v1 import WorkerDeploymentVersion as Version
from temporalio.api.workflowservice.v1 import (
    DescribeWorkerDeploymentVersionRequest,
    SetWorkerDeploymentCurrentVersionRequest,
)
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.service import RPCError
from temporalio.worker import WorkerDeploymentConfig

import steporal
from steporal import Context, Step
from steporal.events import new_ulid


@pytest.fixture
def name() -> str:
    return f"versioned-{new_ulid()}"


def version(name: str, build: str) -> steporal.Client:
    """The same app, in a version whose body says which it is."""
    app = steporal.Client(name, park_after="1s")

    @app.workflow(id="works")
    async def works(ctx: Context[Any], step: Step) -> Any:
        before = await step.run("before", lambda: build)
        if ctx.input.data == "wait":
            await step.wait_for_signal("go on", signal=name, timeout="1m")
            if build == "2":  # a step that the old version does not know
                await step.run("new", lambda: None)
        else:
            for n in range(20):
                await step.run(f"short {n}", lambda: asyncio.sleep(0.1))
        return [before, await step.run("after", lambda: build)]

    return app


def deployed(name: str, build: str) -> WorkerDeploymentConfig:
    return WorkerDeploymentConfig(WorkerDeploymentVersion(name, build), True, VersioningBehavior.PINNED)


async def make_current(app: steporal.Client, build: str) -> None:
    service, namespace = app.temporal.workflow_service, app.temporal.namespace
    at = Version(deployment_name=app.id, build_id=build)
    while True:  # until it has polled
        try:
            await service.describe_worker_deployment_version(
                DescribeWorkerDeploymentVersionRequest(namespace=namespace, deployment_version=at)
            )
            await service.set_worker_deployment_current_version(
                SetWorkerDeploymentCurrentVersionRequest(
                    namespace=namespace, deployment_name=app.id, build_id=build, ignore_missing_task_queues=True
                )
            )
            break
        except RPCError:
            await asyncio.sleep(0.1)


async def until_taken(run: steporal.Run[Any], *, is_parked: bool = False) -> None:
    """Wait until a worker has done the first task of a run, or of what goes on with it when it has parked."""
    while True:
        described = await run.temporal.describe()
        if described.history_length >= 4 and (not is_parked or described.run_id != run.run_id):
            return
        await asyncio.sleep(0.05)


@pytest.mark.needs_cache("each version has a new worker, which has none anyway")
async def test_two_versions_side_by_side(workers: Workers, name: str) -> None:
    old, new = version(name, "1"), version(name, "2")
    async with asyncio.timeout(60), workers(old, deployment_config=deployed(name, "1")):
        await make_current(old, "1")
        busy, waiting = await old.workflows[0].start("work"), await old.workflows[0].start("wait")
        await until_taken(busy)
        await until_taken(waiting)
        async with workers(new, deployment_config=deployed(name, "2")):
            await make_current(new, "2")
            assert await busy.result() == ["1", "1"]  # never waits for long: the old version ends it
            await until_taken(waiting, is_parked=True)
            assert (await new.send_signal(name)).run_id == waiting.run_id
            assert await waiting.result() == ["1", "2"]
            fresh = await new.workflows[0].start("work")
            assert await fresh.result() == ["2", "2"]


async def test_a_run_that_was_parked_by_an_old_version_needs_it_no_more(workers: Workers, name: str) -> None:
    old, new = version(name, "1"), version(name, "2")
    async with asyncio.timeout(60):
        async with workers(old, deployment_config=deployed(name, "1")):
            await make_current(old, "1")
            run = await old.workflows[0].start("wait")
            await until_taken(run, is_parked=True)
        async with workers(new, deployment_config=deployed(name, "2")):
            await make_current(new, "2")
            assert (await new.send_signal(name)).run_id == run.run_id
            assert await run.result() == ["1", "2"]
