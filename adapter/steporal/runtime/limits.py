"""What Temporal stores: how large it may be, and how texts for its UI are written."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from temporalio.common import RawValue

from ..converter import size_of, to_raw
from ..errors import PayloadTooLargeError
from ..types import JSON

MAX_PAYLOAD_BYTES = 2 * 1024 * 1024 - 16 * 1024
"""Temporal's ``limit.blobSize.error``, 2 MiB, less what frames a payload."""

BATCH_BYTES = 1024 * 1024
"""How much of a list of events is handed to one activity."""

MAX_MESSAGE_LENGTH = 4_000
"""Of an error; Temporal replaces a failure that is too large by one that says only that."""

MAX_SUMMARY_BYTES = 400
"""Temporal's ``limit.userMetadataSummarySize``."""


def to_limited(what: str, data: JSON) -> RawValue:
    """A JSON value as a payload that Temporal takes.

    Raises:
        PayloadTooLargeError: It is too large; the message says what it is, and its size.
    """
    raw = to_raw(data)
    size = size_of(raw)
    if size > MAX_PAYLOAD_BYTES:
        raise PayloadTooLargeError(
            f"{what} has {size:,} bytes of JSON; Temporal stores at most {MAX_PAYLOAD_BYTES:,} in one payload. "
            "Keep it in a file or database, and pass where it is"
        )
    return raw


def shortened(message: str) -> str:
    """An error's message, cut to a length that Temporal takes."""
    return message if len(message) <= MAX_MESSAGE_LENGTH else message[: MAX_MESSAGE_LENGTH - 1] + "…"


def summary(text: str) -> str:
    """A text for Temporal's UI, cut to the size that the server takes."""
    return text.encode()[:MAX_SUMMARY_BYTES].decode(errors="ignore")


def code(text: str) -> str:
    """A text as code in Markdown, for Temporal's UI: what is in it is not read as Markdown."""
    return "`" + " ".join(text.replace("`", "'").split()) + "`"


def utc(seconds: float) -> str:
    """A time since the epoch, for Temporal's UI."""
    return f"{datetime.fromtimestamp(math.floor(seconds), UTC).replace(tzinfo=None)} UTC"
