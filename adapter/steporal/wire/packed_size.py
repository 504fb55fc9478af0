"""Decision whether a compressed value is too large, the same on all workers of an execution."""

from __future__ import annotations

from temporalio import workflow

from .limits import MAX_PAYLOAD_BYTES
from .names import IS_TOO_LARGE

SURELY_FITS_BYTES = (MAX_PAYLOAD_BYTES - 64 * 1024) * 3 // 4
"""Up to this size, JSON fits into a payload of Temporal's even if compression saves nothing, in base64."""


class PackedSizes:
    """Decides for one execution of a workflow which of its compressed values are too large.

    Versions of zlib compress the same text to different sizes, and so workers may differ in whether it fits into a
    payload of Temporal's. What a workflow does then must be the same on replay. So the worker that decides first notes
    in the history, by a marker, that a value is too large. Each decision has a marker of its own, since a later value
    may fit again.
    """

    def __init__(self) -> None:
        self._decisions = 0

    def is_too_large(self, size: int, plain: int) -> bool:
        """Return whether a value is too large for a payload of Temporal's.

        Args:
            size: The size of the compressed value on this worker.
            plain: The size of its JSON, or an estimate; the same on each worker.
        """
        if plain <= SURELY_FITS_BYTES:
            return False
        self._decisions += 1
        if not workflow.unsafe.is_replaying() and size <= MAX_PAYLOAD_BYTES:
            return False
        return workflow.patched(f"{IS_TOO_LARGE}/{self._decisions}")
