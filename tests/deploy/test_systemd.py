"""`deploy/systemd`: the units of plain machines."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from kustomizing import DEPLOY

from steporal.durations import parse_duration
from steporal_workers.cli import cli

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def settings(unit: Path) -> dict[str, str]:
    """What a unit says; of what it says more than once, the last."""
    lines = [line.partition("=") for line in unit.read_text().splitlines() if "=" in line and line[0] != "#"]
    return {name: value for name, _, value in lines}


def test_there_is_one_for_each_process() -> None:
    assert [unit.stem for unit in UNITS] == ["steporal-gateway", "steporal-worker"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_it_starts_a_command_that_steporal_has(unit: Path) -> None:
    program, name, *arguments = shlex.split(settings(unit)["ExecStart"])
    assert program == f"{settings(unit)['WorkingDirectory']}/venv/bin/steporal"
    assert cli.commands[name].make_context(name, arguments).params["target"] == "app:client"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_it_has_longer_to_end_than_its_drain_takes(unit: Path) -> None:
    said = settings(unit)
    command = shlex.split(said["ExecStart"])
    drain = command[command.index("--graceful-timeout") + 1] if "worker" in command else "30s"
    assert said["KillSignal"] == "SIGTERM"
    assert parse_duration(said["TimeoutStopSec"]) > parse_duration(drain)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_takes_it(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd")
    program = tmp_path / "venv/bin/steporal"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copied = tmp_path / unit.name
    copied.write_text(unit.read_text().replace("/opt/shop", str(tmp_path)))
    command = ["systemd-analyze", "verify", "--man=no", str(copied)]
    verified = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
