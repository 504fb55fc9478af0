"""Every command of the operator's pages is run, or there is a reason why it cannot be, and what it names is there."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import socket
import sys
import tomllib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path

import click
import httpx
import pytest
import yaml
from blocks import ROOT, Typed, commands_in, python_in, spans_in
from commands import Ended, Process, Steporal

from steporal_workers.cli import cli
from steporal_workers.devserver import dev_server, find_binary
from steporal_workers.settings import SETTINGS
from tests.deploy.kustomizing import by_name, rendered

PAGES = (
    "README.md",
    "docs/gateway.md",
    "docs/settings.md",
    "docs/operate.md",
    "docs/metrics.md",
    "docs/traces.md",
    "docs/long-runs.md",
    "docs/deploy.md",
    "docs/changing-code.md",
    "docs/security.md",
)
LOCAL_KEY = "local-event-key-for-development"
ORDER = '{"order_id": "A-0", "amount": 1}'
SERVING = ("dev", "worker", "gateway", "codec-server")
RUN = ("steporal", "temporal", "curl")

CANNOT = {
    "make": "it runs these tests",
    "docker": "there is no container engine in tests; tests/deploy runs the Dockerfile's commands without one",
    "kubectl": "there is no cluster; tests/deploy checks what is applied against the schemas",
    "kind": "there is no cluster",
    "helm": "there is no cluster",
    "sudo": "it changes the machine",
    "journalctl": "there is no systemd",
    "python3": "makes an environment, which the tests run in",
    "pip": "installs this checkout, as the tests' environment has it",
    ".": "enters the environment",
    "export": "its values are taken for what follows",
    "node": "a program of the user's",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the pages' readers have it: this checkout, and an app."""
    made = tmp_path_factory.mktemp("typed")
    shutil.copytree(ROOT / "deploy", made / "deploy")
    (made / "shop.py").write_text(python_in("README.md")[0])
    (made / "key.txt").write_text("secret")
    return made


@pytest.fixture(scope="module")
def typed(folder: Path) -> list[Typed]:
    return [command for page in PAGES for command in commands_in(page, folder)]


def test_every_command_is_run_or_there_is_a_reason(typed: Sequence[Typed]) -> None:
    assert len(typed) > 60
    assert {command.program for command in typed} == {*RUN, *CANNOT}


# --- what cannot be run: what it names is there ----------------------------------------------------------------------


