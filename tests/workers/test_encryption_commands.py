"""Encryption as operators have it: keys in settings, `steporal dev`, the commands, and Temporal's own."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from commands import Process, Steporal
from encrypting import stored
from temporalio.client import Client

from steporal.encryption import Key, new_key
from steporal.values.encrypted import ENCODING
from steporal_workers.devserver import find_binary

KEY = new_key()
KEYS = {"STEPORAL_ENCRYPTION_KEYS": KEY}
MARKER = "m4rk3r"

APP = f"""
    import steporal
    from steporal import event_trigger

    client = steporal.Client("secret-app")

    @client.workflow(id="echo", triggers=[event_trigger("said", if_exp="event.data.word != 'not {MARKER}'")])
    async def echo(ctx, step):
        await step.run("fails", lambda: 1 / len(ctx.input.data["word"][6:]), max_attempts=1)
    """


@asynccontextmanager
async def stopped(dev: Process) -> AsyncIterator[None]:
    """Ends a development environment in any case: it has processes of its own."""
    try:
        yield
    finally:
        dev.signal(signal.SIGINT)
        assert (await dev.ended()).status == 0


async def temporal(*arguments: str) -> str:
    """What Temporal's own command prints."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(find_binary(), *arguments, stdout=pipe, stderr=pipe)
    return "".join(text.decode() for text in await process.communicate())


async def test_dev_encrypts_and_decrypts_for_those_who_have_the_key(offline: Steporal) -> None:
    offline.write("app.py", APP)
    offline.write("steporal.toml", f'encryption_keys = ["{KEY}"]\n')
    free = ("--port", "0", "--ui-port", "0", "--gateway-port", "0", "--codec-port", "0")
    async with offline.running("dev", "app:client", *free) as dev, stopped(dev):
        await dev.until("serving app secret-app")
        found = re.search(
            r"dev server at (\S+),.*?UI: (\S+).*?codec server at (\S+), .*?gateway at (\S+)", dev.said, re.S
        )
        assert found
        address, ui, codec, gateway = found.groups()
        there = {"TEMPORAL_ADDRESS": address}
        async with httpx.AsyncClient() as http:
            sent = await http.post(f"{gateway}/e/any", json={"name": "said", "data": {"word": MARKER}})
            run = f"secret-app/echo/{sent.json()['ids'][0]}"
            settings = (await http.get(f"{ui}/api/v1/settings")).json()
            asked = {"Origin": ui, "Access-Control-Request-Method": "POST"}
            preflight = await http.options(f"{codec}/decode", headers=asked)
        assert settings["Codec"]["Endpoint"] == codec
        assert preflight.headers["access-control-allow-origin"] == ui

        result, replay = await asyncio.gather(
            offline("runs", "result", run, "--wait", **there), offline("replay", "app", "--closed", "--json", **there)
        )
        assert result.status == 1 and "ZeroDivisionError: division by zero" in result.err
        assert replay.data == {"replayed": 1, "misfits": []}
        offline.write("steporal.toml", "")  # from here on, the commands have no key
        shown, refused, catalog = await asyncio.gather(
            offline("runs", "show", run, "--json", **KEYS, **there),
            offline("runs", "show", run, **there),
            offline("catalog", **there),
        )
        assert {step["id"]: step["error"] for step in shown.data["steps"]}["fails"].endswith("division by zero")
        id = Key.parse(KEY).id
        for ended in (refused, catalog):
            assert (ended.status, ended.err.count("\n")) == (2, 1)
            assert f"encrypted with key {id!r}, which this process does not have" in ended.err

        show = ("workflow", "show", "--address", address, "--workflow-id", run, "--detailed")
        of_team = {
            "STEPORAL_CODEC_KEYS": "codec-key-of-the-team",
            "STEPORAL_CODEC_ORIGINS": "https://temporal.example.com",
        }
        async with offline.running("codec-server", "--port", "0", **of_team, **KEYS) as server:
            await server.until("codec server at ")
            guarded = ("--codec-endpoint", server.said.split("codec server at ")[1].split(",")[0])
            sealed, *opened = await asyncio.gather(
                temporal(*show),
                temporal(*show, *guarded, "--codec-auth", "Bearer codec-key-of-the-team"),
                temporal(*show, "--codec-endpoint", codec),
                temporal(*show, "--codec-endpoint", codec + "/{namespace}"),
            )
            server.signal(signal.SIGTERM)
            assert (await server.ended()).status == 0
        assert MARKER not in sealed
        assert [f"input[0].word: {MARKER}" in text for text in opened] == [True] * 3

        has = await stored(await Client.connect(address))
        assert ENCODING in has
        assert MARKER.encode() not in has and b"division by zero" not in has and b"lambda" not in has


async def test_a_new_key_is_printed_and_each_time_another(offline: Steporal) -> None:
    ended = await offline("encryption", "new-key")
    assert Key.parse(ended.out.removesuffix("\n")) != Key.parse(KEY)
    assert ended.err == ""


async def test_wrong_keys_are_one_line_of_every_command_and_not_shown(offline: Steporal) -> None:
    offline.write("steporal.toml", 'encryption_keys = ["hunter2!"]\n')
    ended = await offline("send", "order.placed")
    said = (
        "steporal.toml, encryption_keys: key 1 is not valid: it is not valid Base64; `steporal encryption new-key` "
        "makes one"
    )
    assert (ended.status, ended.err) == (2, f"error: {said}\n")


async def test_what_encrypts_is_not_installed_everywhere(offline: Steporal) -> None:
    offline.write("hidden.py", "import sys\nsys.modules['cryptography'] = None\n")
    offline.write("app.py", "raise Exception('nothing is started before')\n")
    offline.write("sitecustomize.py", "import hidden\n")
    offline.imports_anew = True
    path = f"{offline.folder}:{offline.environment['PYTHONPATH']}"
    ended = await offline("worker", "app", **KEYS, PYTHONPATH=path)
    said = "'cryptography' is not installed, and encryption needs it: pip install 'steporal[encryption]'"
    assert (ended.status, ended.err) == (2, f"error: STEPORAL_ENCRYPTION_KEYS: {said}\n")
    code = "import sys, steporal, steporal_workers.cli; print([m for m in sys.modules if 'crypt' in m.split('.')[0]])"
    assert (await offline.python("-c", code)).out == "[]\n"


async def test_the_codec_server_says_what_is_missing_and_masks_what_is_there(offline: Steporal) -> None:
    without, short, config = await asyncio.gather(
        offline("codec-server", "--port", "0", **KEYS),
        offline("codec-server", "--port", "0", STEPORAL_CODEC_KEYS="a-short-key", **KEYS),
        offline("config", "codec-server", "--json", STEPORAL_CODEC_KEYS="codec-key-of-the-team", **KEYS),
    )
    assert without.status == 2 and "set STEPORAL_CODEC_KEYS to one or several" in without.err
    assert short.status == 2 and "key 1 of STEPORAL_CODEC_KEYS has 11 characters; use keys of 16" in short.err
    rows = {row["setting"]: row["value"] for row in config.data}
    assert rows["encryption_keys"] == f"******** ({Key.parse(KEY).id})"
    assert rows["codec_keys"] == "******** (1)"
    assert KEY not in config.out
