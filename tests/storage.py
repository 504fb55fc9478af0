"""External storage for tests: a folder."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import temporalio.client
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    DataConverter,
    ExternalStorage,
    StorageDriver,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
)


class Folder(StorageDriver):
    """Keeps each value in a file.

    Attributes:
        path: The folder.
        trouble: Raised instead of storing or reading anything.
        gone: Raised instead of reading.
        is_full: Whether nothing more can be stored.
        refused: How often it was.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trouble: Exception | None = None
        self.gone: Exception | None = None
        self.is_full = False
        self.refused = 0

    def name(self) -> str:
        """See base class."""
        return "folder"

    async def store(self, context: StorageDriverStoreContext, payloads: Sequence[Payload]) -> list[StorageDriverClaim]:
        """See base class."""
        await self._reached()
        assert not self.is_full
        claims = []
        for payload in payloads:
            data = payload.SerializeToString()
            name = hashlib.sha256(data).hexdigest()
            (self.path / name).write_bytes(data)
            claims.append(StorageDriverClaim({"name": name}))
        return claims

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        """See base class."""
        await self._reached()
        if self.gone is not None:
            raise self.gone
        return [Payload.FromString((self.path / claim.claim_data["name"]).read_bytes()) for claim in claims]

    async def _reached(self) -> None:
        await asyncio.sleep(0)
        if self.trouble is not None:
            self.refused += 1
            raise self.trouble

    def sizes(self) -> list[int]:
        """How many bytes each file has."""
        return [file.stat().st_size for file in self.path.iterdir()]


def with_storage(
    temporal: temporalio.client.Client, *drivers: StorageDriver, converter: DataConverter | None = None, **options: Any
) -> temporalio.client.Client:
    """A client of the same connection that keeps large values in external storage."""
    config = temporal.config()
    converter = converter or config["data_converter"]
    config["data_converter"] = DataConverter(
        payload_codec=converter.payload_codec, external_storage=ExternalStorage(drivers, **options)
    )
    return temporalio.client.Client(**config)
