"""A dev server for the commands, and a folder with a module of the user's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path
from textwrap import dedent

import pytest
from commands import Steporal

from steporal_workers.devserver import DevServer, dev_server

HERE = Path(__file__).parent

_numbers = count(1)
_PROBLEMS = "system.numConsecutiveWorkflowTaskProblemsToTriggerSearchAttribute"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and "server" in getattr(item, "fixturenames", ()):
            item.add_marker("integration")


@pytest.fixture(scope="session")
async def server() -> AsyncIterator[DevServer]:
    """A dev server for commands, which says of a run at its first failed workflow task that it is stuck."""
    async with dev_server(dynamic_config=[f"{_PROBLEMS}=1"]) as running:
        yield running


@pytest.fixture
def run(server: DevServer, tmp_path: Path) -> Steporal:
    """`steporal`, in an empty folder, against the dev server."""
    return Steporal(tmp_path, {"TEMPORAL_ADDRESS": server.address})


@pytest.fixture
def offline(tmp_path: Path) -> Steporal:
    """`steporal`, in an empty folder, without a server."""
    return Steporal(tmp_path, {"TEMPORAL_ADDRESS": "127.0.0.1:1"})


@pytest.fixture
def app_id(request: pytest.FixtureRequest) -> str:
    """An app's id that no other test uses."""
    return f"app-{next(_numbers)}"


@pytest.fixture
def write_app(run: Steporal, app_id: str) -> Callable[[str], str]:
    """Writes a module with a client of an id of its own; returns that id."""

    def write(body: str) -> str:
        header = f"""
            import asyncio
            import time
            from pathlib import Path

            import steporal
            from pydantic import BaseModel
            from steporal import event_trigger, cron_trigger

            client = steporal.Client({app_id!r})
            APP = {app_id!r}
            """
        run.write("app.py", dedent(header) + dedent(body))
        return app_id

    return write
