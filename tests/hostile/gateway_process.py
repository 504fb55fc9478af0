"""A gateway in a process of its own, in front of a dev server, as strangers reach it."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from steporal_workers.devserver import dev_server

EVENT_KEYS, API_KEY = ("event-key-of-one", "event-key-of-another"), "api-key-of-a-program"

PATIENCE = {"HEAD_SECONDS": 1.0, "BODY_SECONDS": 3.0, "BODY_PACE_SECONDS": 1.0, "SEND_SECONDS": 1.0, "IDLE_SECONDS": 2}
"""What a gateway is made to have for its times, so that an attack of seconds sees their ends."""

_START = f"""
from steporal_workers.gateway import limits, server
for name, seconds in {PATIENCE}.items():
    setattr(limits, name, seconds)
server.IDLE_SECONDS = limits.IDLE_SECONDS
from steporal_workers.__main__ import main
main()
"""

_APP = """
import steporal
from steporal import event_trigger

client = steporal.Client("hostile")

@client.workflow(id="echo", triggers=[event_trigger("hostile.*"), event_trigger("hostile/*")], max_attempts=1)
async def echo(ctx, step):
    await step.run("look", lambda: len(ctx.input.name))
    return {"name": ctx.input.name, "id": ctx.input.id, "data": ctx.input.data}
"""


@dataclass(frozen=True)
class Gateway:
    """A gateway that runs.

    Attributes:
        host: Where it is.
        port: Its port.
        process: The process.
        log: The file of what it says.
        address: Temporal's.
    """

    host: str
    port: int
    process: asyncio.subprocess.Process
    log: Path
    address: str

    @property
    def peak_bytes(self) -> int:
        """The most memory that it has had."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found
        return int(found[1]) * 1024

    def connections(self) -> set[int]:
        """The ports of the other sides of the connections that the process has."""
        held = set()
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, here, there, _, _, _, _, _, _, inode, *_ = line.split()
            if int(here.partition(":")[2], 16) == self.port and inode != "0":
                held.add(int(there.partition(":")[2], 16))
        return held - {0}

    async def said(self, *parts: bytes, seconds: float = 10.0) -> bytes:
        """What it answers to bytes on a connection of their own, until it hangs up or says no more."""
        answer = b""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(seconds):
                reader, writer = await asyncio.open_connection(self.host, self.port)
                try:
                    for part in parts:
                        writer.write(part)
                        await writer.drain()
                    while data := await asyncio.wait_for(reader.read(65_536), 0.3 if answer else seconds):
                        answer += data
                finally:
                    writer.transport.abort()
        return answer

    async def lives(self) -> float | None:
        """How many seconds ``/live`` takes; None if it is not answered."""
        began = time.monotonic()
        answer = await self.said(b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return time.monotonic() - began if answer.startswith(b"HTTP/1.1 200 ") else None


@asynccontextmanager
async def gateway(*, with_worker: bool = False) -> AsyncIterator[Gateway]:
    """A gateway with keys, and the worker of an app that answers each event of ``hostile.*``."""
    with TemporaryDirectory() as folder:
        log = Path(folder, "log")
        await asyncio.to_thread(Path(folder, "app.py").write_text, _APP)
        async with dev_server() as server, AsyncExitStack() as stack:
            environment = {
                **os.environ,
                "TEMPORAL_ADDRESS": server.address,
                "TEMPORAL_CONFIG_FILE": os.devnull,
                "STEPORAL_EVENT_KEYS": ",".join(EVENT_KEYS),
                "STEPORAL_API_KEYS": API_KEY,
            }
            out = stack.enter_context(await asyncio.to_thread(log.open, "ab"))

            async def start(*arguments: str) -> asyncio.subprocess.Process:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-c", _START, *arguments, cwd=folder, env=environment, stderr=out, stdout=out
                )
                stack.push_async_callback(process.wait)
                stack.callback(_kill, process)
                return process

            if with_worker:
                await start("worker", "app:client")
                await _until(log, r"serving app")
            process = await start("gateway", "app:client", "--port", "0")
            found = await _until(log, r"gateway at http://([\d.]+):(\d+)")
            yield Gateway(found[1], int(found[2]), process, log, server.address)


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


async def _until(log: Path, said: str) -> re.Match[str]:
    async with asyncio.timeout(60):
        while not (found := re.search(said, await asyncio.to_thread(log.read_text))):
            await asyncio.sleep(0.05)
    return found
