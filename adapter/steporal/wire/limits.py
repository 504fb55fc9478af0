"""Temporal's size limits, and texts for its UI."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from temporalio.common import RawValue

from ..errors import PayloadTooLargeError
from ..types import JSON
from ..values.converter import size_of, to_raw

MAX_PAYLOAD_BYTES = 2 * 1024 * 1024 - 16 * 1024
"""Temporal's ``limit.blobSize.error`` of 2 MiB, minus the framing of a payload."""

MAX_STORED_BYTES = 8 * 1024 * 1024
"""Size limit of a value in external storage. The SDK fails a workflow task that computes for two seconds, and writing
or reading 8 MiB of JSON with small objects takes half a second of CPU time."""

PAGE = "docs/long-runs.md"
"""Documentation page about size limits."""

MAX_MILLISECONDS = 4_102_444_800_000
"""Latest time that runs compute with, since the epoch: the beginning of 2100."""

BATCH_BYTES = 1024 * 1024
"""Maximum size of a list of events that is passed to one activity."""

MAX_MESSAGE_LENGTH = 4_000
"""Length limit of an error's message; Temporal replaces a failure that is too large by one that only reports that."""

MAX_WORKFLOW_ID_BYTES = 1_000
"""Temporal's ``limit.maxIDLength``. A workflow id over the limit would fail the workflow task that signals to it."""

MAX_SUMMARY_BYTES = 400
"""Temporal's ``limit.userMetadataSummarySize``."""

FAR_FUTURE = 253402300800.0
"""The beginning of the year 10000, in seconds since the epoch: no wait lasts longer."""


def temporal_size_limit(size: int) -> int:
    """Return the size limit of a value of ``size`` bytes without external storage; the same for all sizes."""
    return MAX_PAYLOAD_BYTES


def to_limited(
    what: str, data: JSON, limit_for: Callable[[int], int], metadata: Mapping[str, bytes] | None = None
) -> RawValue:
    """Return a JSON value as a payload within Temporal's limits.

    Args:
        what: The name of the value, for the message.
        data: The value.
        limit_for: Returns the size limit in bytes for a value of a given size (``storage.py``).
        metadata: Additional metadata of the payload.

    Raises:
        PayloadTooLargeError: The value is too large; the message has its name and size.
    """
    raw = to_raw(data, metadata)
    size, beside = size_of(raw), sum(map(len, (metadata or {}).values()))
    limit = limit_for(size + beside)
    if size + beside <= limit:
        return raw
    raise too_large(what, size, beside, limit)


def too_large(what: str, size: int, beside: int, limit: int) -> PayloadTooLargeError:
    """Return the error of a value that is too large.

    Args:
        what: Name of the value, for the message.
        size: The size of its JSON.
        beside: The size of its metadata.
        limit: The size limit of both.
    """
    fact, longest = f"{what} has {size:,} bytes of JSON", f"at most {limit - beside:,}"
    if limit == MAX_PAYLOAD_BYTES:
        return PayloadTooLargeError(
            f"{fact}; Temporal stores {longest} in one payload. Store it in a file or database, and pass a "
            f"reference to it; or give the client external storage ({PAGE})"
        )
    return PayloadTooLargeError(
        f"{fact}; {longest} go into external storage. Store it in a file or database, and pass a reference to it"
    )


def shortened(message: str) -> str:
    """Return an error's message, cut to the length that Temporal accepts."""
    return message if len(message) <= MAX_MESSAGE_LENGTH else message[: MAX_MESSAGE_LENGTH - 1] + "…"


def summary(text: str) -> str:
    """Return a text for Temporal's UI, cut to the size that the server accepts."""
    return text.encode()[:MAX_SUMMARY_BYTES].decode(errors="ignore")


def code(text: str) -> str:
    """Return a text as Markdown code for Temporal's UI, so that its content is not read as Markdown."""
    return "`" + " ".join(text.replace("`", "'").split()) + "`"


def utc(seconds: float) -> str:
    """Return a time since the epoch as text for Temporal's UI."""
    return f"{datetime.fromtimestamp(math.floor(seconds), UTC).replace(tzinfo=None)} UTC"
