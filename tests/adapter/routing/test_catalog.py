"""The catalog keeps each app's list."""

from __future__ import annotations

from contextlib import suppress

import pytest
import temporalio.client
from temporalio.service import RPCError

import steporal
from steporal.plugin import system_worker
from steporal.routing import catalog
from steporal.routing.catalog import App, Catalog, Entry, Listed, Match, Snapshot


def app(name: str, *workflows: str) -> App:
    return App(id=name, task_queue=name, workflows=tuple(Listed(id=workflow) for workflow in workflows))


async def test_a_list_survives_continue_as_new(
    temporal: temporalio.client.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await without_catalog(temporal)  # one that is live would not replay with another number
    monkeypatch.setattr(catalog, "_UPDATES_PER_EXECUTION", 2)
    names = [f"app {i} 🗂️" for i in range(7)]
    async with system_worker(temporal):
        written = Catalog(temporal)
        for name in names:
            await written.register(app(name, "a", "b"))
        apps = (await Catalog(temporal).read()).apps
        assert [apps[name] for name in names] == [app(name, "a", "b") for name in names]
        for name in names:
            await written.register(app(name))
        apps = (await Catalog(temporal).read()).apps
        assert not set(names) & set(apps)
    await without_catalog(temporal)


async def without_catalog(temporal: temporalio.client.Client) -> None:
    with suppress(RPCError):  # there may be none
        await temporal.get_workflow_handle(catalog.CATALOG).terminate("a test needs one of its own")


async def test_a_namespace_without_a_catalog_has_no_apps_but_one_that_is_not_there_is_an_error(
    temporal: temporalio.client.Client,
) -> None:
    config = temporal.config()
    config["namespace"] = "no-such-namespace"
    elsewhere = steporal.Client("elsewhere", temporal=temporalio.client.Client(**config))
    with pytest.raises(steporal.SendEventError, match="no-such-namespace"):
        await elsewhere.send_event({"name": "order.placed"})


def test_a_workflow_starts_once_whichever_of_its_triggers_match() -> None:
    triggers = (Entry(event="order.*"), Entry(event="order.placed"), Entry(event="order.placed", if_exp="true"))
    snapshot = Snapshot({"shop": App(id="shop", task_queue="q", workflows=(Listed(id="w", triggers=triggers),))})
    assert snapshot.matches({"name": "order.placed"}) == [Match("w", "q", "shop")]
    assert snapshot.matches({"name": "order.gone"}) == [Match("w", "q", "shop")]
    assert snapshot.matches({"name": "order."}) == []
    assert snapshot.matches({"name": "orders"}) == []


def test_a_trigger_that_this_version_cannot_read_concerns_its_own_workflow_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def listing(app: str, *triggers: Entry) -> App:
        return App(id=app, task_queue=app, workflows=(Listed(id="w", triggers=triggers),))

    newer = listing("newer", Entry(event="*", if_exp="event.data.x.reverse() == 'a'"), Entry(event="a", if_exp="((("))
    snapshot = Snapshot({"newer": newer, "victim": listing("victim", Entry(event="a", if_exp="event.data.x == 'a'"))})
    for _ in range(3):
        assert snapshot.matches({"name": "a", "data": {"x": "a"}}) == [Match("w", "victim", "victim")]
    assert [(match.app, entry.event) for match, entry, _ in snapshot.unreadable()] == [("newer", "a"), ("newer", "*")]
    told = [record.message for record in caplog.records]
    assert len(told) == 2
    assert all(message.startswith("app 'newer': no event starts workflow 'w' from this process") for message in told)


@pytest.mark.parametrize("id", ["", " ", "x" * 256, "\0", "steporal.catalog"])
def test_an_id_that_temporal_would_refuse_is_in_no_list(id: str) -> None:
    with pytest.raises(ValueError, match="takes no such id"):
        Listed(id=id)
    with pytest.raises(ValueError, match="takes no such id"):
        App(id="a", task_queue=id)
