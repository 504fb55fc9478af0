"""The tutorial, read from top to bottom: each version of the app is served, and each command prints what it says."""

from __future__ import annotations

import re
import shlex
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from blocks import ROOT
from commands import Steporal

from steporal_workers.devserver import DevServer, dev_server

PAGE = ROOT / "docs/tutorial.md"

_BLOCK = re.compile(r"^```(python|console|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[DevServer]:
    async with dev_server(ui=False) as server:
        yield server


@pytest.fixture
def run(server: DevServer, tmp_path: Path) -> Steporal:
    return Steporal(tmp_path, {"TEMPORAL_ADDRESS": server.address})


async def test_a_reader_gets_what_the_tutorial_says(run: Steporal, server: DevServer) -> None:
    printed, typed = "", []
    async with AsyncExitStack() as serving:
        for kind, block in _BLOCK.findall(PAGE.read_text(encoding="utf-8")):
            match kind:
                case "python":
                    run.write("shop.py", block)
                    await serving.aclose()
                    await serving.enter_async_context(run.worker("shop:client"))
                case "console":
                    for line in block.splitlines():
                        typed.append(line)
                        printed = await _type(run, line.removeprefix("$ "))
                        if line.startswith("$ steporal signal"):
                            edited = server.client.get_workflow_handle("shop/process-order/order-B-1")
                            assert await edited.result() == "charged 500.0 for B-1; B-1 in Oslo and B-1 in Lyon"
                case "text":
                    assert printed == block, typed[-1]
    assert len(typed) > 9


async def _type(run: Steporal, line: str) -> str:
    program, *words = shlex.split(line)
    assert program == "steporal"
    if words[0] == "dev":
        return ""  # the worker above is what it would have started
    ended = await run(*words)
    assert ended.status == 0, f"{line}: {ended.err}"
    return ended.out
