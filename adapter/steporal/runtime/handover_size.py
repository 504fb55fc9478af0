"""Size of the state that a run hands over when it continues as new.

Temporal limits what an execution can be started with, so a run warns long before its finished steps and unconsumed
events are too large. The estimates cost little, because a workflow task has two seconds; where they decide whether a
run continues as new, each replay has to come to the same result.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping

from temporalio import workflow
from temporalio.common import RawValue

from ..values.converter import dumps, raw_text, size_of
from ..wire.limits import MAX_PAYLOAD_BYTES, MAX_STORED_BYTES, PAGE
from ..wire.memo import Memo, Outcome
from ..wire.run_state import RunState, is_packed, memo_json, pack
from ..wire.storage import StorageOfRun
from .inbox import Inbox

WARN_FROM = 0.5
"""Fraction of the limit from which a run warns."""

_WARN_AGAIN = 1.25
"""Factor by which the size must have grown before the next warning."""

_MAX_JSON_BYTES = 24 * 1024 * 1024
"""Limit of the state as JSON, compressed or not: the next execution has to read it."""

_ENTRY_BYTES = 10
"""Approximate size of a step's journal entry in the compressed state."""

_ENTRY_JSON_BYTES = 24
"""Approximate size of a step's journal entry as JSON, without the step's id."""

_SAMPLE_BYTES = 64 * 1024
"""Bytes of compressed events from which the size of all events is estimated."""

_PIECE_BYTES = 16 * 1024


class HandoverSize:
    """Size of the state that the next execution of a run would receive.

    Attributes:
        steps: The approximate size of the finished steps in bytes, compressed where that decides.
        steps_as_json: The size of the finished steps as JSON, which is the same on every worker.
        warning: The last warning that the state is nearly too large, in Markdown; empty without one.
    """

    def __init__(self, memo: Memo, inbox: Inbox, storage: StorageOfRun) -> None:
        self._memo = memo
        self._inbox = inbox
        self._storage = storage
        self.steps: int = 0
        self.steps_as_json: int = 0
        self.warning: str = ""
        self._warn_at = 0.0
        self._check_events_at = 0.0
        self._sampled = 0, 0
        self._packer: zlib._Compress | None = None
        self._uncompressed = 0
        self._compressed = 0

    def restore(self, carried: RunState) -> None:
        """Take over the sizes of the previous execution."""
        texts = ((key, _text(key, outcome)) for key, outcome in self._memo.items())
        self.steps_as_json = carried.json_size or sum(_json_size(key, text) for key, text in texts)
        self.steps = carried.size or self.steps_as_json
        self.warning = carried.warning
        if self.warning:
            self._warn_at = self.steps * _WARN_AGAIN
            workflow.set_current_details(self.warning)

    # --- what makes it grow ----------------------------------------------------------------------------------------

    def step_finished(self, key: str, outcome: Outcome) -> None:
        """Add a finished step, and warn if the state is nearly too large."""
        self._add(key, outcome)
        threshold = max(self._warn_at, WARN_FROM * self._limit())
        if self.steps + self._inbox.size < threshold:
            return
        events = self._estimated_events()
        if (size := self.steps + events) >= threshold and events < self.steps:
            self._warn_at = size * _WARN_AGAIN
            self.warn(self.description(size, events))

    def event_arrived(self) -> None:
        """Warn if the unconsumed events make the state nearly too large."""
        size = self._inbox.size
        if size >= max(self._check_events_at, WARN_FROM * self._limit() - self.steps):
            self._check_events_at = size * _WARN_AGAIN
            if text := self.warning_of_events():
                workflow.logger.warning("run %s: %s", workflow.info().workflow_id, text)

    # --- what follows ----------------------------------------------------------------------------------------------

    def warning_of_events(self) -> str:
        """Return a warning if unconsumed events make the state nearly too large; else an empty text."""
        threshold = WARN_FROM * self._limit()
        if self._inbox.size + self.steps < threshold or self._inbox.size < self.steps:
            return ""
        events = self._estimated_events()
        is_near = self.steps + events >= threshold and events >= self.steps
        return self.description(self.steps + events, events) if is_near else ""

    def surely_too_large(self) -> str:
        """Return why the state is too large, if that is sure before it is built; else an empty text.

        Building a state that is far too large takes longer than a workflow task may. A replay must come to the same
        result: sizes as JSON are the same on every worker, and the history records whether there was external storage,
        and which compressed values were too large.
        """
        as_json = self.steps_as_json + self._inbox.size
        if as_json <= MAX_STORED_BYTES:
            return ""
        if as_json > _MAX_JSON_BYTES or self._storage.is_used():
            return self.description(as_json, self._inbox.size)
        self._compress_all()
        events = self._compressed_events()  # not the estimate for warnings: queries warn, too, and are not replayed
        size = self.steps + events
        return self.description(size, events) if self._storage.is_too_large_packed(size, as_json) else ""

    def argument(self, carried: RunState) -> tuple[RawValue, str]:
        """Return the state as an argument of the next execution, and why it is too large, or an empty text."""
        text = carried.text()
        if is_packed(len(text), self._storage.is_used):
            raw = pack(text)
            size = size_of(raw)
            is_too_large = self._storage.is_too_large_packed(size, len(text))
        else:
            raw, size = raw_text(text), len(text)
            is_too_large = size > self._storage.size_limit(size)
        if not is_too_large:
            return raw, ""
        return raw, self.description(size, max(size - self.steps, 0) if self._inbox.size else 0)

    def warn(self, text: str) -> None:
        """Log a warning, and show it in Temporal's UI."""
        workflow.logger.warning("run %s: %s", workflow.info().workflow_id, text)
        self.warning = f"**Warning**: {text}"
        workflow.set_current_details(self.warning)

    def description(self, size: int, events: int) -> str:
        """Describe which part of the state is large, and the remedy.

        Args:
            size: The size of the state in bytes.
            events: The size of the unconsumed events in it.
        """
        is_stored = self._storage.is_available()
        unit = "bytes" if is_stored else "bytes compressed"
        storage = "" if is_stored else "give the client external storage, "
        if events >= size / 2:
            boxes = {key: (len(box.events), box.size) for key, box in self._inbox.boxes.items()}
            what = unconsumed(boxes, len(self._memo))
            remedy = f"take them sooner, listen for less (match, if_exp), {storage}or close the listener"
        else:
            what = f"the results of its {len(self._memo):,} steps"
            remedy = f"return less from steps, {storage}or invoke a workflow for parts of the work"
        return (
            f"{what} have {size:,} {unit}, of {self._limit():,} that a run can take along when it continues as new; "
            f"{remedy} ({PAGE})"
        )

    # --- estimates -------------------------------------------------------------------------------------------------

    def _limit(self) -> int:
        return MAX_STORED_BYTES if self._storage.is_available() else MAX_PAYLOAD_BYTES

    def _compressed_events(self) -> int:
        """Return the size of the unconsumed events in the state."""
        if self._storage.is_available() or not self._inbox.size:
            return self._inbox.size
        return _compressed_size(self._inbox.texts(), self._inbox.size, MAX_PAYLOAD_BYTES) * 4 // 3  # base64

    def _estimated_events(self) -> int:
        """Return the approximate size of the unconsumed events, from a sample.

        Compression takes longer than everything else that a run does with an event, and one workflow task may bring
        many events. So a new sample is taken only when the size of the events has doubled or halved.
        """
        size = self._inbox.size
        if self._storage.is_available() or not size:
            return size
        before, compressed = self._sampled
        if not before or not before / 2 <= size <= before * 2:
            compressed = _compressed_size(self._inbox.texts(), size, _SAMPLE_BYTES) * 4 // 3
            self._sampled = before, compressed = size, compressed
        return compressed * size // before

    def _add(self, key: str, outcome: Outcome) -> None:
        """Add a step to the sizes. Steps are compressed one by one, and only once the size as JSON is large."""
        text = _text(key, outcome)
        size = _json_size(key, text)
        self.steps_as_json += size
        if self._packer is not None:
            self._compress(text)
            return
        self.steps += size
        if not self._storage.is_available() and self.steps >= WARN_FROM * MAX_PAYLOAD_BYTES:
            self._compress_all()

    def _compress_all(self) -> None:
        """Measure the compressed size from now on. It depends on the finished steps alone."""
        if self._packer is None:
            self._packer = zlib.compressobj()
            self.steps = 0
            for key, outcome in self._memo.items():
                self._compress(_text(key, outcome))

    def _compress(self, text: bytes) -> None:
        """Add a step to the compressed size. Beyond the limit, estimate it by the ratio so far."""
        assert self._packer is not None
        self.steps += _ENTRY_BYTES
        if self.steps > MAX_PAYLOAD_BYTES:
            self.steps += int(len(text) * self._compressed / self._uncompressed)
            return
        size = len(self._packer.compress(text)) * 4 // 3  # base64
        self._uncompressed += len(text)
        self._compressed += size
        self.steps += size


