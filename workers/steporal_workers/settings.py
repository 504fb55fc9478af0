"""Settings of the processes, and their sources: flags, then the environment, then a TOML file.

Every setting is declared here, once. Temporal's connection is not among them: it has Temporal's own variables and
profiles.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from .arguments import duration, whole_number
from .codec.options import DEFAULT_PORT as DEFAULT_CODEC_PORT
from .gateway.options import DEFAULT_HOST, DEFAULT_PORT
from .output import warn
from .problems import Mistake
from .telemetry import otlp_url
from .traces import EXPORTER

Command = TypeVar("Command", bound=Callable[..., Any])

PREFIX = "STEPORAL_"
FILE = "steporal.toml"
FILE_VARIABLE = "STEPORAL_CONFIG"
CLIENT = "client"
"""Key, at the top of the file, of the client for commands that name none."""

UNDER_DEV = "STEPORAL_UNDER_DEV"

OTHER_VARIABLES: Mapping[str, str] = {
    FILE_VARIABLE: "the file of settings",
    "STEPORAL_UI_URL": "the URL of Temporal's UI, for `steporal runs show`",
    UNDER_DEV: "set by `steporal dev` for its workers, so that they do not repeat its messages",
}
"""Variables that are not settings. Any other variable that begins with ``STEPORAL_`` is taken for a mistake."""

COMMANDS = ("worker", "gateway", "codec-server", "dev")


def keys(value: str | Sequence[str]) -> tuple[str, ...]:
    """Parse keys, separated by commas, or a list in the file. The type of an option."""
    parts = value.split(",") if isinstance(value, str) else value
    parsed = tuple(key.strip() for key in parts if key.strip())
    if not parsed:
        raise click.BadParameter("it is set but contains no key; set it to one key or several, separated by commas")
    if not all(map(_is_text, parsed)):
        raise click.BadParameter("a key is not valid UTF-8")
    return parsed


def _is_text(text: str) -> bool:
    return text == text.encode("utf-8", "replace").decode()


def encryption_keys(value: str | Sequence[str]) -> tuple[str, ...]:
    """Parse and check keys that encrypt values; return them as they are written. The type of an option."""
    parsed = keys(value)
    from steporal.encryption import Key

    for number, key in enumerate(parsed, 1):
        try:
            Key.parse(key)
        except ValueError as err:
            raise click.BadParameter(f"key {number} is not valid: {err}") from None
    if importlib.util.find_spec("cryptography") is None:
        raise click.BadParameter(
            "'cryptography' is not installed, and encryption needs it: pip install 'steporal[encryption]'"
        )
    return parsed


def origins(value: str | Sequence[str]) -> tuple[str, ...]:
    """Parse origins of web pages, separated by commas, or a list in the file. The type of an option."""
    parsed = tuple(part.strip().rstrip("/") for part in (value.split(",") if isinstance(value, str) else value))
    for origin in parsed:
        if not _ORIGIN.fullmatch(origin):
            raise click.BadParameter(f"{origin!r} is not an origin; use one such as https://temporal.example.com")
    return parsed


_ORIGIN = re.compile(r"https?://[^/*\s@]+")

PORT = whole_number(0, 65535)
LOG_LEVEL = click.Choice(("debug", "info", "warning", "error"), case_sensitive=False)
LOG_FORMAT = click.Choice(("text", "json"), case_sensitive=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Setting of one or more processes.

    Attributes:
        name: Its name at the top of the file; in capitals and after ``STEPORAL_``, its environment variable.
        flags: Its flag in each command that has it; None if it has no flag, as secrets have none.
        help: Its description.
        type: The type of its values.
        default: Its default.
        metavar: The placeholder of its value in help texts.
        default_is: A description of the default, if ``default`` does not say it.
        is_multiple: Whether it takes several values; an environment variable separates them by ``:``, as ``PATH`` does.
        is_of_connection: Whether every command that connects to Temporal has it.
    """

    name: str
    flags: Mapping[str, str | None]
    help: str
    type: Any = str
    default: Any = None
    metavar: str | None = None
    default_is: str | None = None
    is_multiple: bool = False
    is_of_connection: bool = False

    @property
    def variable(self) -> str:
        """Name of its environment variable."""
        return PREFIX + self.name.upper()

    @property
    def is_secret(self) -> bool:
        """True if its value must never be printed."""
        return self.type in (keys, encryption_keys)

    @property
    def may_be_list(self) -> bool:
        """True if the file may contain a list of values."""
        return self.is_multiple or self.is_secret or self.type is origins

    def is_of(self, command: str) -> bool:
        """Return whether a command has it."""
        return command in self.flags or (self.is_of_connection and command not in COMMANDS)

    def key(self, command: str) -> str:
        """Return its name in a command's table of the file, and as an argument of the command's function."""
        flag = self.flags.get(command)
        return flag.partition("/")[0].lstrip("-").replace("-", "_") if flag else self.name


