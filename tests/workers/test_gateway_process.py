"""`steporal gateway`, `worker --with-gateway` and `dev`: the gateway as people run it."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
from collections.abc import Callable

import httpx
import inngest
from commands import Process, Steporal

from steporal_workers.devserver import DevServer

WriteApp = Callable[[str], str]

ECHO = """
    @client.workflow(id=f"echo-{APP}", triggers=[event_trigger(f"{APP}.said")])
    async def echo(ctx, step):
        return await step.run("echo", lambda: ctx.input.data)
    """

KEYS = {"STEPORAL_EVENT_KEYS": "event-key-of-tests", "STEPORAL_API_KEYS": "api-key-of-tests"}
API = {"authorization": "Bearer api-key-of-tests"}


async def url_of(process: Process) -> str:
    await process.until("gateway at ")
    found = re.search(r"gateway at (\S+)", process.said)
    assert found
    return found[1]


async def ended_run(http: httpx.AsyncClient, path: str) -> object:
    async with asyncio.timeout(60):
        while True:
            runs = (await http.get(path, headers=API)).json()["data"]
            if runs and runs[0]["ended_at"]:
                return runs[0]["output"]
            await asyncio.sleep(0.05)


async def test_the_gateway_sends_events_to_workers(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(ECHO)
    async with run.worker("app"), run.running("gateway", "app:client", "--port", "0", **KEYS) as process:
        async with httpx.AsyncClient(base_url=await url_of(process)) as http:
            sent = await http.post("/e/event-key-of-tests", json={"name": f"{app}.said", "data": {"loud": True}})
            [event_id] = sent.json()["ids"]
            assert await ended_run(http, f"/v1/events/{event_id}/runs") == {"loud": True}
        process.signal(signal.SIGTERM)
        ended = await process.ended()
    assert ended.status == 0
    assert ended.err.endswith("stopped\n")
    assert "event-key-of-tests" not in ended.err


async def test_a_request_that_has_come_is_answered_before_the_end(run: Steporal, write_app: WriteApp) -> None:
    write_app(ECHO)
    async with run.running("gateway", "app", "--port", "0", **KEYS) as process:
        url = httpx.URL(await url_of(process))
        body = b'{"name": "nobody.cares"}'
        reader, writer = await asyncio.open_connection(url.host, url.port)
        headers = f"Host: x\r\nContent-Length: {len(body)}\r\nExpect: 100-continue"
        head = f"POST /e/event-key-of-tests HTTP/1.1\r\n{headers}\r\n\r\n"
        writer.write(head.encode())
        assert b"100 Continue" in await reader.readuntil(b"\r\n\r\n")  # it is being answered
        process.signal(signal.SIGTERM)
        await process.until("stopping: requests that have arrived are answered")
        writer.write(body)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        ended = await process.ended()
        writer.close()
    assert ended.status == 0


async def test_before_it_ends_it_is_not_ready_for_as_long_as_it_is_told(run: Steporal, write_app: WriteApp) -> None:
    write_app(ECHO)
    for command in (["gateway", "app", "--port", "0"], ["worker", "app", "--with-gateway", "--gateway-port", "0"]):
        async with run.running(*command, "--drain-delay", "1m", **KEYS) as process:
            async with httpx.AsyncClient(base_url=await url_of(process)) as http:
                assert "connection" not in (await http.get("/ready")).headers
                process.signal(signal.SIGTERM)
                await process.until("stopping")
                assert (await http.get("/ready")).json()["error"] == "the gateway is stopping"
                answered = await http.post("/e/event-key-of-tests", json={"name": "nobody.cares"})
                assert (answered.status_code, answered.headers["connection"]) == (200, "close")
            process.signal(signal.SIGTERM)  # a second one
            assert (await process.ended()).status == 128 + signal.SIGTERM


async def test_without_keys_it_does_not_start(run: Steporal, write_app: WriteApp) -> None:
    write_app(ECHO)
    for command in (["gateway", "app"], ["worker", "app", "--with-gateway"]):
        ended = await run(*command)
        assert ended.status == 2
        assert "the gateway has no keys: set STEPORAL_EVENT_KEYS" in ended.err


async def test_without_keys_it_starts_if_told_to(run: Steporal, write_app: WriteApp) -> None:
    write_app(ECHO)
    async with run.running("gateway", "app", "--port", "0", "--insecure-any-key") as process:
        async with httpx.AsyncClient(base_url=await url_of(process)) as http:
            assert (await http.post("/e/anything", json={"name": "nobody.cares"})).status_code == 200
        await process.until("/v1, /invoke: open to everybody who reaches it")


async def test_a_port_that_is_taken_is_named(run: Steporal, write_app: WriteApp) -> None:
    write_app(ECHO)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = await run("gateway", "app", "--port", port, **KEYS)
        beside = await run("worker", "app", "--with-gateway", "--gateway-port", port, **KEYS)
    assert ended.status == beside.status == 1
    assert f"the gateway cannot listen on 127.0.0.1, port {port}: Address already in use" in ended.err
    assert "the gateway cannot listen" in beside.err


async def test_it_listens_on_ipv6(run: Steporal, write_app: WriteApp) -> None:
    write_app(ECHO)
    async with run.running("gateway", "app", "--host", "::1", "--port", "0", **KEYS) as process:
        url = await url_of(process)
        assert url.startswith("http://[::1]:")
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.get("/ready")).status_code == 200


async def test_a_worker_has_one_beside_it(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(ECHO)
    options = ["--with-gateway", "--gateway-port", "0"]
    async with run.running("worker", "app", *options, **KEYS) as process:
        await process.until("serving")
        async with httpx.AsyncClient(base_url=await url_of(process)) as http:
            sent = await http.post("/e/event-key-of-tests", json={"name": f"{app}.said", "data": {"n": 1}})
            assert await ended_run(http, f"/v1/events/{sent.json()['ids'][0]}/runs") == {"n": 1}
        process.signal(signal.SIGTERM)
        assert (await process.ended()).status == 0


async def test_without_its_extra_a_worker_works(run: Steporal, write_app: WriteApp) -> None:
    run.write("starlette.py", "raise ModuleNotFoundError('starlette', name='starlette')")
    write_app(ECHO)
    run.imports_anew = True
    ended = await run("gateway", "app", **KEYS)
    assert ended.status == 2
    assert "'starlette' is not installed: pip install 'steporal[gateway]'" in ended.err
    async with run.worker("app"):
        pass


# --- dev -----------------------------------------------------------------------------------------------------------

DEV = ["dev", "app:client", "--port", "0", "--ui-port", "0"]


async def test_dev_has_a_gateway_that_any_key_opens(offline: Steporal, server: DevServer) -> None:
    offline.write(
        "app.py",
        """
        import steporal
        from steporal import event_trigger

        client = steporal.Client("dev-app")

        @client.workflow(id="echo", triggers=[event_trigger("said")])
        async def echo(ctx, step):
            return ctx.input.data
        """,
    )
    async with offline.running(*DEV, "--gateway-port", "0") as process:
        await process.until("serving app dev-app")
        async with httpx.AsyncClient(base_url=await url_of(process)) as http:
            client = inngest.Inngest(app_id="x", is_production=False, event_api_base_url=str(http.base_url))
            [event_id] = await asyncio.to_thread(client.send_sync, inngest.Event(name="said", data={"n": 1}))
            client._http_client._http_client_sync.close()
            await client._http_client._http_client.aclose()
            assert await ended_run(http, f"/v1/events/{event_id}/runs") == {"n": 1}
        process.signal(signal.SIGTERM)
        assert (await process.ended()).status == 0


async def test_dev_says_how_to_do_without_it_where_its_port_is_taken(offline: Steporal) -> None:
    offline.write("app.py", "import steporal\nclient = steporal.Client('dev-app')\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = await offline(*DEV, "--gateway-port", port)
        assert ended.status == 1
        assert f"port {port}: Address already in use" in ended.err
        assert "--no-gateway" in ended.err
        async with offline.running(*DEV, "--gateway-port", port, "--no-gateway") as process:
            await process.until("serving app dev-app")
            process.signal(signal.SIGTERM)
            assert (await process.ended()).status == 0
