"""How large what Temporal stores may be."""

from __future__ import annotations

MAX_PAYLOAD_BYTES = 2 * 1024 * 1024 - 16 * 1024
"""Temporal's ``limit.blobSize.error``, 2 MiB, less what frames a payload."""

BATCH_BYTES = 1024 * 1024
"""How much of a list of events is handed to one activity."""


def over_limit(what: str, size: int) -> str:
    """The message about something that is too large."""
    return (
        f"{what} has {size:,} bytes of JSON; Temporal stores at most {MAX_PAYLOAD_BYTES:,} in one payload. "
        "Keep it in a file or database, and pass where it is"
    )


MAX_SUMMARY_BYTES = 400
"""Temporal's ``limit.userMetadataSummarySize``."""


def summary(text: str) -> str:
    """A text for Temporal's UI, cut to the size that the server takes."""
    return text.encode()[:MAX_SUMMARY_BYTES].decode(errors="ignore")
