"""`POST /e/{key}`: what starts runs, what is refused, and that a retry starts nothing twice."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass
from typing import Any, NoReturn

import httpx
import pytest
import temporalio.client
from gateway import Wire, count, gateway_of, greeting, until_started
from recording import Workers
from temporalio.client import Interceptor, OutboundInterceptor, StartWorkflowInput
from temporalio.service import RetryConfig, RPCError, RPCStatusCode
from ulid import ULID

import steporal
from steporal.events import MAX_EVENT_BYTES
from steporal_workers.gateway.bodies import MAX_BODY_BYTES
from steporal_workers.gateway.seeds import HEADER, IdSeed

SEED = {HEADER: f"1743130137367,{base64.b64encode(bytes(range(10))).decode()}"}


@pytest.fixture
def connected(app: steporal.Client, temporal: temporalio.client.Client) -> steporal.Client:
    app.temporal = temporal
    return app


async def test_an_event_starts_the_runs_that_it_triggers(
    app: steporal.Client, workers: Workers, temporal: temporalio.client.Client
) -> None:
    workflow_id, name = greeting(app)
    async with workers(app), gateway_of(app) as http:
        sent = await http.post("/e/any", json={"name": name, "data": {"who": "Ada"}})
        [event_id] = sent.json()["ids"]
        assert await temporal.get_workflow_handle(f"{app.id}/{workflow_id}/{event_id}").result() == {"who": "Ada"}
    assert (sent.status_code, sent.json()) == (200, {"ids": [event_id], "status": 200})


async def test_a_list_is_answered_with_ids_in_its_order(
    app: steporal.Client, workers: Workers, temporal: temporalio.client.Client
) -> None:
    workflow_id, name = greeting(app)
    async with workers(app), gateway_of(app) as http:
        sent = await http.post("/e/any", json=[{"name": name, "data": {"n": n}} for n in range(20)])
        ids = sent.json()["ids"]
        handles = [temporal.get_workflow_handle(f"{app.id}/{workflow_id}/{id}") for id in ids]
        assert await asyncio.gather(*(handle.result() for handle in handles)) == [{"n": n} for n in range(20)]
    assert ids == sorted(map(str, map(ULID.from_str, ids)))


async def test_a_given_id_is_answered_and_starts_a_run_once(
    app: steporal.Client, workers: Workers, temporal: temporalio.client.Client
) -> None:
    workflow_id, name = greeting(app)
    async with workers(app), gateway_of(app) as http:
        for n in range(3):
            sent = await http.post("/e/any", json={"name": name, "id": f"{app.id} mine", "data": {"n": n}})
            assert sent.json()["ids"] == [f"{app.id} mine"]
        assert await temporal.get_workflow_handle(f"{app.id}/{workflow_id}/{app.id} mine").result() == {"n": 0}
        await until_started(temporal, workflow_id, 1)
    assert await count(temporal, workflow_id) == 1


async def test_a_retry_with_the_same_seed_starts_nothing_twice(
    app: steporal.Client, workers: Workers, temporal: temporalio.client.Client
) -> None:
    workflow_id, name = greeting(app)
    seed = {HEADER: f"1743130137367,{base64.b64encode(new_entropy()).decode()}"}
    events = [{"name": name}, {"name": name, "id": f"{app.id} mine"}, {"name": name}]
    async with workers(app), gateway_of(app) as http:
        first = await http.post("/e/any", json=events, headers=seed)
        again = await asyncio.gather(*(http.post("/e/any", json=events, headers=seed) for _ in range(5)))
        await until_started(temporal, workflow_id, 3)
    assert {tuple(sent.json()["ids"]) for sent in again} == {tuple(first.json()["ids"])}
    assert await count(temporal, workflow_id) == 3


def new_entropy() -> bytes:
    return IdSeed.new().entropy


async def test_the_ids_of_a_seed_are_those_of_inngests_server(connected: steporal.Client) -> None:
    async with gateway_of(connected) as http:
        sent = await http.post("/e/any", json=[{"name": "nobody.cares"}] * 3, headers=SEED)
    entropy = bytes(range(6)) + (0x06070809 + 2).to_bytes(4, "big")
    assert sent.json()["ids"][1] == str(ULID.from_bytes((1743130137367).to_bytes(6, "big") + entropy))


async def test_a_seed_of_another_form_is_ignored(connected: steporal.Client) -> None:
    async with gateway_of(connected) as http:
        sent = [await http.post("/e/any", json={"name": "nobody.cares"}, headers={HEADER: "soon"}) for _ in range(2)]
    assert [one.status_code for one in sent] == [200, 200]
    assert sent[0].json() != sent[1].json()


async def test_what_inngest_reads_as_absent_is_absent(
    app: steporal.Client, workers: Workers, temporal: temporalio.client.Client
) -> None:
    workflow_id, name = greeting(app)
    event = {"name": name, "id": "", "ts": 0, "v": "", "data": None, "user": {"id": 1}, "meta": {}, "extra": [1]}
    async with workers(app), gateway_of(app) as http:
        sent = await http.post("/e/any", json=event)
        [event_id] = sent.json()["ids"]
        assert await temporal.get_workflow_handle(f"{app.id}/{workflow_id}/{event_id}").result() == {}


async def test_what_inngest_keeps_for_itself_is_stripped_from_the_data(
    app: steporal.Client, workers: Workers, temporal: temporalio.client.Client
) -> None:
    workflow_id, name = greeting(app)
    async with workers(app), gateway_of(app) as http:
        sent = await http.post("/e/any", json={"name": name, "data": {"_inngest": {"fn_id": "x"}, "a": 1}})
        [event_id] = sent.json()["ids"]
        assert await temporal.get_workflow_handle(f"{app.id}/{workflow_id}/{event_id}").result() == {"a": 1}


@pytest.mark.parametrize(
    "kind", ["application/json", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "", "nonsense"]
)
async def test_json_is_taken_whatever_its_content_type_says(connected: steporal.Client, kind: str) -> None:
    async with gateway_of(connected) as http:
        sent = await http.post("/e/any", content='{"name": "nobody.cares"}', headers={"content-type": kind})
    assert sent.status_code == 200


BAD: dict[str, tuple[Any, int, str]] = {
    "empty": ("", 400, "the body is empty"),
    "blank": (" \n", 400, "the body is empty"),
    "no json": ('{"name": oops}', 400, "Expecting value at line 1, column 10"),
    "half": ('[{"name": "a"}', 400, "the body is not valid JSON"),
    "two": ('{"name": "a"}{"name": "b"}', 400, "Extra data at line 1, column 14"),
    "no utf-8": (b'{"name": "\xff"}', 400, "the body is not UTF-8: invalid start byte at byte 10"),
    "utf-16": ('{"name": "a"}'.encode("utf-16"), 400, "the body is not UTF-8"),
    "byte order mark": (b'\xef\xbb\xbf{"name": "a"}', 400, "the body is not valid JSON"),
    "nan": ('{"name": "a", "data": {"x": NaN}}', 400, "NaN is not a number in JSON"),
    "infinity": ('{"name": "a", "data": {"x": -Infinity}}', 400, "-Infinity is not a number in JSON"),
    "overflow": ('{"name": "a", "data": {"x": 1e999}}', 400, "data.x is inf, which is not valid JSON"),
    "key twice": ('{"name": "a", "name": "b"}', 400, "an object has the key 'name' twice"),
    "huge int": ('{"name": "a", "data": {"x": %s}}' % ("9" * 5000), 400, "thousands of digits"),
    "bomb of arrays": ("[" * 100_000, 400, "nested too deep"),
    "bomb of objects": ('{"name":' * 50_000, 400, "nested too deep"),
    "too deep for some": ('{"name": "a", "data": {"list": ' + "[" * 600 + "]" * 600 + "}}", 400, "nested too deep"),
    "deep": ('{"name": "a", "data": {"x": %s}}' % ("[" * 300 + "]" * 300), 400, "more than 100 deep"),
    "surrogate": ('{"name": "a", "data": {"x": "\\ud800"}}', 400, "data.x contains a lone surrogate"),
    "surrogate as a name": ('{"name": "\\ud800"}', 400, "lone surrogate"),
    "number": ("5", 400, "the body is a JSON number; it takes an event, or an array of events"),
    "string": ('"order.placed"', 400, "the body is a JSON string"),
    "null": ("null", 400, "the body is a JSON null"),
    "list of numbers": ("[5]", 400, "event 0 is 5"),
    "list of lists": ("[[]]", 400, "event 0 is []"),
    "no name": ("{}", 400, "event has no name"),
    "empty name": ('{"name": ""}', 400, "an event name cannot be empty"),
    "null name": ('{"name": null}', 400, "event has no name"),
    "number as a name": ('{"name": 5}', 400, "event names are strings"),
    "reserved": ('{"name": "inngest/function.failed"}', 400, "names that start with 'inngest/' are reserved"),
    "list as data": ('{"name": "a", "data": [1]}', 400, "data is [1]; it takes a JSON object"),
    "text as data": ('{"name": "a", "data": "x"}', 400, "data is 'x'; it takes a JSON object"),
    "early": ('{"name": "a", "ts": 5}', 400, "ts is 5; it takes an int of milliseconds since the epoch"),
    "text as ts": ('{"name": "a", "ts": "5"}', 400, "ts is '5'"),
    "boolean as ts": ('{"name": "a", "ts": false}', 400, "ts is False"),
    "fraction as ts": ('{"name": "a", "ts": 1.5}', 400, "ts is 1.5"),
    "number as id": ('{"name": "a", "id": 5}', 400, "id is 5; ids are strings of 1 to"),
    "long id": (json.dumps({"name": "a", "id": "x" * 401}), 400, "ids are strings of 1 to 400 bytes"),
    "number as version": ('{"name": "a", "v": 1}', 400, "v is 1; versions are strings"),
    "the second": ('[{"name": "a"}, {"name": "inngest/x"}]', 400, "event 1: name is 'inngest/x'"),
    "too many": (json.dumps([{"name": "a"}] * 5001), 400, "5,001 events in one request; the maximum is 5,000"),
    "large event": (json.dumps({"name": "a", "data": {"x": "x" * MAX_EVENT_BYTES}}), 413, "the maximum is 524,288"),
    "large body": (b" " * (MAX_BODY_BYTES + 1), 413, "the body is too large; the maximum is 16,777,216 bytes"),
}


@pytest.mark.parametrize(("body", "status", "said"), BAD.values(), ids=BAD)
async def test_what_cannot_be_sent_is_answered_with_what_is_wrong(
    connected: steporal.Client, body: str | bytes, status: int, said: str
) -> None:
    async with gateway_of(connected) as http:
        sent = await http.post("/e/any", content=body)
    assert (sent.status_code, sent.json()["status"], sent.json()["ids"]) == (status, status, [])
    assert said in sent.json()["error"]


async def test_a_body_of_unknown_length_is_limited_too(connected: steporal.Client) -> None:
    async def endless() -> Any:
        while True:
            yield b" " * 65_536

    async with gateway_of(connected) as http:
        try:
            sent = await http.post("/e/any", content=endless())
        except httpx.NetworkError:  # the connection was closed while more was coming
            return
    assert sent.status_code == 413


async def test_a_body_that_is_compressed_is_refused(connected: steporal.Client) -> None:
    async with gateway_of(connected) as http:
        sent = await http.post("/e/any", content=b"\x1f\x8b", headers={"content-encoding": "gzip"})
    assert sent.status_code == 415


@pytest.mark.parametrize("form", [{"data": {"name": "a"}}, {"files": {"name": b"a"}}], ids=["urlencoded", "multipart"])
async def test_a_form_is_refused_as_one(connected: steporal.Client, form: dict[str, Any]) -> None:
    async with gateway_of(connected) as http:
        sent = await http.post("/e/any", **form)
    assert sent.status_code == 400
    assert "it is a form" in sent.json()["error"]


async def test_nothing_is_sent_if_one_event_is_wrong(
    app: steporal.Client, workers: Workers, temporal: temporalio.client.Client
) -> None:
    workflow_id, name = greeting(app)
    async with workers(app), gateway_of(app) as http:
        events = [{"name": name, "id": f"{app.id} {n}"} for n in range(50)]
        assert (await http.post("/e/any", json=[*events, {"name": 5}])).status_code == 400
        for event in events:
            with pytest.raises(temporalio.service.RPCError, match="not found"):
                await temporal.get_workflow_handle(f"{app.id}/{workflow_id}/{event['id']}").describe()


async def test_browsers_of_any_site_may_send_events(connected: steporal.Client) -> None:
    origin = {"origin": "https://shop.example"}
    asked = origin | {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    async with gateway_of(connected) as http:
        allowed = await http.options("/e/any", headers=asked)
        sent = await http.post("/e/any", json={"name": "nobody.cares"}, headers=origin)
        other = await http.post("/invoke/nothing", json={}, headers=origin)
    assert allowed.status_code == 200
    assert sent.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-origin" not in other.headers


async def test_many_requests_at_once_each_start_their_run(
    app: steporal.Client, workers: Workers, temporal: temporalio.client.Client
) -> None:
    workflow_id, name = greeting(app)
    async with workers(app), gateway_of(app) as http:
        sent = await asyncio.gather(*(http.post("/e/any", json={"name": name, "data": {"n": n}}) for n in range(100)))
        ids = [one.json()["ids"][0] for one in sent]
        handles = [temporal.get_workflow_handle(f"{app.id}/{workflow_id}/{id}") for id in ids]
        assert await asyncio.gather(*(handle.result() for handle in handles)) == [{"n": n} for n in range(100)]


async def test_what_temporal_refuses_for_good_is_not_to_be_sent_again(
    app: steporal.Client, workers: Workers, temporal: temporalio.client.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, name = greeting(app)

    async def refuse(*_: object, **__: object) -> NoReturn:
        raise RPCError("WorkflowId length exceeds limit.", RPCStatusCode.INVALID_ARGUMENT, b"")

    async with workers(app), gateway_of(app) as http:
        monkeypatch.setattr(app.sending.dispatcher(temporal), "dispatch", refuse)
        refused = await http.post("/e/any", json={"name": name, "id": "a"})
    assert (refused.status_code, refused.json()["ids"]) == (400, ["a"])
    assert "refused again" in refused.json()["error"]


# --- Temporal away -------------------------------------------------------------------------------------------------


@dataclass
class CutAfter(Interceptor):
    """Cuts a wire once so many runs were started through it."""

    wire: Wire
    starts: int

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        return _Starts(next, self)


class _Starts(OutboundInterceptor):
    def __init__(self, next: OutboundInterceptor, cuts: CutAfter) -> None:
        super().__init__(next)
        self._cuts = cuts

    async def start_workflow(self, input: StartWorkflowInput) -> temporalio.client.WorkflowHandle[Any, Any]:
        started = await super().start_workflow(input)
        self._cuts.starts -= 1
        if self._cuts.starts == 0:
            self._cuts.wire.cut()
        return started


async def test_what_was_half_sent_when_temporal_went_away_is_healed_by_a_retry(
    app: steporal.Client, workers: Workers, temporal: temporalio.client.Client
) -> None:
    workflow_id, name = greeting(app)
    impatient = RetryConfig(max_elapsed_time_millis=300, max_retries=2)
    events = [{"name": name, "data": {"n": n}} for n in range(200)]
    seed = {HEADER: f"1743130137367,{base64.b64encode(new_entropy()).decode()}"}
    async with workers(app), Wire(temporal.service_client.config.target_host) as wire:
        cuts = CutAfter(wire, starts=10)
        through = await temporalio.client.Client.connect(wire.address, retry_config=impatient, interceptors=[cuts])
        sender = steporal.Client("sender", temporal=through)
        async with gateway_of(sender) as http:
            assert (await http.get("/ready")).status_code == 200
            half = await http.post("/e/any", json=events, headers=seed)
            assert half.status_code == 503
            started = await until_settled(temporal, workflow_id)
            assert 0 < started < len(events)
            assert (await http.post("/e/any", json=events, headers=seed)).status_code == 503
            wire.mend()
            healed = await until_sent(http, events, seed)
        assert half.json()["ids"] == healed.json()["ids"]
        await until_started(temporal, workflow_id, len(events))
        assert await count(temporal, workflow_id) == len(events)


async def until_settled(temporal: temporalio.client.Client, workflow_id: str) -> int:
    """The number of runs that were started, once it grows no more."""
    await until_started(temporal, workflow_id, 1)
    before = 0
    while (now := await count(temporal, workflow_id)) != before:
        before = now
        await asyncio.sleep(0.5)
    return now


async def until_sent(http: httpx.AsyncClient, events: list[Any], headers: dict[str, str]) -> httpx.Response:
    """Send as a producer does, until it succeeds."""
    async with asyncio.timeout(30):
        while (sent := await http.post("/e/any", json=events, headers=headers)).status_code == 503:
            await asyncio.sleep(0.1)
    return sent


async def test_the_ids_of_a_503_heal_without_a_seed(
    app: steporal.Client, workers: Workers, temporal: temporalio.client.Client
) -> None:
    workflow_id, name = greeting(app)
    impatient = RetryConfig(max_elapsed_time_millis=300, max_retries=2)
    async with workers(app), Wire(temporal.service_client.config.target_host) as wire:
        through = await temporalio.client.Client.connect(wire.address, retry_config=impatient)
        async with gateway_of(steporal.Client("sender", temporal=through)) as http:
            assert (await http.get("/ready")).status_code == 200
            wire.cut()
            lost = await http.post("/e/any", json=[{"name": name}, {"name": name}])
            assert (lost.status_code, lost.headers["retry-after"]) == (503, "1")
            assert "send the same again" in lost.json()["error"]
            wire.mend()
            again = [{"name": name, "id": id} for id in lost.json()["ids"]]
            assert (await until_sent(http, again, {})).json()["ids"] == lost.json()["ids"]
        await until_started(temporal, workflow_id, 2)