def test_what_is_made_is_a_target(typed: Sequence[Typed]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {word for command in typed if command.program == "make" for word in command.words[1:]} <= {*targets}


def test_what_is_installed_are_extras(typed: Sequence[Typed]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"steporal\[(\w+)\]", " ".join(map(str, typed)))
    assert named
    assert {*named} <= extras.keys()


def test_what_is_exported_is_known(typed: Sequence[Typed]) -> None:
    exported = {
        word.partition("=")[0] for command in typed if command.program == "export" for word in command.words[1:]
    }
    of_others = {"TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "TEMPORAL_API_KEY", "OTEL_EXPORTER_OTLP_ENDPOINT"}
    assert exported <= {setting.variable for setting in SETTINGS} | of_others


def test_containers_are_of_files_and_services_that_are_there(typed: Sequence[Typed], folder: Path) -> None:
    services = yaml.safe_load((folder / "deploy/compose.yaml").read_text())["services"]
    commands = [command.words for command in typed if command.program == "docker"]
    assert len(commands) > 5
    for words in commands:
        for file in _values(words, "-f"):
            assert (folder / file).is_file(), words
        match words:
            case ("docker", "compose", "-f", _, *rest):
                profiles = {profile for service in services.values() for profile in service.get("profiles", ())}
                assert {*_values(rest, "--profile")} <= profiles, words
                verb, *rest = rest[2:] if rest[0] == "--profile" else rest
                assert verb in ("up", "run", "logs", "down")
                assert {word for word in rest if word[0] != "-"} <= services.keys(), words
            case ("docker", "build", *_, context):
                assert context == "."
            case ("docker", "run", *rest):
                image = rest.index("shop")
                assert {word for word in rest[:image] if word[0] == "-"} <= {
                    "--rm",
                    "--init",
                    "--read-only",
                    "--tmpfs",
                    "-e",
                }
                if rest[image + 1 :]:
                    check_parses(rest[image + 1 :])
            case _:
                pytest.fail(f"nobody checks {words}")


def test_what_is_applied_to_a_cluster_is_there(typed: Sequence[Typed], folder: Path) -> None:
    overlays = {name: by_name(rendered(folder / "deploy/kubernetes/overlays" / name)) for name in ("dev", "production")}
    names = {(kind.lower(), name) for overlay in overlays.values() for kind, name in overlay}
    # The versioned overlay, which a command of the page has made of production, has no Deployment of its own.
    names |= {(kind.lower(), name) for kind, name in by_name(rendered(ROOT / "deploy/kubernetes/overlays/production"))}
    names |= {("pdb", name) for kind, name in names if kind == "poddisruptionbudget"}
    secrets = re.findall(
        r"secretKeyRef:\n\s+name: ([\w-]+)", (folder / "deploy/kubernetes/base/gateway.yaml").read_text()
    )
    commands = [command.words for command in typed if command.program == "kubectl"]
    assert len(commands) > 8
    for words in commands:
        for file in _values(words, "-f"):
            assert (folder / file).is_file(), words
        for overlay in _values(words, "-k"):
            assert (folder / overlay / "kustomization.yaml").is_file(), words
        for namespace in _values(words, "-n"):
            assert namespace in ("steporal", "steporal-dev"), words
        for word in words:
            if kind := re.fullmatch(r"(deployment|job|pdb|scaledobject)/([\w-]+)", word):
                assert kind.groups() in names, words
        if "secret" in words:
            assert words[words.index("generic") + 1] in secrets, words
        if "-l" in words:
            assert words[words.index("-l") + 1] == "app.kubernetes.io/component in (shared, sync)"
            components = {
                it["metadata"]["labels"]["app.kubernetes.io/component"] for it in overlays["production"].values()
            }
            assert {"shared", "sync"} <= components


def test_what_is_copied_to_a_machine_is_there(typed: Sequence[Typed]) -> None:
    commands = [command.words for command in typed if command.program == "sudo"]
    assert len(commands) > 6
    units = {unit.stem for unit in (ROOT / "deploy/systemd").glob("*.service")}
    for words in commands:
        for word in words:
            if word.startswith("deploy/"):
                assert (ROOT / word).is_file(), words
        if words[1] == "systemctl" and words[-1] != "daemon-reload":
            assert words[-1] in units, words


# --- what is said in the text --------------------------------------------------------------------------------------


def check_parses(words: Sequence[str]) -> None:
    """Check that there is such a command of ``steporal``, and that it takes these options."""
    command: click.Command = cli
    rest = list(words[1:])
    if rest[0] == "config" and len(rest) > 1:  # takes what another command takes
        rest.pop(0)
    while isinstance(command, click.Group):
        name = rest.pop(0)
        assert name in command.commands, words
        command = command.commands[name]
    flags = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)} | {"--help", "-h"}
    assert {word.partition("=")[0] for word in rest if re.match("--?[a-z]", word)} <= flags, words


@pytest.mark.parametrize(
    "page", sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("docs/*.md"), ROOT / "README.md"])
)
def test_commands_within_the_text_are_there(page: str) -> None:
    for span in spans_in(page):
        words = span.replace("…", "").split()
        if len(words) > 1 and words[1] not in ("...", "runs"):
            check_parses(words)


# --- what can be run -----------------------------------------------------------------------------------------------


def _values(words: Sequence[str], flag: str) -> list[str]:
    return [after for word, after in pairwise(words) if word == flag]


