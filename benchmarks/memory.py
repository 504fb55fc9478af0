"""Memory of a worker process with many runs asleep."""

from __future__ import annotations

import asyncio
import sys
import uuid
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from benchmarks import native, shop

SIDES = ("Steporal", "by hand, no sandbox", "by hand, stock sandbox")


async def compare(address: str, runs: int) -> list[str]:
    """Rows of a table, one for each side; each in a process of its own."""
    rows = []
    for side in SIDES:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.memory", address, side, str(runs), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        before, after = map(float, output.split()[-2:])
        each = (after - before) * 1024 / runs
        rows.append(f"| {side} | {before:.0f} | {after:.0f} | {each:.0f} |")
    return rows


async def measure(address: str, side: str, runs: int) -> None:
    """Start runs, wait until all sleep, and print the resident memory before and after."""
    temporal = await Client.connect(address)
    by_hand = await Client.connect(address, data_converter=pydantic_data_converter)
    order = {"order_id": "a", "amount": 1}
    if side == "Steporal":
        queue = shop.client.task_queue
        worker = Worker(temporal, task_queue=queue, plugins=[shop.client.plugin()], max_cached_workflows=2 * runs)
        kind = "asleep"
    else:
        queue, kind = f"memory {side}", "native-asleep"
        worker = Worker(
            by_hand,
            task_queue=queue,
            workflows=native.WORKFLOWS,
            activities=[native.add],
            max_cached_workflows=2 * runs,
            **({"workflow_runner": UnsandboxedWorkflowRunner()} if "no sandbox" in side else {}),
        )
    async with worker:
        for _ in range(20):
            await by_hand.start_workflow(kind, order, id=str(uuid.uuid4()), task_queue=queue)
        await asyncio.sleep(3)
        before = resident()
        handles = []
        for _ in range(runs):
            handles.append(await by_hand.start_workflow(kind, order, id=str(uuid.uuid4()), task_queue=queue))
        for handle in handles:
            while not await _is_asleep(handle):
                await asyncio.sleep(0.05)
        after = resident()
    print(before, after)


async def _is_asleep(handle: WorkflowHandle[Any, Any]) -> bool:
    """Whether a run has come to its timer, or has been parked there since."""
    described = await handle.describe()
    return described.history_length >= 11 or described.run_id != handle.first_execution_run_id


def resident() -> float:
    """The process's resident memory in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError("no VmRSS")


if __name__ == "__main__":
    from steporal_workers.leaving import leave

    asyncio.run(measure(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    leave(0)
