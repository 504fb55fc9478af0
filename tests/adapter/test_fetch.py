"""step.ext.fetch: one durable HTTP request."""

from __future__ import annotations

import asyncio
import encodings
import gzip
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from http_server import HttpServer, Reply, http_server
from recording import Workers

import steporal
from steporal import Context, FetchResponse, RunFailedError, Step, StepError, secret
from steporal.outbound import exchange
from steporal.outbound.content import text_of
from steporal.outbound.problems import SecretNotFoundError
from steporal.outbound.retry_after import retry_after
from steporal.outbound.secrets import revealed

pytestmark = pytest.mark.outside_runs

SECRET = "s3cr3t-value-of-the-key"


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with http_server() as running:
        yield running


def fetching(app: steporal.Client, *args: Any, **options: Any) -> steporal.Workflow[Any, Any]:
    """A workflow with one fetch: returns its response, or how it failed."""

    @app.workflow(id="fetching")
    async def fetch(ctx: Context[Any], step: Step) -> Any:
        try:
            response = await step.ext.fetch("call", *args, **options)
        except StepError as err:
            return {"name": err.name, "message": err.message, "attempts": err.attempts}
        return response.model_dump()

    return fetch


async def result(workers: Workers, app: steporal.Client, *args: Any, **options: Any) -> Any:
    workflow = fetching(app, *args, **options)
    async with workers(app):
        return await (await workflow.start()).result()


async def history_of(run: steporal.Run[Any]) -> str:
    history = await run.temporal.fetch_history()
    return history.to_json() + "".join(event.SerializeToString().decode("latin-1") for event in history.events)


# --- requests and responses ----------------------------------------------------------------------------------------


async def test_a_response_comes_as_a_model(app: steporal.Client, workers: Workers, server: HttpServer) -> None:
    server.default = Reply(201, b'{"id": 7}', {"Content-Type": "application/json", "X-A": "1", "x-a": "2"})

    @app.workflow(id="order")
    async def order(ctx: Context[Any], step: Step) -> list[Any]:
        response = await step.ext.fetch("create", "post", f"{server.url}/orders?a=1", json={"n": 1}, params={"b": True})
        assert isinstance(response, FetchResponse)
        again = await step.ext.fetch("create", "GET", server.url)
        return [response.status, response.ok, response.json(), response.headers["x-a"], again.status]

    async with workers(app):
        assert await (await order.start()).result() == [201, True, {"id": 7}, "1, 2", 201]
    asked, again = server.asked
    assert (asked.method, asked.path, asked.params) == ("POST", "/orders", {"a": ["1"], "b": ["true"]})
    assert (asked.json(), asked.headers["content-type"]) == ({"n": 1}, "application/json")
    assert (again.method, again.body, again.headers["user-agent"]) == ("GET", b"", "steporal")


@pytest.mark.parametrize(
    ("content", "sent", "kind"),
    [
        ("größer", "größer".encode(), "text/plain; charset=utf-8"),
        (b"\x00\xff", b"\x00\xff", "application/octet-stream"),
        (None, b"", None),
    ],
)
async def test_content_is_sent_as_it_is(
    app: steporal.Client, workers: Workers, server: HttpServer, content: Any, sent: bytes, kind: str | None
) -> None:
    assert (await result(workers, app, "PUT", server.url, content=content))["status"] == 200
    assert (server.asked[0].body, server.asked[0].headers.get("content-type")) == (sent, kind)


@pytest.mark.parametrize("status", [200, 204, 304, 400, 401, 404, 409, 422])
async def test_other_statuses_are_returned(
    app: steporal.Client, workers: Workers, server: HttpServer, status: int
) -> None:
    server.default = Reply(status)
    assert (await result(workers, app, "GET", server.url))["status"] == status
    assert len(server.asked) == 1


async def test_a_body_is_read_in_its_encoding(app: steporal.Client, workers: Workers, server: HttpServer) -> None:
    kind = {"content-type": "text/plain; charset=latin-1", "content-encoding": "gzip"}
    server.default = Reply(200, gzip.compress("größer".encode("latin-1")), kind)
    assert (await result(workers, app, "GET", server.url))["body"] == "größer"


