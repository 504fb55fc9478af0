"""Python processes that begin with everything imported, as imports are most of what a command costs.

Each is a process of its own, with its own environment, folder, streams, signals and exit status: forked from a process
that has imported the command and done nothing else. Fork servers are multiprocessing's.
"""

from __future__ import annotations

import asyncio
import faulthandler
import multiprocessing
import os
import pkgutil
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import steporal
import steporal_workers

IMPORTED = (
    *(f"steporal.{module.name}" for module in pkgutil.iter_modules(steporal.__path__)),
    *(f"steporal_workers.{name}" for _, name, _ in pkgutil.iter_modules(steporal_workers.__path__) if name[0] != "_"),
    *("temporalio.worker", "temporalio.testing", "httpx", "uvicorn.protocols.http.h11_impl", "uvicorn.lifespan.on"),
    *("rich.table", "rich.live", "rich.markup", "rich.console", "starlette.applications", "starlette.middleware"),
    "preloaded",
)


class Process:
    """A module that runs as ``python -m`` runs it; the part of `asyncio.subprocess.Process` that tests use."""

    def __init__(
        self,
        process: ForkServerProcess,
        stdin: asyncio.StreamWriter,
        stdout: asyncio.StreamReader,
        stderr: asyncio.StreamReader,
    ) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self._process = process

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    async def wait(self) -> int:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._process.sentinel, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._process.sentinel)
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


async def start(module: str, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str]) -> Process:
    """Start a module in a process of its own."""
    context = _context()
    # The end of each pipe that is the process's, and ours.
    pipes = [context.Pipe(duplex=False) for _ in range(3)]
    theirs = (pipes[0][0], pipes[1][1], pipes[2][1])
    ours = (pipes[0][1], pipes[1][0], pipes[2][0])
    process = context.Process(target=_run, args=(module, list(arguments), str(folder), dict(environment), *theirs))
    process.start()
    for end in theirs:
        end.close()
    stdin, stdout, stderr = (
        os.fdopen(os.dup(end.fileno()), mode, 0) for end, mode in zip(ours, ("wb", "rb", "rb"), strict=True)
    )
    for end in ours:
        end.close()
    loop = asyncio.get_running_loop()
    readers = [asyncio.StreamReader(), asyncio.StreamReader()]
    for reader, file in zip(readers, (stdout, stderr), strict=True):
        await loop.connect_read_pipe(lambda reader=reader: asyncio.StreamReaderProtocol(reader), file)
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), stdin
    )
    return Process(process, asyncio.StreamWriter(transport, protocol, None, loop), *readers)


async def start_steporal(arguments: Sequence[str], environment: Mapping[str, str]) -> Process:
    """Start a command of ``steporal`` in the project's folder."""
    folder = Path(__file__).parents[1]
    return await start("steporal_workers", arguments, folder=folder, environment=environment)


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    return context


def _run(
    module: str,
    arguments: list[str],
    folder: str,
    environment: dict[str, str],
    stdin: Connection,
    stdout: Connection,
    stderr: Connection,
) -> None:
    """Become what ``python -m module arguments`` is."""
    for number, stream in enumerate((stdin, stdout, stderr)):
        os.dup2(stream.fileno(), number)
        stream.close()
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, buffering=size, closefd=False)  # noqa: SIM115
        for number, mode, size in ((0, "r", -1), (1, "w", -1), (2, "w", 1))
    )
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    # Be interrupted by SIGINT, also where the tests run in the background, which a shell lets ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:] = [folder, *environment.get("PYTHONPATH", "").split(os.pathsep), *sys.path]
    sys.argv = ["", *arguments]
    sys.dont_write_bytecode = True  # of a user's module that is written anew in the same second, it would be taken
    if "PYTHONFAULTHANDLER" in environment:
        faulthandler.enable()
    runpy.run_module(module, run_name="__main__", alter_sys=True)
