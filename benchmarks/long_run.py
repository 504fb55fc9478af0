"""Measures a run of very many steps, from its start to its end, on a dev server on a file.

``python -m benchmarks.long_run --steps 20000`` prints a table. The worker has a process of its own, so that the memory
is its alone; everything else is read from the histories of the run's executions.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import temporalio.client
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.worker import Worker

import steporal
from benchmarks import ledger
from steporal_workers.devserver import dev_server
from steporal_workers.leaving import leave

WORKFLOWS = (ledger.one_by_one, ledger.side_by_side)


# --- the worker's process ------------------------------------------------------------------------------------------


@asynccontextmanager
async def worker_process(address: str) -> AsyncIterator[int]:
    """A worker of the app in a process; its id."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.long_run", "--worker", address, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        if await process.stdout.readline() != b"ready\n":
            raise RuntimeError("the worker has ended before it was ready")
        yield process.pid
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def work(address: str) -> None:
    """Serve the app until the process is terminated."""
    temporal = await temporalio.client.Client.connect(address)
    plugin = ledger.client.plugin()
    async with Worker(temporal, task_queue=ledger.client.task_queue, plugins=[plugin]):
        await plugin.registered.wait()
        print("ready", flush=True)
        await asyncio.Event().wait()


def memory(pid: int, what: str = "VmRSS") -> float:
    """The resident memory of a process in MiB; the most that it has had, as ``VmHWM``."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"no {what}")


def cpu(pid: int) -> float:
    """The seconds of CPU time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- what a run has done -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution of a run.

    Attributes:
        steps: How many steps it has finished.
        events: How many events its history has.
        history: How many bytes.
        seconds: From its start to its end.
        first_task: How long the first workflow task took, in which the body comes to where it was.
        longest_task: The longest of the others.
        failed_tasks: How many workflow tasks have failed or timed out.
        carried: How many bytes the next execution was handed.
    """

    steps: int
    events: int
    history: int
    seconds: float
    first_task: float
    longest_task: float
    failed_tasks: int
    carried: int

    @classmethod
    def of(cls, events: list[HistoryEvent]) -> Execution:
        moments = {event.event_id: event.event_time.ToNanoseconds() / 1e9 for event in events}
        tasks = [
            moments[event.event_id] - moments[event.workflow_task_completed_event_attributes.started_event_id]
            for event in events
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
        ]
        failed = (EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED, EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT)
        continued = events[-1].workflow_execution_continued_as_new_event_attributes.input.payloads
        return cls(
            steps=sum(event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED for event in events),
            events=len(events),
            history=sum(event.ByteSize() for event in events),
            seconds=moments[events[-1].event_id] - moments[1],
            first_task=tasks[0],
            longest_task=max(tasks[1:], default=0.0),
            failed_tasks=sum(event.event_type in failed for event in events),
            carried=len(continued[2].data) if len(continued) > 2 else 0,
        )


async def executions(temporal: temporalio.client.Client, run: steporal.Run[Any]) -> AsyncIterator[Execution]:
    """All executions of a run, in order."""
    latest = await temporal.get_workflow_handle(run.workflow_id).describe()
    run_id: str = latest.raw_description.workflow_execution_info.first_run_id
    while run_id:
        handle = temporal.get_workflow_handle(run.workflow_id, run_id=run_id)
        events = [event async for event in handle.fetch_history_events()]
        yield Execution.of(events)
        run_id = events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id


# --- the measurement -----------------------------------------------------------------------------------------------


async def measure(address: str, workflow: steporal.Workflow[int, int], steps: int) -> str:
    """Run a workflow of so many steps; a row of the table."""
    temporal = await temporalio.client.Client.connect(address)
    ledger.client.temporal = temporal
    async with worker_process(address) as pid:
        before, cpu_before, began = memory(pid), cpu(pid), time.perf_counter()
        run = await workflow.start(steps)
        result = await _result(run, pid, steps)
        seconds = time.perf_counter() - began
        after, most, used = memory(pid), memory(pid, "VmHWM"), cpu(pid) - cpu_before
    assert result == sum(number * 7 % 1000 for number in range(steps)), result
    done = [each async for each in executions(temporal, run)]
    assert sum(each.steps for each in done) == steps, "a step ran twice, or not at all"
    rates = [each.steps / each.seconds for each in done[:-1]] or [steps / seconds]
    return (
        f"| {workflow.id} | {steps:,} | {len(done)} | {seconds:,.0f} | {steps / seconds:.1f} "
        f"| {statistics.mean(rates[:3]):.1f}, {statistics.mean(rates[-3:]):.1f} | {used:.0f} "
        f"| {max(each.events for each in done):,} | {max(each.history for each in done) / 2**20:.1f} "
        f"| {max(each.carried for each in done) / 1024:,.0f} | {max(each.first_task for each in done):.2f} "
        f"| {max(each.longest_task for each in done):.2f} | {sum(each.failed_tasks for each in done)} "
        f"| {before:.0f}, {after:.0f}, {most:.0f} |"
    )


async def _result(run: steporal.Run[int], pid: int, steps: int) -> int:
    """A run's result; what it is at meanwhile is told on standard error."""
    waiting = asyncio.create_task(run.result())
    while not (await asyncio.wait([waiting], timeout=30))[0]:
        described = await run.temporal._client.get_workflow_handle(run.workflow_id).describe()
        print(
            f"{time.strftime('%X')}  {run.workflow_id}: {described.history_length:,} events in execution "
            f"{described.run_id}; {memory(pid):.0f} MiB, {cpu(pid):.0f} s of CPU",
            file=sys.stderr,
            flush=True,
        )
    return await waiting


HEAD = """\
| workflow | steps | executions | seconds | steps a second | in the first, last three | worker's CPU, s \
| events of the longest history | its MiB | most taken along, KiB | longest first task, s | longest other task, s \
| failed tasks | worker's memory before, after, most, MiB |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"""


async def main(steps: int, chosen: list[str]) -> None:
    """Measure the workflows, one after the other."""
    print(f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}\n\n{HEAD}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        async with dev_server(db_file=Path(folder) / "temporal.db") as server:
            for workflow in WORKFLOWS:
                if workflow.id in chosen:
                    print(await measure(server.address, workflow, steps), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--worker", metavar="ADDRESS", help=argparse.SUPPRESS)
    parser.add_argument("workflows", nargs="*", default=[workflow.id for workflow in WORKFLOWS])
    options = parser.parse_args()
    if options.worker:
        asyncio.run(work(options.worker))
    else:
        asyncio.run(main(options.steps, options.workflows))
    leave(0)
