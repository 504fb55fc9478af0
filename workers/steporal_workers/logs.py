"""Log of a process on standard error: lines for people, or one JSON object per line for programs."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .escaping import one_entry, printable
from .stacks import own_place

if TYPE_CHECKING:
    from temporalio.runtime import LoggingConfig

logger = logging.getLogger("steporal")

_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_CORE = logging.getLogger("temporalio.core")

FAILED_CODE = "_steporal_failed_code"
"""Copy of ``steporal.wire.failures.FAILED_CODE``, whose module takes half a second to import."""

_BEGUN_AGAIN = re.compile(r"#\d+$")
"""Suffix after a step's id in the id of an activity that begins the step again."""

_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_TEMPORAL = {"temporal_activity", "temporal_workflow", "temporal_log"}


_SELDOM_SECONDS = 60.0


def set_up_logging(level: str, format: str = "text") -> None:
    """Set up logging.

    Args:
        level: The lowest level to log: ``debug``, ``info``, ``warning`` or ``error``.
        format: ``text`` or ``json``; with ``json``, the command's messages for people are logged, too.
    """
    logging.basicConfig(level=level.upper(), format=_TEXT, force=True)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(TextFormatter(_TEXT))
    if level.lower() == "info":
        # Their INFO lines are about the SDK's threads and shutdown, and about changes that `steporal dev` reports.
        for name in ("temporalio", "watchfiles"):
            logging.getLogger(name).setLevel(logging.WARNING)
    if format == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonFormatter())
        logging.captureWarnings(True)
        _keep_messages_plain()


def log_without_settings() -> None:
    """Log warnings as text, until a command sets up logging."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(TextFormatter("%(message)s"))


def is_json() -> bool:
    """Return whether all output on standard error is JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


def name_app(app: str) -> None:
    """Add the app's id to all further JSON lines."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, JsonFormatter):
            handler.formatter.app = app


def core_logging(*, is_quiet: bool) -> LoggingConfig:
    """Return the options that make the SDK's core log through Python; by default it writes to standard output.

    Args:
        is_quiet: Leave out failing workflow tasks: the worker logs them, in fewer words.
    """
    from temporalio.runtime import LogForwardingConfig, LoggingConfig, TelemetryFilter

    filter = TelemetryFilter(core_level="WARN", other_level="ERROR").formatted()
    if is_quiet:
        filter += ",temporalio_sdk_core::worker::workflow=ERROR"
    forwarding = LogForwardingConfig(_CORE, append_target_to_name=False, prepend_target_on_message=False)
    return LoggingConfig(filter=filter, forwarding=forwarding)


def _keep_messages_plain() -> None:
    """Keep the SDK from adding to each message of a run what the JSON line contains anyway."""
    from temporalio import activity, workflow

    activity.logger.activity_info_on_message = False
    workflow.logger.workflow_info_on_message = False


class Seldom(logging.Filter):
    """Filter that passes a warning that anybody can cause once a minute, with the number of those left out before.

    The line of code that logs it identifies a warning. Records of other levels always pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self._logged: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """See base class."""
        if record.levelno != logging.WARNING:
            return True
        place, now = (record.pathname, record.lineno), time.monotonic()
        logged_at, left_out = self._logged.get(place, (-_SELDOM_SECONDS, 0))
        if now - logged_at < _SELDOM_SECONDS:
            self._logged[place] = (logged_at, left_out + 1)
            return False
        self._logged[place] = (now, 0)
        if left_out:
            record.msg, record.args = f"{record.getMessage()} (and {left_out:,} more before)", None
        return True


class TextFormatter(logging.Formatter):
    """Formatter for people; an error of a step or body shows the user's own line instead of the stack trace.

    At level DEBUG, it shows the stack trace. Untrusted text cannot look like a further record.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        """See base class."""
        return one_entry(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        """See base class."""
        return "  " + one_entry(super().formatException(ei))

    def format(self, record: logging.LogRecord) -> str:
        """See base class."""
        if (
            not getattr(record, FAILED_CODE, False)
            or not record.exc_info
            or logging.getLogger().isEnabledFor(logging.DEBUG)
        ):
            return super().format(record)
        brief = logging.makeLogRecord({**vars(record), "exc_info": None, "exc_text": None})
        place = own_place("".join(traceback.format_tb(record.exc_info[2])))
        return "\n".join([super().format(brief), *map(printable, place.lines if place else ())])


class JsonFormatter(logging.Formatter):
    """Formatter of one object per line: time, level, logger, message, ``extra``, and the run and step.

    Attributes:
        app: The app that the process serves.
    """

    app: str | None = None

    def format(self, record: logging.LogRecord) -> str:
        """See base class."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **({"app": self.app} if self.app else {}),
            **_of_run(record),
            **_of_trace(),
        }
        line.update((key, value) for key, value in _extra(record).items() if key not in line)
        if record.exc_info and record.exc_info[0]:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, separators=(",", ":"))


def _of_run(record: logging.LogRecord) -> dict[str, Any]:
    """Return the run and step of a record, which the SDK attaches to it."""
    if step := getattr(record, "temporal_activity", None):
        fields = {
            **_of_workflow(step, step["workflow_run_id"]),
            "step_id": _BEGUN_AGAIN.sub("", step["activity_id"]),
            "attempt": step["attempt"],
        }
    elif body := getattr(record, "temporal_workflow", None):
        fields = _of_workflow(body, body.get("run_id"))
    else:
        return {}
    return {key: value for key, value in fields.items() if value}


def _of_trace() -> dict[str, str]:
    """Return the current trace and span, in OpenTelemetry's notation."""
    opentelemetry = sys.modules.get("opentelemetry.trace")
    if opentelemetry is None:
        return {}
    current = opentelemetry.get_current_span().get_span_context()
    return {"trace_id": f"{current.trace_id:032x}", "span_id": f"{current.span_id:016x}"} if current.is_valid else {}


def _of_workflow(details: Mapping[str, Any], run_id: str | None) -> dict[str, Any]:
    workflow, workflow_id = details.get("workflow_type") or "", details.get("workflow_id") or ""
    _, _, event_id = [*workflow_id.split("/", 2), "", ""][:3]  # as in steporal.wire.workflow_ids, a slow import
    return {
        "workflow": workflow,
        "workflow_id": workflow_id,
        "run_id": run_id,
        "event_id": event_id,
    }


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {
        key: value
        for key, value in vars(record).items()
        if not (key in _STANDARD or key in _TEMPORAL or key.startswith("_"))
    }


def say_as_log(text: str, *, level: int = logging.INFO, details: str = "") -> None:
    """Log a message that would otherwise be printed for people."""
    if logger.isEnabledFor(level):
        logger.log(level, "%s", text, extra={"exception": details.rstrip()} if details else None)
