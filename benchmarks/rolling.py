"""Restarts workers, gateways and the server in turn under load, and writes ``benchmarks/ROLLING.md``.

What is done, and what must be true of it, is in ``tests/rolling``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import subprocess
import tempfile
from pathlib import Path

from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

from steporal_workers.leaving import leave
from tests.rolling.report import Report
from tests.rolling.rolling import ALL, Options, run

PAGE = Path(__file__).with_name("ROLLING.md")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rolling", description=__doc__)
    parser.add_argument("--minutes", type=float, default=4.0, help="how long orders come and processes are restarted")
    parser.add_argument("--seed", type=int, default=None, help="the seed of all chance; any, by default")
    parser.add_argument("--every", type=float, default=0.5, metavar="S", help="seconds from one order to the next")
    parser.add_argument("--at-once", type=int, default=16, metavar="N", help="how many orders are on their way at most")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures as JSON")
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="where files and logs go, to be kept")
    parser.add_argument("--dry", action="store_true", help="write no page")
    given = parser.parse_args()
    # The SDK warns of each call that finds no server.
    quiet = LoggingConfig(TelemetryFilter(core_level="ERROR", other_level="ERROR"))
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=quiet)))
    options = Options(
        seed=random.randrange(10**6) if given.seed is None else given.seed,
        processes=ALL,
        seconds=given.minutes * 60,
        every=given.every,
        at_once=given.at_once,
        pause=2.0,
        server_every=2,
        away=(0.5, 15.0),
        patience=180.0,
    )
    folder = given.folder or Path(tempfile.mkdtemp(prefix="rolling-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {options.seed}; files and logs in {folder}", flush=True)
    before = os.getloadavg()[0]
    report = asyncio.run(run(options, folder))
    text = page(report, given.minutes, before).rstrip() + "\n"
    print(text, flush=True)
    if given.json:
        given.json.write_text(report.json() + "\n", encoding="utf-8")
    if not given.dry:
        PAGE.write_text(text, encoding="utf-8")
    leave(0 if report.is_good else 1)


def page(report: Report, minutes: float, load_before: float) -> str:
    """The figures, and where they were taken."""
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{os.cpu_count()} cores, {gib:.0f} GiB, {platform.system()}, Python {platform.python_version()}"
    load = f"load {load_before:.0f} before, {os.getloadavg()[0]:.0f} at the end"
    return f"""## Rolling restarts

`make rolling MINUTES={minutes:g} SEED={report.seed}`: two workers, two gateways, and a worker with a gateway beside it
are stopped by SIGTERM and started again, one after the other, and so is the server on its file, while customers send
events and signals through a load balancer that asks `/ready` twice a second. {machine}; {load};
commit `{_commit()}`.

{report.table()}
"""


def _commit() -> str:
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=PAGE.parent, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