def _for(*commands: str, flag: str | None) -> dict[str, str | None]:
    return dict.fromkeys(commands, flag)


SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="task_queue",
        flags=_for("worker", flag="--task-queue"),
        metavar="NAME",
        default_is="the client's",
        help="A task queue other than the client's; the worker then runs steps only.",
    ),
    Setting(
        name="max_concurrent_steps",
        flags=_for("worker", flag="--max-concurrent-steps"),
        type=whole_number(1),
        metavar="N",
        default_is="100",
        help="Maximum number of steps that run at once.",
    ),
    Setting(
        name="max_concurrent_workflow_tasks",
        flags=_for("worker", flag="--max-concurrent-workflow-tasks"),
        type=whole_number(2),
        metavar="N",
        default_is="100",
        help="Maximum number of bodies that run at once.",
    ),
    Setting(
        name="max_cached_workflows",
        flags=_for("worker", flag="--max-cached-workflows"),
        type=whole_number(0),
        metavar="N",
        default_is="1000",
        help="Maximum number of runs that are kept in memory.",
    ),
    Setting(
        name="graceful_timeout",
        flags=_for("worker", flag="--graceful-timeout"),
        type=duration,
        metavar="DURATION",
        default="30s",
        help="Time that running steps have to finish, on SIGTERM or SIGINT.",
    ),
    Setting(
        name="build_id",
        flags=_for("worker", flag="--build-id"),
        metavar="ID",
        default_is="no versions",
        help="Worker Versioning: the build id of the code, such as a commit.",
    ),
    Setting(
        name="deployment",
        flags=_for("worker", flag="--deployment"),
        metavar="NAME",
        default_is="the app's id",
        help="Worker Versioning: the deployment's name.",
    ),
    Setting(
        name="revision",
        flags=_for("worker", flag="--revision"),
        type=whole_number(0),
        metavar="N",
        default_is="when the app's newest module was changed",
        help="The revision number of the code, such as the CI build. The highest revision's triggers are in force.",
    ),
    Setting(
        name="health_port",
        flags=_for("worker", flag="--health-port"),
        type=PORT,
        metavar="PORT",
        default=0,
        help="The port of /live and /ready; 0 turns them off.",
    ),
    Setting(
        name="health_host",
        flags=_for("worker", flag="--health-host"),
        metavar="ADDRESS",
        default=DEFAULT_HOST,
        help="The address of /live and /ready.",
    ),
    Setting(
        name="metrics_port",
        flags=_for("worker", "gateway", flag="--metrics-port"),
        type=PORT,
        metavar="PORT",
        default=0,
        help="The port of /metrics, for Prometheus; 0 turns it off.",
    ),
    Setting(
        name="metrics_host",
        flags=_for("worker", "gateway", flag="--metrics-host"),
        metavar="ADDRESS",
        default=DEFAULT_HOST,
        help="The address of /metrics.",
    ),
    Setting(
        name="metrics_otlp_url",
        flags=_for("worker", "gateway", flag="--metrics-otlp-url"),
        type=otlp_url,
        metavar="URL",
        default_is="none",
        help="Send metrics to this OpenTelemetry collector instead: over HTTP if it ends in /v1/metrics, else gRPC.",
    ),
    Setting(
        name="with_gateway",
        flags=_for("worker", flag="--with-gateway/--without-gateway"),
        type=bool,
        default=False,
        help="Also serve HTTP, as `steporal gateway` does.",
    ),
    Setting(
        name="dev_gateway",
        flags=_for("dev", flag="--gateway/--no-gateway"),
        type=bool,
        default=True,
        help="Run an HTTP gateway, which accepts any key.",
    ),
    Setting(
        name="gateway_host",
        flags={"worker": "--gateway-host", "gateway": "--host"},
        metavar="ADDRESS",
        default=DEFAULT_HOST,
        help="The address that the gateway listens on.",
    ),
    Setting(
        name="gateway_port",
        flags={"worker": "--gateway-port", "gateway": "--port", "dev": "--gateway-port"},
        type=PORT,
        metavar="PORT",
        default=DEFAULT_PORT,
        help="The gateway's port; 0 chooses a free one.",
    ),
    Setting(
        name="event_keys",
        flags=_for("worker", "gateway", flag=None),
        type=keys,
        default_is="none",
        help="Keys for the gateway's /e.",
    ),
    Setting(
        name="api_keys",
        flags=_for("worker", "gateway", flag=None),
        type=keys,
        default_is="none",
        help="Keys for the gateway's /v1 and /invoke.",
    ),
    Setting(
        name="insecure_any_key",
        flags=_for("worker", "gateway", flag="--insecure-any-key"),
        type=bool,
        default=False,
        help="Open the parts of the gateway that have no keys to everybody who reaches it.",
    ),
    Setting(
        name="drain_delay",
        flags=_for("worker", "gateway", flag="--drain-delay"),
        type=duration,
        metavar="DURATION",
        default="0s",
        help="Time after SIGTERM in which the gateway still serves but is not ready, so that load balancers notice.",
    ),
    Setting(
        name="encryption_keys",
        flags=_for(*COMMANDS, flag=None),
        type=encryption_keys,
        default_is="none",
        is_of_connection=True,
        help="Keys that decrypt values; the first one also encrypts. Every command reads them.",
    ),
    Setting(
        name="decryption_keys",
        flags=_for(*COMMANDS, flag=None),
        type=encryption_keys,
        default_is="none",
        is_of_connection=True,
        help="Further keys that decrypt values. Every command reads them.",
    ),
    Setting(
        name="codec_host",
        flags=_for("codec-server", flag="--host"),
        metavar="ADDRESS",
        default=DEFAULT_HOST,
        help="The address that the codec server listens on.",
    ),
    Setting(
        name="codec_port",
        flags={"codec-server": "--port", "dev": "--codec-port"},
        type=PORT,
        metavar="PORT",
        default=DEFAULT_CODEC_PORT,
        help="The codec server's port; 0 chooses a free one.",
    ),
    Setting(
        name="codec_keys",
        flags=_for("codec-server", flag=None),
        type=keys,
        default_is="none",
        help="Access keys for the codec server.",
    ),
    Setting(
        name="codec_insecure_any_key",
        flags=_for("codec-server", flag="--insecure-any-key"),
        type=bool,
        default=False,
        help="Decrypt for everybody who reaches the codec server.",
    ),
    Setting(
        name="codec_origins",
        flags=_for("codec-server", flag="--origins"),
        type=origins,
        metavar="URL,...",
        default_is="none",
        help="Origins of the web pages that may use the codec server, such as that of Temporal's UI.",
    ),
    Setting(
        name="dev_port",
        flags=_for("dev", flag="--port"),
        type=PORT,
        metavar="PORT",
        default=7233,
        help="The port of Temporal's API; 0 chooses a free one.",
    ),
    Setting(
        name="dev_ui_port",
        flags=_for("dev", flag="--ui-port"),
        type=PORT,
        metavar="PORT",
        default=8233,
        help="The port of Temporal's UI; 0 chooses a free one.",
    ),
    Setting(
        name="dev_db_file",
        flags=_for("dev", flag="--db-file"),
        type=click.Path(path_type=Path, dir_okay=False),
        default_is="in memory",
        help="Keep Temporal's data in this file.",
    ),
    Setting(
        name="dev_watch",
        flags=_for("dev", flag="--watch"),
        type=click.Path(path_type=Path, exists=True),
        default_is="the current one",
        is_multiple=True,
        help="Folders whose code is watched.",
    ),
    Setting(
        name="log_level",
        flags=_for(*COMMANDS, flag="--log-level"),
        type=LOG_LEVEL,
        default="info",
        help="The lowest level to log.",
    ),
    Setting(
        name="log_format",
        flags=_for(*COMMANDS, flag="--log-format"),
        type=LOG_FORMAT,
        default="text",
        help="Lines of text for people, or one JSON object per line.",
    ),
    Setting(
        name="traces",
        flags=_for("worker", "gateway", "dev", flag="--traces"),
        type=EXPORTER,
        default_is="from OpenTelemetry's variables; none without them",
        help="Where OpenTelemetry's spans go: to a collector (otlp), to standard error (console), or nowhere (none).",
    ),
)