async def test_what_is_no_text_is_replaced(app: steporal.Client, workers: Workers, server: HttpServer) -> None:
    server.default = Reply(200, b"a\xff", {"content-type": "text/plain; charset=klingon"})
    assert (await result(workers, app, "GET", server.url))["body"] == "a�"


async def test_no_cookies_are_kept(app: steporal.Client, workers: Workers, server: HttpServer) -> None:
    server.default = Reply(200, b"", {"set-cookie": "session=mine; Path=/"})

    @app.workflow(id="twice")
    async def twice(ctx: Context[Any], step: Step) -> None:
        await step.ext.fetch("call", "GET", server.url)
        await step.ext.fetch("call", "GET", server.url)

    async with workers(app):
        await (await twice.start()).result()
    assert [asked.headers.get("cookie") for asked in server.asked] == [None, None]


async def test_a_body_attempt_takes_the_response_from_the_memo(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    @app.workflow(id="again")
    async def again(ctx: Context[Any], step: Step) -> int:
        response = await step.ext.fetch("call", "GET", server.url)
        if ctx.attempt == 0:
            raise RuntimeError("after the fetch")
        return response.status

    async with workers(app):
        assert await (await again.start()).result() == 200
    assert len(server.asked) == 1


# --- attempts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 599])
async def test_429_and_5xx_are_tried_again(
    app: steporal.Client, workers: Workers, server: HttpServer, status: int
) -> None:
    server.answers([Reply(status), Reply(status)])
    assert (await result(workers, app, "GET", server.url))["status"] == 200
    assert len(server.asked) == 3


async def test_the_last_attempt_fails_the_step_with_status_and_url_without_its_query(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    server.default = Reply(503, b"busy")
    failed = await result(
        workers, app, "GET", f"{server.url}/orders?token={SECRET}", params={"key": "hidden"}, max_attempts=2
    )
    message = f"GET {server.url}/orders returned 503 Service Unavailable"
    assert failed == {"name": "HttpStatusError", "message": message, "attempts": 2}
    assert len(server.asked) == 2


async def test_a_connection_that_breaks_is_tried_again(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    server.answers([Reply(0), Reply(200, b"half", {"content-length": "100"})])
    assert (await result(workers, app, "GET", server.url))["status"] == 200
    assert len(server.asked) == 3


async def test_no_connection_is_an_error_that_says_so(app: steporal.Client, workers: Workers) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        failed = await result(workers, app, "GET", f"{url}?a=1", max_attempts=2)
    assert (failed["name"], failed["attempts"]) == ("ConnectionError", 2)
    assert failed["message"].startswith(f"GET {url}: cannot connect: ")


async def test_an_attempt_that_takes_too_long_is_tried_again(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    never = asyncio.Event()
    server.answers([Reply(until=never)])
    assert (await result(workers, app, "GET", server.url, timeout="200ms"))["status"] == 200
    assert len(server.asked) == 2


async def test_a_timeout_says_how_long(app: steporal.Client, workers: Workers, server: HttpServer) -> None:
    server.default = Reply(until=asyncio.Event())
    failed = await result(workers, app, "GET", f"{server.url}/slow", timeout="100ms", max_attempts=1)
    assert failed["name"] == "TimeoutError"
    assert failed["message"] == f"GET {server.url}/slow took longer than 100ms"


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_says_when_the_next_attempt_starts(
    app: steporal.Client, workers: Workers, server: HttpServer, form: str
) -> None:
    later = datetime.now(UTC) + timedelta(seconds=3)
    server.answers([Reply(429, headers={"Retry-After": "1" if form == "seconds" else format_datetime(later, True)})])
    workflow = fetching(app, "GET", server.url)
    async with workers(app):
        started = datetime.now(UTC)
        assert (await (await workflow.start()).result())["status"] == 200
        took = datetime.now(UTC) - started
    if form == "seconds":
        assert took >= timedelta(seconds=1)
    else:
        assert datetime.now(UTC) >= later.replace(microsecond=0)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("0", 0),
        (" 120 ", 120),
        ("99999999999999999999999", 3600),
        ("-5", 0),
        ("soon", 0),
        ("1.5", 0),
        ("²", 0),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60),
        ("Thu, 01 Jan 2026 00:01:00 -0000", 60),
        ("Wed, 31 Dec 2025 23:00:00 GMT", 0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 3600),
        ("Fri, 99 Jan 2100 00:00:00 GMT", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_never_too_long(header: str | None, seconds: int) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after(header, now, timedelta(hours=1)) == timedelta(seconds=seconds)


async def test_a_cancelled_run_ends_its_request(app: steporal.Client, workers: Workers, server: HttpServer) -> None:
    server.default = Reply(until=asyncio.Event())
    workflow = fetching(app, "GET", server.url, timeout="1h")
    async with workers(app):
        run = await workflow.start()
        await server.until_asked()
        await run.cancel()
        with pytest.raises(steporal.RunCancelledError):
            await run.result()


# --- size ----------------------------------------------------------------------------------------------------------


def test_a_server_that_names_charsets_without_end_leaves_nothing_in_memory() -> None:
    before = len(encodings._cache)  # type: ignore[attr-defined]
    for number in range(100):
        assert text_of("größer".encode(), f"text/plain; charset=cp{10**1000 + number}") == "größer"
    assert len(encodings._cache) == before  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "name",
    [
        "utf-8",
        "UTF8",
        "utf-8-sig",
        "utf-16le",
        "us-ascii",
        "latin-1",
        "ISO-8859-1",
        "iso8859-15",
        "windows-1252",
        "cp437",
        "koi8-r",
        "Shift_JIS",
        "sjis",
        "euc-jp",
        "euc-kr",
        "gb2312",
        "gb18030",
        "big5",
        "big5-hkscs",
        "tis-620",
        "macintosh",
        "mac-roman",
    ],
)
def test_the_charsets_of_the_web_are_read(name: str) -> None:
    assert text_of("abc".encode(name), f"text/html; charset={name}") == "abc"


async def test_a_name_whose_server_does_not_answer_keeps_no_thread_that_others_share(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    real = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **options: Any) -> Any:
        if host in (b"silent.example", "silent.example"):
            assert answers.wait(60)
        return real("127.0.0.1", *args, **options)

    def request(host: str) -> exchange.Request:
        url = f"http://{host}:{httpx.URL(server.url).port}/"
        return exchange.Request("GET", url, (), None, timedelta(minutes=1), 1000, url)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    silent = [asyncio.ensure_future(exchange.exchange(request("silent.example"))) for _ in range(50)]
    try:
        async with asyncio.timeout(30):
            assert (await exchange.exchange(request("api.example"))).status == 200
            assert await asyncio.to_thread(lambda: "free") == "free"
    finally:
        answers.set()
    assert {answer.status for answer in await asyncio.gather(*silent)} == {200}
    assert {asked.headers["host"].partition(":")[0] for asked in server.asked} == {"api.example", "silent.example"}


async def test_the_next_address_of_a_name_is_tried(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    port = httpx.URL(server.url).port
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    url = f"http://api.example:{port}/"
    answer = await exchange.exchange(exchange.Request("GET", url, (), None, timedelta(minutes=1), 1000, url))
    assert answer.status == 200


async def test_a_proxy_is_looked_up_before_httpx_does(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://proxy.example:{httpx.URL(server.url).port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    threads = []
    real = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **options: Any) -> Any:
        threads.append(threading.current_thread().name)
        return real("127.0.0.1", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    url = "http://api.example/"
    answer = await exchange.exchange(exchange.Request("GET", url, (), None, timedelta(minutes=1), 1000, url))
    assert answer.status == 200
    assert server.asked[-1].target == url
    assert threads[0] == "steporal-look-up-proxy.example"


async def test_a_body_that_is_announced_too_large_is_not_read(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    server.default = Reply(200, b"x" * 3000)
    failed = await result(workers, app, "GET", f"{server.url}/big", max_response_bytes=1000)
    assert failed["name"] == "ResponseTooLargeError"
    assert failed["message"] == f"GET {server.url}/big returned a body of 3,000 bytes; max_response_bytes is 1,000"
    assert (failed["attempts"], len(server.asked)) == (1, 1)


async def test_an_endless_body_is_left_at_the_limit(app: steporal.Client, workers: Workers, server: HttpServer) -> None:
    server.default = Reply(200, b"x" * 65536, endless=True)
    failed = await result(workers, app, "GET", server.url)
    assert failed["name"] == "ResponseTooLargeError"
    assert "more than 1,048,576 bytes" in failed["message"]
    assert server.sent < 64 * 1024 * 1024


async def test_a_packed_body_counts_unpacked(app: steporal.Client, workers: Workers, server: HttpServer) -> None:
    server.default = Reply(200, gzip.compress(bytes(4 * 1024 * 1024)), {"content-encoding": "gzip"})
    assert (await result(workers, app, "GET", server.url))["name"] == "ResponseTooLargeError"


@pytest.mark.parametrize("coding", ["gzip, gzip", "br"])
async def test_a_body_that_is_packed_twice_or_otherwise_fails_the_step_at_once(
    app: steporal.Client, workers: Workers, server: HttpServer, coding: str
) -> None:
    server.default = Reply(body=gzip.compress(gzip.compress(b"text")), headers={"content-encoding": coding})
    said = await result(workers, app, "GET", server.url)
    assert (said["name"], said["attempts"]) == ("ResponseEncodingError", 1)
    assert coding in said["message"]


async def test_a_body_that_unpacks_a_thousandfold_is_left_at_the_limit(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    server.default = Reply(body=gzip.compress(bytes(100_000_000), 1), headers={"content-encoding": "gzip"})
    said = await result(workers, app, "GET", server.url)
    assert (said["name"], said["attempts"]) == ("ResponseTooLargeError", 1)


async def test_a_packed_body_that_is_cut_off_is_tried_again(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    whole, headers = gzip.compress(b"text" * 1_000), {"content-encoding": "gzip"}
    server.answers([Reply(body=whole[:-10], headers=headers), Reply(body=whole, headers=headers)])
    assert (await result(workers, app, "GET", server.url))["body"] == "text" * 1_000


async def test_a_body_of_exactly_the_limit_is_read(app: steporal.Client, workers: Workers, server: HttpServer) -> None:
    server.default = Reply(200, b"x" * 1000)
    assert len((await result(workers, app, "GET", server.url, max_response_bytes=1000))["body"]) == 1000


# --- secrets -------------------------------------------------------------------------------------------------------


async def test_a_secret_is_sent_and_is_nowhere_in_the_history(
    app: steporal.Client, workers: Workers, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPORAL_TEST_KEY", SECRET)
    workflow = fetching(
        app,
        "GET",
        server.url,
        headers={"Authorization": secret("STEPORAL_TEST_KEY", prefix="Bearer ")},
        params={"key": secret("STEPORAL_TEST_KEY")},
    )
    server.answers([Reply(500)])
    async with workers(app):
        run = await workflow.start()
        assert (await run.result())["status"] == 200
        history = await history_of(run)
    assert [asked.headers["authorization"] for asked in server.asked] == [f"Bearer {SECRET}"] * 2
    assert server.asked[0].params == {"key": [SECRET]}
    assert "STEPORAL_TEST_KEY" in history
    assert SECRET not in history


@pytest.mark.parametrize("status", [0, 500])
async def test_a_secret_is_in_no_error_and_in_no_log(
    app: steporal.Client,
    workers: Workers,
    server: HttpServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setenv("STEPORAL_TEST_KEY", SECRET)
    server.default = Reply(status)
    key = secret("STEPORAL_TEST_KEY")
    workflow = fetching(app, "GET", server.url, headers={"X-Key": key}, params={"key": key}, max_attempts=1)
    async with workers(app):
        run = await workflow.start()
        assert "name" in await run.result()
        assert SECRET not in await history_of(run)
    assert SECRET not in caplog.text


async def test_a_missing_secret_fails_the_step_at_once(
    app: steporal.Client, workers: Workers, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STEPORAL_TEST_KEY", raising=False)
    failed = await result(workers, app, "GET", server.url, headers={"X-Key": secret("STEPORAL_TEST_KEY")})
    assert (failed["name"], failed["attempts"]) == ("SecretNotFoundError", 1)
    assert "header 'X-Key' of step 'call' needs the environment variable 'STEPORAL_TEST_KEY'" in failed["message"]
    assert not server.asked


@pytest.mark.parametrize("name", ["STEPORAL_ENCRYPTION_KEYS", "STEPORAL_API_KEYS", "TEMPORAL_API_KEY"])
def test_the_workers_own_keys_are_never_sent(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, SECRET)
    with pytest.raises(SecretNotFoundError, match=f"the header requests '{name}', which is a setting of this worker"):
        revealed(secret(name), "the header")


@pytest.mark.parametrize("value", [f"{SECRET}\r\nX-Admin: 1", f"{SECRET}é"], ids=["line break", "no ASCII"])
async def test_a_secret_that_no_header_can_have_is_not_shown(
    app: steporal.Client, workers: Workers, server: HttpServer, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("STEPORAL_TEST_KEY", value)
    workflow = fetching(app, "GET", server.url, headers={"X-Key": secret("STEPORAL_TEST_KEY")})
    async with workers(app):
        run = await workflow.start()
        failed = await run.result()
        assert SECRET not in await history_of(run)
    assert failed["name"] == "SecretNotFoundError"
    assert "'STEPORAL_TEST_KEY'" in failed["message"]
    assert not server.asked


@pytest.mark.parametrize("name", ["", "A=B", "A\n", None, 3])
def test_what_names_no_environment_variable_is_no_secret(name: Any) -> None:
    with pytest.raises(steporal.InvalidArgumentError, match="it takes the name of an environment variable"):
        secret(name)


# --- redirects -----------------------------------------------------------------------------------------------------


async def test_a_redirect_on_the_same_host_is_followed(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    server.answers([Reply(302, headers={"location": "/there?b=2"}), Reply(308, headers={"location": server.url})])
    assert (await result(workers, app, "GET", f"{server.url}/here", headers={"X-A": "1"}))["status"] == 200
    assert [(asked.target, asked.headers["x-a"]) for asked in server.asked] == [
        ("/here", "1"),
        ("/there?b=2", "1"),
        ("/", "1"),
    ]


async def test_a_redirect_to_another_host_or_port_is_returned(
    app: steporal.Client, workers: Workers, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPORAL_TEST_KEY", SECRET)
    async with http_server() as other:
        targets = [other.url, f"http://localhost:{server.port}/x", "//example.com/", "http://[", "mailto:a@b.c"]
        server.answers([Reply(302, headers={"location": target}) for target in targets])

        @app.workflow(id="follow")
        async def follow(ctx: Context[Any], step: Step) -> list[int]:
            headers = {"Authorization": secret("STEPORAL_TEST_KEY")}
            return [(await step.ext.fetch("call", "GET", server.url, headers=headers)).status for _ in targets]

        async with workers(app):
            assert await (await follow.start()).result() == [302] * len(targets)
        assert not other.asked
    assert len(server.asked) == len(targets)


async def test_a_post_is_redirected_only_where_it_stays_a_post(
    app: steporal.Client, workers: Workers, server: HttpServer
) -> None:
    server.answers([Reply(307, headers={"location": "/b"}), Reply(303, headers={"location": "/c"})])
    assert (await result(workers, app, "POST", f"{server.url}/a", json=[1]))["status"] == 303
    assert [(asked.method, asked.path, asked.json()) for asked in server.asked] == [
        ("POST", "/a", [1]),
        ("POST", "/b", [1]),
    ]


async def test_a_circle_of_redirects_ends(app: steporal.Client, workers: Workers, server: HttpServer) -> None:
    server.default = Reply(302, headers={"location": "/"})
    failed = await result(workers, app, "GET", server.url, max_attempts=1)
    assert "was redirected more than 5 times" in failed["message"]
    assert len(server.asked) == 6


# --- bad arguments -------------------------------------------------------------------------------------------------

URL = "http://127.0.0.1:9/"
BAD = [
    (("GET", "/orders"), {}, "url is '/orders'; it takes an absolute URL"),
    (("GET", "ftp://example.com/"), {}, "with http or https"),
    (("GET", "http:///x"), {}, "contains no host"),
    (("GET", "http://a:70000/"), {}, "it takes an absolute URL"),
    (("GET", "http://a b/"), {}, "a space or a control character"),
    (("GET", "http://a/\n"), {}, "a space or a control character"),
    (("GET", "http://me:pass@example.com/"), {}, r"url for 'example.com' contains a user or password"),
    (("GET", None), {}, r"url is None \(NoneType\)"),
    (("G E T", URL), {}, "method is 'G E T'"),
    (("", URL), {}, "method is ''"),
    (("POST", URL), {"json": {}, "content": "x"}, "it has both json and content"),
    (("POST", URL), {"json": {"a": object()}}, "json cannot be sent"),
    (("POST", URL), {"content": 3}, r"content is 3 \(int\)"),
    (("POST", URL), {"content": "\ud800"}, "lone surrogate"),
    (("GET", URL), {"headers": {"A": "1\r\nB: 2"}}, "header 'A' is .*printable ASCII on one line"),
    (("GET", URL), {"headers": {"A\n": "1"}}, r"headers has the name 'A\\n'"),
    (("GET", URL), {"headers": {"A": 1}}, "header 'A' is 1; it takes text"),
    (("GET", URL), {"headers": {"A": "1", "a": "2"}}, "headers contains both 'A' and 'a'"),
    (("GET", URL), {"headers": {"Content-Length": "1"}}, "which Steporal sets itself"),
    (("GET", URL), {"headers": "A: 1"}, "headers is 'A: 1'"),
    (("GET", URL), {"params": {"a": None}}, "parameter 'a' is None"),
    (("GET", URL), {"params": [1]}, r"params is \[1\]"),
    (("GET", URL), {"timeout": "soon"}, "timeout is 'soon'"),
    (("GET", URL), {"timeout": 0}, "timeout is 0; the minimum is 1ms"),
    (("GET", URL), {"max_attempts": 0}, "max_attempts of step 'call' is 0"),
    (("GET", URL), {"max_response_bytes": 0}, "max_response_bytes is 0"),
    (("GET", URL), {"max_response_bytes": 10**9}, "what Temporal stores"),
]


async def test_what_cannot_be_sent_fails_the_run_at_the_call(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="bad", input_schema=int)
    async def bad(ctx: Context[int], step: Step) -> None:
        args, options, _ = BAD[ctx.input.data]
        await step.ext.fetch("call", *args, **options)  # type: ignore[arg-type]

    async with workers(app):
        for number, (_, _, message) in enumerate(BAD):
            run = await bad.start(number)
            with pytest.raises(RunFailedError, match=message) as failed:
                await run.result()
            assert "step 'call'" in failed.value.message
            assert failed.value.name == "InvalidArgumentError"


async def test_a_request_over_temporals_limit_fails_at_the_call(app: steporal.Client, workers: Workers) -> None:
    workflow = fetching(app, "POST", URL, content="x" * 3_000_000)
    async with workers(app):
        with pytest.raises(RunFailedError, match="the request of step 'call' has") as failed:
            await (await workflow.start()).result()
    assert failed.value.name == "PayloadTooLargeError"


def test_importing_steporal_imports_no_http_client() -> None:
    code = "import sys, steporal; sys.exit(bool({'httpx', 'httpcore', 'standardwebhooks'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
