"""The workflows that test and publish on GitHub, by the linters of those who know them best."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").iterdir())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_workflows_have_the_form_that_github_takes(tool: Callable[[str], str]) -> None:
    files = [str(file) for file in WORKFLOWS]
    subprocess.run([tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *files], check=True)
    dependabot = str(GITHUB / "dependabot.yml")
    subprocess.run([tool("check-jsonschema"), "--builtin-schema", "vendor.dependabot", dependabot], check=True)


def test_workflows_give_nobody_more_than_they_need(tool: Callable[[str], str]) -> None:
    found = subprocess.run([tool("zizmor"), "--offline", str(GITHUB)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_actions_are_pinned_by_hash(file: Path) -> None:
    used = re.findall(r"uses: (\S+)", file.read_text())
    assert used
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action) for action in used)


def test_every_supported_python_is_tested() -> None:
    matrix = yaml.safe_load((GITHUB / "workflows/test.yml").read_text())["jobs"]["test"]["strategy"]["matrix"]["python"]
    versions = re.findall(r"Python :: (3\.\d+)", str(PROJECT["project"]["classifiers"]))
    assert set(versions) <= set(matrix)


def test_the_version_and_the_changelog_agree() -> None:
    command = [sys.executable, str(ROOT / "tools/release_check.py"), "--only-version"]
    subprocess.run(command, check=True)
    wrong = subprocess.run([*command, "--tag", "v99.0.0"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert "the tag is 'v99.0.0' and the version" in wrong.stderr
