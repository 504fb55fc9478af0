"""How commands find Temporal, and what they say if they do not."""

from __future__ import annotations

import pytest
from commands import Steporal

from steporal_workers.devserver import DevServer

COMMANDS = [("catalog",), ("send", "order.placed"), ("start", "process-order")]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
async def test_without_a_server_the_message_says_the_address_and_how_to_set_it(
    offline: Steporal, command: tuple[str, ...]
) -> None:
    ended = await offline(*command)
    assert ended.status == 1
    assert ended.out == ""
    assert ended.err == (
        "error: no Temporal server answers at '127.0.0.1:1' (connection refused); start one with `steporal dev`, "
        "or set its address: --address HOST:PORT, TEMPORAL_ADDRESS, or --profile\n"
    )


async def test_a_worker_without_a_server_ends_with_the_same_message(offline: Steporal) -> None:
    offline.write("app.py", "import steporal\nclient = steporal.Client('shop')\n")
    ended = await offline("worker", "app")
    assert ended.status == 1
    assert "no Temporal server answers at '127.0.0.1:1'" in ended.err
    assert "Traceback" not in ended.err


async def test_a_host_that_does_not_exist_is_told_so(offline: Steporal) -> None:
    ended = await offline("catalog", "--address", "no-such-host.invalid:7233")
    assert ended.status == 1
    assert "no Temporal server answers at 'no-such-host.invalid:7233' (" in ended.err


async def test_a_namespace_that_does_not_exist_is_told_so(run: Steporal, server: DevServer) -> None:
    ended = await run("catalog", "--namespace", "nowhere")
    assert ended.status == 2
    assert f"there is no namespace 'nowhere' at '{server.address}'" in ended.err


async def test_a_profile_that_does_not_exist_is_told_so(offline: Steporal) -> None:
    ended = await offline("catalog", "--profile", "nobody")
    assert ended.status == 2
    assert "Profile 'nobody' not found" in ended.err


async def test_a_profile_says_where_temporal_is(offline: Steporal, server: DevServer) -> None:
    configuration = offline.write("temporal.toml", f'[profile.mine]\naddress = "{server.address}"\n')
    del offline.environment["TEMPORAL_ADDRESS"]
    ended = await offline("catalog", "--profile", "mine", TEMPORAL_CONFIG_FILE=str(configuration))
    assert ended.status == 0


async def test_a_flag_goes_before_the_environment(offline: Steporal, server: DevServer) -> None:
    assert (await offline("catalog", "--address", server.address)).status == 0


async def test_a_certificate_that_does_not_exist_is_told_so(offline: Steporal) -> None:
    ended = await offline("catalog", "--tls-cert", "nowhere.pem", "--tls-key", "nowhere.key")
    assert ended.status == 2
    assert "nowhere.pem" in ended.err


async def test_help_names_every_command(offline: Steporal) -> None:
    ended = await offline("--help")
    assert ended.status == 0
    for command in ("worker", "dev", "send", "start", "sync", "catalog", "demo"):
        assert f"\n  {command} " in ended.out


async def test_output_that_is_no_terminal_has_no_colours(offline: Steporal) -> None:
    ended = await offline("catalog")
    assert "\x1b" not in ended.out + ended.err


@pytest.mark.parametrize("variable", ["ANY", "TEMPORAL_NAMESPACE"])
async def test_a_variable_that_is_no_text_is_left_alone_or_named(offline: Steporal, variable: str) -> None:
    ended = await offline("catalog", **{variable: "\udcff"})
    assert (ended.status, ended.err.count("\n")) == ((1, 1) if variable == "ANY" else (2, 1))
    assert ("no Temporal server answers" if variable == "ANY" else "cannot be read") in ended.err