def unconsumed(boxes: Mapping[str, tuple[int, int]], steps: int) -> str:
    """Describe the unconsumed events of a run.

    Args:
        boxes: The number of events of each listener, and their size in bytes.
        steps: The number of finished steps.
    """
    key, (count, _) = max(boxes.items(), key=lambda box: box[1][1])
    others = sum(each for each, _ in boxes.values()) - count
    more = f" (and {others:,} of other listeners)" if others else ""
    return (
        f"the {count:,} events of listener {key!r} that nobody has taken{more} and the results of its {steps:,} steps"
    )


def _text(key: str, outcome: Outcome) -> bytes:
    """Return a finished step approximately as the state contains it."""
    return dumps([key, memo_json(outcome)])


def _json_size(key: str, text: bytes) -> int:
    """Return the size of a finished step and of its journal entry, as JSON."""
    return len(text) + len(key) + _ENTRY_JSON_BYTES


def _compressed_size(texts: Iterable[bytes], size: int, limit: int) -> int:
    """Return the compressed size of texts; estimated by the ratio so far once it exceeds the limit.

    Args:
        texts: The texts.
        size: Their size in bytes.
        limit: The compressed size from which the rest is estimated.
    """
    packer = zlib.compressobj()
    uncompressed = compressed = 0
    for text in texts:
        for start in range(0, len(text), _PIECE_BYTES):
            piece = text[start : start + _PIECE_BYTES]
            uncompressed += len(piece)
            compressed += len(packer.compress(piece))
            if compressed > limit:
                return max(compressed, compressed * size // uncompressed)
    return compressed + len(packer.flush())
