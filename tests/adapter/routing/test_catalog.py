"""The catalog holds each app's triggers, by the names and patterns of events."""

from __future__ import annotations

from contextlib import suppress

import pytest
import temporalio.client
from temporalio.api.common.v1 import Payload
from temporalio.service import RPCError

import steporal
from steporal.errors import CatalogFullError
from steporal.routing.catalog import shards
from steporal.routing.catalog.arbiter import Order
from steporal.routing.catalog.listing import AppList, Entry, Listed
from steporal.routing.catalog.placing import Placing
from steporal.routing.catalog.reading import Catalog, Match, Snapshot
from steporal.routing.catalog.shard_store import Shards
from steporal.routing.catalog.shards import field_of, keys_of, parts_of, shard_id, shard_of_app, shard_of_event
from steporal.values.converter import to_raw
from steporal.worker.serving import system_worker

pytestmark = pytest.mark.outside_runs


def app(name: str, *workflows: str, event: str | None = None) -> AppList:
    triggers = () if event is None else (Entry(event=event),)
    return AppList(id=name, task_queue=name, workflows=tuple(Listed(id=each, triggers=triggers) for each in workflows))


async def place(temporal: temporalio.client.Client, listed: AppList, generation: int) -> None:
    """What an app's workflow does when a list comes into force."""
    await Placing(temporal, Order(app=listed, generation=generation)).run()


async def without_shard(temporal: temporalio.client.Client, number: int) -> None:
    with suppress(RPCError):  # there may be none
        await temporal.get_workflow_handle(shard_id(number)).terminate("a test needs one of its own")


# --- what is where -------------------------------------------------------------------------------------------------


def test_a_trigger_stays_in_its_shard() -> None:
    """Processes of all versions look in the same place."""
    assert [shard_of_event(name) for name in ("order.placed", "order.*", "*")] == [3, 2, 22]
    assert shard_of_app("shop") == 28


def test_an_event_concerns_its_name_and_the_patterns_above_it() -> None:
    assert keys_of("a.b/c") == ["a.b/c", "a.b/*", "a.*", "*"]
    assert keys_of("plain") == ["plain", "*"]
    assert keys_of("inngest/function.finished") == ["inngest/function.finished"], "no pattern is for the system's"
    assert len(keys_of("." * 500)) <= 18


def test_a_list_is_placed_where_its_events_are_looked_for() -> None:
    listed = app("shop", "order", event="order.*")
    parts = parts_of(listed)
    assert set(parts) == {shard_of_event("order.*"), shards.shard_of_workflow("order"), shard_of_app("shop")}
    assert parts[shard_of_app("shop")].shards == tuple(sorted(parts))
    assert parts_of(app("shop")) == {}


# --- the shards ----------------------------------------------------------------------------------------------------


async def test_a_list_survives_continue_as_new(
    temporal: temporalio.client.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"app {i} 🗂️" for i in range(7)]
    touched = {number for name in names for number in parts_of(app(name, "a", "b", event="survives"))}
    for number in touched:  # those that are live would not replay with another number
        await without_shard(temporal, number)
    monkeypatch.setattr(shards, "_UPDATES_PER_EXECUTION", 2)
    async with system_worker(temporal):
        for name in names:
            await place(temporal, app(name, "a", "b", event="survives"), 1)
        found = (await Catalog(temporal).read(["survives"])).matches({"name": "survives"})
        assert {match.app for match in found} == set(names)
        for name in names:
            await place(temporal, app(name), 2)
        assert (await Catalog(temporal).read(["survives"])).matches({"name": "survives"}) == []
        assert not set(names) & set((await Catalog(temporal).read_all()).apps)
    for number in touched:
        await without_shard(temporal, number)


async def test_an_older_list_does_not_take_the_place_of_a_newer_one(temporal: temporalio.client.Client) -> None:
    async with system_worker(temporal):
        await place(temporal, app("ordered", "new", event="ordered.new"), 2)
        await place(temporal, app("ordered", "old", event="ordered.new"), 1)
        found = (await Catalog(temporal).read(["ordered.new"])).matches({"name": "ordered.new"})
        await place(temporal, app("ordered"), 3)
    assert [match.workflow for match in found] == ["new"]


