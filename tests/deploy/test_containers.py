"""`deploy/Dockerfile` and `deploy/compose.yaml`: what they say is tried without a container engine."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from itertools import chain
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from commands import Steporal
from kustomizing import DEPLOY, ROOT
from packaging.requirements import Requirement

from steporal.durations import parse_duration
from steporal_workers.cli import cli
from steporal_workers.devserver import dev_server

DOCKERFILE = DEPLOY / "Dockerfile"
COMPOSE = DEPLOY / "compose.yaml"

ONCE = {"temporal-schema", "temporal-namespace", "demo"}
"""Services that end when they have done their work."""


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and what stands behind them."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", "").splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in lines if line]


def said(name: str) -> str:
    """What the last instruction of that name says."""
    return [rest for instruction, rest in instructions() if instruction == name][-1]


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    """The services of the compose file."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


# --- packages ------------------------------------------------------------------------------------------------------


def needed() -> dict[str, str]:
    """The packages of an image, as they are here, and of what they need themselves."""
    found: dict[str, str] = {}
    todo = [Requirement("steporal[gateway,encryption,otel]")]
    while todo:
        requirement = todo.pop()
        for extra in requirement.extras or {""}:
            for text in metadata.requires(requirement.name) or ():
                other = Requirement(text)
                name = re.sub(r"[-_.]+", "-", other.name).lower()
                if other.marker is None or other.marker.evaluate({"extra": extra}):
                    if name not in found or other.extras:
                        todo.append(other)
                    found[name] = metadata.version(other.name)
    return found