# --- options of commands -------------------------------------------------------------------------------------------


def settings_of(command: str) -> Callable[[Command], Command]:
    """Add a command's settings to its function as options, and ``--config``."""

    def decorate(function: Command) -> Command:
        for setting in reversed(SETTINGS):
            if command in setting.flags:
                function = _option(setting, command)(function)
        return config_option(function)

    return decorate


def options_of_connection(function: Command) -> Command:
    """Add the settings of the connection to a command's function as options, unless it already has settings."""
    params: list[click.Parameter] = getattr(function, "__click_params__", [])
    if any(isinstance(param, _Option) for param in params):
        return function
    for setting in SETTINGS:
        if setting.is_of_connection:
            function = _option(setting, "")(function)
    return config_option(function)


def _option(setting: Setting, command: str) -> Callable[[Command], Command]:
    flag = setting.flags.get(command)
    if setting.type is bool:  # click derives its own type from is_flag
        options: dict[str, Any] = {"is_flag": True}
    else:
        options = {"type": setting.type, "metavar": setting.metavar, "multiple": setting.is_multiple}
    return click.option(
        flag or f"--{setting.name}",
        setting.key(command),
        cls=_Option,
        setting=setting,
        default=setting.default,
        envvar=setting.variable,
        help=setting.help,
        show_default=setting.default_is or True,
        hidden=flag is None,
        **options,
    )


