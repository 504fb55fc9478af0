"""client.event_sink: events are delivered outside, each as a durable run."""

from __future__ import annotations

import asyncio
import base64
import socket
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest
import temporalio.client
from apps import notify
from http_server import HttpServer, Reply, http_server
from recording import Workers
from standardwebhooks import Webhook
from temporalio.testing import ActivityEnvironment

import steporal
from steporal import Context, DefinitionError, EventSink, InngestSink, RunFailedError, Step, secret
from steporal.activities.executions import Executions
from steporal.outbound import addresses
from steporal.outbound.activities import HttpActivities
from steporal.outbound.addresses import addresses_of, is_public
from steporal.outbound.host_slots import AT_ONCE, WAITING, HostSlots
from steporal.outbound.posts import webhook_id
from steporal.outbound.problems import HostBusyError
from steporal.routing.catalog.listing import AppList, Entry, Listed
from steporal.routing.catalog.reading import Snapshot
from steporal.values.converter import to_raw

pytestmark = pytest.mark.outside_runs

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"abcdef0123456789abcdef01").decode()
QUICKLY = steporal.RetryPolicy(initial_interval=timedelta(milliseconds=1))


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with http_server() as running:
        yield running


def sink_to(app: steporal.Client, server: HttpServer, events: str = "order.*", **options: Any) -> EventSink:
    options.setdefault("retry", QUICKLY)
    return app.event_sink(events, f"{server.url}/hooks", allow_private=True, **options)


async def delivered(app: steporal.Client, sink: EventSink, event_id: str) -> Any:
    """What the run of a delivery returned."""
    return await (await app.get_run(f"{app.id}/{sink.id}/{event_id}")).result()


async def history_of(app: steporal.Client, sink: EventSink, event_id: str) -> str:
    history = await app.temporal.get_workflow_handle(f"{app.id}/{sink.id}/{event_id}").fetch_history()
    return history.to_json() + "".join(event.SerializeToString().decode("latin-1") for event in history.events)


# --- deliveries ----------------------------------------------------------------------------------------------------


