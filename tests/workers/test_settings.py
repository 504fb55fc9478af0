"""Settings: flags, then the environment, then a file; and `steporal config`, which says what they are."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Steporal

from steporal_workers.devserver import DevServer
from steporal_workers.settings import OTHER_VARIABLES, SETTINGS, markdown_table

WriteApp = Callable[[str], str]
NOTHING = ""

SECRET = "a-secret-key-of-24-chars"


async def setting(steporal: Steporal, name: str, *arguments: str, **variables: str) -> tuple[Any, str]:
    """The value and the source of a worker's setting."""
    ended = await steporal("config", "worker", *arguments, "--json", **variables)
    [row] = [row for row in ended.data if (row["command"], row["setting"]) in (("worker", name), ("temporal", name))]
    return row["value"], row["source"]


async def test_a_flag_goes_before_the_environment_and_that_before_the_file(offline: Steporal) -> None:
    assert await setting(offline, "graceful_timeout") == ("30s", "default")
    offline.write("steporal.toml", 'graceful_timeout = "1s"\n')
    assert await setting(offline, "graceful_timeout") == ("1s", "steporal.toml, graceful_timeout")
    offline.write("steporal.toml", 'graceful_timeout = "1s"\n[worker]\ngraceful_timeout = "2s"\n')
    assert await setting(offline, "graceful_timeout") == ("2s", "steporal.toml, [worker] graceful_timeout")
    variables = {"STEPORAL_GRACEFUL_TIMEOUT": "3s"}
    assert await setting(offline, "graceful_timeout", **variables) == ("3s", "STEPORAL_GRACEFUL_TIMEOUT")
    flag = ("app:client", "--graceful-timeout", "4s")
    assert await setting(offline, "graceful_timeout", *flag, **variables) == ("4s", "--graceful-timeout")


async def test_a_worker_takes_them_from_the_file_and_the_environment(run: Steporal, write_app: WriteApp) -> None:
    app = write_app(NOTHING)
    run.write("settings.toml", '[worker]\ngraceful_timeout = "7s"\n')
    variables = {"STEPORAL_CONFIG": "settings.toml", "STEPORAL_TASK_QUEUE": f"{app}-gpu"}
    async with run.running("worker", "app", **variables) as worker:
        await worker.until(f"on task queue {app}-gpu")
        worker.signal(signal.SIGTERM)
        await worker.until("running steps have 7s to finish")
        assert (await worker.ended()).status == 0


async def test_a_table_is_for_its_command_alone(offline: Steporal) -> None:
    offline.write("steporal.toml", 'gateway_port = 9000\n[gateway]\nhost = "::1"\nport = 9001\n')
    rows = {(row["command"], row["setting"]): row["value"] for row in (await offline("config", "--json")).data}
    assert rows["worker", "gateway_port"] == rows["dev", "gateway_port"] == 9000
    assert (rows["gateway", "port"], rows["gateway", "host"]) == (9001, "::1")
    assert rows["worker", "gateway_host"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("STEPORAL_GRACEFUL_TIMEOUT", "soon", '\'soon\' is not a duration; write "30s", "5m" or "1h30m"'),
        ("STEPORAL_HEALTH_PORT", "70000", "'70000' is not valid; it takes a number from 0 to 65535"),
        ("STEPORAL_MAX_CONCURRENT_STEPS", "many", "'many' is not valid; it takes a number of at least 1"),
        ("STEPORAL_LOG_FORMAT", "xml", "'xml' is not one of 'text', 'json'"),
        (
            "STEPORAL_EVENT_KEYS",
            " , ",
            "it is set but contains no key; set it to one key or several, separated by commas",
        ),
        ("STEPORAL_API_KEYS", "", "it is set but contains no key; set it to one key or several, separated by commas"),
        ("STEPORAL_API_KEYS", "good,\udcff", "a key is not valid UTF-8"),
    ],
)
async def test_a_wrong_value_is_one_line_that_names_where_it_stands(
    offline: Steporal, variable: str, value: str, said: str
) -> None:
    offline.write("app.py", "raise Exception('nothing is started before')\n")
    ended = await offline("worker", "app", **{variable: value})
    assert (ended.status, ended.err) == (2, f"error: {variable}: {said}\n")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('graceful_timeout = "soon"', "steporal.toml, graceful_timeout: 'soon' is not a duration"),
        ('[worker]\nhealth_port = "x"', "steporal.toml, [worker] health_port: 'x' is not valid"),
        ("health_port = true", "steporal.toml, health_port: 'true' is not valid"),
        ('log_level = ["info"]', "steporal.toml, log_level: a list is not a valid value"),
        ("helth_port = 1", "steporal.toml has no setting 'helth_port'; did you mean 'health_port'? it may contain "),
        (
            "[gateway]\ngraceful_timeout = 1",
            "[gateway] of steporal.toml has no setting 'graceful_timeout'; it may contain api_keys, ",
        ),
        ('address = "temporal:7233"', "'address', a setting of Temporal's: set TEMPORAL_ADDRESS, or use a profile"),
        ("health_port =", "steporal.toml is not valid TOML: "),
        ("a = " + "[" * 5_000 + "]" * 5_000, "steporal.toml cannot be read: it is nested too deep"),
        ("event_keys = 5", "steporal.toml, event_keys: keys must be strings"),
        ("api_keys = true", "steporal.toml, api_keys: keys must be strings"),
        ('event_keys = ["a", 5]', "steporal.toml, event_keys: keys must be strings"),
    ],
)
async def test_a_wrong_file_is_one_line_that_names_the_key(offline: Steporal, content: str, said: str) -> None:
    offline.write("steporal.toml", content)
    ended = await offline("worker", "app")
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert said in ended.err