class _Option(click.Option):
    """Setting as an option of one command; an invalid value is an error of one line, which names the value's source."""

    def __init__(self, *args: Any, setting: Setting, **options: Any) -> None:
        super().__init__(*args, **options)
        self.setting = setting

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        if not self.setting.is_secret:  # everybody on the machine can read a process's command line
            super().add_to_parser(parser, ctx)

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        text = os.environ.get(self.setting.variable)
        if text and self.setting.type is PORT and _SERVICE_LINK.match(text):
            return None
        # An empty variable counts as not set, except for keys: a gateway whose keys were lost must not start.
        return text if text or self.setting.is_secret else None

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        try:
            return super().process_value(ctx, value)
        except click.BadParameter as err:
            raise Mistake(f"{self.source(ctx)}: {err.message.rstrip('.')}") from None

    def source(self, ctx: click.Context) -> str:
        """Return the source of its value: the flag, the variable, or the key in the file."""
        match ctx.get_parameter_source(self.name or ""):
            case ParameterSource.COMMANDLINE:
                return str(self.setting.flags[ctx.info_name or ""])
            case ParameterSource.ENVIRONMENT:
                return self.setting.variable
            case ParameterSource.DEFAULT_MAP:
                return str(ctx.meta[_KEYS_OF_FILE][self.name])
        return "default"


