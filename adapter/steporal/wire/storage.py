"""External storage for values over Temporal's limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from temporalio import workflow
from temporalio.converter import DataConverter

from ..errors import DefinitionError
from ..values.type_names import shown
from .limits import MAX_PAYLOAD_BYTES, MAX_STORED_BYTES, temporal_size_limit
from .names import STORAGE_IS_USED
from .packed_size import PackedSizes

HAS_STORAGE = "steporal.has_storage"
"""Name by which a run finds out that its worker has external storage."""


def check_storage(converter: DataConverter | None, where: str) -> DataConverter | None:
    """Return a data converter whose external storage takes every value that Temporal rejects.

    Raises:
        DefinitionError: The value is not a data converter, or values over Temporal's limit would stay inline.
    """
    if converter is None:
        return None
    if not isinstance(converter, DataConverter):
        raise DefinitionError(
            f"data_converter of {where} is {shown(converter)}; it takes a temporalio.converter.DataConverter(...)"
        )
    storage = converter.external_storage
    if storage is not None and storage.payload_size_threshold > MAX_PAYLOAD_BYTES:
        raise DefinitionError(
            f"the external storage of {where} has payload_size_threshold={storage.payload_size_threshold!r}: values "
            f"below it stay in Temporal, whose limit is {MAX_PAYLOAD_BYTES:,} bytes; set it to that or less"
        )
    return converter


def size_limit_with(converter: DataConverter | None) -> Callable[[int], int]:
    """Return the size limit for values outside of runs, as a function of their size in bytes."""
    if converter is None or converter.external_storage is None:
        return temporal_size_limit
    return lambda size: MAX_STORED_BYTES


def reads_only(converter: DataConverter) -> DataConverter:
    """Return a data converter for a replay, which only reads from external storage.

    With the original converter, the SDK would store again what a run sends.
    """
    storage = converter.external_storage
    if storage is None:
        return converter
    return replace(converter, external_storage=replace(storage, driver_selector=lambda context, payload: None))


class StorageOfRun:
    """Knowledge of one execution of a run about its workers' external storage.

    The run itself rejects values over Temporal's limit. The decision must be the same on replay, even after the storage
    was added or removed. So the first such value decides for the execution: a marker in the history records that there
    was a storage. A worker without storage then fails the workflow task, which waits for a worker that has it.
    """

    def __init__(self) -> None:
        self._is_used: bool | None = None
        self._packed = PackedSizes()

    def is_used(self) -> bool:
        """Return whether values over Temporal's limit are accepted; call it only for such a value."""
        if self._is_used is None and (workflow.unsafe.is_replaying() or self.is_available()):
            self._is_used = workflow.patched(STORAGE_IS_USED)
        return bool(self._is_used)

    def is_available(self) -> bool:
        """Return whether such values would be accepted, as far as this can be known without deciding it."""
        return HAS_STORAGE in workflow.extern_functions() if self._is_used is None else self._is_used

    def size_limit(self, size: int) -> int:
        """Return the size limit of a value of ``size`` bytes."""
        return MAX_STORED_BYTES if size > MAX_PAYLOAD_BYTES and self.is_used() else MAX_PAYLOAD_BYTES

    def is_too_large_packed(self, size: int, plain: int) -> bool:
        """Return whether a compressed value is too large, also for the storage.

        Args:
            size: The size of the compressed value on this worker.
            plain: The size of its JSON, or an estimate; the same on each worker.
        """
        return self._packed.is_too_large(size, plain) and (plain > MAX_STORED_BYTES or not self.is_used())
