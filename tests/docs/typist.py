"""Types commands of ``steporal`` into one process: takes JSON arrays of words, and says in JSON what came of each."""

from __future__ import annotations

import contextlib
import io
import json
import sys

from steporal_workers.cli import cli
from steporal_workers.leaving import leave


def main() -> None:
    for line in sys.stdin:
        out, err, status = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli(json.loads(line), prog_name="steporal")
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else int(end.code is not None)
        print(json.dumps({"status": status, "out": out.getvalue(), "err": err.getvalue()}), flush=True)
    leave(0)


if __name__ == "__main__":
    main()
