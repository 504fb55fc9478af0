"""``python -m tests.chaos``: see ``--help``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import tempfile
from pathlib import Path

from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

from steporal_workers.leaving import leave

from .chaos import Options, run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="how long runs start and processes are killed")
    parser.add_argument("--seed", type=int, default=None, help="the seed of all chance; any, by default")
    parser.add_argument("--at-once", type=int, default=24, metavar="N", help="how many plays go on at once")
    parser.add_argument("--fan-out", type=int, default=500, metavar="N", help="how many runs a fan-out starts")
    parser.add_argument("--every", type=float, default=8.0, metavar="S", help="seconds from one kill to the next")
    parser.add_argument("--patience", type=float, default=240.0, metavar="S", help="seconds for all runs to end, then")
    parser.add_argument(
        "--skew", type=float, default=0.0, metavar="S", help="seconds by which workers' clocks are wrong"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the report as JSON")
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="where files and logs go, to be kept")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    # The SDK warns of each call that finds no server.
    quiet = LoggingConfig(TelemetryFilter(core_level="ERROR", other_level="ERROR"))
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=quiet)))
    options = Options(
        seed=random.randrange(10**6) if given.seed is None else given.seed,
        seconds=given.minutes * 60,
        at_once=given.at_once,
        scale=given.fan_out,
        patience=given.patience,
        rage=lambda monkey: monkey.rage(given.every),
        skew=given.skew,
    )
    folder = given.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {options.seed}; files and logs in {folder}", flush=True)
    report = asyncio.run(run(options, folder))
    print(report.table(), flush=True)
    (given.json or folder / "report.json").write_text(report.json() + "\n")
    leave(0 if report.is_good else 1)


if __name__ == "__main__":
    main()
