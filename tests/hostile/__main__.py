"""``python -m tests.hostile``: see ``--help``."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import pkgutil
import random
import sys
import time
from dataclasses import asdict
from pathlib import Path

from . import __path__ as folder
from .attacks import ATTACKS, Figures, run_attack


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description="Attack each part of the system.")
    parser.add_argument("--minutes", type=float, default=3.0, help="how long, in all")
    parser.add_argument("--seed", type=int, default=None, help="what the inputs are drawn from; any, by default")
    parser.add_argument("--only", default="", metavar="NAMES", help="names of attacks, with commas between them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    given = parser.parse_args()
    for module in pkgutil.iter_modules(folder):
        if not module.name.startswith(("test_", "__")):
            importlib.import_module(f"{__package__}.{module.name}")
    names = given.only.split(",") if given.only else sorted(ATTACKS)
    if unknown := [name for name in names if name not in ATTACKS]:
        parser.error(f"no attack {unknown[0]!r}; there are {', '.join(sorted(ATTACKS))}")
    seed = random.randrange(10**9) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    all_figures = {}
    for name in names:
        began = time.monotonic()
        figures = asyncio.run(run_attack(ATTACKS[name], given.minutes * 60 / len(names), seed))
        all_figures[name] = {**asdict(figures), "seen": dict(figures.seen)}  # asdict counts the items of a Counter
        print(_line(name, figures, time.monotonic() - began), flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps({"seed": seed, "attacks": all_figures}, indent=2))
    sys.exit(any(each["broken"] for each in all_figures.values()))


def _line(name: str, figures: Figures, seconds: float) -> str:
    seen = ", ".join(f"{count:,} {how}" for how, count in sorted(figures.seen.items()))
    most = ", ".join(f"at most {value:,.6g} {what}" for what, value in sorted(figures.most.items()))
    lines = [f"{name}: {figures.tried:,} inputs in {seconds:.0f} s; {seen}; {most}"]
    for promise, examples in figures.broken.items():
        lines += [f"  BROKEN: {promise}", *(f"    {example}" for example in examples)]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