async def test_a_file_that_is_not_there_is_told_so(offline: Steporal) -> None:
    ended = await offline("worker", "app", "--config", "nowhere.toml")
    assert (ended.status, ended.err) == (
        2,
        "error: nowhere.toml (--config) cannot be read: No such file or directory\n",
    )


async def test_a_variable_that_kubernetes_sets_for_a_service_is_none_of_ours(offline: Steporal) -> None:
    link = {"STEPORAL_GATEWAY_PORT": "tcp://10.0.0.1:8288"}
    assert await setting(offline, "gateway_port", **link) == (8288, "default")


async def test_no_secret_is_shown_and_none_is_a_flag(offline: Steporal) -> None:
    offline.write("steporal.toml", f'event_keys = ["{SECRET}", "b"]\n')
    temporal = {"TEMPORAL_API_KEY": SECRET}
    assert await setting(offline, "event_keys") == ("******** (2)", "steporal.toml, event_keys")
    assert await setting(offline, "api_key", **temporal) == ("********", "TEMPORAL_API_KEY")
    ended = await offline("config", STEPORAL_API_KEYS=SECRET, **temporal)
    assert "******** (1)" in ended.out
    assert SECRET not in ended.out + ended.err
    assert (await offline("gateway", "app", "--event-keys", SECRET)).status == 2


async def test_temporals_connection_is_shown_as_it_is_found(offline: Steporal, server: DevServer) -> None:
    profiles = offline.write("temporal.toml", '[profile.mine]\naddress = "far:7233"\nnamespace = "shop"\n')
    del offline.environment["TEMPORAL_ADDRESS"]
    offline.environment["TEMPORAL_CONFIG_FILE"] = str(profiles)
    assert await setting(offline, "address") == ("localhost:7233", "default")
    mine = ("app", "--profile", "mine")
    assert await setting(offline, "profile", *mine) == ("mine", "--profile")
    assert await setting(offline, "namespace", *mine) == ("shop", "profile mine")
    assert await setting(offline, "address", *mine, TEMPORAL_ADDRESS="near:1") == ("near:1", "TEMPORAL_ADDRESS")
    assert await setting(offline, "tls", *mine, "--tls") == ("on", "--tls")


async def test_dev_hands_its_file_to_its_workers(offline: Steporal) -> None:
    offline.write("app.py", "import steporal\nclient = steporal.Client('configured')\n")
    offline.write("mine.toml", '[worker]\ntask_queue = "other"\nwith_gateway = true\nhealth_port = 1\n')
    ports = ["--port", "0", "--ui-port", "0", "--no-gateway"]
    async with offline.running("dev", "app", *ports, "--config", "mine.toml", STEPORAL_COLOUR="blue") as process:
        await process.until("serving app configured on task queue other")
        assert process.said.count("STEPORAL_COLOUR is not a setting") == 1
        process.signal(signal.SIGTERM)
        assert (await process.ended()).status == 0


