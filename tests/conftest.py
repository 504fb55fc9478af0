"""One Temporal dev server for the session; for each test an app of its own, and a replay of all its runs."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Generator
from contextlib import AsyncExitStack
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
import temporalio.client
from recording import Workers
from temporalio.testing import TimeSkipper
from waiting import MOST_PENDING

import steporal
from steporal.worker.serving import system_worker
from steporal_workers.devserver import dev_server

ADAPTER = Path(__file__).parent / "adapter"
CACHED = 1000

LOST_AFTER = 'history.defaultWorkflowTaskTimeout="3s"'
"""Without cached workflows, a local activity may be lost with its run's eviction; Temporal's 10 s are long to wait."""

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
        help="how many runs each worker keeps in memory; with 0, every workflow task replays its run from the start",
    )


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # until all is collected, of which nothing is garbage
    config.pluginmanager.register(_FailuresAtOnce(config))
    config.addinivalue_line("markers", "integration: runs on a Temporal dev server")
    config.addinivalue_line("markers", "takes_long: is begun first, so that nobody waits for it in the end")
    config.addinivalue_line("markers", "outside_runs: tests nothing that replays, so once is enough")
    config.addinivalue_line("markers", "needs_cache(reason): takes too long where every workflow task begins anew")


class _FailuresAtOnce:
    """Prints which test has failed as soon as it has; pytest says why when all have ended."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal is not None and not hasattr(self._config, "workerinput"):
            terminal.write_line(f"\nFAILED {report.nodeid} ({report.when})")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None, None, None]:
    for item in items:  # before `-m` chooses among them
        if "temporal" in getattr(item, "fixturenames", ()):
            item.add_marker("integration")
    yield
    if config.getoption("--max-cached-workflows") is None:
        _leave_out_further_values_without_cache(config, items)
    _begin_with_what_takes_long(items)


def _begin_with_what_takes_long(items: list[pytest.Item]) -> None:
    """Put the tests that wait for most of their time where each of the processes begins, which share all evenly."""
    long = [item for item in items if item.get_closest_marker("takes_long")]
    others = [item for item in items if not item.get_closest_marker("takes_long")]
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ends = [len(others) * number // count for number in range(count + 1)]
    items[:] = [item for n in range(count) for item in (*long[n::count], *others[ends[n] : ends[n + 1]])]


def pytest_collection_finish() -> None:
    """Spare the garbage collector what was imported and collected, which it would look through again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    gc.enable()


def _leave_out_further_values_without_cache(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a test with many values, run one without cached workflows: what they tell is the order of events."""
    by_test: dict[tuple[Path, str], list[pytest.Item]] = defaultdict(list)
    for item in items:
        values = getattr(item, "callspec", None)
        if isinstance(item, pytest.Function) and values and values.params.get("max_cached_workflows") == 0:
            by_test[item.path, item.originalname].append(item)
    left_out = {item for of_test in by_test.values() for item in of_test[1:]}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the adapter's integration tests of what happens in runs twice: as always, and without cached workflows."""
    name, test = "max_cached_workflows", metafunc.definition
    if name in metafunc.fixturenames and ADAPTER in test.path.parents:
        asked = metafunc.config.getoption("--max-cached-workflows")
        numbers = [CACHED, 0] if asked is None else [asked]
        if test.get_closest_marker("needs_cache") or (asked is None and test.get_closest_marker("outside_runs")):
            numbers = [number for number in numbers if number]
        metafunc.parametrize(name, numbers, ids=lambda n: "cached" if n else "uncached", scope="session")


@pytest.fixture(scope="session")
def max_cached_workflows() -> int:
    """How many runs each worker keeps in memory."""
    return CACHED


@pytest.fixture(scope="session")
async def temporal(max_cached_workflows: int) -> AsyncIterator[temporalio.client.Client]:
    """A client of the session's dev server.

    The system workflows have a worker all the time, as a task that comes in the moment in which a worker leaves may be
    lost with it, and Temporal tries again in seconds. Without cached workflows, each test has one, which replays them.
    """
    config = [f"limit.numPendingActivities.error={MOST_PENDING}", *([] if max_cached_workflows else [LOST_AFTER])]
    async with dev_server(ui=False, dynamic_config=config) as server, AsyncExitStack() as stack:
        if max_cached_workflows:
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
async def workers(temporal: temporalio.client.Client, max_cached_workflows: int) -> AsyncIterator[Workers]:
    """Starts workers; after the test, every run that they touched is replayed, unless that went on all the time."""
    started = Workers(temporal, max_cached_workflows)
    yield started
    if max_cached_workflows:
        await started.replay()
