"""The map of AGENTS.md names each module, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def house() -> str:
    """Return the map."""
    text = (ROOT / "AGENTS.md").read_text(encoding="utf-8")
    return text[text.index("## The house") : text.index("## Commands")]


@pytest.mark.parametrize("package", ["adapter/steporal", "workers/steporal_workers"])
def test_each_module_is_in_the_map(package: str) -> None:
    words = set(re.findall(r"\w+", house()))
    modules = [path for path in (ROOT / package).rglob("*.py") if not path.stem.startswith("__")]
    assert modules
    missing = sorted(str(path.relative_to(ROOT)) for path in modules if path.stem not in words)
    assert not missing, f"AGENTS.md, The house, does not name {missing}"


def test_each_file_and_folder_of_the_map_exists() -> None:
    names = re.findall(r"^(?:  )*([a-z_/]+/|(?:[a-z_]+\.py ?)+)", house(), re.MULTILINE)
    folders = {f"{path.relative_to(ROOT)}/" for path in ROOT.glob("[a-z]*/**/") if "node_modules" not in path.parts}
    files = {path.name for path in (ROOT / "adapter/steporal").glob("*.py")}
    named = [name for line in names for name in line.split()]
    assert len(named) > 30
    for name in named:
        is_there = (
            name in files if name.endswith(".py") else any(f"/{folder}".endswith(f"/{name}") for folder in folders)
        )
        assert is_there, f"AGENTS.md, The house, names {name}, which does not exist"