def test_each_package_of_an_image_has_the_version_that_the_tests_ran_with() -> None:
    lines = (DEPLOY / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    missing = needed().keys() - pinned.keys() - {"steporal"}
    assert not missing
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in chain(requirements["dependencies"], *requirements["optional-dependencies"].values()):
        requirement = Requirement(text)
        if (version := pinned.get(requirement.name)) is not None:
            assert requirement.specifier.contains(version), text
    assert "--constraint constraints.txt" in DOCKERFILE.read_text()


# --- linters -------------------------------------------------------------------------------------------------------


def test_the_dockerfile_has_no_findings(tool: Callable[[str], str]) -> None:
    linted = subprocess.run([tool("hadolint"), str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_the_compose_file_fits_its_schema(tool: Callable[[str], str]) -> None:
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


# --- the image -----------------------------------------------------------------------------------------------------


def test_images_are_pinned_to_a_full_version(services: dict[str, dict[str, Any]]) -> None:
    images = [service["image"] for service in services.values() if "image" in service]
    images.append(f"python:{said('ARG').removeprefix('PYTHON=')}")
    assert len(images) > 4
    for image in images:
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+(\.\d+)?(-[a-z-]+)?", image), image
    assert {rest.split()[0] for name, rest in instructions() if name == "FROM"} == {"scratch", "python:${PYTHON}"}


def test_the_build_has_what_it_copies_and_what_the_package_is_made_of() -> None:
    allowed = {line[1:] for line in Path(f"{DOCKERFILE}.dockerignore").read_text().splitlines() if line[:1] == "!"}
    copied = {
        source.rstrip("/")
        for name, rest in instructions()
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [project["project"]["readme"], *project["project"]["license-files"], *wheel["packages"]]
    assert {Path(path).parts[0] for path in needed} <= copied


def test_the_last_stage_installs_nothing_and_runs_as_nobody_in_particular() -> None:
    names = [name for name, _ in instructions()]
    last = instructions()[len(names) - names[::-1].index("FROM") :]
    commands = [rest for name, rest in last if name == "RUN"]
    assert [command.split()[0] for command in commands] == ["useradd"]
    uid = re.search(r"--uid (\d+)", commands[0])
    assert uid
    assert ("USER", f"{uid[1]}:{uid[1]}") in last


async def test_its_command_serves_the_demo_and_drains_on_sigterm(image: Steporal) -> None:
    program, *arguments = json.loads(said("CMD"))
    assert program == "steporal"
    async with image.running(*arguments) as worker:
        await worker.until("serving app shop")
        form = '{"email": "ada@example.com", "name": "Ada"}'
        started = await image("start", "user-signup", "--input", form, "--wait")
        assert json.loads(started.out)["name"] == "Ada"
        worker.signal(signal.SIGTERM)
        assert (await worker.ended()).status == 0


@pytest.fixture
async def image(tmp_path: Path) -> AsyncIterator[Steporal]:
    """`steporal` in what is the image's /app, against a dev server of its own."""
    [(source, target)] = [rest.split() for name, rest in instructions() if name == "COPY" and "examples" in rest]
    shutil.copytree(ROOT / source, tmp_path / target.strip("/"), dirs_exist_ok=True)
    async with dev_server() as server:
        yield Steporal(tmp_path, {"TEMPORAL_ADDRESS": server.address})


# --- health --------------------------------------------------------------------------------------------------------


@pytest.fixture
def health() -> Iterator[tuple[int, dict[str, int]]]:
    """A port that answers on paths, with a status each."""
    answers: dict[str, int] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answers.get(self.path, 404))
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, answers
        server.shutdown()


def check(command: list[str], port: int) -> int:
    """Run a health check's command against another port; its exit status."""
    program, *arguments = command
    assert program == "python"
    text = [argument.replace(":8089", f":{port}").replace(":8288", f":{port}") for argument in arguments]
    return subprocess.run(
        [sys.executable, *text], env={"STEPORAL_HEALTH_PORT": str(port)}, stderr=subprocess.DEVNULL, check=False
    ).returncode


def test_the_images_health_check_says_whether_the_worker_lives(health: tuple[int, dict[str, int]]) -> None:
    port, answers = health
    command = json.loads(said("HEALTHCHECK").partition("CMD ")[2])
    answers["/live"] = 200
    assert check(command, port) == 0
    answers["/live"] = 503
    assert check(command, port) == 1


@pytest.mark.parametrize("name", ["worker", "gateway"])
def test_a_service_is_healthy_when_it_is_ready(
    services: dict[str, dict[str, Any]], health: tuple[int, dict[str, int]], name: str
) -> None:
    port, answers = health
    kind, *command = services[name]["healthcheck"]["test"]
    assert kind == "CMD"
    answers |= {"/live": 200, "/ready": 503}
    assert check(command, port) == 1
    answers["/ready"] = 200
    assert check(command, port) == 0


# --- compose -------------------------------------------------------------------------------------------------------


def test_every_service_that_stays_has_a_health_check_and_starts_again(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        if name not in ONCE:
            assert service["healthcheck"]["test"], name
            assert service["restart"] == "unless-stopped", name


def test_services_start_when_what_they_need_is_there(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            once = needed in ONCE
            assert how == {"condition": "service_completed_successfully" if once else "service_healthy"}, name


def test_ports_are_open_on_this_machine_alone(services: dict[str, dict[str, Any]]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_services_of_the_app_are_confined(services: dict[str, dict[str, Any]]) -> None:
    built = [service for service in services.values() if "build" in service]
    assert len(built) == 3
    for service in built:
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["init"] is True
        assert (COMPOSE.parent / service["build"]["context"]).resolve() == ROOT
        assert ROOT / service["build"]["dockerfile"] == DOCKERFILE


def test_services_run_commands_that_steporal_has(services: dict[str, dict[str, Any]]) -> None:
    for service in services.values():
        if "build" in service:
            program, name, *arguments = service["command"]
            assert program == "steporal"
            cli.commands[name].make_context(name, list(arguments))


def test_a_worker_has_longer_to_end_than_its_drain_takes(services: dict[str, dict[str, Any]]) -> None:
    command = services["worker"]["command"]
    drain = parse_duration(command[command.index("--graceful-timeout") + 1])
    assert parse_duration(services["worker"]["stop_grace_period"]) > drain
