"""Messages to system workflows: from anybody who may write to the namespace, of any version, in any form.

A message that cannot be read is dropped, counted, and logged. It does not fail the workflow task, which would be
retried for ever, and it does not block the messages after it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TypeVar

from pydantic import BaseModel
from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from ..errors import UnknownKeyError
from ..metrics import MESSAGES_DROPPED
from ..types import JSON
from ..values.converter import check_can_be_written, dumps, from_raw, is_nested_deeper, to_raw
from ..values.encrypted import check_readable

M = TypeVar("M", bound=BaseModel)

_NONE = to_raw(None)
_SHOWN = 200

MAX_NESTING = 500
"""Nesting limit of a message. A value of 150 levels takes up to 450 levels of JSON."""


TASK_TIMEOUT = timedelta(seconds=3)
"""Timeout of workflow tasks. A task may be lost with a worker that stops; callers wait this long, instead of 10 s."""

UNREADABLE = "UnreadableMessageError"
"""Error type that the sender of an unreadable update receives."""


def message_json(message: RawValue, levels: int = MAX_NESTING) -> JSON:
    """Return the JSON of a message; None if it is not JSON, or JSON that cannot be written again.

    ``json.loads`` accepts NaN, infinity and lone surrogates, which cannot be written again: if a workflow tried, the
    error would fail its workflow task, and everything that the workflow does for others.

    Args:
        message: The message.
        levels: The nesting limit.

    Raises:
        UnknownKeyError: The message is encrypted, and this worker has no key for it; another worker may.
    """
    try:
        data = from_raw(message)
        check_can_be_written(data, message.payload.data)
    except UnknownKeyError:
        raise
    except Exception:
        return None
    return None if is_nested_deeper(levels, data, message.payload.data) else data


def memo_value(key: str, unreadable: JSON = None) -> JSON:
    """Return the value for a key in the memo of this workflow.

    Args:
        key: The key.
        unreadable: The result for a value that cannot be read, or cannot be written again.

    Raises:
        UnknownKeyError: The value is encrypted, and this worker has no key for it; another worker may.
    """
    payload = workflow.info().raw_memo.get(key)
    if payload is None:
        return None
    try:
        value = workflow.payload_converter().from_payload(payload)
        dumps(value)
    except Exception:
        check_readable(payload)
        return unreadable
    return value


def read(kind: type[M], data: JSON, what: str) -> M | None:
    """Return a message as a model; drop it and return None if it is not valid.

    Args:
        kind: The model.
        data: The message.
        what: The expected kind of message, for the log.
    """
    try:
        return kind.model_validate(data)
    except ValueError as err:
        drop(what, err)
        return None


def drop(what: str, why: object) -> None:
    """Count and log a message that cannot be read."""
    MESSAGES_DROPPED.add(workflow.metric_meter())
    workflow.logger.warning("dropped a message that is not a valid %s: %s", what, str(why)[:_SHOWN])


def refuse(what: str) -> ApplicationError:
    """Return the error for the sender of an update that cannot be read."""
    return ApplicationError(f"the message is not a valid {what}", type=UNREADABLE, non_retryable=True)
