"""An app that two worker processes serve; run as a program, this is one of them."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import temporalio.client
from temporalio.worker import Worker

import steporal
from steporal import Context, Step

client = steporal.Client("pair")


@client.workflow(id="meet", input_schema=str)
async def meet(ctx: Context[str], step: Step) -> list[Any]:
    """Two steps that end only when both run: in two processes that run one step at a time each."""
    count = 2

    def arrive(number: int) -> int:
        place = Path(ctx.input.data)
        (place / f"{number}-{os.getpid()}").touch()
        deadline = time.monotonic() + 20
        while len(list(place.iterdir())) < count:
            if time.monotonic() > deadline:
                raise TimeoutError("nobody came")
            time.sleep(0.005)
        return os.getpid()

    return await asyncio.gather(*[step.run(f"arrive {number}", arrive, number) for number in range(count)])


async def serve(address: str) -> None:
    """Run a worker until the standard input ends."""
    client.temporal = temporal = await temporalio.client.Client.connect(address)
    plugin = client.plugin()
    async with Worker(temporal, task_queue=client.task_queue, plugins=[plugin], max_concurrent_activities=1) as worker:
        await plugin.registered.wait()
        print("serving", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        assert worker.is_running
    await asyncio.sleep(0.3)  # Python 3.11 can abort while it exits if the SDK's threads have just ended


if __name__ == "__main__":
    from apps import pair  # the module under the name by which references name it

    asyncio.run(pair.serve(sys.argv[1]))
