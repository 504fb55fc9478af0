"""One Temporal dev server for the session; for each test an app of its own, and a replay of all its runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from itertools import count

import pytest
import temporalio.client
from recording import Workers
from temporalio.testing import TimeSkipper

import steporal
from steporal.plugin import system_worker
from steporal_workers.devserver import dev_server

SETTLE_SECONDS = 0.3
"""Python 3.11 can abort while it exits if the SDK's threads have just ended."""

QUICKLY = steporal.RetryPolicy(initial_interval=timedelta(milliseconds=1))

_numbers = count(1)

os.environ.setdefault("GOGC", "1000")  # the dev server's heap is small, and collected less often saves a tenth
os.environ.setdefault("GOMAXPROCS", "1")  # there are as many servers as processors: its threads only wake each other


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--max-cached-workflows",
        type=int,
        default=int(os.environ.get("STEPORAL_MAX_CACHED_WORKFLOWS", "1000")),
        help="how many runs each worker keeps in memory; with 0, every workflow task replays its run from the start",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "integration: runs on a Temporal dev server")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "temporal" in getattr(item, "fixturenames", ()):
            item.add_marker("integration")


@pytest.fixture(scope="session")
async def temporal(pytestconfig: pytest.Config) -> AsyncIterator[temporalio.client.Client]:
    """A client of the session's dev server.

    The system workflows have a worker all the time, as a task that comes in the moment in which a worker leaves may be
    lost with it, and Temporal tries again in seconds. Without cached workflows, each test has one, which replays them.
    """
    async with dev_server(ui=False) as server, AsyncExitStack() as stack:
        if pytestconfig.getoption("--max-cached-workflows"):
            await stack.enter_async_context(system_worker(server.client))
        yield server.client
    await asyncio.sleep(SETTLE_SECONDS)


@pytest.fixture(scope="session")
def skipping(temporal: temporalio.client.Client) -> temporalio.client.Client:
    """A client whose runs skip the time that they sleep: days take about a second."""
    return TimeSkipper(temporal).client


@pytest.fixture
def app(request: pytest.FixtureRequest) -> steporal.Client:
    """An app without workflows yet, with an id and a task queue of its own."""
    return new_app(request.node.name)


@pytest.fixture
def other_app(request: pytest.FixtureRequest) -> steporal.Client:
    """A second app in the same namespace."""
    return new_app(f"other {request.node.name}")


def new_app(name: str) -> steporal.Client:
    return steporal.Client(f"{name[:100]} {next(_numbers)}", retry=QUICKLY)


@pytest.fixture
async def workers(temporal: temporalio.client.Client, request: pytest.FixtureRequest) -> AsyncIterator[Workers]:
    """Starts workers; after the test, every run that they touched is replayed, unless that went on all the time."""
    max_cached = request.config.getoption("--max-cached-workflows")
    started = Workers(temporal, max_cached)
    yield started
    if max_cached:
        await started.replay()
