"""Events through the HTTP gateway."""

from __future__ import annotations

import httpx
from temporalio.client import Client

import steporal
from benchmarks.topics import rate
from steporal_workers.gateway.app import create_app
from steporal_workers.gateway.keys import Keys
from steporal_workers.gateway.server import serving

REQUESTS = 500
BATCH = 100


async def requests(temporal: Client) -> list[str]:
    """Rows: requests a second with one event and with a hundred, beside ``send_event`` in the same process."""
    client = steporal.Client("bench-gateway", temporal=temporal)
    event = {"name": "bench.nobody.listens", "data": {"n": 1}}
    rows: list[str] = []
    async with serving(create_app(client, Keys.any()), "127.0.0.1", 0) as url, httpx.AsyncClient() as http:
        for label, body, count in (("1 event", event, REQUESTS), (f"{BATCH} events", [event] * BATCH, REQUESTS // 10)):

            async def post(body: object = body) -> None:
                (await http.post(f"{url}/e/any", json=body)).raise_for_status()

            async def send(body: object = body) -> None:
                await client.send_event(body)  # type: ignore[arg-type]

            direct = await rate(count, send)
            through = await rate(count, post)
            rows.append(f"| {label} | {through:.0f} | {direct:.0f} | **{through / direct:.2f}** |")
    return rows
