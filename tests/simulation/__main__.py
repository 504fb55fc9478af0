"""``python -m tests.simulation``: see ``--help``."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path

from .interruptions import KINDS
from .search import Found, Tried, search, shrunk


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to search")
    parser.add_argument("--seed", type=int, default=None, help="the first seed; any, by default")
    parser.add_argument("--seeds", type=int, default=None, metavar="N", help="how many seeds to try at most")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"how runs are interrupted: {', '.join(KINDS)}")
    parser.add_argument("--most", type=int, default=5, metavar="N", help="how many to find at most")
    parser.add_argument("--shrink", type=float, default=20.0, metavar="S", help="seconds to make each of them smaller")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="append what is found to this file, as JSON lines")
    given = parser.parse_args()
    first = random.randrange(10**9) if given.seed is None else given.seed
    until = time.monotonic() + given.minutes * 60
    began = time.monotonic()
    print(f"seed {first}", flush=True)

    def is_over(tried: Tried) -> bool:
        enough = given.seeds is not None and tried.seeds >= int(given.seeds)
        return bool(enough) or time.monotonic() > until or len(tried.found) >= int(given.most)

    def tell(seed: int, found: Found) -> None:
        print(f"\n=== seed {seed}: {found.why}", flush=True)
        less = shrunk(found, given.shrink)
        print(less, flush=True)
        if given.keep is not None:
            with given.keep.open("a") as file:
                file.write(json.dumps({"seed": seed, **less.data()}) + "\n")

    tried = search(first, is_over, tuple(given.kinds.split(",")), tell)
    seconds = time.monotonic() - began
    print(f"\n{tried}\n{seconds:.0f} s, {tried.runs / seconds:.0f} runs a second", flush=True)
    sys.exit(bool(tried.found))


if __name__ == "__main__":
    main()
