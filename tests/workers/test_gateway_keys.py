"""Who may use the gateway."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
import temporalio.client
from gateway import gateway_of
from ulid import ULID

import steporal
from steporal_workers.gateway.command import keys_of
from steporal_workers.gateway.keys import Keys, Ring
from steporal_workers.gateway.options import GatewayOptions
from steporal_workers.gateway.seeds import IdSeed
from steporal_workers.problems import Mistake

SET = Keys.of(["old", "new"], ["api"])
EVENT = {"name": "nobody.cares"}


@pytest.mark.parametrize(
    ("key", "status"), [("old", 200), ("new", 200), ("api", 401), ("", 401), ("old, new", 401), ("%C3%BC", 401)]
)
async def test_each_of_the_event_keys_sends_events_and_no_other(
    app: steporal.Client, temporal: temporalio.client.Client, key: str, status: int
) -> None:
    app.temporal = temporal
    async with gateway_of(app, SET) as http:
        sent = await http.post(f"/e/{key}", json=EVENT)
    assert sent.status_code == status
    if status == 401:
        assert sent.json() == {"error": "Event key not found", "ids": [], "status": 401}


@pytest.mark.parametrize(
    ("given", "allowed"),
    [("Bearer api", True), ("bearer api", True), ("Bearer old", False), ("Basic api", False), ("api", False)],
)
async def test_an_api_key_opens_the_rest(
    app: steporal.Client, temporal: temporalio.client.Client, given: str, allowed: bool
) -> None:
    app.temporal = temporal
    async with gateway_of(app, SET) as http:
        for method, path in [("GET", "/v1/runs/x"), ("DELETE", "/v1/runs/x"), ("POST", "/v1/signals")]:
            answered = await http.request(method, path, headers={"authorization": given})
            assert (answered.status_code != 401) == allowed
        assert (await http.get("/v1/events/x/runs")).status_code == 401
        refused = await http.post("/invoke/x", json={})
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer KEY" in refused.json()["error"]


async def test_a_key_is_checked_before_anything_is_read(
    app: steporal.Client, temporal: temporalio.client.Client
) -> None:
    app.temporal = temporal
    async with gateway_of(app, SET) as http:
        assert (await http.post("/e/wrong", content=b"no json")).status_code == 401
        assert (await http.post("/v1/signals", content=b"no json")).status_code == 401


async def test_probes_and_the_description_need_no_key(app: steporal.Client, temporal: temporalio.client.Client) -> None:
    app.temporal = temporal
    async with gateway_of(app, SET) as http:
        for path in ("/health", "/live", "/ready", "/openapi.json"):
            assert (await http.get(path)).status_code == 200


async def test_what_has_no_keys_is_closed_if_the_other_has_some(
    app: steporal.Client, temporal: temporalio.client.Client
) -> None:
    app.temporal = temporal
    async with gateway_of(app, Keys.of(["event"])) as http:
        assert (await http.post("/e/event", json=EVENT)).status_code == 200
        closed = await http.get("/v1/runs/x", headers={"authorization": "Bearer event"})
    assert (closed.status_code, closed.json()["error"]) == (401, "no API keys are configured: set STEPORAL_API_KEYS")
    async with gateway_of(app, Keys.of(None, ["api"])) as http:
        assert (await http.post("/e/api", json=EVENT)).json()["error"].startswith("no event keys are configured")


def test_without_keys_there_is_no_gateway() -> None:
    with pytest.raises(Mistake, match=r"has no keys: set STEPORAL_EVENT_KEYS .* or accept requests from everybody"):
        Keys.of(None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"event_keys": ["x" * 16, "k" * 15]}, "key 2 of STEPORAL_EVENT_KEYS has 15 characters"),
        ({"api_keys": ["k"]}, "key 1 of STEPORAL_API_KEYS has 1 character;"),
        ({"event_keys": ["k"], "insecure_any_key": True}, "key 1 of STEPORAL_EVENT_KEYS has 1 character;"),
    ],
)
def test_a_gateway_does_not_start_with_a_key_that_can_be_guessed(options: dict[str, Any], said: str) -> None:
    with pytest.raises(Mistake) as refused:
        keys_of(GatewayOptions(**options))
    assert str(refused.value).startswith(said)
    assert "use keys of 16 characters or more" in str(refused.value) and "kk" not in str(refused.value)


def test_a_gateway_starts_with_keys_of_16_characters() -> None:
    assert keys_of(GatewayOptions(event_keys=["x" * 16])).event.accepts("x" * 16)


def test_any_key_opens_what_has_none_where_that_is_asked_for() -> None:
    keys = Keys.of(None, ["api"], insecure_any_key=True)
    assert keys.event.is_open
    assert not keys.api.accepts("another")


def test_a_signing_key_is_also_taken_as_inngests_sdks_send_it() -> None:
    signing_key = "signkey-prod-0123456789abcdef"
    digest = hashlib.sha256(bytes.fromhex("0123456789abcdef")).hexdigest()
    api = Keys.of(None, [signing_key]).api
    assert api.accepts(signing_key)
    assert api.accepts(f"signkey-prod-{digest}")
    assert not api.accepts(digest)


def test_keys_that_are_no_ascii_are_keys() -> None:
    assert Ring.of(["schlüssel"]).accepts("schlüssel")
    assert not Ring.of(["schlüssel"]).accepts("\udcff")


# --- seeds ---------------------------------------------------------------------------------------------------------

ENTROPY = base64.b64encode(bytes(10)).decode()


@pytest.mark.parametrize(
    "header",
    ["", "1743130137367", f"0,{ENTROPY}", f"-1,{ENTROPY}", f"{2**48},{ENTROPY}", f"1743130137367,{ENTROPY},",
     "1743130137367,AAAA", f"1_7,{ENTROPY}", f"١,{ENTROPY}", f"{'9' * 5000},{ENTROPY}"],
    ids=range(10),
)  # fmt: skip
def test_a_seed_of_another_form_is_none(header: str) -> None:
    assert IdSeed.parse(header) is None


def test_the_count_of_a_seed_wraps_as_in_inngest() -> None:
    entropy = bytes(6) + b"\xff" * 4
    seed = IdSeed.parse(f"1,{base64.b64encode(entropy).decode()}")
    assert seed is not None
    assert seed.id(0) == str(ULID.from_bytes((1).to_bytes(6, "big") + bytes(10)))


def test_the_ids_of_a_new_seed_ascend() -> None:
    for _ in range(100):
        seed = IdSeed.new()
        ids = [seed.id(position) for position in range(5000)]
        assert ids == sorted(set(ids))


# --- where no key is needed ----------------------------------------------------------------------------------------

HERE = ["127.0.0.1:8288", "[::1]:8288", "localhost:8288", "app.localhost", "gateway:8288", "host.docker.internal:8288"]
FOREIGN = ["evil.example", "evil.example:8288", "127.0.0.1.evil.example", "localhost.evil.example", "[::1", "evil.com."]
OPEN = [
    ("POST", "/e/any"),
    ("POST", "/invoke/x"),
    ("POST", "/v1/signals"),
    ("GET", "/v1/runs/x"),
    ("DELETE", "/v1/runs/x"),
]


@pytest.mark.parametrize(("method", "path"), OPEN)
async def test_without_keys_no_name_that_a_stranger_may_have_leads_here(
    app: steporal.Client, temporal: temporalio.client.Client, method: str, path: str
) -> None:
    """A page of such a name would read the answers, if its owner has it lead to 127.0.0.1."""
    app.temporal = temporal
    async with gateway_of(app) as http:
        for host in FOREIGN:
            refused = await http.request(method, path, headers={"Host": host})
            assert (refused.status_code, host in refused.json()["error"]) == (403, True)
        for host in HERE:
            assert (await http.request(method, path, headers={"Host": host})).status_code != 403
        assert (await http.get("/live", headers={"Host": FOREIGN[0]})).status_code == 200


@pytest.mark.parametrize(("method", "path"), OPEN)
async def test_without_keys_pages_of_this_machine_alone_may_use_it(
    app: steporal.Client, temporal: temporalio.client.Client, method: str, path: str
) -> None:
    app.temporal = temporal
    async with gateway_of(app) as http:
        for origin in (
            "https://evil.example",
            "null",
            "http://localhost.evil.example",
            "file://",
            "http://10.0.0.5",
            "",
        ):
            headers = {"Origin": origin, "Content-Type": "text/plain"}  # of which browsers do not ask first
            refused = await http.request(method, path, content=b'{"name": "a"}', headers=headers)
            assert (refused.status_code, "may not send requests" in refused.json()["error"]) == (403, True)
        for origin in ("http://localhost:5173", "http://127.0.0.1:3000", "https://shop.localhost", "http://[::1]"):
            answered = await http.request(method, path, json=EVENT, headers={"Origin": origin})
            assert answered.status_code != 403
        itself = {"Origin": "http://192.168.1.5:3000", "Host": "192.168.1.5:8288"}
        assert (await http.request(method, path, json=EVENT, headers=itself)).status_code != 403


async def test_a_key_is_good_for_pages_too(app: steporal.Client, temporal: temporalio.client.Client) -> None:
    app.temporal = temporal
    async with gateway_of(app, Keys.of(["old"], None, insecure_any_key=True)) as http:
        page = {"Origin": "https://shop.example", "Host": "events.shop.example"}
        assert (await http.post("/e/old", json=EVENT, headers=page)).status_code == 200
        assert (await http.post("/invoke/x", json={}, headers=page)).status_code == 403


async def test_no_answer_is_a_page_or_kept_by_a_proxy(app: steporal.Client, temporal: temporalio.client.Client) -> None:
    app.temporal = temporal
    async with gateway_of(app, SET) as http:
        for path in ("/live", "/v1/runs/x", "/nothing", "/openapi.json"):
            headers = (await http.get(path)).headers
            assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")


async def test_what_a_path_may_be_asked_is_said_whole(app: steporal.Client, temporal: temporalio.client.Client) -> None:
    app.temporal = temporal
    async with gateway_of(app, SET) as http:
        answered = await http.post("/v1/runs/x")
    assert (answered.status_code, set(answered.headers["allow"].split(", "))) == (405, {"GET", "HEAD", "DELETE"})
