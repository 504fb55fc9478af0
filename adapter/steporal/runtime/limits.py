"""What Temporal stores: how large it may be, and how texts for its UI are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from temporalio.common import RawValue

from ..converter import size_of, to_raw
from ..errors import PayloadTooLargeError
from ..types import JSON

MAX_PAYLOAD_BYTES = 2 * 1024 * 1024 - 16 * 1024
"""Temporal's ``limit.blobSize.error``, 2 MiB, less what frames a payload."""

MAX_STORED_BYTES = 8 * 1024 * 1024
"""Of a value in external storage. The SDK ends a workflow task that computes for two seconds, and to write or read so
much JSON of small objects takes half a second of CPU time."""

PAGE = "docs/long-runs.md"
"""Where this is explained to users."""

MAX_MILLISECONDS = 4_102_444_800_000
"""The latest time since the epoch that a run reckons with: the beginning of 2100."""

BATCH_BYTES = 1024 * 1024
"""How much of a list of events is handed to one activity."""

MAX_MESSAGE_LENGTH = 4_000
"""Of an error; Temporal replaces a failure that is too large by one that says only that."""

MAX_WORKFLOW_ID_BYTES = 1_000
"""Temporal's ``limit.maxIDLength`` of a workflow id; a longer one would fail the workflow task that signals to it."""

MAX_SUMMARY_BYTES = 400
"""Temporal's ``limit.userMetadataSummarySize``."""


def most_in_temporal(size: int) -> int:
    """The most bytes that a value may have, whatever it has, where there is no external storage."""
    return MAX_PAYLOAD_BYTES


def to_limited(
    what: str, data: JSON, most: Callable[[int], int], metadata: Mapping[str, bytes] | None = None
) -> RawValue:
    """A JSON value as a payload that Temporal takes.

    Args:
        what: What it is, for the message.
        data: The value.
        most: The most bytes that it may have, by those that it has (``storage.py``).
        metadata: Further metadata of the payload.

    Raises:
        PayloadTooLargeError: It is too large; the message says what it is, and its size.
    """
    raw = to_raw(data, metadata)
    size, beside = size_of(raw), sum(map(len, (metadata or {}).values()))
    limit = most(size + beside)
    if size + beside <= limit:
        return raw
    raise too_large(what, size, beside, limit)


def too_large(what: str, size: int, beside: int, limit: int) -> PayloadTooLargeError:
    """Return the error of a value that is too large.

    Args:
        what: What it is.
        size: The size of its JSON.
        beside: The size of its metadata.
        limit: The size limit of both.
    """
    fact, longest = f"{what} has {size:,} bytes of JSON", f"at most {limit - beside:,}"
    if limit == MAX_PAYLOAD_BYTES:
        return PayloadTooLargeError(
            f"{fact}; Temporal stores {longest} in one payload. Keep it in a file or database, and pass where it is; "
            f"or give the client external storage ({PAGE})"
        )
    return PayloadTooLargeError(
        f"{fact}; {longest} go into external storage. Keep it in a file or database, and pass where it is"
    )


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