class Typist:
    """Types commands into one process, against a server."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def type(self, words: Sequence[str]) -> Ended:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(list(words)).encode() + b"\n")
        line = await asyncio.wait_for(self._process.stdout.readline(), 60)
        return Ended(**json.loads(line))


SAYS = {
    "catalog": "order.paid",
    "start": "charged 3.0 for A-2",
    "doctor": "within 2 s of the server's",
    "show": "cool down",
    "rerun": "process-order/",
    "replay": "all fit this code",
}
"""What commands print, by their last name."""

FREE = {
    "dev": "--port --ui-port --gateway-port --codec-port",
    "gateway": "--port",
    "worker": "--gateway-port",
    "codec-server": "--port",
}
"""The flags of ports, of which tests take any that is free."""


UP = {"gateway": "gateway at", "codec-server": "codec server at"}
"""What those say that serve no app."""


@pytest.mark.takes_long
async def test_commands_that_can_be_run_do_what_they_say(typed: Sequence[Typed], folder: Path) -> None:
    exported = dict(word.split("=", 1) for it in typed if it.program == "export" for word in it.words[1:])
    keys = {name: value for name, value in exported.items() if name.endswith("_KEYS")}
    keys["STEPORAL_EVENT_KEYS"] += f",{LOCAL_KEY}"
    async with dev_server() as server, AsyncExitStack() as stack:
        run = Steporal(folder, {"TEMPORAL_ADDRESS": server.address, **keys})
        metrics_port = free_port()
        serving: dict[tuple[str, ...], Process] = {}

        async def serve(words: tuple[str, ...]) -> Process:
            if words not in serving:
                free = [word for flag in FREE[words[1]].split() for word in (flag, "0")]
                if "--metrics-port" in words:
                    free += ["--metrics-port", str(metrics_port)]
                here = ["--host", "127.0.0.1"] if "--host" in words else []
                process = await stack.enter_async_context(run.running(*words[1:], *free, *here))
                await process.until(UP.get(words[1], "serving app shop"))
                serving[words] = process
            return serving[words]

        [first] = {it.words for it in typed if "--with-gateway" in it.words}
        url = re.search(r"gateway at (\S+)", (await serve(first)).said)
        assert url
        typist = await stack.enter_async_context(typing(run))
        shown = next(it.words[3] for it in typed if it.words[1:3] == ("runs", "show"))
        await typist.type(["send", "order.placed", "--data", ORDER, "--id", shown.rpartition("/")[2]])
        for command in typed:
            match command.words:
                case ("steporal", name, *_) if name in SERVING:
                    process = await serve(command.words)
                    if name == "dev":
                        await _stop(process)
                case ("steporal", *words):
                    ended = await typist.type(words)
                    for _ in range(10 * (words[0] == "doctor")):  # a busy server does not answer it: "try again"
                        if ended.status == 0:
                            break
                        await asyncio.sleep(1)
                        ended = await typist.type(words)
                    assert ended.status == 0, f"{command}\n{ended.err}\n{ended.out}"
                    expected = [said for name, said in SAYS.items() if name in words[:2]]
                    assert all(said in ended.out + ended.err for said in expected), f"{command}\n{ended}"
                case ("temporal", *words) if "--codec-endpoint" in words:
                    [codec] = [it for name, it in serving.items() if name[1] == "codec-server"]
                    at = words.index("--codec-endpoint") + 1
                    words[at] = codec.said.split("codec server at ")[1].split(",")[0]
                    said = await _temporal([*words, "--address", server.address])
                    assert "input[0].order_id: A-0" in said, f"{command}\n{said}"
                case ("temporal", *words):
                    await _temporal([*words, "--address", server.address, "--yes"])
                case ("curl", address):
                    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{metrics_port}") as http:
                        assert (await http.get(httpx.URL(address).path)).text.startswith("# HELP"), command
                case ("curl", address, "--json", body):
                    path = httpx.URL(address).path
                    async with httpx.AsyncClient(base_url=url[1]) as http:
                        assert (await http.post(path, content=body)).json()["status"] == 200, command
        await asyncio.gather(*(_stop(process) for process in serving.values()))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


async def _stop(process: Process) -> None:
    if not process.has_ended:
        process.signal(signal.SIGTERM)
    assert (await process.ended()).status == 0


async def _temporal(words: Sequence[str]) -> str:
    process = await asyncio.create_subprocess_exec(
        find_binary(),
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, f"{words}: {said.decode()}"
    return said.decode()


@asynccontextmanager
async def typing(run: Steporal) -> AsyncIterator[Typist]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        Path(__file__).with_name("typist.py"),
        cwd=run.folder,
        env=run.environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Typist(process)
    finally:
        assert process.stdin
        process.stdin.close()
        await process.wait()
