"""Events through the HTTP gateway."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from urllib.parse import urlsplit

from temporalio.client import Client

import steporal
from benchmarks.topics import rate
from steporal_workers.gateway.app import create_app
from steporal_workers.gateway.keys import Keys
from steporal_workers.gateway.server import serving

REQUESTS = 2000
BATCH = 100
CONNECTIONS = 32


async def requests(temporal: Client, rounds: int) -> list[str]:
    """Rows: requests a second with one event and with a hundred, beside ``send_event`` in the same process."""
    client = steporal.Client("bench-gateway", temporal=temporal)
    event = {"name": "bench.nobody.listens", "data": {"n": 1}}
    rows: list[str] = []
    async with serving(create_app(client, Keys.any()), "127.0.0.1", 0) as url:
        for label, body, count in (("1 event", event, REQUESTS), (f"{BATCH} events", [event] * BATCH, REQUESTS // 10)):

            async def send(body: object = body) -> None:
                await client.send_event(body)  # type: ignore[arg-type]

            pairs = [
                (await posted(url, body, count), await rate(count, send, CONNECTIONS)) for _ in range(max(rounds, 2))
            ]
            through, direct = (statistics.median(side) for side in zip(*pairs, strict=True))
            ratio = statistics.median(ours / theirs for ours, theirs in pairs)
            rows.append(f"| {label} | {through:.0f} | {direct:.0f} | **{ratio:.2f}** |")
    return rows


async def posted(url: str, body: object, count: int) -> float:
    """Requests a second, by connections that are kept. The client does no more than it must, as it is measured, too."""
    at, content = urlsplit(url), json.dumps(body).encode()
    head = f"POST /e/any HTTP/1.1\r\nHost: {at.netloc}\r\nContent-Length: {len(content)}\r\n\r\n"

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(at.hostname, at.port)
        for _ in range(count // CONNECTIONS + 1):
            writer.write(head.encode() + content)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert answer.startswith(b"http/1.1 200"), answer
            await reader.readexactly(int(answer.split(b"content-length:")[1].split(b"\r\n")[0]))
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return (count // CONNECTIONS + 1) * CONNECTIONS / (time.perf_counter() - began)
