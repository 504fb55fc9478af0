"""The command `steporal` as people run it: in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import prefork
import pytest

import steporal
import steporal_workers

PATIENCE = 110
"""How long a command may take, in seconds: a little less than a test."""


@dataclass(frozen=True)
class Ended:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """What it printed with ``--json``."""
        assert self.out, self.err
        return json.loads(self.out)


class Process:
    """A command that is running."""

    def __init__(self, process: asyncio.subprocess.Process | prefork.Process) -> None:
        self._process = process
        self._text = {"out": "", "err": ""}
        self._more = asyncio.Condition()
        assert process.stdout and process.stderr
        self._readers = [
            asyncio.create_task(self._read(process.stdout, "out")),
            asyncio.create_task(self._read(process.stderr, "err")),
        ]

    async def _read(self, stream: asyncio.StreamReader, name: str) -> None:
        while data := await stream.readline():
            async with self._more:
                self._text[name] += data.decode()
                self._more.notify_all()

    @property
    def said(self) -> str:
        return self._text["out"] + self._text["err"]

    async def until(self, text: str, times: int = 1) -> None:
        """Wait until it has printed ``text``."""
        async with self._more:
            try:
                await asyncio.wait_for(self._more.wait_for(lambda: self.said.count(text) >= times), PATIENCE)
            except TimeoutError:
                pytest.fail(f"{text!r} was not said {times} times:\n{self.said}")

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    async def ended(self, stdin: str | None = None) -> Ended:
        if self._process.stdin:
            with suppress(BrokenPipeError, ConnectionResetError):
                self._process.stdin.write((stdin or "").encode())
                await self._process.stdin.drain()
            self._process.stdin.close()
        try:
            status = await asyncio.wait_for(self._process.wait(), PATIENCE)
        except TimeoutError:
            self._process.send_signal(signal.SIGABRT)  # faulthandler says where it hangs
            await self._process.wait()
            await asyncio.gather(*self._readers)
            pytest.fail(f"the command has not ended:\n{self.said}")
        await asyncio.gather(*self._readers)
        return Ended(status, self._text["out"], self._text["err"])

    async def stop(self) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
        await self.ended()


class Steporal:
    """Runs `steporal` in a folder, with an environment of Temporal's variables.

    Attributes:
        folder: Where commands run.
        environment: What they see.
        imports_anew: Whether each imports what it needs from where it is, as an installed command; takes half a second.
    """

    imports_anew = False

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.folder = folder
        sources = [str(Path(package.__file__ or "").parents[1]) for package in (steporal, steporal_workers)]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TEMPORAL_")}
        self.environment = inherited | {
            "PYTHONPATH": os.pathsep.join(sources),
            "TEMPORAL_CONFIG_FILE": os.devnull,
            "PYTHONFAULTHANDLER": "1",
            **variables,
        }

    def write(self, name: str, text: str) -> Path:
        """Write a module of the user's."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        return path

    @asynccontextmanager
    async def running(self, *arguments: str, **variables: str) -> AsyncIterator[Process]:
        """A command that is running; killed at the end if it has not ended."""
        module = "steporal_workers"
        if self.imports_anew:
            process = await self._python(["-m", module, *arguments], variables)
        else:
            environment = {**self.environment, **variables}
            process = Process(await prefork.start(module, arguments, folder=self.folder, environment=environment))
        try:
            yield process
        finally:
            await process.stop()

    async def python(self, *arguments: str, **variables: str) -> Ended:
        """Run Python itself to its end."""
        return await (await self._python(arguments, variables)).ended()

    @asynccontextmanager
    async def running_python(self, *arguments: str, **variables: str) -> AsyncIterator[Process]:
        """Python itself, while it runs; killed at the end if it has not ended."""
        process = await self._python(arguments, variables)
        try:
            yield process
        finally:
            await process.stop()

    async def _python(self, arguments: Sequence[str], variables: Mapping[str, str]) -> Process:
        return Process(
            await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                cwd=self.folder,
                env={**self.environment, **variables},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        )

    async def until_exists(self, name: str) -> None:
        """Wait until the user's code has made a file."""
        async with asyncio.timeout(PATIENCE):
            while not (self.folder / name).exists():
                await asyncio.sleep(0.01)

    async def __call__(self, *arguments: str, stdin: str | None = None, **variables: str) -> Ended:
        """Run a command to its end."""
        async with self.running(*arguments, **variables) as process:
            return await process.ended(stdin)

    @asynccontextmanager
    async def worker(self, target: str, *arguments: str) -> AsyncIterator[Process]:
        """A worker that serves; drained at the end."""
        async with self.running("worker", target, *arguments) as process:
            await process.until("serving")
            yield process
            process.signal(signal.SIGTERM)
            await process.ended()
