"""What a registration drops."""

from __future__ import annotations

from typing import Any

import pytest
import temporalio.client
from recording import Workers

import steporal
from steporal import Context, Step, event_trigger


def defined_in(module: str, app_id: str, temporal: temporalio.client.Client, *workflows: str) -> steporal.Client:
    """An app with workflows that a module defines."""
    client = steporal.Client(app_id, temporal=temporal)
    for workflow in workflows:

        async def handler(ctx: Context[Any], step: Step) -> None: ...

        handler.__module__ = module
        client.workflow(id=workflow, triggers=[event_trigger(f"go.{workflow}")])(handler)
    return client


@pytest.fixture
async def warnings(workers: Workers, other_app: steporal.Client, caplog: pytest.LogCaptureFixture) -> Any:
    """What has been logged, while some worker serves the catalog."""
    async with workers(other_app):
        caplog.clear()
        yield caplog


async def test_one_app_in_two_modules_names_both(
    app: steporal.Client, temporal: temporalio.client.Client, warnings: pytest.LogCaptureFixture
) -> None:
    await defined_in("shop.orders", app.id, temporal, "order", "refund").sync()
    await defined_in("shop.mails", app.id, temporal, "mail").sync()
    (said,) = warnings.messages
    assert said.startswith(f"app {app.id!r}: workflows 'order', 'refund' are no longer registered. ")
    assert "from module 'shop.orders' before, and now from module 'shop.mails'" in said
    assert "give each client its own id" in said


async def test_a_workflow_that_is_gone_from_its_module_is_named(
    app: steporal.Client, temporal: temporalio.client.Client, warnings: pytest.LogCaptureFixture
) -> None:
    await defined_in("shop.orders", app.id, temporal, "order", "refund").sync()
    await defined_in("shop.orders", app.id, temporal, "order").sync()
    (said,) = warnings.messages
    assert said.startswith(f"app {app.id!r}: workflow 'refund' is no longer registered. ")
    assert "from module" not in said


async def test_an_app_that_only_grows_says_nothing(
    app: steporal.Client, temporal: temporalio.client.Client, warnings: pytest.LogCaptureFixture
) -> None:
    await defined_in("shop.orders", app.id, temporal, "order").sync()
    await defined_in("shop.mails", app.id, temporal, "order", "mail").sync()
    assert warnings.messages == []
