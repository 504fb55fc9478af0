"""The codec server: what it is asked by Temporal's UI and command, and by strangers."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from google.protobuf.json_format import MessageToDict
from temporalio.api.common.v1 import Payload, Payloads

from steporal.encryption import EncryptionCodec, Key, Keys, new_key
from steporal_workers.codec.app import create_codec_app
from steporal_workers.codec.command import listening
from steporal_workers.gateway import memory
from steporal_workers.gateway.keys import Ring
from steporal_workers.gateway.server import serving_on
from steporal_workers.listening import url_of

OLD, NEW = new_key(), new_key()
UI = "https://temporal.example.com"
BEARER = {"Authorization": "Bearer of-the-team"}

CLEAR = [
    Payload(metadata={"encoding": b"json/plain"}, data=b'{"a": 1}'),
    Payload(metadata={"encoding": b"binary/null"}),
    Payload(metadata={"encoding": b"binary/plain"}, data=b"\x00\xff"),
]


def body(payloads: list[Payload]) -> Any:
    return MessageToDict(Payloads(payloads=payloads))


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """A codec server, which its key opens."""
    app = create_codec_app(EncryptionCodec(Keys.of([NEW, OLD])), Ring.of(["of-the-team"]), [UI])
    at = listening("127.0.0.1", 0)
    async with serving_on(app, at), httpx.AsyncClient(base_url=url_of(at)) as client:
        yield client


async def test_it_decrypts_what_any_of_its_keys_has_encrypted(http: httpx.AsyncClient) -> None:
    for key in (OLD, NEW):
        sealed = await EncryptionCodec(Keys.of([key])).encode(CLEAR)
        answer = await http.post("/decode", json=body(sealed), headers={**BEARER, "X-Namespace": "default"})
        assert (answer.status_code, answer.json()) == (200, body(CLEAR))
    assert (await http.post("/decode", json=body(CLEAR), headers=BEARER)).json() == body(CLEAR)
    assert (await http.post("/decode", json={"payloads": []}, headers=BEARER)).json() == {}


async def test_it_encrypts_with_the_first(http: httpx.AsyncClient) -> None:
    (sealed, *_) = (await http.post("/encode", json=body(CLEAR), headers=BEARER)).json()["payloads"]
    assert base64.b64decode(sealed["metadata"]["encryption-key-id"]).decode() == Key.parse(NEW).id


async def test_a_key_that_it_does_not_have_is_named(http: httpx.AsyncClient) -> None:
    other = new_key()
    sealed = await EncryptionCodec(Keys.of([other])).encode(CLEAR)
    answer = await http.post("/decode", json=body(sealed), headers=BEARER)
    assert answer.status_code == 400
    assert f"with key {Key.parse(other).id!r}, which this process does not have" in answer.json()["error"]


@pytest.mark.parametrize(
    "authorization", [None, "of-the-team", "Bearer", "Bearer of-the-team,", "Basic of-the-team", "Bearer ünlike"]
)
@pytest.mark.parametrize("path", ["/decode", "/encode"])
async def test_who_has_no_key_reads_nothing(http: httpx.AsyncClient, path: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    answer = await http.post(path, json=body(CLEAR), headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert "of-the-team" not in answer.text


async def test_pages_of_temporals_ui_may_use_it_and_no_others(http: httpx.AsyncClient) -> None:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-namespace",
        "Access-Control-Request-Private-Network": "true",
    }
    allowed = await http.options("/decode", headers={"Origin": UI, **asked})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, UI)
    assert allowed.headers["access-control-allow-private-network"] == "true"
    refused = await http.options("/decode", headers={"Origin": "https://evil.example", **asked})
    assert refused.status_code == 400 and "access-control-allow-origin" not in refused.headers

    answer = await http.post("/decode", json=body(CLEAR), headers={**BEARER, "Origin": UI})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, UI)
    for origin in ("https://evil.example", "null", f"{UI}.evil.example", str(http.base_url)):
        answer = await http.post("/decode", json=body(CLEAR), headers={**BEARER, "Origin": origin})
        assert answer.status_code == 403, "also if its name leads here"
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("", "the body is empty"),
        ("[]", "it must be an object"),
        ("{}", "the body has no payloads"),
        ('{"payloads": {}}', "the body has no payloads"),
        ('{"payloads": [1]}', "something that is not a payload"),
        ('{"payloads": [null]}', "something that is not a payload"),
        ('{"payloads": [{"data": 1}]}', "something that is not a payload"),
        ('{"payloads": [{"metadata": []}]}', "something that is not a payload"),
        ('{"payloads": ' + "[" * 5_000 + "]" * 5_000 + "}", "nested too deep"),
        ('{"payloads": [' + "{}," * 10_000 + "{}]}", "10,001 payloads in one request; the maximum is 10,000"),
    ],
)
async def test_what_is_no_payloads_is_refused(http: httpx.AsyncClient, given: str, why: str) -> None:
    answer = await http.post("/decode", content=given, headers=BEARER)
    assert (answer.status_code, why in answer.json()["error"]) == (400, True), answer.text


async def test_a_body_that_is_too_large_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.post("/decode", content=b" " * (16 * 1024 * 1024 + 1), headers=BEARER)
    assert answer.status_code == 413


async def test_what_becomes_of_payloads_is_a_part_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.Memory.__init__, "__defaults__", (4 * 1024 * 1024,))
    app = create_codec_app(EncryptionCodec(Keys.of([NEW])), Ring.of(["of-the-team"]), [])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://codec") as http:

        async def encoded(size: int, count: int = 1) -> httpx.Response:
            payload = {"metadata": {"encoding": "anNvbi9wbGFpbg=="}, "data": "MTIz" * (size // 4)}
            return await http.post("/encode", json={"payloads": [payload] * count}, headers=BEARER)

        assert (await encoded(256 * 1024)).status_code == 200
        for refused in (await encoded(1024 * 1024), await encoded(4, 2_000)):
            assert (refused.status_code, "too much memory" in refused.text) == (413, True)
        assert (await encoded(256 * 1024)).status_code == 200, "the memory is given back"


async def test_probes_need_no_key_and_a_server_that_stops_is_not_ready() -> None:
    is_stopping = False
    app = create_codec_app(EncryptionCodec(Keys.of([NEW])), Ring.of(["k"]), [], is_stopping=lambda: is_stopping)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://codec") as http:
        assert [(await http.get(path)).status_code for path in ("/live", "/ready")] == [200, 200]
        is_stopping = True
        assert [(await http.get(path)).status_code for path in ("/live", "/ready")] == [200, 503]


async def test_nobody_is_sent_to_a_host_of_their_own_choice(http: httpx.AsyncClient) -> None:
    answer = await http.post("/decode/", json=body(CLEAR), headers={**BEARER, "Host": "evil.example"})
    assert (answer.status_code, "location" in answer.headers) == (404, False)


async def test_without_keys_it_is_for_its_pages_and_this_machine_alone() -> None:
    app = create_codec_app(EncryptionCodec(Keys.of([NEW])), Ring(None), [UI])
    at = listening("127.0.0.1", 0)
    async with serving_on(app, at), httpx.AsyncClient(base_url=url_of(at)) as http:
        for headers, status in (
            ({}, 200),
            ({"Origin": UI}, 200),
            ({"Origin": "https://evil.example"}, 403),
            ({"Host": "evil.example"}, 403),
            ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),
        ):
            assert (await http.post("/decode", json=body(CLEAR), headers=headers)).status_code == status


async def test_a_request_whose_body_has_two_ends_is_refused(http: httpx.AsyncClient) -> None:
    framed = {**BEARER, "Transfer-Encoding": "chunked", "Content-Length": "5"}
    answer = await http.post("/decode", content=b"0\r\n\r\n", headers=framed)
    assert (answer.status_code, answer.headers["connection"]) == (400, "close")