_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")
"""Value that Kubernetes gives ``STEPORAL_GATEWAY_PORT`` in a namespace that has a Service ``steporal-gateway``."""

_PATH_OF_FILE, _KEYS_OF_FILE = f"{__name__}.path", f"{__name__}.keys"


@dataclass(frozen=True, slots=True)
class Value:
    """Value of a setting in one command.

    Attributes:
        source: Its source: a flag, a variable, a key of the file, or ``default``.
    """

    setting: Setting
    command: str
    value: Any
    source: str


def values_of(command: click.Command, name: str, arguments: list[str]) -> tuple[click.Context, list[Value]]:
    """Return the settings that a command would have with these arguments.

    Raises:
        Mistake: A value is not valid.
    """
    anything = click.Argument(["arguments"], nargs=-1)
    options = [param for param in command.params if not isinstance(param, click.Argument)]
    ctx = click.Command(name, params=[*options, anything]).make_context(name, arguments)
    return ctx, [
        Value(option.setting, name, ctx.params[option.name or ""], option.source(ctx))
        for option in options
        if isinstance(option, _Option)
    ]


# --- misspelt variables --------------------------------------------------------------------------------------------


def tell_unknown_variables() -> None:
    """Warn of variables that look like settings but are not; otherwise nobody would notice them."""
    if os.environ.get(UNDER_DEV):
        return
    known = {variable.removeprefix(PREFIX) for variable in OTHER_VARIABLES} | {one.name.upper() for one in SETTINGS}
    for variable, value in sorted(os.environ.items()):
        name = variable.removeprefix(PREFIX)
        is_of_service = _OF_SERVICE.search(variable) or _SERVICE_LINK.match(value)
        if name != variable and name not in known and not is_of_service:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {PREFIX}{close[0]}?" if close else "`steporal config` prints all settings"
            warn(f"{variable} is not a setting, and is ignored; {hint}")


_OF_SERVICE = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)\w*)$")
"""Variables that Kubernetes sets for a Service, such as ``STEPORAL_GATEWAY_SERVICE_HOST`` for ``steporal-gateway``."""


# --- the file ------------------------------------------------------------------------------------------------------


def _read_into(ctx: click.Context, param: click.Parameter, chosen: Path | None) -> None:
    path = chosen or Path(FILE)
    if chosen is None and not path.exists():
        return
    source = "" if chosen is None else f" ({_flag_or_variable(ctx, param)})"
    entries = {key: (value, where) for key, value, where in _entries(ctx.info_name or "", path, source)}
    ctx.default_map = {key: value for key, (value, _) in entries.items()}
    ctx.meta[_PATH_OF_FILE] = path
    ctx.meta[_KEYS_OF_FILE] = {key: where for key, (_, where) in entries.items()}


def client_of_file(ctx: click.Context) -> str | None:
    """Return the client that the file of settings names, as MODULE:CLIENT."""
    variable = os.environ.get(FILE_VARIABLE)
    path = file_of(ctx) or Path(variable or FILE)
    if not path.exists():
        return None
    client = _read(path, "").get(CLIENT)
    if client is not None and not isinstance(client, str):
        raise Mistake(f'{path}, {CLIENT}: {client!r} is not a client; write MODULE:CLIENT, such as "shop:client"')
    return client


def file_of(ctx: click.Context) -> Path | None:
    """Return the file that a command has read; None if it has read none."""
    path: Path | None = ctx.meta.get(_PATH_OF_FILE)
    return path


