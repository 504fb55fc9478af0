"""Whether values over Temporal's limit are taken, as the data converter puts them into external storage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from temporalio import workflow
from temporalio.converter import DataConverter

from ..errors import DefinitionError
from ..type_names import shown
from ..wire.names import STORAGE_IS_USED
from .limits import MAX_PAYLOAD_BYTES, MAX_STORED_BYTES, most_in_temporal
from .packed_size import PackedSizes

HAS_STORAGE = "steporal.has_storage"
"""The name of what tells a run that its worker has external storage."""


def check_storage(converter: DataConverter | None, where: str) -> DataConverter | None:
    """A data converter whose external storage takes everything that Temporal does not.

    Raises:
        DefinitionError: It is not a data converter, or values over Temporal's limit would stay inline.
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
            f"below it stay in Temporal, which takes {MAX_PAYLOAD_BYTES:,} bytes at most; make it that or less"
        )
    return converter


def most_with(converter: DataConverter | None) -> Callable[[int], int]:
    """The most bytes that a value may have, outside of runs; called with the bytes that it has."""
    if converter is None or converter.external_storage is None:
        return most_in_temporal
    return lambda size: MAX_STORED_BYTES


def reads_only(converter: DataConverter) -> DataConverter:
    """A data converter for a replay: its external storage is read from; the SDK would store again what a run sends."""
    storage = converter.external_storage
    if storage is None:
        return converter
    return replace(converter, external_storage=replace(storage, driver_selector=lambda context, payload: None))


class StorageOfRun:
    """What one execution of a run knows of its workers' external storage.

    That a value over Temporal's limit is refused is something that a run does, and so must be the same on replay, also
    after the storage was added or taken away. The first such value decides for the execution: a marker in the history
    says that there was a storage. A worker without one then fails the workflow task, which waits for one that has it.
    """

    def __init__(self) -> None:
        self._is_used: bool | None = None
        self._packed = PackedSizes()

    def is_used(self) -> bool:
        """Whether values over Temporal's limit go through; to be asked only if there is one."""
        if self._is_used is None and (workflow.unsafe.is_replaying() or self.is_there()):
            self._is_used = workflow.patched(STORAGE_IS_USED)
        return bool(self._is_used)

    def is_there(self) -> bool:
        """Whether they would, as far as one can tell without deciding it."""
        return HAS_STORAGE in workflow.extern_functions() if self._is_used is None else self._is_used

    def most(self, size: int) -> int:
        """The most bytes that a value may have which has so many."""
        return MAX_STORED_BYTES if size > MAX_PAYLOAD_BYTES and self.is_used() else MAX_PAYLOAD_BYTES

    def is_too_large_packed(self, size: int, plain: int) -> bool:
        """Return whether a compressed value is too large, also for the storage.

        Args:
            size: The size of the compressed value on this worker.
            plain: The size of its JSON, or an estimate; the same on each worker.
        """
        return self._packed.is_too_large(size, plain) and (plain > MAX_STORED_BYTES or not self.is_used())