async def test_a_sender_reads_the_shards_of_what_it_sends_alone(
    temporal: temporalio.client.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    original = Shards.read

    async def counted(self: Shards, number: int) -> object:
        read.append(number)
        return await original(self, number)

    monkeypatch.setattr(Shards, "read", counted)
    catalog = Catalog(temporal, cache_seconds=60)
    for _ in range(3):
        await catalog.read(["order.placed", "order.paid"])
    wanted = {shard_of_event(key) for key in ("order.placed", "order.paid", "order.*", "*")}
    assert sorted(read) == sorted(wanted)
    await catalog.read(["." * 500])
    assert len(set(read)) <= 4 + 18


async def test_what_has_not_changed_is_not_decoded_again(
    temporal: temporalio.client.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    original = Catalog._part

    async def counted(self: Catalog, app: str, payload: Payload) -> object:
        decoded.append(app)
        return await original(self, app, payload)

    monkeypatch.setattr(Catalog, "_part", counted)
    async with system_worker(temporal):
        await place(temporal, app("still", "w", event="seldom"), 1)
        await place(temporal, app("moves", "w", event="seldom"), 1)
        catalog = Catalog(temporal)
        before = await catalog.read(["seldom"])
        assert {"still", "moves"} <= set(decoded)
        decoded.clear()
        await place(temporal, app("moves", "w", "v", event="seldom"), 2)
        after = await catalog.read(["seldom"], fresh=True)
        await place(temporal, app("still"), 3)
        await place(temporal, app("moves"), 3)
    assert decoded == ["moves"] * len(decoded)
    assert len(before.matches({"name": "seldom"})) == 2
    assert len(after.matches({"name": "seldom"})) == 3


async def test_a_full_shard_refuses_an_app_by_name_and_keeps_the_others(
    temporal: temporalio.client.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "MAX_SHARD_BYTES", 20_000)
    large = AppList(
        id="large",
        task_queue="large",
        workflows=tuple(
            Listed(id=f"w{n}", triggers=(Entry(event="crowded", if_exp=f"event.data.n == {'1' * 100}"),))
            for n in range(200)
        ),
    )
    async with system_worker(temporal):
        await place(temporal, app("small", "w", event="crowded"), 1)
        with pytest.raises(Exception, match=r"app 'large' does not fit into the catalog: .* 20,000;"):
            await place(temporal, large, 1)
        assert "large" not in (await Catalog(temporal).read_all()).apps, "nothing of it was placed"
        found = (await Catalog(temporal).read(["crowded"])).matches({"name": "crowded"})
        store, number = Shards(temporal), shard_of_event("crowded")
        field = Payload(metadata={"encoding": b"json/plain"}, data=b"x" * 20_000)
        with pytest.raises(Exception, match="app 'late' does not fit into the catalog"):
            await store.place(number, "late", 1, field)
        assert field_of(await store.read(number), "small") is not None
        await place(temporal, app("small"), 2)
        await without_shard(temporal, number)  # it has refused what it would take without the patch, and cannot replay
    assert [match.app for match in found] == ["small"]


async def test_a_list_that_is_too_large_is_refused_with_its_size(
    app: steporal.Client, temporal: temporalio.client.Client
) -> None:
    app.temporal = temporal
    for number in range(800):

        @app.workflow(
            id=f"w{number}",
            triggers=[steporal.event_trigger(f"e{n}", f"event.data.text == '{'x' * 1000}'") for n in range(2)],
        )
        async def handler(ctx: steporal.Context[object], step: steporal.Step) -> None: ...

    with pytest.raises(CatalogFullError, match=r"its list of 800 workflows has 1,\d\d\d,\d\d\d bytes"):
        await app.sync()


async def test_a_part_that_cannot_be_read_is_in_no_other_apps_way(temporal: temporalio.client.Client) -> None:
    store, number = Shards(temporal), shard_of_event("shared")
    odd = [
        to_raw({"task_queue": "q", "triggers": "none"}).payload,
        to_raw({"task_queue": "q", "triggers": [["w", "shared", None, False, "of a later version"]]}).payload,
        Payload(metadata={"encoding": b"json/plain"}, data=b"[" * 100_000),
        Payload(metadata={"encoding": b"what/ever"}, data=b"\xff"),
        Payload(),
    ]
    async with system_worker(temporal):
        await place(temporal, app("victim", "w", event="shared"), 1)
        for position, field in enumerate(odd):
            await store.place(number, f"odd {position}", 1, field)
        found = (await Catalog(temporal).read(["shared"])).matches({"name": "shared"})
        for position in range(len(odd)):
            await store.place(number, f"odd {position}", 2, None)
        await place(temporal, app("victim"), 2)
    assert [match.app for match in found] == ["victim"]


def test_a_field_of_no_generation_is_older_than_all() -> None:
    assert shards.generation_of(Payload(metadata={"steporal-generation": b"9" * 5000})) == 0
    assert shards.generation_of(Payload()) == 0


async def test_a_namespace_without_a_catalog_has_no_apps_but_one_that_is_not_there_is_an_error(
    temporal: temporalio.client.Client,
) -> None:
    config = temporal.config()
    config["namespace"] = "no-such-namespace"
    elsewhere = steporal.Client("elsewhere", temporal=temporalio.client.Client(**config))
    with pytest.raises(steporal.SendEventError, match="no-such-namespace"):
        await elsewhere.send_event({"name": "order.placed"})


# --- what a snapshot says ------------------------------------------------------------------------------------------


def test_a_workflow_starts_once_whichever_of_its_triggers_match() -> None:
    triggers = (Entry(event="order.*"), Entry(event="order.placed"), Entry(event="order.placed", if_exp="true"))
    snapshot = Snapshot.of(AppList(id="shop", task_queue="q", workflows=(Listed(id="w", triggers=triggers),)))
    assert snapshot.matches({"name": "order.placed"}) == [Match("w", "q", "shop")]
    assert snapshot.matches({"name": "order.gone"}) == [Match("w", "q", "shop")]
    assert snapshot.matches({"name": "order."}) == []
    assert snapshot.matches({"name": "orders"}) == []


def test_a_trigger_that_this_version_cannot_read_concerns_its_own_workflow_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def listing(app: str, *triggers: Entry) -> AppList:
        return AppList(id=app, task_queue=app, workflows=(Listed(id="w", triggers=triggers),))

    newer = listing("newer", Entry(event="*", if_exp="event.data.x.reverse() == 'a'"), Entry(event="a", if_exp="((("))
    snapshot = Snapshot.of(newer, listing("victim", Entry(event="a", if_exp="event.data.x == 'a'")))
    for _ in range(3):
        assert snapshot.matches({"name": "a", "data": {"x": "a"}}) == [Match("w", "victim", "victim")]
    assert {(match.app, entry.event) for match, entry, _ in snapshot.unreadable()} == {("newer", "a"), ("newer", "*")}
    told = [record.message for record in caplog.records]
    assert len(told) == 2
    assert all(message.startswith("app 'newer': no event starts workflow 'w' from this process") for message in told)


def test_workflows_are_found_by_their_id() -> None:
    snapshot = Snapshot.of(app("shop", "order", "refund"), app("warehouse", "order"))
    assert snapshot.with_id("order", "warehouse") == [Match("order", "warehouse", "warehouse")]
    assert [match.app for match in snapshot.with_id("order")] == ["shop", "warehouse"]
    assert [(match.app, match.workflow) for match in snapshot.workflows] == [
        ("shop", "order"),
        ("shop", "refund"),
        ("warehouse", "order"),
    ]
    assert snapshot.apps == {"shop": "shop", "warehouse": "warehouse"}


@pytest.mark.parametrize("id", ["", " ", "x" * 256, "\0", "steporal.catalog"])
def test_an_id_that_temporal_would_refuse_is_in_no_list(id: str) -> None:
    with pytest.raises(ValueError, match="the id is not valid in Temporal"):
        Listed(id=id)
    with pytest.raises(ValueError, match="the id is not valid in Temporal"):
        AppList(id="a", task_queue=id)