def _flag_or_variable(ctx: click.Context, param: click.Parameter) -> str:
    is_variable = ctx.get_parameter_source(param.name or "") is ParameterSource.ENVIRONMENT
    return FILE_VARIABLE if is_variable else "--config"


config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar=FILE_VARIABLE,
    metavar="FILE",
    is_eager=True,
    expose_value=False,
    callback=_read_into,
    help=f"A TOML file of settings.  [default: {FILE}, if it exists]",
)


def _entries(command: str, path: Path, source: str) -> Iterator[tuple[str, Any, str]]:
    """Yield the entries of a file for a command: the key, the value, and its place. Entries of a table come last."""
    content = _read(path, source)
    content.pop(CLIENT, None)
    tables = {name: content.pop(name) for name in COMMANDS if isinstance(content.get(name), dict)}
    top = {setting.name: setting for setting in SETTINGS}
    _check_known(content, top, str(path), [CLIENT, *(f"[{name}]" for name in COMMANDS)])
    for name, table in tables.items():
        _check_known(table, _by_key(name), f"[{name}] of {path}")
    for key, value in content.items():
        if top[key].is_of(command):
            where = f"{path}, {key}"
            yield top[key].key(command), _as_text(top[key], value, where), where
    for key, value in tables.get(command, {}).items():
        where = f"{path}, [{command}] {key}"
        yield key, _as_text(_by_key(command)[key], value, where), where


def _by_key(command: str) -> dict[str, Setting]:
    return {setting.key(command): setting for setting in SETTINGS if command in setting.flags}


def _read(path: Path, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise Mistake(f"{path}{source} cannot be read: {err.strerror or err}") from None
    except ValueError as err:
        raise Mistake(f"{path}{source} is not valid TOML: {err}") from None
    except RecursionError:
        raise Mistake(f"{path}{source} cannot be read: it is nested too deep") from None


def _check_known(keys: Iterable[str], known: Mapping[str, Setting], where: str, others: Iterable[str] = ()) -> None:
    for key in keys:
        if key in known:
            continue
        if key in ("address", "namespace", "api_key", "profile", "tls"):
            raise Mistake(f"{where} has {key!r}, a setting of Temporal's: set TEMPORAL_{key.upper()}, or use a profile")
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise Mistake(f"{where} has no setting {key!r}; {hint}it may contain {', '.join([*sorted(known), *others])}")


def _as_text(setting: Setting, value: Any, where: str) -> Any:
    """Return a value of the file in the form of an environment variable, so that both are checked alike."""
    if setting.is_secret and not all(isinstance(key, str) for key in (value if isinstance(value, list) else [value])):
        raise Mistake(f"{where}: keys must be strings")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return [str(value)] if setting.is_multiple else str(value)
    if isinstance(value, list) and setting.may_be_list:
        return [str(item) for item in value]
    raise Mistake(f"{where}: a {type(value).__name__} is not a valid value")


# --- documentation -------------------------------------------------------------------------------------------------


def markdown_table() -> str:
    """Return a table of all settings, for ``docs/settings.md``."""
    rows = [f"| `{s.variable}` | {_flags(s)} | {_shown_default(s)} | {s.help} |\n" for s in SETTINGS]
    return "".join(["| variable | flags | default | |\n", "|---|---|---|---|\n", *rows])


def _flags(setting: Setting) -> str:
    commands: dict[str | None, list[str]] = {}
    for command, flag in setting.flags.items():
        commands.setdefault(flag, []).append(command)
    shown = [f"{' '.join(names)} `{flag}`" if flag else " ".join(names) for flag, names in commands.items()]
    return "; ".join(shown)


def _shown_default(setting: Setting) -> str:
    if setting.default_is:
        return setting.default_is
    return f"`{str(setting.default).lower() if isinstance(setting.default, bool) else setting.default}`"
