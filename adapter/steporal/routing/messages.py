"""What system workflows are sent: by anybody who may write to the namespace, of any version, in any form.

A message that cannot be read is dropped, counted, and logged. It does not fail the workflow task, which would be tried
for ever, and is not in the way of the messages after it.
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
"""How deep a message may be nested. A value of 150 levels takes up to 450 of JSON."""


TASK_TIMEOUT = timedelta(seconds=3)
"""A task may be lost with a worker that stops; who waits for the answer waits this long instead of Temporal's 10 s."""

UNREADABLE = "UnreadableMessageError"
"""The type of the error that the sender of an update gets."""


def said(message: RawValue, levels: int = MAX_NESTING) -> JSON:
    """Return the JSON of a message; None if it is not JSON, or JSON that cannot be handed on.

    ``json.loads`` reads NaN, infinity and lone surrogates, which cannot be written again: an error while a workflow
    does that would end one of its tasks, and with it all that the workflow does for others.

    Args:
        message: The message.
        levels: How deep it may be nested.

    Raises:
        UnknownKeyError: It is encrypted, and this worker has no key for it; another one may have.
    """
    try:
        data = from_raw(message)
        check_can_be_written(data, message.payload.data)
    except UnknownKeyError:
        raise
    except Exception:
        return None
    return None if is_nested_deeper(levels, data, message.payload.data) else data


def remembered(key: str, unreadable: JSON = None) -> JSON:
    """Return what the memo of this workflow has under a key.

    Args:
        key: The key.
        unreadable: What is returned for something that cannot be read, or not be written again.

    Raises:
        UnknownKeyError: It is encrypted, and this worker has no key for it; another one may have.
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
    """A message as a model; None if it is no such message, which is dropped then.

    Args:
        kind: The model.
        data: The message.
        what: What it should have been, for the log.
    """
    try:
        return kind.model_validate(data)
    except ValueError as err:
        drop(what, err)
        return None


def drop(what: str, why: object) -> None:
    """Count and log a message that cannot be read."""
    MESSAGES_DROPPED.add(workflow.metric_meter())
    workflow.logger.warning("dropped what is no %s: %s", what, str(why)[:_SHOWN])


def refuse(what: str) -> ApplicationError:
    """The error for the sender of an update that cannot be read."""
    return ApplicationError(f"this is no {what}", type=UNREADABLE, non_retryable=True)