async def test_an_event_is_delivered_as_a_signed_webhook(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    sink = sink_to(app, server, secret=SECRET, headers={"X-Shop": "main"})
    async with workers(app):
        sent = await app.send_event({"name": "order.placed", "data": {"größe": 3}, "ts": 1_700_000_000_000, "v": "2"})
        assert await delivered(app, sink, sent.ids[0]) == {"status": 200, "attempts": 1}
    (asked,) = server.asked
    event = {"name": "order.placed", "data": {"größe": 3}, "id": sent.ids[0], "ts": 1_700_000_000_000, "v": "2"}
    assert (asked.method, asked.path, asked.json()) == ("POST", "/hooks", event)
    assert (asked.headers["webhook-id"], asked.headers["content-type"]) == (sent.ids[0], "application/json")
    assert (asked.headers["x-shop"], asked.headers["host"]) == ("main", f"127.0.0.1:{server.port}")
    assert Webhook(SECRET).verify(asked.body, asked.headers) == event


async def test_without_a_secret_nothing_is_signed(app: steporal.Client, workers: Workers, server: HttpServer) -> None:
    sink = sink_to(app, server)
    async with workers(app):
        sent = await app.send_event({"name": "order.placed"})
        await delivered(app, sink, sent.ids[0])
    assert "webhook-signature" not in server.asked[0].headers
    assert "v" not in server.asked[0].json()


async def test_two_secrets_sign_twice(
    app: steporal.Client, workers: Workers, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPORAL_TEST_SECRET", f"{SECRET} {OTHER_SECRET}")
    sink = sink_to(app, server, secret=secret("STEPORAL_TEST_SECRET"))
    async with workers(app):
        sent = await app.send_event({"name": "order.placed"})
        await delivered(app, sink, sent.ids[0])
    for one in (SECRET, OTHER_SECRET):
        Webhook(one).verify(server.asked[0].body, server.asked[0].headers)


async def test_only_the_events_that_match_are_delivered(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    sink = app.event_sink(
        ["order.placed", "order.paid"], f"{server.url}/hooks", if_exp="event.data.n > 1", allow_private=True
    )
    async with workers(app):
        events: list[dict[str, Any]] = [
            {"name": "order.placed", "data": {"n": 1}},
            {"name": "order.shipped", "data": {"n": 5}},
            {"name": "order.placed", "data": {"n": 2}},
            {"name": "order.paid", "data": {"n": 3}},
        ]
        ids = (await app.send_event(events)).ids
        for id in ids[2:]:
            await delivered(app, sink, id)
    assert {asked.json()["data"]["n"] for asked in server.asked} == {2, 3}


async def test_an_event_that_is_sent_again_is_delivered_once(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    sink = sink_to(app, server)
    event = {"name": "order.placed", "id": f"same of {app.id}"}
    async with workers(app):
        await app.send_event(event)
        await app.send_event([event, event])
        await delivered(app, sink, event["id"])
        await app.send_event(event)
    assert len(server.asked) == 1


async def test_two_sinks_get_the_same_event(app: steporal.Client, workers: Workers, server: HttpServer) -> None:
    sinks = [sink_to(app, server, id=f"{n} of {app.id}") for n in range(2)]
    async with workers(app):
        sent = await app.send_event({"name": "order.placed"})
        for sink in sinks:
            await delivered(app, sink, sent.ids[0])
    assert server.counted("webhook-id") == {sent.ids[0]: 2}


async def test_an_event_that_a_step_sends_is_delivered(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    sink = sink_to(app, server)

    @app.workflow(id="place")
    async def place(ctx: Context[Any], step: Step) -> list[str]:
        return (await step.ext.send_event("tell", {"name": "order.placed"})).ids

    async with workers(app):
        ids = await (await place.start()).result()
        await delivered(app, sink, ids[0])
    assert server.asked[0].headers["webhook-id"] == ids[0]


async def test_an_event_is_delivered_at_its_ts(
    app: steporal.Client, workers: Workers, server: HttpServer, skipping: temporalio.client.Client
) -> None:
    sink = sink_to(app, server)
    tomorrow = int((datetime.now(UTC) + timedelta(days=1)).timestamp() * 1000)
    async with workers(app):
        app.temporal = skipping
        sent = await app.send_event({"name": "order.placed", "ts": tomorrow})
        run = await app.get_run(f"{app.id}/{sink.id}/{sent.ids[0]}")
        await run.result()
        history = await run.temporal.fetch_history()
    kinds = [event.WhichOneof("attributes") for event in history.events]
    assert kinds.index("timer_fired_event_attributes") < kinds.index("activity_task_scheduled_event_attributes")


async def test_a_sink_is_started_by_events_alone(app: steporal.Client, workers: Workers, server: HttpServer) -> None:
    sink = sink_to(app, server)
    async with workers(app):
        handle = await app.temporal.start_workflow(sink.id, {"a": 1}, id=f"{sink.id}/x", task_queue=app.task_queue)
        with pytest.raises(RunFailedError, match="can only be started by events"):
            await (await app.get_run(handle.id)).result()
    assert not server.asked


@pytest.mark.parametrize(
    ("id", "sent"),
    [
        ("01HZX", "01HZX"),
        ("a/b:c", "a/b:c"),
        ("two words", "two%20words"),
        ("größe", "gr%C3%B6%C3%9Fe"),
        ("a\r\nb", "a%0D%0Ab"),
    ],
)
def test_an_events_id_fits_into_a_header(id: str, sent: str) -> None:
    assert webhook_id(id) == sent


# --- attempts ------------------------------------------------------------------------------------------------------


async def test_a_delivery_is_tried_again_with_the_same_id_and_a_new_signature(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    answers = [Reply(status) for status in (408, 409, 425, 429, 500, 503)]
    server.answers([*answers, Reply(0), Reply(202)])
    sink = sink_to(app, server, secret=SECRET)
    async with workers(app):
        sent = await app.send_event({"name": "order.placed"})
        assert await delivered(app, sink, sent.ids[0]) == {"status": 202, "attempts": 8}
    assert server.counted("webhook-id") == {sent.ids[0]: 8}
    for asked in server.asked:
        Webhook(SECRET).verify(asked.body, asked.headers)


async def test_the_attempts_of_a_delivery_are_visible_in_temporal(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    may_answer = asyncio.Event()
    server.answers([Reply(503), Reply(until=may_answer)])
    sink = sink_to(app, server)
    async with workers(app):
        sent = await app.send_event({"name": "order.placed"})
        await server.until_asked(2)
        handle = app.temporal.get_workflow_handle(f"{app.id}/{sink.id}/{sent.ids[0]}")
        (pending,) = (await handle.describe()).raw_description.pending_activities
        may_answer.set()
        await delivered(app, sink, sent.ids[0])
        events = (await handle.fetch_history()).events
        scheduled = next(e for e in events if e.HasField("activity_task_scheduled_event_attributes"))
    assert (pending.activity_type.name, pending.attempt) == ("steporal.post_event", 2)
    assert pending.last_failure.message == f"POST {server.url} returned 503 Service Unavailable"
    assert f"POST {server.url}".encode() in scheduled.user_metadata.summary.data


@pytest.mark.parametrize("status", [304, 400, 401, 403, 404, 410, 422])
async def test_an_answer_that_is_final_fails_the_run_at_once(
    app: steporal.Client, workers: Workers, server: HttpServer, status: int
) -> None:
    server.default = Reply(status)
    sink = sink_to(app, server)
    async with workers(app):
        sent = await app.send_event({"name": "order.placed"})
        with pytest.raises(RunFailedError, match=rf"'order.placed' .* was not delivered .*{status}") as failed:
            await delivered(app, sink, sent.ids[0])
    assert failed.value.name == "DeliveryRefusedError"
    assert len(server.asked) == 1


async def test_retry_after_says_when_the_next_attempt_starts(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    server.answers([Reply(503, headers={"Retry-After": "1"})])
    sink = sink_to(app, server)
    async with workers(app):
        started = datetime.now(UTC)
        sent = await app.send_event({"name": "order.placed"})
        assert (await delivered(app, sink, sent.ids[0]))["attempts"] == 2
        assert datetime.now(UTC) - started >= timedelta(seconds=1)


async def test_a_delivery_gives_up_at_its_time(app: steporal.Client, workers: Workers, server: HttpServer) -> None:
    server.default = Reply(503)
    slowly = steporal.RetryPolicy(initial_interval=timedelta(milliseconds=300), backoff_coefficient=1)
    sink = sink_to(app, server, give_up_after="2s", retry=slowly)
    async with workers(app):
        sent = await app.send_event({"name": "order.placed"})
        with pytest.raises(RunFailedError, match=r"for at most 2s\): .* 503") as failed:
            await delivered(app, sink, sent.ids[0])
    assert failed.value.name == "HttpStatusError"
    assert 2 <= len(server.asked) <= 7


def test_a_delivery_is_tried_for_a_day_with_an_hour_between_at_most(app: steporal.Client) -> None:
    sink = app.event_sink("order.*", "https://example.com/")
    assert (sink.give_up_after, sink.retry.maximum_interval) == (timedelta(days=1), timedelta(hours=1))
    assert sink.retry.maximum_attempts == 0


async def test_a_receiver_that_does_not_answer_is_left_after_the_timeout(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    server.answers([Reply(until=asyncio.Event())])
    sink = sink_to(app, server, timeout="200ms")
    async with workers(app):
        sent = await app.send_event({"name": "order.placed"})
        assert (await delivered(app, sink, sent.ids[0]))["attempts"] == 2


async def test_an_endless_answer_is_not_read(app: steporal.Client, workers: Workers, server: HttpServer) -> None:
    server.default = Reply(200, b"x" * 65536, endless=True)
    sink = sink_to(app, server)
    async with workers(app):
        sent = await app.send_event({"name": "order.placed"})
        assert (await delivered(app, sink, sent.ids[0]))["attempts"] == 1


async def test_a_cancelled_delivery_ends(app: steporal.Client, workers: Workers, server: HttpServer) -> None:
    server.default = Reply(503)
    sink = sink_to(app, server)
    async with workers(app):
        sent = await app.send_event({"name": "order.placed"})
        await server.until_asked(2)
        run = await app.get_run(f"{app.id}/{sink.id}/{sent.ids[0]}")
        await run.cancel()
        with pytest.raises(steporal.RunCancelledError):
            await run.result()


async def test_a_worker_sends_a_host_so_many_requests_at_once(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    gate = asyncio.Event()
    server.default = Reply(until=gate)
    sink = sink_to(app, server)
    async with workers(app):
        sent = await app.send_event([{"name": "order.placed"} for _ in range(AT_ONCE + 8)])
        await server.until_asked(AT_ONCE)
        gate.set()
        for id in sent.ids:
            await delivered(app, sink, id)
    assert server.most == AT_ONCE


async def test_no_more_than_so_many_wait_for_a_host() -> None:
    slots = HostSlots(1_000)
    gate = asyncio.Event()

    async def hold(host: str) -> None:
        async with slots.slot(host):
            await gate.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE + WAITING):
            group.create_task(hold("a"))
        await asyncio.sleep(0)
        with pytest.raises(HostBusyError, match=f"{AT_ONCE} requests to a in flight") as busy:
            await hold("a")
        assert timedelta(seconds=1) <= busy.value.delay(datetime.now(UTC)) <= timedelta(seconds=5)
        group.create_task(hold("b"))
        gate.set()
    async with slots.slot("a"):
        pass


async def test_a_worker_without_the_sink_lets_another_try(app: steporal.Client) -> None:
    argument = to_raw({"sink": "gone", "event": {"name": "a", "data": {}, "id": "1", "ts": 0}})
    with pytest.raises(temporalio.exceptions.ApplicationError, match="has no sink 'gone'") as failed:
        await ActivityEnvironment().run(HttpActivities(app.sinks, Executions(), slots=100).post_event, argument)
    assert not failed.value.non_retryable


# --- secrets -------------------------------------------------------------------------------------------------------


async def test_neither_secrets_nor_urls_are_in_the_history(
    app: steporal.Client, workers: Workers, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPORAL_TEST_SECRET", OTHER_SECRET)
    server.answers([Reply(500), Reply(404)])
    of_env = secret("STEPORAL_TEST_SECRET")
    sinks = [
        sink_to(app, server, id=f"literal of {app.id}", secret=SECRET, headers={"X-Key": SECRET}),
        sink_to(app, server, id=f"by name of {app.id}", secret=of_env, headers={"X-Key": of_env}),
        app.event_sink(
            "order.*", f"{server.url}/T0/hidden?key=hidden", allow_private=True, id=f"url of {app.id}", retry=QUICKLY
        ),
    ]
    async with workers(app):
        sent = await app.send_event({"name": "order.placed"})
        for sink in sinks:
            try:
                await delivered(app, sink, sent.ids[0])
            except RunFailedError as err:
                assert "hidden" not in str(err)
            history = await history_of(app, sink, sent.ids[0])
            assert not [text for text in (SECRET, OTHER_SECRET, "hidden") if text in history]
    assert {asked.headers.get("x-key") for asked in server.asked} == {SECRET, OTHER_SECRET, None}


@pytest.mark.parametrize("value", [None, "not-a-secret", "whsec_c2hvcnQ="], ids=["missing", "none", "short"])
async def test_a_secret_that_is_missing_or_wrong_fails_the_run_and_is_not_shown(
    app: steporal.Client, workers: Workers, server: HttpServer, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("STEPORAL_TEST_SECRET", raising=False)
    if value is not None:
        monkeypatch.setenv("STEPORAL_TEST_SECRET", value)
    sink = sink_to(app, server, secret=secret("STEPORAL_TEST_SECRET"), id="signed")
    async with workers(app):
        sent = await app.send_event({"name": "order.placed"})
        with pytest.raises(RunFailedError, match=r"sink 'signed' needs .*'STEPORAL_TEST_SECRET'") as failed:
            await delivered(app, sink, sent.ids[0])
    assert failed.value.name == "SecretNotFoundError"
    assert value is None or value not in str(failed.value)
    assert not server.asked


def test_a_sink_does_not_show_its_secrets(app: steporal.Client) -> None:
    sinks = [
        app.event_sink("a", "https://example.com/", secret=SECRET),
        app.event_sink("b", InngestSink("the-key")),
    ]
    assert SECRET not in repr(sinks)
    assert "the-key" not in repr(sinks)


# --- where to ------------------------------------------------------------------------------------------------------


async def test_a_redirect_to_another_host_is_not_followed(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    async with http_server() as other:
        server.answers([Reply(307, headers={"location": "/there"}), Reply(307, headers={"location": other.url})])
        sink = sink_to(app, server)
        async with workers(app):
            sent = await app.send_event({"name": "order.placed"})
            with pytest.raises(RunFailedError, match="307 Temporary Redirect, a redirect to another host"):
                await delivered(app, sink, sent.ids[0])
        assert not other.asked
    assert [asked.path for asked in server.asked] == ["/hooks", "/there"]


async def test_deliveries_that_cannot_begin_come_less_often() -> None:
    slots = HostSlots(total=1)
    async with slots.slot("a"):
        for attempt, at_most in ((1, 5), (6, 30), (1_000, 30)):
            with pytest.raises(HostBusyError) as busy:
                async with slots.slot("b", attempt):
                    raise AssertionError
            assert busy.value.delay(datetime.now(UTC)) <= timedelta(seconds=at_most)
            assert busy.value.delay(datetime.now(UTC)) >= timedelta(seconds=at_most / 5)


async def test_receivers_that_do_not_answer_leave_slots_for_other_hosts_and_for_steps() -> None:
    slots = HostSlots(50)
    held: list[str] = []
    gate = asyncio.Event()

    async def hold(host: str) -> None:
        try:
            async with slots.slot(host):
                held.append(host)
                await gate.wait()
        except HostBusyError:
            pass

    async with asyncio.TaskGroup() as group:
        for host in ("a", "b", "c", "d"):
            for _ in range(100):
                group.create_task(hold(host))
            await asyncio.sleep(0)
        assert [held.count(host) for host in ("a", "b", "c", "d")] == [AT_ONCE, 13, 6, 3]
        await hold_once(slots, "e")
        gate.set()
    await hold_once(slots, "a")


async def hold_once(slots: HostSlots, host: str) -> None:
    async with slots.slot(host):
        pass


async def test_a_worker_of_one_slot_delivers() -> None:
    await hold_once(HostSlots(1), "a")


async def test_sinks_whose_receivers_do_not_answer_do_not_hold_up_steps(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    gate = asyncio.Event()
    server.default = Reply(until=gate)

    @app.workflow(id="quick")
    async def quick(ctx: Context[Any], step: Step) -> str:
        return await step.run("work", lambda: "served")

    async with http_server("127.0.0.2") as second, http_server("127.0.0.3") as third:
        servers = (server, second, third)
        sinks = [
            app.event_sink("order.*", f"{each.url}/in", id=f"to-{n}", allow_private=True, retry=QUICKLY)
            for n, each in enumerate(servers)
        ]
        for each in servers:
            each.default = Reply(until=gate)
        async with workers(app, max_concurrent_activities=8):
            sent = await app.send_event([{"name": "order.placed"} for _ in range(4)])
            for each in servers:
                await each.until_asked(1)
            run = await quick.start()
            assert await asyncio.wait_for(run.result(), 20) == "served"
            gate.set()
            for sink in sinks:
                for id in sent.ids:
                    await delivered(app, sink, id)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fe80::1%2", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::a00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("2002:7f00:1::", False),
        ("2002:5db8:d822::1", True),
        ("168.63.129.16", False),
        ("192.0.0.192", False),
        ("198.18.0.1", False),
        ("203.0.113.9", False),
        ("fec0::1", False),
        ("fd00:ec2::254", False),
        ("64:ff9b:1::5db8:d822", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("::93.184.216.34", False),
        ("::ffff:0:127.0.0.1", False),
        ("2001:0:7f00:1::", False),
        ("2001:db8::1", False),
        ("3fff::1", False),
        ("5f00::1", False),
        ("100::1", False),
    ],
)
def test_only_addresses_of_the_internet_are_public(address: str, public: bool) -> None:
    assert is_public(ip_address(address)) is public


Lookups = list[str]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, list[str]]], Lookups]:
    """Makes names lead to addresses, and remembers the look-ups of them."""
    real = socket.getaddrinfo

    def know(known: dict[str, list[str]]) -> Lookups:
        lookups: Lookups = []

        def look_up(host: Any, port: Any, *args: Any, **options: Any) -> Any:
            name = host.decode() if isinstance(host, bytes) else host
            if name not in known:
                return real(host, port, *args, **options)
            lookups.append(name)
            if not known[name]:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return [found for address in known[name] for found in real(address, port, *args, **options)]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        return lookups

    return know


@pytest.mark.parametrize("others", [[], ["93.184.216.34"]])
async def test_a_name_that_leads_into_the_own_network_is_refused(
    app: steporal.Client,
    workers: Workers,
    server: HttpServer,
    names: Callable[[dict[str, list[str]]], Lookups],
    others: list[str],
) -> None:
    names({"hooks.example": [*others, "127.0.0.1"]})
    sink = app.event_sink("order.*", f"http://hooks.example:{server.port}/", retry=QUICKLY)
    async with workers(app):
        sent = await app.send_event({"name": "order.placed"})
        with pytest.raises(RunFailedError, match=r"'hooks\.example', which resolves to 127\.0\.0\.1") as failed:
            await delivered(app, sink, sent.ids[0])
    assert failed.value.name == "PrivateAddressError"
    assert not server.asked


async def test_the_connection_is_made_to_the_address_that_was_checked(
    app: steporal.Client,
    workers: Workers,
    server: HttpServer,
    names: Callable[[dict[str, list[str]]], Lookups],
) -> None:
    lookups = names({"hooks.example": ["127.0.0.2", "127.0.0.1"]})  # nobody listens at the first
    sink = app.event_sink("order.*", f"http://hooks.example:{server.port}/", allow_private=True, retry=QUICKLY)
    async with workers(app):
        sent = await app.send_event({"name": "order.placed"})
        assert (await delivered(app, sink, sent.ids[0]))["attempts"] == 1
    assert lookups == ["hooks.example"]
    assert server.asked[0].headers["host"] == f"hooks.example:{server.port}"


async def test_a_name_that_leads_nowhere_is_tried_again(
    app: steporal.Client,
    workers: Workers,
    server: HttpServer,
    names: Callable[[dict[str, list[str]]], Lookups],
) -> None:
    lookups = names({"hooks.example": []})
    sink = app.event_sink("order.*", "http://hooks.example/", retry=QUICKLY, give_up_after="2s")
    async with workers(app):
        sent = await app.send_event({"name": "order.placed"})
        with pytest.raises(RunFailedError) as failed:
            await delivered(app, sink, sent.ids[0])
    assert failed.value.name == "ConnectionError"
    assert len(lookups) > 1


async def test_a_name_whose_server_does_not_answer_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it keep the threads that everything else in the process shares."""
    answers, looked_up = threading.Event(), []
    real = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **options: Any) -> Any:
        if host == "silent.example":
            looked_up.append(host)
            assert answers.wait(60)
        return real("127.0.0.1", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    silent = [asyncio.ensure_future(addresses_of("silent.example", 80)) for _ in range(50)]
    try:
        async with asyncio.timeout(30):
            assert await addresses_of("hooks.example", 80) == ["127.0.0.1"]
            assert await asyncio.to_thread(lambda: "free") == "free"
        for given_up in silent[:25]:
            given_up.cancel()
    finally:
        answers.set()
    found = await asyncio.gather(*silent, return_exceptions=True)
    assert found[25:] == [["127.0.0.1"]] * 25
    assert looked_up == ["silent.example"]
    assert await addresses_of("silent.example", 80) == ["127.0.0.1"]
    assert looked_up == ["silent.example"] * 2, "it is looked up anew each time"


async def test_a_process_looks_up_so_many_names_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "MAX_LOOK_UPS", 3)
    answers = threading.Event()

    def look_up(host: str, port: int, **_: Any) -> Any:
        assert answers.wait(60)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    silent = [asyncio.ensure_future(addresses_of(f"{number}.example", 80)) for number in range(3)]
    await asyncio.sleep(0)
    try:
        with pytest.raises(ConnectionError, match=r"'3.example' was not looked up, because 3 other look-ups are in"):
            await addresses_of("3.example", 80)
        joined = asyncio.ensure_future(addresses_of("0.example", 80))
        await asyncio.sleep(0)
    finally:
        answers.set()
    assert await asyncio.gather(*silent, joined) == [["127.0.0.1"]] * 4
    assert await addresses_of("3.example", 80) == ["127.0.0.1"]


# --- a bridge to Inngest -------------------------------------------------------------------------------------------


async def test_events_are_forwarded_to_inngest_with_their_ids(
    app: steporal.Client, workers: Workers, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPORAL_TEST_KEY", "the-event-key/1")
    server.default = Reply(200, b'{"ids": ["01HZX"], "status": 200}')
    bridge = InngestSink(secret("STEPORAL_TEST_KEY"), base_url=f"{server.url}/")
    sink = app.event_sink("order.*", bridge, allow_private=True, headers={"x-inngest-env": "main"})
    async with workers(app):
        sent = await app.send_event({"name": "order.placed", "data": {"a": 1}, "ts": 1_700_000_000_000})
        await delivered(app, sink, sent.ids[0])
        assert "the-event-key" not in await history_of(app, sink, sent.ids[0])
    (asked,) = server.asked
    assert (asked.target, asked.headers["x-inngest-env"]) == ("/e/the-event-key%2F1", "main")
    assert asked.json() == {"name": "order.placed", "data": {"a": 1}, "id": sent.ids[0], "ts": 1_700_000_000_000}
    assert not any(name.startswith("webhook-") for name in asked.headers)


async def test_an_event_that_came_from_inngest_is_not_sent_back(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    bridge = app.event_sink("order.*", InngestSink("dev", base_url=server.url), allow_private=True)
    webhook = sink_to(app, server, id=f"webhook of {app.id}")

    @app.workflow(id="process", triggers=[steporal.event_trigger("order.placed")])
    async def process(ctx: Context[Any], step: Step) -> str:
        return ctx.input.id

    id = f"theirs of {app.id}"
    async with workers(app):
        sent = await app.send_event([{"name": "order.placed", "id": f"inngest:{id}"}, {"name": "order.paid"}])
        assert await (await app.get_run(f"{app.id}/process/{id}", process)).result() == id
        await delivered(app, webhook, id)
        await delivered(app, webhook, sent.ids[1])
        await delivered(app, bridge, sent.ids[1])
    forwarded = [asked.json()["id"] for asked in server.asked if asked.path == "/e/dev"]
    assert forwarded == [sent.ids[1]]


async def test_an_event_goes_round_through_both_systems_once(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    bridge = app.event_sink("order.*", InngestSink("dev", base_url=server.url), allow_private=True)
    bodies = []

    @app.workflow(id="process", triggers=[steporal.event_trigger("order.placed")])
    async def process(ctx: Context[Any], step: Step) -> None:
        await step.run("note", lambda: bodies.append(ctx.input.id))

    async with workers(app):
        sent = await app.send_event({"name": "order.placed"})
        await delivered(app, bridge, sent.ids[0])
        event = server.asked[0].json()
        await app.send_event({**event, "id": f"inngest:{event['id']}"})  # what a function of Inngest does
        await (await app.get_run(f"{app.id}/process/{sent.ids[0]}", process)).result()
        last = await app.send_event({"name": "order.placed"})
        await delivered(app, bridge, last.ids[0])
        await (await app.get_run(f"{app.id}/process/{last.ids[0]}", process)).result()
    assert bodies == [sent.ids[0], last.ids[0]]
    assert [asked.json()["id"] for asked in server.asked] == [sent.ids[0], last.ids[0]]


async def test_a_sink_of_every_event_takes_all_but_the_systems(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    sink = sink_to(app, server, "*")

    @app.workflow(id="fail", triggers=[steporal.event_trigger("any.name")], max_attempts=1)
    async def fail(ctx: Context[Any], step: Step) -> None:
        raise ValueError("which is told to everybody")

    async with workers(app):
        sent = await app.send_event([{"name": "any.name"}, {"name": "plain"}])
        for id in sent.ids:
            await delivered(app, sink, id)
        with pytest.raises(RunFailedError):
            await (await app.get_run(f"{app.id}/fail/{sent.ids[0]}")).result()
        last = await app.send_event({"name": "last"})
        await delivered(app, sink, last.ids[0])
    assert {asked.json()["name"] for asked in server.asked} == {"any.name", "plain", "last"}


def test_a_sink_of_every_event_does_not_make_runs_tell_that_they_finished() -> None:
    listed = Listed(id="all", triggers=(Entry(event="*"),))
    snapshot = Snapshot.of(AppList(id="shop", task_queue="shop", workflows=(listed,)))
    assert not snapshot.is_listened("inngest/function.finished")
    assert snapshot.is_listened("order.placed")


# --- definition ----------------------------------------------------------------------------------------------------

BAD: list[tuple[Any, Any, dict[str, Any], str]] = [
    ("order.*", "/hooks", {}, r"event_sink\('order\.\*'\): url is '/hooks'; it takes an absolute URL"),
    ("order.*", "ftp://example.com", {}, "with http or https"),
    ("order.*", "https://me:pass@example.com", {}, "contains a user or password"),
    ("order.*", 3, {}, "to is 3; it takes a URL, or InngestSink"),
    ("order*", "https://example.com", {}, "put the wildcard at the end"),
    ("steporal/x", "https://example.com", {}, "reserved for system events"),
    ([], "https://example.com", {}, r"events is \[\]"),
    (["a"] * 11, "https://example.com", {}, "1 to 10 of them"),
    ("a", "https://example.com", {"if_exp": "event.data ="}, "if_exp"),
    ("*", "https://example.com", {"if_exp": "event.data ="}, "if_exp"),
    ("a", "https://example.com", {"secret": "hunter2"}, "secret is not in the format of Standard Webhooks"),
    ("a", "https://example.com", {"secret": "whsec_c2hvcnQ="}, "secret is not in the format of Standard Webhooks"),
    ("a", "https://example.com", {"secret": ""}, "secret is not in the format of Standard Webhooks"),
    ("a", InngestSink("k"), {"secret": SECRET}, "InngestSink.* has an event_key"),
    ("a", InngestSink(""), {}, "event_key is empty"),
    ("a", InngestSink("k", base_url="inn.gs"), {}, "base_url is 'inn.gs'"),
    ("a", InngestSink("k", base_url="https://inn.gs?a=1"), {}, "base_url contains a query"),
    ("a", "https://example.com", {"headers": {"Webhook-Id": "1"}}, "which Steporal sets itself"),
    ("a", "https://example.com", {"headers": {"A": "1\n"}}, "printable ASCII on one line"),
    ("a", "https://example.com", {"timeout": -1}, "timeout is -1"),
    ("a", "https://example.com", {"give_up_after": "10ms"}, "give_up_after is '10ms'; the minimum is 1s"),
    ("a", "https://example.com", {"retry": 3}, "retry of the sink is 3"),
    ("a", "https://example.com", {"id": ""}, "the id of an event_sink is ''"),
    ("a", "https://example.com", {"id": "steporal.x"}, "reserved for system workflows"),
    ("a", "http://localhost:8080/", {}, "'localhost', which is not a public internet address"),
    ("a", "http://169.254.169.254/latest", {}, "allow_private=True"),
    ("a", "http://[::1]/", {}, "allow_private=True"),
    ("a", InngestSink("k", base_url="http://127.0.0.1:8288"), {}, "allow_private=True"),
]


@pytest.mark.parametrize(("events", "to", "options", "message"), BAD, ids=lambda value: str(value)[:30])
def test_what_cannot_be_right_is_refused_at_definition(
    app: steporal.Client, events: Any, to: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DefinitionError, match=message) as refused:
        app.event_sink(events, to, **options)
    assert "hunter2" not in str(refused.value)
    assert not app.sinks


def test_an_id_is_used_once_in_a_client(app: steporal.Client) -> None:
    first = app.event_sink(["order.*", "app/*"], "https://example.com/a")
    assert first.id == f"{app.id}: order.* app.* to example.com".replace("/", ".")
    with pytest.raises(DefinitionError, match="has an event_sink 'test_an_id"):
        app.event_sink(["order.*", "app/*"], "https://example.com/b")

    @app.workflow(id="process")
    async def process(ctx: Context[Any], step: Step) -> None:
        return None

    with pytest.raises(DefinitionError, match="has a workflow 'process' already"):
        app.event_sink("a", "https://example.com/", id="process")
    app.event_sink("a", "https://example.com/", id="notify")
    with pytest.raises(DefinitionError, match="has an event_sink 'notify' already"):
        app.workflow(id="notify")(process.handler)


async def test_a_sink_at_module_level_is_defined_once(workers: Workers) -> None:
    async with workers(notify.client):
        assert await (await notify.count_sinks.start()).result() == ["notify-example"]
    assert list(notify.client.sinks.values()) == [notify.sink]