# --- what is misspelt ----------------------------------------------------------------------------------------------


async def test_a_variable_that_is_misspelt_is_named_with_the_nearest_right_one(offline: Steporal) -> None:
    given = {"STEPORAL_GRACEFULL_TIMEOUT": "1m", "STEPORAL_EVENT_KEY": SECRET, "STEPORAL_COLOUR": "blue"}
    given["STEPORAL_METRIC_PORT"] = "9464"
    said = (
        "warning: STEPORAL_COLOUR is not a setting, and is ignored; `steporal config` prints all settings\n"
        "warning: STEPORAL_EVENT_KEY is not a setting, and is ignored; did you mean STEPORAL_EVENT_KEYS?\n"
        "warning: STEPORAL_GRACEFULL_TIMEOUT is not a setting, and is ignored; "
        "did you mean STEPORAL_GRACEFUL_TIMEOUT?\n"
        "warning: STEPORAL_METRIC_PORT is not a setting, and is ignored; did you mean STEPORAL_METRICS_PORT?\n"
    )
    assert (await offline("config", "--json", **given)).err == said
    offline.write("app.py", "import steporal\nclient = steporal.Client('shop')\n")
    ended = await offline("gateway", "app", **given)
    assert ended.err.startswith(f"{said}error: the gateway has no keys")
    as_json = await offline("worker", "nowhere", "--log-format", "json", STEPORAL_COLOUR="blue")
    assert [json.loads(line)["level"] for line in as_json.err.splitlines()] == ["warning", "error"]


async def test_what_is_no_setting_of_ours_is_not_told(offline: Steporal) -> None:
    services = {
        "STEPORAL_GATEWAY_SERVICE_HOST": "10.0.0.1",
        "STEPORAL_GATEWAY_SERVICE_PORT_HTTP": "80",
        "STEPORAL_GATEWAY_PORT_80_TCP_ADDR": "10.0.0.1",
        "STEPORAL_GATEWAY_PORT": "tcp://10.0.0.1:80",
        "STEPORAL_WORKER_PORT": "tcp://10.0.0.1:80",
    }
    others = {"STEPORAL_UI_URL": "https://temporal", "STEPORAL_MAX_CACHED_WORKFLOWS": "0", "MYSTEPORAL_X": "1"}
    assert (await offline("config", **services, **others)).err == ""


def test_all_variables_that_the_code_names_are_declared() -> None:
    root = Path(__file__).parents[2]
    sources = [path for folder in ("workers", "adapter", "deploy") for path in (root / folder).rglob("*.*")]
    named = {name for path in sources for name in re.findall(r"\bSTEPORAL_[A-Z_]+\b", path.read_text(errors="ignore"))}
    known = {*OTHER_VARIABLES, *(setting.variable for setting in SETTINGS)}
    assert named - known - {"STEPORAL_GATEWAY_SERVICE_HOST"} == set()


def test_names_are_unique() -> None:
    assert len({setting.name for setting in SETTINGS}) == len(SETTINGS)
    for command in ("worker", "gateway", "dev"):
        keys = [setting.key(command) for setting in SETTINGS if command in setting.flags]
        assert len(set(keys)) == len(keys)


def test_the_page_has_the_table_of_all_settings() -> None:
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert markdown_table() in page.read_text(), "make docs writes it"


async def test_the_file_names_the_client_of_commands_that_are_given_none(offline: Steporal) -> None:
    app = "import steporal\nclient = steporal.Client({!r})\n@client.workflow(id='w')\nasync def w(ctx, step): ...\n"
    offline.write("crm/app.py", app.format("crm"))
    offline.write("crm/__init__.py", "")
    offline.write("other.py", app.format("other"))
    offline.write("steporal.toml", 'client = "crm.app:client"\nlog_level = "debug"\n')
    assert "1 workflow of app 'crm'" in (await offline("lint")).err
    assert "1 workflow of app 'other'" in (await offline("lint", "other")).err
    assert (await offline("config", "worker")).status == 0
    assert "'127.0.0.1:1'" in (await offline("worker")).err  # it found the client, and no server
    offline.write("steporal.toml", "client = 3\n")
    ended = await offline("worker")
    assert (ended.status, "steporal.toml, client: 3 is not a client; write MODULE:CLIENT" in ended.err) == (2, True)
