"""Editors and type checkers know the type of everything that is public."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PYRIGHT = Path(__file__).parent / "node_modules" / "pyright" / "index.js"


def test_every_public_symbol_has_a_type() -> None:
    if not PYRIGHT.exists():
        pytest.skip("pyright is not installed: make tests/typing/node_modules")
    command = ["node", str(PYRIGHT), "--verifytypes", "steporal", "--ignoreexternal", "--outputjson"]
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    checked = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": here})
    report = json.loads(checked.stdout)["typeCompleteness"]
    symbols = report["symbols"]
    unknown = [symbol["name"] for symbol in symbols if symbol["isExported"] and not symbol["isTypeKnown"]]
    assert len(symbols) > 1_000
    assert not unknown
