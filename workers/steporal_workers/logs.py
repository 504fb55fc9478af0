"""What a process logs on standard error: lines for people, or one JSON object a line for programs."""

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
"""``steporal.wire.failures.FAILED_CODE``, which takes half a second to import."""

_BEGUN_AGAIN = re.compile(r"#\d+$")
"""What is behind a step's id in the id of an activity that begins the step again."""

_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_TEMPORAL = {"temporal_activity", "temporal_workflow", "temporal_log"}


_SELDOM_SECONDS = 60.0


def set_up_logging(level: str, format: str = "text") -> None:
    """Log from a level on.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        format: ``text`` or ``json``; as JSON comes also what the process tells people.
    """
    logging.basicConfig(level=level.upper(), format=_TEXT, force=True)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(TextFormatter(_TEXT))
    if level.lower() == "info":
        # Their INFO is about the SDK's own threads and shutdown, and about changes that `steporal dev` tells itself.
        for name in ("temporalio", "watchfiles"):
            logging.getLogger(name).setLevel(logging.WARNING)
    if format == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonFormatter())
        logging.captureWarnings(True)
        _leave_the_message_alone()


def log_without_settings() -> None:
    """Log warnings as text, until a command sets up more."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(TextFormatter("%(message)s"))


def is_json() -> bool:
    """Whether everything that is said is to be JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


def name_app(app: str) -> None:
    """Say from now on of which app the lines are."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, JsonFormatter):
            handler.formatter.app = app


def core_logging(*, is_quiet: bool) -> LoggingConfig:
    """Have the SDK's core log as Python does: by itself it writes to standard output, which is for data.

    Args:
        is_quiet: Leave out workflow tasks that fail: the worker says it, in fewer words.
    """
    from temporalio.runtime import LogForwardingConfig, LoggingConfig, TelemetryFilter

    filter = TelemetryFilter(core_level="WARN", other_level="ERROR").formatted()
    if is_quiet:
        filter += ",temporalio_sdk_core::worker::workflow=ERROR"
    forwarding = LogForwardingConfig(_CORE, append_target_to_name=False, prepend_target_on_message=False)
    return LoggingConfig(filter=filter, forwarding=forwarding)


def _leave_the_message_alone() -> None:
    """Keep the SDK from writing into each message of a run what is in the line anyway."""
    from temporalio import activity, workflow

    activity.logger.activity_info_on_message = False
    workflow.logger.workflow_info_on_message = False


class Seldom(logging.Filter):
    """Lets a warning that anybody can cause through once a minute, and says then how many there have been.

    A warning is told from others by the line of code that logs it. What is worse than a warning always goes through.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """See base class."""
        if record.levelno != logging.WARNING:
            return True
        place, now = (record.pathname, record.lineno), time.monotonic()
        said, left_out = self._said.get(place, (-_SELDOM_SECONDS, 0))
        if now - said < _SELDOM_SECONDS:
            self._said[place] = (said, left_out + 1)
            return False
        self._said[place] = (now, 0)
        if left_out:
            record.msg, record.args = f"{record.getMessage()} (and {left_out:,} times more before)", None
        return True


class TextFormatter(logging.Formatter):
    """A line for each record; an error of a step or a body is followed by the user's own line, not by its stack trace.

    Below level INFO, the stack trace follows. What strangers have written does not look like further records.
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
    """One object a line: time, level, logger, message, what ``extra`` has, and of which run and step it is.

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
    """Of which run and step a line is, as the SDK says it."""
    if step := getattr(record, "temporal_activity", None):
        said = {
            **_of_workflow(step, step["workflow_run_id"]),
            "step_id": _BEGUN_AGAIN.sub("", step["activity_id"]),
            "attempt": step["attempt"],
        }
    elif body := getattr(record, "temporal_workflow", None):
        said = _of_workflow(body, body.get("run_id"))
    else:
        return {}
    return {key: value for key, value in said.items() if value}


def _of_trace() -> dict[str, str]:
    """The trace and the span in which the line is logged, as OpenTelemetry writes them."""
    opentelemetry = sys.modules.get("opentelemetry.trace")
    if opentelemetry is None:
        return {}
    current = opentelemetry.get_current_span().get_span_context()
    return {"trace_id": f"{current.trace_id:032x}", "span_id": f"{current.span_id:016x}"} if current.is_valid else {}


def _of_workflow(details: Mapping[str, Any], run_id: str | None) -> dict[str, Any]:
    workflow, workflow_id = details.get("workflow_type") or "", details.get("workflow_id") or ""
    _, _, event_id = [*workflow_id.split("/", 2), "", ""][
        :3
    ]  # as in steporal.wire.workflow_ids, which takes long to import
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
    """Log what people would be told."""
    if logger.isEnabledFor(level):
        logger.log(level, "%s", text, extra={"exception": details.rstrip()} if details else None)
